//! What the engine holds: the certificates, and the thread that keeps them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustls::{ServerConfig, server::ResolvesServerCert};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use crate::{
    CertError, CertOptions, CertificateStatus, GivenFiles, Source, Wanted, authority::Authority, challenges::Challenges, files,
    keeper::Keeper, names, server, shelf::Shelf,
};

/// The certificates of one proxy.
///
/// Keeping them is the work of a thread with a runtime of its own, so that neither files nor authorities take time from those who
/// serve. It ends when this is dropped, or with [`shutdown`](Self::shutdown), which waits for it. Of several processes with the same
/// directory, one orders (the first that came) and the others serve what it gets.
pub struct Certificates {
    shared: Arc<Shared>,
    config: Arc<ServerConfig>,
    stop: CancellationToken,
    /// Closed when the thread has ended.
    done: watch::Receiver<u64>,
    _stop_on_drop: DropGuard,
}

/// What the thread and its users share.
pub(crate) struct Shared {
    pub(crate) options: CertOptions,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) wake: Notify,
    wanted: Mutex<Demand>,
    status: Mutex<Vec<CertificateStatus>>,
}

/// What is asked for, as it was asked.
#[derive(Default)]
struct Demand {
    raw: Vec<Wanted>,
    orders: Orders,
}

/// What is asked for.
#[derive(Clone, Default)]
pub(crate) struct Orders {
    /// Counts changes.
    pub(crate) generation: u64,
    /// In the one form of names; what cannot have a certificate has the reason.
    pub(crate) names: Arc<BTreeMap<String, Result<Source, String>>>,
    pub(crate) given: Vec<GivenFiles>,
    /// Names whose next attempt is not to wait.
    pub(crate) hurry: Vec<String>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("directory", &self.shared.options.directory).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Starts keeping certificates; nothing is wanted yet. Needs no runtime.
    ///
    /// Given files that are no good are no error here: they are told in the status, and tried again when they change. Use
    /// [`check_given`](crate::check_given) to refuse them earlier.
    pub fn start(options: CertOptions) -> Result<Arc<Self>, CertError> {
        files::private_directory(&options.directory)?;
        let challenges = Arc::new(Challenges::default());
        let shelf = Arc::new(Shelf::new(challenges.clone()));
        let config = Arc::new(server::config(shelf.clone())?);
        let orders = Orders { generation: 1, given: options.given.clone(), ..Orders::default() };
        let shared = Arc::new(Shared {
            options,
            shelf,
            challenges,
            wake: Notify::new(),
            wanted: Mutex::new(Demand { raw: Vec::new(), orders }),
            status: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (settled, done) = watch::channel(0);
        let mut keeper = Keeper::new(shared.clone(), settled)?;
        // Given certificates are served before anybody can ask for them.
        keeper.catch_up();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CertError::Start)?;
        let token = stop.clone();
        let work = move || {
            runtime.block_on(keeper.run(token));
            runtime.shutdown_background();
        };
        thread::Builder::new().name("certificates".to_owned()).spawn(work).map_err(CertError::Start)?;
        Ok(Arc::new(Self { shared, config, done, _stop_on_drop: stop.clone().drop_guard(), stop }))
    }

    /// Says which names are to have certificates: all of them, each time. Calling it with what it was called with before costs one
    /// comparison. Certificates of names that are no longer wanted stay on disk, but are not served or renewed.
    pub fn set_wanted(&self, wanted: Vec<Wanted>) {
        let mut demand = self.shared.demand();
        if demand.raw == wanted {
            return;
        }
        let names: BTreeMap<_, _> = wanted.iter().map(resolve).collect();
        demand.raw = wanted;
        if *demand.orders.names != names {
            demand.orders.names = Arc::new(names);
            self.shared.changed(demand);
        }
    }

    /// Replaces the given files: all of them, each time.
    pub fn set_given(&self, given: Vec<GivenFiles>) {
        let mut demand = self.shared.demand();
        if demand.orders.given != given {
            demand.orders.given = given;
            self.shared.changed(demand);
        }
    }

    /// Tries a name again at once, however long its next attempt was to wait; what the authority has asked to wait for is waited for. Says whether
    /// the name is wanted.
    pub fn retry(&self, name: &str) -> bool {
        let Ok(name) = names::normal(name) else { return false };
        let mut demand = self.shared.demand();
        let known = demand.orders.names.contains_key(&name);
        if known {
            demand.orders.hurry.push(name);
            self.shared.changed(demand);
        }
        known
    }

    /// Waits until what was asked for before is taken up: certificates that were on disk are served by then, and those of the local
    /// authority. Returns at once if the thread has ended.
    pub async fn settled(&self) {
        let generation = self.shared.demand().orders.generation;
        if self.done.clone().wait_for(|settled| *settled >= generation).await.is_err() {
            warn!("certificates are no longer kept");
        }
    }

    /// Chooses certificates by SNI; for challenges as well.
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.shared.shelf.clone()
    }

    /// A configuration for TLS servers: TLS 1.2 and 1.3, `h2`, `http/1.1` and `acme-tls/1` by ALPN. It is one and the same for all calls,
    /// and serves new certificates as they come. Connections that negotiated [`ACME_TLS_ALPN`](crate::ACME_TLS_ALPN) are to be closed
    /// after their handshake.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Whether a handshake for this name would find a certificate.
    pub fn serves(&self, server_name: Option<&str>) -> bool {
        self.shared.shelf.find(server_name).is_some()
    }

    /// Whether handshakes for both names find one and the same certificate, or none.
    pub fn are_one(&self, server_name: Option<&str>, other: &str) -> bool {
        if server_name.is_some_and(|name| name.eq_ignore_ascii_case(other)) {
            return true;
        }
        match (self.shared.shelf.find(server_name), self.shared.shelf.find(Some(other))) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one, &other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    /// What to answer to `GET path` on port 80 for `host` (with or without a port), as `text/plain` or `application/octet-stream`: the key
    /// authorization (RFC 8555, section 8.3) or the answer to a probe of our own; `None` where it is no challenge of ours. To be asked before routes are,
    /// redirects to https included, for paths beginning with `/.well-known/acme-challenge/`.
    pub fn http_challenge(&self, host: &str, path: &str) -> Option<String> {
        self.shared.challenges.http(host, path)
    }

    /// The certificate of the local authority, as PEM, for telling clients to trust it. The authority is made if there is none yet.
    pub fn local_ca_pem(&self) -> Result<String, CertError> {
        Authority::open(&self.shared.options.directory.join("local")).map(|authority| authority.pem().to_owned())
    }

    /// How each certificate stands, sorted by name.
    pub fn status(&self) -> Vec<CertificateStatus> {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the keeping of certificates and waits for it: orders under way are given up, and another process may take over. What is served
    /// stays served.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let mut done = self.done.clone();
        while done.changed().await.is_ok() {}
    }
}

/// A wanted name in its one form, and who certifies it; or why nobody can.
fn resolve(wanted: &Wanted) -> (String, Result<Source, String>) {
    match names::normal(&wanted.name) {
        Ok(name) if names::is_localhost(&name) => (name, Ok(Source::Local)),
        Ok(name) => {
            let reason = names::not_orderable(&name).filter(|_| wanted.source == Source::Acme);
            (name, reason.map_or(Ok(wanted.source), Err))
        }
        Err(reason) => (wanted.name.clone(), Err(reason)),
    }
}

impl Shared {
    fn demand(&self) -> MutexGuard<'_, Demand> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, mut demand: MutexGuard<'_, Demand>) {
        demand.orders.generation += 1;
        drop(demand);
        self.wake.notify_one();
    }

    /// What is asked for by now. Hurries are handed over.
    pub(crate) fn orders(&self) -> Orders {
        let mut demand = self.demand();
        let orders = demand.orders.clone();
        demand.orders.hurry.clear();
        orders
    }

    pub(crate) fn publish(&self, status: Vec<CertificateStatus>) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn the_same_names_in_any_form_and_order_are_no_change() {
        let home = tempfile::tempdir().unwrap();
        let certificates = Certificates::start(CertOptions::new(home.path())).unwrap();
        let wanted =
            |names: &[&str]| names.iter().map(|name| Wanted { name: (*name).to_owned(), source: Source::Local }).collect();
        let generation = || certificates.shared.demand().orders.generation;
        certificates.set_wanted(wanted(&["a.localhost", "b.localhost"]));
        let before = generation();
        for names in [["a.localhost", "b.localhost"], ["B.localhost.", "A.localhost"]] {
            for _ in 0..100 {
                certificates.set_wanted(wanted(&names));
            }
        }
        assert_eq!(generation(), before);
        certificates.set_wanted(wanted(&["a.localhost"]));
        assert_eq!(generation(), before + 1);
        certificates.settled().await;
        assert_eq!(certificates.status().len(), 1);
    }
}
