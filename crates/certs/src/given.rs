//! Certificates of one's own: read, watched, and kept as they were while a file is no good.

use std::{fs, path::Path, time::SystemTime};

use rustls::crypto::CryptoProvider;
use tracing::{error, info};

use crate::{
    CertError, CertificateStatus, GivenFiles, Source, State,
    chain::Chain,
    files::{self, at},
    server,
    shelf::Snapshot,
};

/// Whether the files can be served: for whoever reads a configuration and wants to refuse it early.
pub fn check(given: &GivenFiles) -> Result<(), CertError> {
    load(given, &server::provider()).map(drop)
}

fn load(given: &GivenFiles, provider: &CryptoProvider) -> Result<Chain, CertError> {
    let (certificates, key) = (text(&given.cert)?, text(&given.key)?);
    Chain::from_pem(&certificates, &key, provider).map_err(|reason| {
        let path = if reason.contains("key") { &given.key } else { &given.cert };
        CertError::Content { path: path.clone(), reason }
    })
}

fn text(path: &Path) -> Result<String, CertError> {
    files::read(path)?.ok_or_else(|| at(path, std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such file")))
}

/// One pair of files and what was last read from them.
pub(crate) struct Given {
    files: GivenFiles,
    seen: Stamp,
    chain: Option<Chain>,
    refused: Option<String>,
}

/// By which a change is noticed; the size and the inode as well, as two changes may fall into one tick of the file system's clock.
type Stamp = [Option<(SystemTime, u64, u64)>; 2];

fn stamp(given: &GivenFiles) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    [&given.cert, &given.key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    })
}

impl Given {
    pub(crate) fn new(files: GivenFiles, provider: &CryptoProvider) -> Self {
        let mut given = Self { seen: stamp(&files), files, chain: None, refused: None };
        given.load(provider);
        given
    }

    pub(crate) fn files(&self) -> &GivenFiles {
        &self.files
    }

    pub(crate) fn covers(&self, name: &str) -> bool {
        self.chain.as_ref().is_some_and(|chain| chain.covers(name))
    }

    /// Reads the files again if they have changed; says whether they had.
    pub(crate) fn refresh(&mut self, provider: &CryptoProvider) -> bool {
        let now = stamp(&self.files);
        let changed = now != self.seen;
        if changed {
            self.seen = now;
            self.load(provider);
        }
        changed
    }

    fn load(&mut self, provider: &CryptoProvider) {
        match load(&self.files, provider) {
            Ok(chain) => {
                info!(cert = %self.files.cert.display(), names = ?chain.facts.names, until = %chain.facts.not_after, "certificate loaded");
                (self.chain, self.refused) = (Some(chain), None);
            }
            Err(reason) => {
                error!(%reason, kept = self.chain.is_some(), "certificate refused");
                self.refused = Some(reason.to_string());
            }
        }
    }

    pub(crate) fn put_on(&self, snapshot: &mut Snapshot) {
        let Some(chain) = &self.chain else { return };
        for name in &chain.facts.names {
            snapshot.put(name, &chain.key);
        }
        if self.files.default {
            snapshot.put_default(&chain.key);
        }
    }

    pub(crate) fn status(&self) -> CertificateStatus {
        let certificate = self.chain.as_ref().map(|chain| (*chain.facts).clone());
        let name = certificate.as_ref().and_then(|facts| facts.names.first().cloned());
        CertificateStatus {
            name: name.unwrap_or_else(|| self.files.cert.display().to_string()),
            source: Source::Given,
            state: match &self.refused {
                Some(reason) => State::Failing { reason: reason.clone(), attempts: 1, next_attempt: None },
                None => State::Active { renewal: None },
            },
            certificate,
            remarks: Vec::new(),
        }
    }
}
