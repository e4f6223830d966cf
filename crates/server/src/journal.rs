//! What one deployment has told so far, for everybody who wants to hear it, from its start on.
//!
//! A reader keeps a position instead of a queue: a slow one costs nothing and holds up nobody. The journal is bounded;
//! when it is full, the oldest lines of output go first, and a reader who had not seen them is told how many are missing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use coracle_api::{Deployment, DeploymentEvent, Outcome, Phase, Problem};
use coracle_model::{AppName, Bearer, Bringer, CredentialId, DeploymentId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::forges::Connected;

/// Bytes of output that a journal keeps.
const OUTPUT_KEPT: usize = 512 * 1024;

/// What a short line costs beside its text.
const LINE_COST: usize = 64;

/// The journal of one deployment.
pub(crate) struct Journal {
    /// The app.
    pub app: AppName,
    /// Calls the deployment off.
    pub cancel: CancellationToken,
    /// Who brought it, where it is not the administrator.
    brought_by: OnceLock<Bringer>,
    /// What a person who brought it has shown.
    credential: OnceLock<CredentialId>,
    /// What was connected when a forge brought it.
    connected: OnceLock<Connected>,
    /// The commit of a newer push that takes its place in the line.
    superseded: OnceLock<String>,
    entries: Mutex<Entries>,
    /// Counts what was told; readers wait on it.
    told: watch::Sender<u64>,
}

#[derive(Default)]
struct Entries {
    events: VecDeque<(u64, Arc<DeploymentEvent>)>,
    next: u64,
    output_bytes: usize,
    deployment: Option<Deployment>,
    /// The orchestrator's word on how it ended; told to readers when its reasons are known too.
    outcome: Option<Outcome>,
    /// It has waited for a person, so nobody who asked for it need stay.
    is_alone: bool,
    ended: bool,
}

/// How a deployment came about.
#[derive(Debug)]
pub(crate) enum Opening {
    /// It is being told.
    Told,
    /// It was refused before anything was begun.
    Refused(Problem),
    /// There was nothing to deploy.
    Nothing,
}

impl Journal {
    pub(crate) fn new(app: AppName, cancel: CancellationToken) -> Self {
        let (brought_by, credential) = (OnceLock::new(), OnceLock::new());
        let (connected, superseded) = (OnceLock::new(), OnceLock::new());
        let (entries, told) = (Mutex::default(), watch::Sender::new(0));
        Self { app, cancel, brought_by, credential, connected, superseded, entries, told }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The deployment as far as it has come; `None` before it began.
    pub(crate) fn deployment(&self) -> Option<Deployment> {
        self.entries().deployment.clone()
    }

    pub(crate) fn is_of(&self, id: DeploymentId) -> bool {
        self.entries().deployment.as_ref().is_some_and(|deployment| deployment.id == id)
    }

    /// Notes the person who asks for it.
    pub(crate) fn comes_from(&self, bearer: &Bearer) {
        self.brought_by.get_or_init(|| Bringer::Person(bearer.name.clone()));
        self.credential.get_or_init(|| bearer.credential);
    }

    /// Notes that a forge has told of it, which is connected so: whoever pushed there is nobody whom this server knows.
    pub(crate) fn comes_from_forge(&self, connected: &Connected) {
        self.brought_by.get_or_init(|| Bringer::Forge);
        self.connected.get_or_init(|| connected.clone());
    }

    /// Who brought it.
    pub(crate) fn brought_by(&self) -> Bringer {
        self.brought_by.get().cloned().unwrap_or(Bringer::Administrator)
    }

    /// What the person who brought it has shown.
    pub(crate) fn credential(&self) -> Option<CredentialId> {
        self.credential.get().copied()
    }

    /// What was connected when a forge brought it.
    pub(crate) fn connected(&self) -> Option<&Connected> {
        self.connected.get()
    }

    /// Whoever asked for it has gone away: that calls it off, unless it has waited for a person, who decides instead.
    pub(crate) fn left(&self) {
        if !self.entries().is_alone {
            self.cancel.cancel();
        }
    }

    /// Calls it off because of a newer push.
    pub(crate) fn supersede(&self, by: &str) {
        self.superseded.get_or_init(|| by.to_owned());
        self.cancel.cancel();
    }

    /// The newer push that it was called off for.
    pub(crate) fn superseded(&self) -> Option<&str> {
        self.superseded.get().map(String::as_str)
    }

    /// Waits for its end.
    pub(crate) async fn ended(self: &Arc<Self>) {
        let mut reader = self.reader();
        while reader.next().await.is_some() {}
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.entries().ended
    }

    /// Tells an event, except for its end: that is [`Journal::end`]'s.
    pub(crate) fn tell(&self, event: DeploymentEvent) {
        self.change(|entries| entries.push(event));
    }

    /// Keeps the outcome until the end is told.
    pub(crate) fn set_outcome(&self, outcome: Outcome) {
        self.entries().outcome = Some(outcome);
    }

    /// Tells the end; nothing can be told afterwards. Once only: what comes later is ignored.
    pub(crate) fn end(&self, problem: Option<Problem>) {
        self.change(|entries| {
            if !entries.ended {
                let outcome = entries.outcome.take();
                if let Some(deployment) = &mut entries.deployment {
                    deployment.outcome.clone_from(&outcome);
                }
                // A change that needed no deployment told nothing and says nothing.
                if outcome.is_some() || problem.is_some() || entries.next > 0 {
                    entries.push(DeploymentEvent::Ended { outcome, problem });
                }
                entries.ended = true;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Entries)) {
        change(&mut self.entries());
        self.told.send_modify(|count| *count += 1);
    }

    /// Waits until it is known how the deployment came about.
    pub(crate) async fn opening(&self) -> Opening {
        let mut told = self.told.subscribe();
        loop {
            if let Some(opening) = self.entries().opening() {
                return opening;
            }
            if told.changed().await.is_err() {
                return Opening::Nothing;
            }
        }
    }

    /// A reader at the start.
    pub(crate) fn reader(self: &Arc<Self>) -> Reader {
        Reader { told: self.told.subscribe(), journal: self.clone(), next: 0 }
    }
}

impl Entries {
    fn push(&mut self, event: DeploymentEvent) {
        if self.ended {
            return;
        }
        match &event {
            DeploymentEvent::Began { deployment } => self.deployment = Some(deployment.clone()),
            DeploymentEvent::Phase { phase } => self.enter(*phase),
            DeploymentEvent::Output { text, .. } => self.output_bytes += text.len() + LINE_COST,
            _ => {}
        }
        self.events.push_back((self.next, Arc::new(event)));
        self.next += 1;
        while self.output_bytes > OUTPUT_KEPT && self.forget_oldest_output() {}
    }

    fn enter(&mut self, phase: Phase) {
        self.is_alone |= phase == Phase::Approval;
        if let Some(deployment) = &mut self.deployment {
            deployment.phase = phase;
        }
    }

    fn forget_oldest_output(&mut self) -> bool {
        let is_output = |(_, event): &(u64, Arc<DeploymentEvent>)| matches!(**event, DeploymentEvent::Output { .. });
        let Some(oldest) = self.events.iter().position(is_output) else { return false };
        if let Some((_, event)) = self.events.remove(oldest)
            && let DeploymentEvent::Output { text, .. } = &*event
        {
            self.output_bytes = self.output_bytes.saturating_sub(text.len() + LINE_COST);
        }
        true
    }

    fn opening(&self) -> Option<Opening> {
        match self.events.front().map(|(_, event)| &**event) {
            Some(DeploymentEvent::Ended { outcome: None, problem: Some(problem) }) => Some(Opening::Refused(problem.clone())),
            Some(_) => Some(Opening::Told),
            None if self.ended => Some(Opening::Nothing),
            None => None,
        }
    }
}

/// Somebody who asked for a deployment and follows it; dropped when that one goes away, or at the end.
pub(crate) struct Asker(Arc<Journal>);

impl Asker {
    /// Of this deployment.
    pub(crate) fn of(journal: &Arc<Journal>) -> Self {
        Self(journal.clone())
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.left();
    }
}

/// Reads a journal from its start to its end.
pub(crate) struct Reader {
    journal: Arc<Journal>,
    told: watch::Receiver<u64>,
    next: u64,
}

impl Reader {
    /// The next event and its number; `None` after the end. Losing the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<(u64, Arc<DeploymentEvent>)> {
        loop {
            self.told.mark_unchanged();
            {
                let entries = self.journal.entries();
                let at = entries.events.partition_point(|(number, _)| *number < self.next);
                if let Some((number, event)) = entries.events.get(at) {
                    let missed = number - self.next;
                    if missed > 0 {
                        self.next = *number;
                        let text = format!("… {missed} earlier lines of output are not kept");
                        return Some((number - 1, Arc::new(DeploymentEvent::Note { text })));
                    }
                    self.next = number + 1;
                    return Some((*number, event.clone()));
                }
                if entries.ended {
                    return None;
                }
            }
            if self.told.changed().await.is_err() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use coracle_api::{ProblemKind, Stream};

    fn journal() -> Arc<Journal> {
        Arc::new(Journal::new("shop".parse().unwrap(), CancellationToken::new()))
    }

    fn note(text: &str) -> DeploymentEvent {
        DeploymentEvent::Note { text: text.to_owned() }
    }

    fn output(text: String) -> DeploymentEvent {
        DeploymentEvent::Output { stream: Stream::Stdout, text }
    }

    async fn read_all(mut reader: Reader) -> Vec<DeploymentEvent> {
        let mut all = Vec::new();
        while let Some((_, event)) = reader.next().await {
            all.push((*event).clone());
        }
        all
    }

    #[tokio::test]
    async fn early_and_late_readers_hear_the_same() {
        let journal = journal();
        let early = tokio::spawn(read_all(journal.reader()));
        journal.tell(note("a"));
        tokio::task::yield_now().await;
        journal.tell(note("b"));
        journal.set_outcome(Outcome::Succeeded);
        journal.end(None);
        journal.tell(note("too late"));
        journal.end(None);
        let expected = [note("a"), note("b"), DeploymentEvent::Ended { outcome: Some(Outcome::Succeeded), problem: None }];
        assert_eq!(early.await.unwrap(), expected);
        assert_eq!(read_all(journal.reader()).await, expected);
    }

    #[tokio::test]
    async fn a_full_journal_forgets_output_only_and_says_so() {
        let journal = journal();
        journal.tell(note("first"));
        for line in 0..2_000 {
            journal.tell(output(format!("{line} {}", "x".repeat(1_000))));
        }
        journal.tell(note("last"));
        journal.end(None);
        assert!(journal.entries().output_bytes <= OUTPUT_KEPT);
        let all = read_all(journal.reader()).await;
        assert_eq!(all.first(), Some(&note("first")));
        assert!(matches!(&all[1], DeploymentEvent::Note { text } if text.contains("earlier lines")), "{:?}", all[1]);
        assert_eq!(all[all.len() - 2], note("last"));
        let kept = all.iter().filter(|event| matches!(event, DeploymentEvent::Output { .. })).count();
        assert!((100..2_000).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn how_it_came_about_is_known_from_the_first_thing_told() {
        let refused = journal();
        refused.end(Some(Problem::new(ProblemKind::Invalid, "no")));
        assert!(matches!(refused.opening().await, Opening::Refused(problem) if problem.detail == "no"));
        let nothing = journal();
        nothing.end(None);
        assert!(matches!(nothing.opening().await, Opening::Nothing));
        let told = journal();
        told.tell(note("x"));
        told.end(Some(Problem::new(ProblemKind::Invalid, "no")));
        assert!(matches!(told.opening().await, Opening::Told));
    }
}
