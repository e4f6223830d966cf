//! One authority's certificates on disk: a file per name with the chain and its key, so that the two can never be of different
//! making, and one with the history of attempts.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::warn;

use crate::{
    CertError,
    chain::Chain,
    files::{self, Mode},
};

/// A directory of certificates.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    directory: PathBuf,
}

/// What was found for a name.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) chain: Option<Chain>,
    /// What somebody should know about what was found.
    pub(crate) remarks: Vec<String>,
}

/// What has been tried for a name, so that a restart neither forgets nor hammers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    /// Failed attempts in a row.
    #[serde(default)]
    pub(crate) failures: u32,
    /// Why the last one failed.
    #[serde(default)]
    pub(crate) reason: String,
    /// No attempt before this time.
    #[serde(default)]
    pub(crate) not_before: Option<Timestamp>,
    /// When the authority would like to see the certificate renewed (RFC 9773).
    #[serde(default)]
    pub(crate) renewal: Option<Window>,
    /// When to ask the authority about that again.
    #[serde(default)]
    pub(crate) ask_renewal: Option<Timestamp>,
    /// Whether it is the authority that asked to wait until `not_before`.
    #[serde(default)]
    pub(crate) obliged: bool,
}

/// A suggested window for a renewal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// The certificate it is for, by its fingerprint.
    pub(crate) fingerprint: String,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
}

impl Storage {
    pub(crate) fn open(directory: PathBuf) -> Result<Self, CertError> {
        files::private_directory(&directory)?;
        Ok(Self { directory })
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        // Names have passed `names::normal`: no slashes, no leading dots. An asterisk is a nuisance in shells.
        self.directory.join(format!("{}.{ending}", name.replace('*', "_")))
    }

    /// A name's certificate. A file that cannot be used is put aside.
    pub(crate) fn load(&self, name: &str, provider: &CryptoProvider) -> Found {
        let path = self.file(name, "pem");
        let content = match files::read(&path) {
            Ok(None) => return Found::default(),
            Ok(Some(content)) => Chain::from_pem(&content, &content, provider)
                .and_then(|chain| if chain.covers(name) { Ok(chain) } else { Err("it is for another name".to_owned()) }),
            Err(error) => Err(error.to_string()),
        };
        match content {
            Ok(chain) => Found { chain: Some(chain), remarks: Vec::new() },
            Err(reason) => Found { chain: None, remarks: vec![set_aside(&path, &reason)] },
        }
    }

    /// Keeps a chain together with its key.
    pub(crate) fn save(&self, name: &str, pem: &str) -> Result<(), CertError> {
        files::write(&self.file(name, "pem"), pem.as_bytes(), Mode::Private)
    }

    /// When a name's certificate was last written, by whichever process.
    pub(crate) fn written(&self, name: &str) -> Option<SystemTime> {
        fs::metadata(self.file(name, "pem")).and_then(|metadata| metadata.modified()).ok()
    }

    /// A name's history. One that cannot be read is put aside.
    pub(crate) fn history(&self, name: &str) -> (History, Vec<String>) {
        let (history, remarks) = read_json(&self.file(name, "json"));
        (history.unwrap_or_default(), remarks)
    }

    pub(crate) fn save_history(&self, name: &str, history: &History) {
        write_json(&self.file(name, "json"), history);
    }

    /// Names with a history or a certificate are kept when nobody wants them any more: a route that comes back costs no order.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Reads a file of state; one that cannot be read is put aside, and a remark says so.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> (Option<T>, Vec<String>) {
    // The error of the parser would quote the file, in which there may be a key.
    let content = match files::read(path) {
        Ok(None) => return (None, Vec::new()),
        Ok(Some(content)) => serde_json::from_str(&content).map_err(|_| "not what was once written there".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match content {
        Ok(value) => (Some(value), Vec::new()),
        Err(reason) => (None, vec![set_aside(path, &reason)]),
    }
}

/// Writes a file of state. Without it everything works on until the next restart, so a failure is told and no more.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) {
    let written = serde_json::to_vec_pretty(value)
        .map_err(|error| files::at(path, error.into()))
        .and_then(|content| files::write(path, &content, Mode::Private));
    if let Err(error) = written {
        warn!(%error, "state of certificates not written");
    }
}

/// Puts a file aside, and says so in the log and in the remark it returns.
pub(crate) fn set_aside(path: &Path, reason: &str) -> String {
    let remark = match files::put_aside(path) {
        Ok(aside) => format!("{} is of no use ({reason}); it was put aside as {}", path.display(), aside.display()),
        Err(error) => format!("{} is of no use ({reason}), and cannot be put aside: {error}", path.display()),
    };
    warn!("{remark}");
    remark
}
