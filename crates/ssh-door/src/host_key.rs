//! The key by which visitors know that it is this server: Ed25519, made once, in a file that only its user can read.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{Algorithm, PrivateKey};

use crate::key::fingerprint;

/// Bytes of a file with a key.
const LONGEST: u64 = 16 * 1024;

/// A host key.
pub struct HostKey {
    key: PrivateKey,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKey").field("fingerprint", &self.fingerprint()).finish()
    }
}

impl HostKey {
    /// Reads the key in a file, or makes one if there is no file. One that others may read is refused, as `sshd` does.
    pub fn read_or_create(path: &Path) -> std::io::Result<Self> {
        match File::open(path) {
            Ok(file) => Self::read(file),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::create(path),
            Err(error) => Err(error),
        }
    }

    fn read(file: File) -> std::io::Result<Self> {
        let refused = |why: &str| Error::new(ErrorKind::InvalidData, why);
        let mode = file.metadata()?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(refused(
                "others may read or change it; make it private (chmod 600), or remove it to have a new one made",
            ));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text)?;
        let key = PrivateKey::from_openssh(text.trim()).map_err(|_| refused("it is not a private key as OpenSSH writes it"))?;
        match key.algorithm() {
            Algorithm::Ed25519 if !key.is_encrypted() => Ok(Self { key }),
            _ => Err(refused("it is not an Ed25519 key without a passphrase")),
        }
    }

    fn create(path: &Path) -> std::io::Result<Self> {
        let key = generate("coracle")?;
        let text = key.to_openssh(LineEnding::LF).map_err(Error::other)?;
        let dir = path.parent().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()?;
        Ok(Self { key })
    }

    /// As `ssh` shows it to whoever connects for the first time.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.key.public_key())
    }

    /// The public half, as it stands in `known_hosts` after the host's name.
    pub fn public(&self) -> String {
        let mut public = self.key.public_key().clone();
        public.set_comment("");
        public.to_openssh().map(|text| text.trim().to_owned()).unwrap_or_default()
    }

    pub(crate) fn private(&self) -> PrivateKey {
        self.key.clone()
    }
}

/// A new Ed25519 key.
pub(crate) fn generate(comment: &str) -> std::io::Result<PrivateKey> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(|error| Error::other(error.to_string()))?;
    let keypair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    PrivateKey::new(keypair, comment).map_err(Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = HostKey::read_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = HostKey::read_or_create(&path).unwrap();
        assert_eq!((read.fingerprint(), read.public()), (made.fingerprint(), made.public()));
        assert!(made.public().starts_with("ssh-ed25519 ") && made.fingerprint().starts_with("SHA256:"));
        let private = std::fs::read_to_string(&path).unwrap();
        assert!(!format!("{made:?}").contains(private.lines().nth(1).unwrap()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(HostKey::read_or_create(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn what_is_no_such_key_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "nonsense").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(HostKey::read_or_create(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense");
    }
}
