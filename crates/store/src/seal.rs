//! Sealing values with XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha). What a value belongs to is authenticated with it, so
//! that a sealed value moved to another record does not open.
//!
//! A sealed value is: one byte for the version of the key, 24 bytes of random nonce, the ciphertext, 16 bytes of tag.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use coracle_model::{AppName, EnvName, RegistryHost, ReleaseNumber};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::directory::write_new_private;
use crate::error::StoreError;

const KEY_LENGTH: usize = 32;
const NONCE_LENGTH: usize = 24;
/// The only key there is so far. A second one would be added beside it, and values sealed anew.
const KEY_VERSION: u8 = 1;

/// What a sealed value belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Record<'a> {
    /// The server's known text.
    Check,
    /// A configuration entry.
    Config(&'a AppName, &'a EnvName),
    /// The configuration of a release.
    Release(&'a AppName, ReleaseNumber),
    /// The description of a release.
    Spec(&'a AppName, ReleaseNumber),
    /// Something of the connection between an app and its forge: which.
    Forge(&'a AppName, &'static str),
    /// The manifest of a release.
    Manifest(&'a AppName, ReleaseNumber),
    /// What an app, or (an empty name) every app, shows to a registry.
    Login(&'a str, &'a RegistryHost),
}

impl Record<'_> {
    /// Names hold no slash, so two records never have the same bytes.
    fn associated_data(self) -> Vec<u8> {
        match self {
            Self::Check => "check".to_owned(),
            Self::Config(app, name) => format!("config/{app}/{name}"),
            Self::Release(app, number) => format!("release/{app}/{number}"),
            Self::Spec(app, number) => format!("spec/{app}/{number}"),
            Self::Forge(app, what) => format!("forge/{app}/{what}"),
            Self::Manifest(app, number) => format!("manifest/{app}/{number}"),
            Self::Login(app, host) => format!("registry/{app}/{host}"),
        }
        .into_bytes()
    }
}

/// The secret key, ready for use. It has no `Debug`.
pub(crate) struct Seal {
    cipher: XChaCha20Poly1305,
    path: String,
}

impl Seal {
    /// Reads the key; `None` if there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, StoreError> {
        let refused = |cause: &str| StoreError::Key { path: path.display().to_string(), cause: cause.to_owned() };
        let failed = |error: &std::io::Error| StoreError::io("read the secret key", &path.display().to_string(), error);
        // Not through a symbolic link, and not waiting for a pipe's other end.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&error)),
        };
        let metadata = file.metadata().map_err(|error| failed(&error))?;
        if !metadata.is_file() {
            return Err(refused("it is not a file"));
        }
        if metadata.mode() & 0o077 != 0 {
            let cause = format!("others may read or change it (mode {:o}); `chmod 600` it", metadata.mode() & 0o7777);
            return Err(refused(&cause));
        }
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        if metadata.len() != KEY_LENGTH as u64 {
            return Err(refused(&format!("it is {} bytes long instead of {KEY_LENGTH}", metadata.len())));
        }
        file.read_exact(key.as_mut_slice()).map_err(|error| failed(&error))?;
        Ok(Some(Self::with_key(&key, path)))
    }

    /// Reads the key, or makes one if there is none. Only for where nothing is sealed yet.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, StoreError> {
        if let Some(seal) = Self::load(path)? {
            return Ok(seal);
        }
        let mut key = Zeroizing::new([0; KEY_LENGTH]);
        fill_random(key.as_mut_slice())?;
        write_new_private(path, key.as_slice())
            .map_err(|error| StoreError::io("write the secret key", &path.display().to_string(), &error))?;
        Ok(Self::with_key(&key, path))
    }

    fn with_key(key: &[u8; KEY_LENGTH], path: &Path) -> Self {
        Self { cipher: XChaCha20Poly1305::new(key.into()), path: path.display().to_string() }
    }

    /// Seals a value for a record.
    pub(crate) fn seal(&self, record: Record<'_>, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; NONCE_LENGTH];
        fill_random(&mut nonce)?;
        let payload = Payload { msg: value, aad: &record.associated_data() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| StoreError::Failed { action: "seal a value", cause: "it is too long".to_owned() })?;
        Ok([&[KEY_VERSION], nonce.as_slice(), &sealed].concat())
    }

    /// Opens a value that was sealed for this record.
    pub(crate) fn open(&self, record: Record<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let refused = |cause: &str| StoreError::Key { path: self.path.clone(), cause: cause.to_owned() };
        let (version, rest) = sealed.split_first().ok_or_else(|| refused("a sealed value is empty"))?;
        if *version != KEY_VERSION {
            return Err(refused(&format!("a value was sealed with version {version} of the key")));
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or_else(|| refused("a sealed value is cut off"))?;
        let payload = Payload { msg: ciphertext, aad: &record.associated_data() };
        let opened = self.cipher.decrypt(&XNonce::from(*nonce), payload);
        opened.map(Zeroizing::new).map_err(|_| refused("it is another key, or a sealed value was changed"))
    }
}

/// Random bytes from the kernel.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(bytes).map_err(|error| StoreError::Failed { action: "get random bytes", cause: error.to_string() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn seal_with(byte: u8) -> Seal {
        Seal::with_key(&[byte; KEY_LENGTH], Path::new("test.key"))
    }

    #[test]
    fn a_value_opens_only_unchanged_with_its_key_and_for_its_record() {
        let (shop, other, name) = ("shop".parse().unwrap(), "other".parse().unwrap(), "A".parse().unwrap());
        let one = ReleaseNumber::new(1).unwrap();
        let seal = seal_with(1);
        let sealed = seal.seal(Record::Config(&shop, &name), b"value").unwrap();
        assert_eq!(seal.open(Record::Config(&shop, &name), &sealed).unwrap().as_slice(), b"value");
        for record in [Record::Check, Record::Config(&other, &name), Record::Release(&shop, one)] {
            assert!(seal.open(record, &sealed).is_err());
        }
        assert!(seal_with(2).open(Record::Config(&shop, &name), &sealed).is_err());
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(seal.open(Record::Config(&shop, &name), &changed).is_err(), "byte {position}");
            assert!(seal.open(Record::Config(&shop, &name), &sealed[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn the_same_value_is_never_sealed_alike() {
        let seal = seal_with(1);
        assert_ne!(seal.seal(Record::Check, b"value").unwrap(), seal.seal(Record::Check, b"value").unwrap());
    }

    #[test]
    fn errors_hold_no_value() {
        let seal = seal_with(1);
        let mut sealed = seal.seal(Record::Check, b"hunter2").unwrap();
        sealed[30] ^= 1;
        let error = seal.open(Record::Check, &sealed).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
