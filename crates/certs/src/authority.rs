//! A certificate authority of one's own, for names that no public one certifies. Its key never leaves this machine; clients trust it only
//! if somebody tells them to.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SerialNumber,
};
use tracing::info;

use crate::{
    CertError,
    files::{self, at},
    storage,
};

const DAY: Duration = Duration::from_secs(86400);
/// How long leaf certificates are valid.
const LEAF: Duration = Duration::from_secs(90 * 86400);
/// How long the authority itself is valid: nobody wants to tell every client again.
const ROOT: Duration = Duration::from_secs(10 * 365 * 86400);

/// The local authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Opens the one in this directory, or makes one. Of two processes that make one at the same time, one wins and both use its.
    pub(crate) fn open(directory: &Path) -> Result<Self, CertError> {
        files::private_directory(directory)?;
        let path = directory.join("authority.pem");
        for _ in 0..3 {
            match files::read(&path)? {
                Some(content) => match Self::parse(&content) {
                    Ok(authority) => return Ok(authority),
                    Err(reason) => drop(storage::set_aside(&path, &reason)),
                },
                None => make(&path)?,
            }
        }
        Err(CertError::Content { path, reason: "something else writes to it".to_owned() })
    }

    fn parse(content: &str) -> Result<Self, String> {
        let certificate = block(content, "CERTIFICATE").ok_or("no certificate in it")?.to_owned();
        let key = block(content, "PRIVATE KEY").and_then(|key| KeyPair::from_pem(key).ok()).ok_or("no usable key in it")?;
        let der = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).map_err(|_| "no certificate in it".to_owned())?.1;
        let parsed = der.parse_x509().map_err(|_| "no X.509 certificate in it".to_owned())?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("key and certificate do not belong together".to_owned());
        }
        if !outlives_a_leaf(&parsed) {
            return Err("it expires before its certificates would".to_owned());
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|error| error.to_string())?;
        Ok(Self { issuer, certificate })
    }

    /// The authority's own certificate, as PEM: what clients have to be told to trust.
    pub(crate) fn pem(&self) -> &str {
        &self.certificate
    }

    /// A new certificate with a new key for one name, as PEM of both.
    pub(crate) fn sign(&self, name: &str) -> Result<String, CertError> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(refused)?;
        params.distinguished_name = DistinguishedName::new();
        validity(&mut params, LEAF);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.serial_number = Some(serial());
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(refused)?;
        Ok(certificate.pem() + &key.serialize_pem())
    }
}

/// The first PEM block with this label (RFC 7468), its two encapsulation boundaries included.
fn block<'a>(content: &'a str, label: &str) -> Option<&'a str> {
    let begin = content.find(&format!("-----BEGIN {label}-----"))?;
    let end = format!("-----END {label}-----");
    let length = content[begin..].find(&end)? + end.len();
    content.get(begin..begin + length)
}

fn outlives_a_leaf(certificate: &x509_parser::certificate::X509Certificate<'_>) -> bool {
    let until = certificate.validity().not_after.timestamp();
    until > jiff::Timestamp::now().as_second() + LEAF.as_secs() as i64
}

/// Makes a new authority unless somebody else has just done so.
fn make(path: &Path) -> Result<(), CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    params.distinguished_name.push(DnType::OrganizationName, "Coracle");
    params.distinguished_name.push(DnType::CommonName, format!("Coracle local authority {}", machine.trim()).trim_end());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial());
    validity(&mut params, ROOT);
    let key = KeyPair::generate().map_err(refused)?;
    let certificate = params.self_signed(&key).map_err(refused)?;

    let directory: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
    let write = || {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&directory)?;
        file.write_all((certificate.pem() + &key.serialize_pem()).as_bytes())?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => fs::File::open(&directory)?.sync_all(),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error.error),
        }
    };
    write().map_err(|source| at(path, source))?;
    info!(path = %path.display(), "local certificate authority made");
    Ok(())
}

/// From a day ago, for clients whose clocks are late.
fn validity(params: &mut CertificateParams, length: Duration) {
    let from = SystemTime::now() - DAY;
    params.not_before = from.into();
    params.not_after = (from + length).into();
}

/// Random (RFC 5280, section 4.1.2.2: at most 20 octets, positive): one that comes from the key would be the same twice for clients that
/// saw an earlier authority of the same name.
fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    // A number of 128 bits that are all zero is what remains if the machine has no randomness; then no key could be made either.
    if getrandom::fill(&mut bytes).is_err() {
        bytes[15] = 1;
    }
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn refused(error: rcgen::Error) -> CertError {
    CertError::Authority(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{chain::Chain, server};

    #[test]
    fn an_authority_is_made_once_kept_private_and_replaced_only_when_it_is_of_no_use() {
        let home = tempfile::tempdir().unwrap();
        let first = Authority::open(home.path()).unwrap().pem().to_owned();
        assert_eq!(Authority::open(home.path()).unwrap().pem(), first);
        let path = home.path().join("authority.pem");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!first.contains("PRIVATE"));

        fs::write(&path, "broken").unwrap();
        assert_ne!(Authority::open(home.path()).unwrap().pem(), first);
        let aside = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap()).find(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.starts_with("authority.pem.aside-")
        });
        assert_eq!(fs::read_to_string(aside.unwrap().path()).unwrap(), "broken");
    }

    #[test]
    fn leaves_are_for_their_name_and_have_keys_of_their_own() {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open(home.path()).unwrap();
        let provider = server::provider();
        let [one, two] = ["shop.localhost", "*.localhost"].map(|name| {
            let pem = authority.sign(name).unwrap();
            Chain::from_pem(&pem, &pem, &provider).unwrap()
        });
        assert_eq!(one.facts.names, ["shop.localhost"]);
        assert!(two.covers("anything.localhost") && !two.covers("localhost") && !two.covers("a.b.localhost"));
        assert_ne!(one.facts.fingerprint, two.facts.fingerprint);
        assert_ne!(one.facts.serial, two.facts.serial);
        let life = one.facts.not_after.as_second() - one.facts.not_before.as_second();
        assert_eq!(life, LEAF.as_secs() as i64);
        let left = one.facts.not_after.as_second() - one.renewal().as_second();
        assert!((life / 3..=life / 3 + life / 30 + 1).contains(&left), "{left}");
    }
}
