//! The loop that keeps certificates: compares what is wanted with what there is, and acts on the difference.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    CertError, CertificateStatus, Source, State,
    acme::Ledger,
    authority::Authority,
    certificates::{Orders, Shared},
    chain::Chain,
    given::Given,
    server,
    shelf::Snapshot,
    storage::Storage,
};

/// After a failure of the local authority: a full disk, mostly.
const LOCAL_RETRY: Duration = Duration::from_secs(60);

/// Keeps certificates.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    provider: Arc<CryptoProvider>,
    orders: Orders,
    given: Vec<Given>,
    local: Local,
    acme: Option<Ledger>,
    settled: watch::Sender<u64>,
    /// Whether what is served or told has changed since it was last published.
    dirty: bool,
    next_poll: Instant,
}

/// The names that the local authority certifies.
struct Local {
    authority: Option<Authority>,
    storage: Storage,
    entries: BTreeMap<String, LocalEntry>,
}

#[derive(Default)]
struct LocalEntry {
    chain: Option<Chain>,
    remarks: Vec<String>,
    failure: Option<(String, Timestamp)>,
    failures: u32,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>, settled: watch::Sender<u64>) -> Result<Self, CertError> {
        let storage = Storage::open(shared.options.directory.join("local"))?;
        let provider = server::provider();
        let acme = shared
            .options
            .acme
            .clone()
            .map(|options| Ledger::open(options, &shared.options.directory, shared.challenges.clone(), provider.clone()));
        Ok(Self {
            provider,
            acme: acme.transpose()?,
            orders: Orders::default(),
            given: Vec::new(),
            local: Local { authority: None, storage, entries: BTreeMap::new() },
            settled,
            dirty: true,
            next_poll: Instant::now() + shared.options.poll,
            shared,
        })
    }

    /// Until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            self.catch_up();
            let next = self.start_due();
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.shared.wake.notified() => {}
                () = finished(self.acme.as_mut()) => self.dirty = true,
                () = tokio::time::sleep_until(next) => {}
            }
            if Instant::now() >= self.next_poll {
                self.poll();
            }
        }
        if let Some(acme) = &mut self.acme {
            acme.close().await;
        }
    }

    /// Takes up what is asked for, and does what can be done without waiting for anybody.
    pub(crate) fn catch_up(&mut self) {
        let orders = self.shared.orders();
        if orders.generation != self.orders.generation {
            self.orders = orders;
            self.take_given();
            self.take_names();
            for name in std::mem::take(&mut self.orders.hurry) {
                self.hurry(&name);
            }
            self.dirty = true;
        }
        self.sign_local();
        self.publish();
        self.settled.send_replace(self.orders.generation);
    }

    /// Starts orders that are due. Returns when to come back if nothing happens before. Clocks may be set, so that is never far away.
    fn start_due(&mut self) -> Instant {
        let Some(acme) = &mut self.acme else { return self.next_poll };
        if acme.start_due() {
            self.dirty = true;
            self.publish();
        }
        let Some(due) = self.acme.as_ref().and_then(Ledger::next_due) else { return self.next_poll };
        let distance = due.duration_since(Timestamp::now()).unsigned_abs();
        self.next_poll.min(Instant::now() + distance + Duration::from_millis(1))
    }

    fn poll(&mut self) {
        self.next_poll = Instant::now() + self.shared.options.poll;
        let mut changed = false;
        for given in &mut self.given {
            changed |= given.refresh(&self.provider);
        }
        if changed {
            // They may cover other names than before.
            self.take_names();
            self.dirty = true;
        }
        if let Some(acme) = &mut self.acme {
            self.dirty |= acme.poll();
        }
    }

    fn take_given(&mut self) {
        let mut kept: Vec<Given> = std::mem::take(&mut self.given);
        for files in &self.orders.given {
            let known = kept.iter().position(|given| given.files() == files);
            let given = match known {
                Some(index) => kept.swap_remove(index),
                None => Given::new(files.clone(), &self.provider),
            };
            self.given.push(given);
        }
    }

    fn take_names(&mut self) {
        let wanted = |source: Source| {
            let names = self.orders.names.iter().filter(move |(_, resolved)| **resolved == Ok(source));
            names.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let (local, public) = (wanted(Source::Local), wanted(Source::Acme));
        if let Some(acme) = &mut self.acme {
            let given = &self.given;
            acme.take_names(public.into_iter().filter(|name| !given.iter().any(|given| given.covers(name))));
        }
        let mut old = std::mem::take(&mut self.local.entries);
        for name in local {
            let entry = old.remove(&name).unwrap_or_else(|| {
                let found = self.local.storage.load(&name, &self.provider);
                LocalEntry { chain: found.chain, remarks: found.remarks, ..LocalEntry::default() }
            });
            self.local.entries.insert(name, entry);
        }
    }

    fn hurry(&mut self, name: &str) {
        if let Some(entry) = self.local.entries.get_mut(name) {
            entry.failure = None;
        }
        if let Some(acme) = &mut self.acme {
            acme.hurry(name);
        }
    }

    fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|given| given.covers(name))
    }

    /// Signs what has no certificate or one whose time has come.
    fn sign_local(&mut self) {
        let now = Timestamp::now();
        let due: Vec<String> =
            self.local.entries.iter().filter(|(_, entry)| entry.due(now)).map(|(name, _)| name.clone()).collect();
        for name in due.into_iter().filter(|name| !self.is_given(name)).collect::<Vec<_>>() {
            let signed = self.sign(&name);
            let Some(entry) = self.local.entries.get_mut(&name) else { continue };
            self.dirty = true;
            match signed {
                Ok(chain) => (entry.chain, entry.failure, entry.failures) = (Some(chain), None, 0),
                Err(reason) => {
                    warn!(%name, %reason, "no certificate from the local authority");
                    entry.failures += 1;
                    entry.failure = Some((reason, now.saturating_add(LOCAL_RETRY).unwrap_or(now)));
                }
            }
        }
    }

    fn sign(&mut self, name: &str) -> Result<Chain, String> {
        let authority = match self.local.authority.take() {
            Some(authority) => authority,
            None => Authority::open(self.local.storage.directory()).map_err(|error| error.to_string())?,
        };
        let authority = self.local.authority.insert(authority);
        let pem = authority.sign(name).map_err(|error| error.to_string())?;
        self.local.storage.save(name, &pem).map_err(|error| error.to_string())?;
        Chain::from_pem(&pem, &pem, &self.provider)
    }

    /// Serves and tells what there is.
    fn publish(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let mut snapshot = Snapshot::default();
        for (name, entry) in &self.local.entries {
            if let Some(chain) = &entry.chain {
                snapshot.put(name, &chain.key);
            }
        }
        if let Some(acme) = &self.acme {
            acme.put_on(&mut snapshot);
        }
        for given in self.given.iter().rev() {
            given.put_on(&mut snapshot);
        }
        self.shared.shelf.replace(snapshot);
        self.shared.publish(self.status());
    }

    fn status(&self) -> Vec<CertificateStatus> {
        let mut all: Vec<CertificateStatus> = self.given.iter().map(Given::status).collect();
        all.extend(self.local.entries.iter().map(|(name, entry)| entry.status(name)));
        all.extend(self.acme.iter().flat_map(Ledger::status));
        all.extend(self.orders.names.iter().filter_map(|(name, resolved)| self.refusal(name, resolved)));
        all.retain(|status| status.source == Source::Given || !self.is_given(&status.name));
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// The status of a name for which nothing can be done.
    fn refusal(&self, name: &str, resolved: &Result<Source, String>) -> Option<CertificateStatus> {
        let (source, reason) = match resolved {
            Err(reason) => (Source::Acme, reason.clone()),
            Ok(Source::Given) if !self.is_given(name) => (Source::Given, format!("no given certificate is for {name}")),
            Ok(Source::Acme) if self.acme.is_none() => (Source::Acme, "no ACME authority is configured".to_owned()),
            Ok(_) => return None,
        };
        let state = State::Failing { reason, attempts: 0, next_attempt: None };
        Some(CertificateStatus { name: name.to_owned(), source, state, certificate: None, remarks: Vec::new() })
    }
}

/// For ever if there is no authority.
async fn finished(acme: Option<&mut Ledger>) {
    match acme {
        Some(acme) => acme.finished().await,
        None => std::future::pending().await,
    }
}

impl LocalEntry {
    fn due(&self, now: Timestamp) -> bool {
        let failed = self.failure.as_ref().is_some_and(|(_, until)| *until > now);
        !failed && self.chain.as_ref().is_none_or(|chain| chain.renewal() <= now)
    }

    fn status(&self, name: &str) -> CertificateStatus {
        let state = match (&self.failure, &self.chain) {
            (Some((reason, next)), _) => {
                State::Failing { reason: reason.clone(), attempts: self.failures, next_attempt: Some(*next) }
            }
            (None, Some(chain)) => State::Active { renewal: Some(chain.renewal()) },
            (None, None) => State::Waiting { next_attempt: None },
        };
        CertificateStatus {
            name: name.to_owned(),
            source: Source::Local,
            state,
            certificate: self.chain.as_ref().map(|chain| (*chain.facts).clone()),
            remarks: self.remarks.clone(),
        }
    }
}
