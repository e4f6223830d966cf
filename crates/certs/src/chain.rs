//! A chain with its key: read from PEM, checked to belong together, and what can be told about it.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use x509_parser::{extensions::GeneralName, prelude::*};

use crate::status::CertificateFacts;

/// A certificate that can be served.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    /// For the handshake.
    pub(crate) key: Arc<CertifiedKey>,
    /// For people.
    pub(crate) facts: Arc<CertificateFacts>,
    /// What RFC 9773 identifies the certificate by: authority key identifier and serial number, as DER content.
    pub(crate) identifier: Option<(Vec<u8>, Vec<u8>)>,
}

impl Chain {
    /// Reads certificates (leaf first) from one text and the first private key from another; they may be the same text.
    /// An error says what is wrong and quotes nothing.
    pub(crate) fn from_pem(certificates: &str, key: &str, provider: &CryptoProvider) -> Result<Self, String> {
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| "not a PEM certificate".to_owned())?;
        let leaf = certificates.first().ok_or("there is no PEM certificate in it")?;
        let (facts, identifier) = facts(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "there is no usable PEM private key".to_owned())?;
        let key = CertifiedKey::from_der(certificates, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => "the private key belongs to another certificate".to_owned(),
            error => format!("certificate and key are of no use: {error}"),
        })?;
        Ok(Self { key: Arc::new(key), facts: Arc::new(facts), identifier })
    }

    /// Whether the certificate is for this name, be it by a wildcard.
    pub(crate) fn covers(&self, name: &str) -> bool {
        let wildcard = crate::names::parent(name).map(|parent| format!("*.{parent}"));
        self.facts.names.iter().any(|covered| covered == name || Some(covered) == wildcard.as_ref())
    }

    /// When it is time for another one if nobody says otherwise: when a third of its life is left, earlier by up to a thirtieth,
    /// so that certificates that were made together are not renewed together. The jitter is the certificate's own, the same
    /// after every restart.
    pub(crate) fn renewal(&self) -> Timestamp {
        let (from, until) = (self.facts.not_before.as_second(), self.facts.not_after.as_second());
        let life = (until - from).max(0);
        let jitter = (life as f64 / 30.0 * self.fraction()) as i64;
        Timestamp::from_second(until - life / 3 - jitter).unwrap_or(self.facts.not_before)
    }

    /// A number between 0 and 1 that is the certificate's own.
    pub(crate) fn fraction(&self) -> f64 {
        let digits = self.facts.fingerprint.get(..8).unwrap_or_default();
        f64::from(u32::from_str_radix(digits, 16).unwrap_or_default()) / f64::from(u32::MAX)
    }
}

type Identifier = Option<(Vec<u8>, Vec<u8>)>;

fn facts(leaf: &CertificateDer<'_>) -> Result<(CertificateFacts, Identifier), String> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| "not an X.509 certificate".to_owned())?;
    let time = |time: ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|_| "its dates make no sense".to_owned());
    let authority = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => authority.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    let facts = CertificateFacts {
        names: names(&parsed),
        issuer: parsed.issuer().to_string(),
        not_before: time(parsed.validity().not_before)?,
        not_after: time(parsed.validity().not_after)?,
        serial: hex(parsed.raw_serial()),
        fingerprint: fingerprint(leaf),
    };
    Ok((facts, authority.map(|authority| (authority, parsed.raw_serial().to_vec()))))
}

/// The DNS names among the subject's alternative names; the common name only where there are none (RFC 6125, section 6.4.4).
fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    match alternative {
        Some(alternative) => alternative.value.general_names.iter().filter_map(dns).collect(),
        None => {
            let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
            common.map(str::to_ascii_lowercase).collect()
        }
    }
}

/// SHA-256 of a certificate, in hexadecimal digits.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
