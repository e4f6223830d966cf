//! The certificates that are being served, and choosing among them by SNI (RFC 6066, section 3).

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{challenges::Challenges, names, server::ACME_TLS_ALPN};

/// Answers handshakes. Changes are whole new snapshots; a handshake holds the lock for the copy of one pointer.
#[derive(Debug)]
pub(crate) struct Shelf {
    current: RwLock<Arc<Snapshot>>,
    challenges: Arc<Challenges>,
}

/// Certificates by the names they are served for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Snapshot {
    /// For exactly this name.
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// For any name one label below this one.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For all others.
    default: Option<Arc<CertifiedKey>>,
}

impl Snapshot {
    /// Serves `key` for `name`, which may be a wildcard; the last one added counts.
    pub(crate) fn put(&mut self, name: &str, key: &Arc<CertifiedKey>) {
        match name.strip_prefix("*.") {
            Some(parent) => self.wildcard.insert(parent.to_owned(), key.clone()),
            None => self.exact.insert(name.to_owned(), key.clone()),
        };
    }

    /// Serves `key` to whoever asks for something unknown.
    pub(crate) fn put_default(&mut self, key: &Arc<CertifiedKey>) {
        self.default = Some(key.clone());
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.exact.get(name).or_else(|| self.wildcard.get(names::parent(name)?))
    }
}

impl Shelf {
    pub(crate) fn new(challenges: Arc<Challenges>) -> Self {
        Self { current: RwLock::default(), challenges }
    }

    /// From now on these are served.
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a client gets that asks for this name.
    pub(crate) fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.snapshot();
        let found = name.and_then(|name| match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => snapshot.find(&name.to_ascii_lowercase()),
            false => snapshot.find(name),
        });
        found.or(snapshot.default.as_ref()).cloned()
    }
}

impl ResolvesServerCert for Shelf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737, section 3: a validator offers this protocol and no other. It gets a challenge's certificate or nothing, so
        // that nobody else can be led to speak a protocol that is none.
        let mut offered = hello.alpn().into_iter().flatten();
        if offered.any(|protocol| protocol == ACME_TLS_ALPN) {
            return hello.server_name().and_then(|name| self.challenges.tls(name));
        }
        self.find(hello.server_name())
    }
}
