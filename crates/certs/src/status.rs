//! What is known about each name's certificate, for people and for the admin API. Nothing here is secret.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Source;

/// One wanted name, or one pair of given files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The wanted name; of given files the first name in the certificate, or the file's path while it cannot be read.
    pub name: String,
    /// Who certifies it.
    pub source: Source,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
    /// What is being served; nothing while there is none.
    pub certificate: Option<CertificateFacts>,
    /// What else somebody should know: files put aside, for example.
    pub remarks: Vec<String>,
}

/// How a certificate stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Nothing has been tried yet.
    Waiting {
        /// When it will be, if it is known.
        next_attempt: Option<Timestamp>,
    },
    /// It is being ordered at this moment, for the first time or again.
    Ordering,
    /// It is served, and all is well.
    Active {
        /// When another one will be asked for; nothing for given files.
        renewal: Option<Timestamp>,
    },
    /// The last attempt failed. There may still be a certificate, which is served to its end.
    Failing {
        /// What is wrong, and what to change.
        reason: String,
        /// How many attempts have failed in a row.
        attempts: u32,
        /// When the next one will be made; nothing if only a change can help.
        next_attempt: Option<Timestamp>,
    },
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// The DNS names it is for, lower case, wildcards as `*.shop.example`.
    pub names: Vec<String>,
    /// Its issuer's distinguished name.
    pub issuer: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Serial number, in hexadecimal digits.
    pub serial: String,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
}
