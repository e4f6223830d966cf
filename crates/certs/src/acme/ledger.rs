//! All names with one authority: what each has, what was tried, who is next.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use serde::{Deserialize, Serialize};
use tokio::task::{self, JoinSet};
use tracing::{error, info, warn};

use super::{
    attempt::{Authority, Blame, Failure},
    renewal,
};
use crate::{
    AcmeOptions, Backoff, CertError, CertificateStatus, Source, State,
    chain::Chain,
    challenges::Challenges,
    files::at,
    shelf::Snapshot,
    storage::{self, History, Storage, Window},
};

/// How often an authority is asked about renewals if it does not say (RFC 9773, section 4.3.2, leaves it to the client then).
const ASK_RENEWAL: Duration = Duration::from_secs(6 * 3600);
const DAY: Duration = Duration::from_secs(86400);

/// The names that one authority certifies.
pub(crate) struct Ledger {
    authority: Arc<Authority>,
    entries: BTreeMap<String, Entry>,
    /// While the authority does not answer, nobody asks it.
    hold: Hold,
    hold_file: PathBuf,
    remarks: Vec<String>,
    jobs: JoinSet<(String, Done)>,
    /// By name; names that are no longer wanted included.
    running: BTreeMap<String, (Job, task::Id)>,
    /// Which process orders: the one that has this file locked.
    lock_file: PathBuf,
    lock: Option<File>,
}

#[derive(Default)]
struct Entry {
    chain: Option<Chain>,
    history: History,
    remarks: Vec<String>,
    written: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Order,
    Renewal,
}

enum Done {
    Order(Result<Chain, Failure>),
    Renewal(Result<Option<(Window, Option<Timestamp>)>, String>),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Hold {
    failures: u32,
    reason: String,
    not_before: Option<Timestamp>,
    /// Whether the authority itself asked for it.
    #[serde(default)]
    obliged: bool,
}

impl Ledger {
    pub(crate) fn open(
        options: AcmeOptions,
        directory: &std::path::Path,
        challenges: Arc<Challenges>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CertError> {
        let storage = Storage::open(directory.join("acme").join(folder(&options.directory_url)))?;
        let (hold, lock) = (storage.directory().join("authority.hold"), storage.directory().join("lock"));
        let (held, remarks) = storage::read_json(&hold);
        Ok(Self {
            authority: Arc::new(Authority::new(options, storage, challenges, provider)),
            entries: BTreeMap::new(),
            hold: held.unwrap_or_default(),
            hold_file: hold,
            remarks,
            jobs: JoinSet::new(),
            running: BTreeMap::new(),
            lock_file: lock,
            lock: None,
        })
    }

    /// From now on it is these names. Orders under way for others are seen through: they are paid for.
    pub(crate) fn take_names(&mut self, names: impl Iterator<Item = String>) {
        let mut old = std::mem::take(&mut self.entries);
        let entry = |name: String| {
            let entry = old.remove(&name).unwrap_or_else(|| self.load(&name));
            (name, entry)
        };
        self.entries = names.map(entry).collect();
    }

    fn load(&self, name: &str) -> Entry {
        let storage = &self.authority.storage;
        let written = storage.written(name);
        let found = storage.load(name, &self.authority.provider);
        let (history, remarks) = storage.history(name);
        let remarks = found.remarks.into_iter().chain(remarks).collect();
        Entry { chain: found.chain, history, remarks, written }
    }

    /// The next attempt at this name does not wait for our own back-off.
    pub(crate) fn hurry(&mut self, name: &str) {
        if let Some(entry) = self.entries.get_mut(name)
            && !entry.history.obliged
        {
            entry.history.not_before = None;
        }
        if !self.hold.obliged {
            self.hold.not_before = None;
        }
    }

    /// Looks whether another process has ordered something meanwhile, or has ended. Says whether anything changed.
    pub(crate) fn poll(&mut self) -> bool {
        if self.lock.is_some() || self.entries.is_empty() {
            return false;
        }
        self.try_lock();
        let storage = &self.authority.storage;
        let leads = self.lock.is_some();
        let changed = |(name, entry): &(&String, &Entry)| leads || storage.written(name) != entry.written;
        let changed: Vec<String> = self.entries.iter().filter(changed).map(|(name, _)| name.clone()).collect();
        for name in &changed {
            let mut entry = self.load(name);
            // What was put aside when it was first read is not there to be found again.
            let before = self.entries.remove(name).map(|entry| entry.remarks);
            entry.remarks.splice(0..0, before.unwrap_or_default());
            self.entries.insert(name.clone(), entry);
        }
        !changed.is_empty()
    }

    fn try_lock(&mut self) {
        let open = || File::options().create(true).truncate(false).write(true).mode(0o600).open(&self.lock_file);
        let locked = open().map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file));
        match locked {
            Ok(file) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => warn!(error = %at(&self.lock_file, source), "nobody can order certificates"),
        }
    }

    /// Starts what is due; needs a runtime. Says whether anything was started.
    pub(crate) fn start_due(&mut self) -> bool {
        let changed = self.poll();
        if self.lock.is_none() {
            return changed;
        }
        let now = Timestamp::now();
        // Who has nothing goes first.
        let (without, with): (Vec<_>, Vec<_>) = self.entries.iter().partition(|(_, entry)| entry.chain.is_none());
        let due = |(name, entry): (&String, &Entry)| self.job_due(name, entry, now).map(|job| (name.clone(), job));
        let due: Vec<(String, Job)> = without.into_iter().chain(with).filter_map(due).collect();
        let room = self.room();
        let starting = due.len().min(room);
        due.into_iter().take(room).for_each(|(name, job)| self.start(name, job));
        changed || starting > 0
    }

    /// How many more jobs may be started. An authority that has just been away is tried with one.
    fn room(&self) -> usize {
        let most = if self.hold.failures > 0 { 1 } else { self.authority.options.concurrent.max(1) };
        most.saturating_sub(self.jobs.len())
    }

    fn job_due(&self, name: &str, entry: &Entry, now: Timestamp) -> Option<Job> {
        if self.running.contains_key(name) {
            return None;
        }
        let jobs = [(Job::Order, self.order_at(entry)), (Job::Renewal, self.ask_at(entry))];
        let due = jobs.into_iter().find(|(_, at)| at.is_some_and(|at| at <= now));
        due.map(|(job, _)| job)
    }

    /// When a certificate is to be ordered.
    fn order_at(&self, entry: &Entry) -> Option<Timestamp> {
        let need = entry.chain.as_ref().map(|chain| renewal::due(chain, entry.history.renewal.as_ref()));
        [need, entry.history.not_before, self.hold.not_before].into_iter().flatten().max().or(Some(Timestamp::MIN))
    }

    /// When the authority is to be asked about a renewal.
    fn ask_at(&self, entry: &Entry) -> Option<Timestamp> {
        entry.chain.as_ref()?;
        [entry.history.ask_renewal, self.hold.not_before].into_iter().flatten().max().or(Some(Timestamp::MIN))
    }

    /// When something is due next, if anything is that is not under way.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.lock.as_ref()?;
        let idle = self.entries.iter().filter(|(name, _)| !self.running.contains_key(*name));
        let now = Timestamp::now();
        // What is due and has not been started waits for a job to end.
        idle.flat_map(|(_, entry)| [self.order_at(entry), self.ask_at(entry)]).flatten().filter(|at| *at > now).min()
    }

    fn start(&mut self, name: String, job: Job) {
        let Some(entry) = self.entries.get(&name) else { return };
        let known = name.clone();
        let (authority, chain, failures) = (self.authority.clone(), entry.chain.clone(), entry.history.failures);
        let task = self.jobs.spawn(async move {
            let done = match (job, chain) {
                (Job::Renewal, Some(chain)) => Done::Renewal(authority.renewal(&chain).await),
                (_, chain) => Done::Order(authority.attempt(&name, failures, chain).await),
            };
            (name, done)
        });
        self.running.insert(known, (job, task.id()));
    }

    /// Waits for a job to end; for ever if there is none.
    pub(crate) async fn finished(&mut self) {
        loop {
            match self.jobs.join_next().await {
                Some(Ok((name, done))) => return self.book(&name, done),
                Some(Err(broken)) => {
                    error!(%broken, "an attempt at a certificate broke off");
                    self.running.retain(|_, (_, task)| *task != broken.id());
                }
                None => std::future::pending().await,
            }
        }
    }

    fn book(&mut self, name: &str, done: Done) {
        self.running.remove(name);
        let remarks = self.authority.remarks();
        self.remarks.extend(remarks.into_iter().filter(|remark| !self.remarks.contains(remark)).collect::<Vec<_>>());
        match done {
            Done::Order(Ok(chain)) => self.book_success(name, chain),
            Done::Order(Err(failure)) => self.book_failure(name, failure),
            Done::Renewal(asked) => self.book_renewal(name, asked),
        }
    }

    fn book_success(&mut self, name: &str, chain: Chain) {
        info!(%name, issuer = %chain.facts.issuer, until = %chain.facts.not_after, "certificate issued");
        self.release();
        let history = History::default();
        self.authority.storage.save_history(name, &history);
        if let Some(entry) = self.entries.get_mut(name) {
            let written = self.authority.storage.written(name);
            *entry = Entry { chain: Some(chain), history, remarks: std::mem::take(&mut entry.remarks), written };
        }
    }

    /// The authority has answered: nobody has to wait for it any more.
    fn release(&mut self) {
        if self.hold.failures > 0 {
            self.hold = Hold::default();
            storage::write_json(&self.hold_file, &self.hold);
        }
    }

    fn book_failure(&mut self, name: &str, failure: Failure) {
        let backoff = self.authority.options.backoff;
        if failure.blame == Blame::Authority {
            let failures = self.hold.failures.saturating_add(1);
            let not_before = next(&backoff, backoff.longest_without_order, failures, failure.not_before);
            let obliged = failure.not_before.is_some();
            self.hold = Hold { failures, reason: failure.reason, not_before: Some(not_before), obliged };
            storage::write_json(&self.hold_file, &self.hold);
            if let Some(entry) = self.entries.get(name) {
                warn_about(name, entry.chain.as_ref(), &self.hold.reason, failures, not_before);
            }
            return;
        }
        if failure.blame == Blame::Order {
            self.release();
        }
        let mut history =
            self.entries.get(name).map_or_else(|| self.authority.storage.history(name).0, |entry| entry.history.clone());
        history.failures = history.failures.saturating_add(1);
        let longest = if failure.blame == Blame::Order { backoff.longest } else { backoff.longest_without_order };
        let not_before = next(&backoff, longest, history.failures, failure.not_before);
        history.not_before = Some(not_before);
        history.obliged = failure.not_before.is_some();
        history.reason = failure.reason;
        self.authority.storage.save_history(name, &history);
        if let Some(entry) = self.entries.get_mut(name) {
            warn_about(name, entry.chain.as_ref(), &history.reason, history.failures, not_before);
            entry.history = history;
        }
    }

    fn book_renewal(&mut self, name: &str, asked: Result<Option<(Window, Option<Timestamp>)>, String>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let mut again = None;
        match asked {
            Ok(Some((window, ask_again))) => {
                entry.history.renewal = Some(window);
                again = ask_again;
            }
            Ok(None) => entry.history.renewal = None,
            // Nothing is lost: the last suggestion or the usual time stands.
            Err(reason) => warn!(%name, %reason, "authority not asked when to renew"),
        }
        let now = Timestamp::now();
        let floor = after(now, self.authority.options.backoff.first);
        let ceiling = after(now, DAY);
        entry.history.ask_renewal = Some(again.unwrap_or_else(|| after(now, ASK_RENEWAL)).clamp(floor, ceiling.max(floor)));
        self.authority.storage.save_history(name, &entry.history);
    }

    /// Orders under way are given up, and another process may order.
    pub(crate) async fn close(&mut self) {
        self.jobs.shutdown().await;
        self.lock = None;
    }

    pub(crate) fn put_on(&self, snapshot: &mut Snapshot) {
        for (name, entry) in &self.entries {
            if let Some(chain) = &entry.chain {
                snapshot.put(name, &chain.key);
            }
        }
    }

    pub(crate) fn status(&self) -> impl Iterator<Item = CertificateStatus> {
        self.entries.iter().map(|(name, entry)| CertificateStatus {
            name: name.clone(),
            source: Source::Acme,
            state: self.state(name, entry),
            certificate: entry.chain.as_ref().map(|chain| (*chain.facts).clone()),
            remarks: entry.remarks.iter().chain(&self.remarks).cloned().collect(),
        })
    }

    fn state(&self, name: &str, entry: &Entry) -> State {
        let next = self.order_at(entry).filter(|at| *at > Timestamp::MIN);
        let renewal = entry.chain.as_ref().map(|chain| renewal::due(chain, entry.history.renewal.as_ref()));
        let wants = renewal.is_none_or(|renewal| renewal <= Timestamp::now());
        if self.running.get(name).is_some_and(|(job, _)| *job == Job::Order) {
            State::Ordering
        } else if entry.history.failures > 0 {
            State::Failing { reason: entry.history.reason.clone(), attempts: entry.history.failures, next_attempt: next }
        } else if wants && self.hold.failures > 0 {
            State::Failing { reason: self.hold.reason.clone(), attempts: self.hold.failures, next_attempt: next }
        } else if let Some(renewal) = renewal {
            State::Active { renewal: Some(renewal) }
        } else {
            State::Waiting { next_attempt: next }
        }
    }
}

/// A folder's name for an authority: what is unmistakable in its URL.
fn folder(directory_url: &str) -> String {
    let url = directory_url.strip_prefix("https://").unwrap_or(directory_url);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    url.chars().map(plain).collect::<String>().trim_matches('.').to_owned()
}

fn after(now: Timestamp, distance: Duration) -> Timestamp {
    now.saturating_add(distance).unwrap_or(now)
}

/// When to try again after so many failures in a row: doubled distances, with a quarter of jitter; never before the authority says.
fn next(backoff: &Backoff, longest: Duration, failures: u32, not_before: Option<Timestamp>) -> Timestamp {
    let doubled = backoff.first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1).min(31)).unwrap_or(u32::MAX));
    let distance = doubled.min(longest.max(backoff.first));
    // Without randomness there is no jitter, and nothing worse.
    let random = getrandom::u32().unwrap_or_default() % 1024;
    let jittered = distance + distance.mul_f64(f64::from(random) / 1024.0 / 4.0);
    let own = after(Timestamp::now(), jittered);
    // All that were told the same time are not to come at that time together.
    not_before.map_or(own, |asked| own.max(after(asked, Duration::from_millis(u64::from(random) * 5))))
}

/// Louder the less time is left.
fn warn_about(name: &str, chain: Option<&Chain>, reason: &str, attempts: u32, next_attempt: Timestamp) {
    let Some(chain) = chain else {
        warn!(%name, %reason, attempts, %next_attempt, "no certificate");
        return;
    };
    let (from, until, now) = (chain.facts.not_before, chain.facts.not_after, Timestamp::now());
    let days = until.as_second().saturating_sub(now.as_second()) / 86400;
    let urgent = (until.as_second() - now.as_second()) * 6 < until.as_second() - from.as_second();
    if urgent {
        error!(%name, %reason, attempts, %next_attempt, expires = %until, days_left = days, "certificate not renewed, and about to expire");
    } else {
        warn!(%name, %reason, attempts, %next_attempt, expires = %until, days_left = days, "certificate not renewed");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn distances_double_up_to_the_longest_and_obey_the_authority() {
        let backoff = Backoff::default();
        let mut last = 0;
        for failures in 1..=40 {
            let distance = next(&backoff, backoff.longest, failures, None).as_second() - Timestamp::now().as_second();
            let expected = (60_i64 << (failures - 1).min(20)).min(86400);
            assert!((expected - 1..=expected + expected / 4 + 1).contains(&distance), "{failures}: {distance}");
            assert!(distance * 2 > last, "{failures}");
            last = distance;
        }
        let asked = after(Timestamp::now(), Duration::from_secs(7200));
        let obeyed = next(&backoff, backoff.longest, 1, Some(asked));
        assert!(obeyed >= asked && obeyed <= after(asked, Duration::from_secs(6)));
    }

    #[test]
    fn authorities_have_folders_of_their_own() {
        assert_eq!(folder("https://acme-v02.api.letsencrypt.org/directory"), "acme-v02.api.letsencrypt.org_directory");
        assert_eq!(folder("https://localhost:14000/../dir"), "localhost_14000_.._dir");
        assert_eq!(folder("https://.."), "");
    }
}
