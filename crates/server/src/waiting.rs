//! Deployments that wait for a person: they give up their turn, and take it again when they were allowed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coracle_api::{Problem, ProblemKind};
use coracle_model::{AppName, Bringer, Decision, Deployment, DeploymentId, text};
use coracle_orchestrator::{Approver, Verdict, Word};
use coracle_store::Store;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::access::Caller;
use crate::deployments::{Deployments, Turn};
use crate::gate::Pushed;
use crate::journal::Journal;
use crate::problems;

/// How long a decision that somebody is just writing down may take.
const WRITING: Duration = Duration::from_secs(10);

/// How long whoever rejects one waits for its end.
const ENDING: Duration = Duration::from_secs(2);

/// How long a push may take to take hold of its branch again: git of an earlier one may be ending.
const HOLDING: Duration = Duration::from_secs(60);

/// Characters of a reason that are kept.
const REASON: usize = 500;

/// Everything that waits for a person, by its number.
#[derive(Default)]
pub(crate) struct WaitingRoom(Mutex<HashMap<DeploymentId, Seat>>);

struct Seat {
    journal: Arc<Journal>,
    words: mpsc::UnboundedSender<Word>,
    /// Somebody has decided, or is about to write that down; or its time is over.
    closed: bool,
}

impl WaitingRoom {
    fn seats(&self) -> std::sync::MutexGuard<'_, HashMap<DeploymentId, Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the only right to decide; `None`: it does not wait, or not any more.
    fn close(&self, id: DeploymentId) -> Option<mpsc::UnboundedSender<Word>> {
        let mut seats = self.seats();
        let seat = seats.get_mut(&id).filter(|seat| !seat.closed)?;
        seat.closed = true;
        Some(seat.words.clone())
    }

    fn reopen(&self, id: DeploymentId) {
        if let Some(seat) = self.seats().get_mut(&id) {
            seat.closed = false;
        }
    }

    /// Decides about a deployment that waits.
    pub(crate) async fn decide(
        &self,
        store: &Store,
        id: DeploymentId,
        caller: &Caller,
        approved: bool,
        reason: Option<String>,
    ) -> Result<Deployment, Problem> {
        let missing = || Problem::new(ProblemKind::NotFound, format!("there is no deployment {id}"));
        let deployment = store.deployment(id).await.map_err(|error| problems::store(&error))?.ok_or_else(missing)?;
        let person = caller.person();
        if let Some(approval) = deployment.approval.as_ref().filter(|it| approved && !it.may_be_given_by(person)) {
            return Err(not_by(&approval.brought_by, &deployment));
        }
        let words = self.close(id).ok_or_else(|| does_not_wait(&deployment))?;
        let by = person.cloned();
        let decision = Decision { approved, by, at: Timestamp::now(), reason: reason.as_deref().and_then(plain) };
        let decided = store.decide_deployment(id, &decision).await;
        let deployment = match decided {
            Ok(deployment) => deployment,
            Err(error) => {
                self.reopen(id);
                return Err(problems::store(&error));
            }
        };
        tracing::info!(deployment = %id, app = %deployment.app, approved, by = decision.who(), "decided");
        let word = if approved { Word::Approved(decision) } else { Word::Rejected(decision) };
        let journal = self.seats().get(&id).map(|seat| seat.journal.clone());
        words.send(word).map_err(|_gone| does_not_wait(&deployment))?;
        if let Some(journal) = journal.filter(|_| !approved) {
            // Whoever deploys next is not to find this one in the way. Somebody else's turn may go on for long.
            tokio::time::timeout(ENDING, journal.ended()).await.unwrap_or_default();
        }
        Ok(deployment)
    }

    /// Tells what waits that a newer one takes its place. What is ending by itself need not hear it.
    fn supersede(&self, waiting: DeploymentId, by: DeploymentId) {
        if let Some(seat) = self.seats().get(&waiting) {
            seat.words.send(Word::Superseded(by)).unwrap_or_else(|_ending| tracing::debug!(%waiting, "ends already"));
        }
    }

    /// Calls off what waits of an app that goes, and waits for that.
    pub(crate) async fn clear(&self, app: &AppName) {
        let all: Vec<_> =
            self.seats().values().filter(|seat| seat.journal.app == *app).map(|seat| seat.journal.clone()).collect();
        for journal in all {
            journal.cancel.cancel();
            journal.ended().await;
        }
    }
}

fn does_not_wait(deployment: &Deployment) -> Problem {
    let Deployment { id, app, .. } = deployment;
    let said = deployment.approval.as_ref().and_then(|approval| approval.decision.as_ref()).map(|decision| {
        let word = if decision.approved { "approved" } else { "rejected" };
        format!(": {} has {word} it", decision.who())
    });
    let detail = format!("deployment {id} of {app} does not wait for approval{}", said.unwrap_or_default());
    Problem::new(ProblemKind::Conflict, detail).hint(format!("`coracle deployments {id}` tells how it stands"))
}

/// Why somebody may not allow what waits.
fn not_by(brought_by: &Bringer, deployment: &Deployment) -> Problem {
    let Deployment { id, app, .. } = deployment;
    let (detail, who) = match brought_by {
        // It may be whoever asks who pushed there.
        Bringer::Forge => (
            format!("{brought_by} has brought {id}, and {app} demands somebody else: nobody knows who pushed there"),
            "the administrator".to_owned(),
        ),
        _ => (
            format!("{brought_by} has brought {id} and may not approve it: {app} demands somebody else"),
            format!("another owner of {app}"),
        ),
    };
    Problem::new(ProblemKind::Forbidden, detail).hint(format!("{who} types: coracle approve {id}"))
}

/// A reason as it is kept: one line without control characters.
fn plain(reason: &str) -> Option<String> {
    let line = text::one_line(reason.trim(), REASON);
    (!line.is_empty()).then_some(line)
}

/// One deployment as whoever may be asked about it knows it.
pub(crate) struct Asking {
    pub(crate) deployments: Deployments,
    pub(crate) journal: Arc<Journal>,
    /// The push that it came by.
    pub(crate) pushed: Option<Arc<Pushed>>,
    /// The right to change the app.
    turn: Mutex<Option<Turn>>,
    /// Where it hears what is said about it, once it waits.
    seat: Mutex<Option<(Seated, mpsc::UnboundedReceiver<Word>)>>,
}

impl Asking {
    pub(crate) fn new(deployments: Deployments, journal: Arc<Journal>, pushed: Option<Arc<Pushed>>, turn: Turn) -> Self {
        Self { deployments, journal, pushed, turn: Mutex::new(Some(turn)), seat: Mutex::default() }
    }

    /// Gives the right to change the app up.
    pub(crate) fn give_up_turn(&self) {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// What is said first, or that the time is over.
    async fn listen(&self, waiting: &Deployment, heard: &mut mpsc::UnboundedReceiver<Word>) -> Word {
        let left = waiting.approval.as_ref().and_then(|it| Duration::try_from(it.until.duration_since(Timestamp::now())).ok());
        tokio::select! {
            biased;
            word = heard.recv() => return word.unwrap_or(Word::CalledOff),
            () = self.journal.cancel.cancelled() => return Word::CalledOff,
            () = tokio::time::sleep(left.unwrap_or_default()) => {}
        }
        if self.deployments.waiting().close(waiting.id).is_some() {
            return Word::Late;
        }
        // Somebody came at the last moment and is being written down.
        match tokio::time::timeout(WRITING, heard.recv()).await {
            Ok(Some(word)) => word,
            _ => Word::Late,
        }
    }

    /// Takes the right to change the app again, unless something comes between.
    async fn come_back(&self, waiting: &Deployment, word: Word, heard: &mut mpsc::UnboundedReceiver<Word>) -> Verdict {
        let without = |word| Verdict { word, has_turn: false };
        let is_approved = matches!(word, Word::Approved(_));
        let turn = tokio::select! {
            biased;
            // Nobody else says anything by now: a newer one has the app.
            newer = heard.recv() => return without(newer.filter(|_| is_approved).unwrap_or(word)),
            () = self.journal.cancel.cancelled() => return without(if is_approved { Word::CalledOff } else { word }),
            turn = self.deployments.lock_turn(&self.journal.app) => turn,
        };
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
        if is_approved && let Err(problem) = self.deployments.still_may(&self.journal, waiting.to).await {
            return Verdict { word: Word::Stale(problem.detail), has_turn: true };
        }
        let Some(pushed) = self.pushed.as_ref().filter(|_| is_approved) else { return Verdict { word, has_turn: true } };
        let held = tokio::time::timeout(HOLDING, pushed.hold_again()).await;
        let word = match held {
            Ok(Ok(())) => word,
            Ok(Err(problem)) => Word::Stale(problem.detail),
            Err(_late) => Word::Stale("another push does not let go of the branch".to_owned()),
        };
        Verdict { word, has_turn: true }
    }
}

/// Takes a deployment out of the room, however its waiting ends.
struct Seated(Deployments, DeploymentId);

impl Drop for Seated {
    fn drop(&mut self) {
        self.0.waiting().seats().remove(&self.1);
    }
}

#[async_trait]
impl Approver for Asking {
    fn brought_by(&self) -> Bringer {
        self.journal.brought_by()
    }

    async fn step_aside(&self, waiting: &Deployment) {
        let (words, heard) = mpsc::unbounded_channel();
        let room = self.deployments.waiting();
        room.seats().insert(waiting.id, Seat { journal: self.journal.clone(), words, closed: false });
        let seated = Seated(self.deployments.clone(), waiting.id);
        *self.seat.lock().unwrap_or_else(PoisonError::into_inner) = Some((seated, heard));
        if let Some(pushed) = &self.pushed {
            pushed.set_aside(waiting.id).await;
        }
        self.give_up_turn();
    }

    async fn decide(&self, waiting: &Deployment) -> Verdict {
        let seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((_seated, mut heard)) = seat else { return Verdict { word: Word::CalledOff, has_turn: false } };
        let word = self.listen(waiting, &mut heard).await;
        match word {
            // A newer one has the app, and waits for the end of this.
            Word::Superseded(_) | Word::CalledOff => Verdict { word, has_turn: false },
            word => self.come_back(waiting, word, &mut heard).await,
        }
    }

    async fn supersede(&self, waiting: DeploymentId, by: DeploymentId) -> bool {
        self.deployments.waiting().supersede(waiting, by);
        let Some(journal) = self.deployments.journal(waiting) else { return false };
        journal.ended().await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_plain_line() {
        assert_eq!(plain("not on\na Friday\x1b[2J "), Some("not on a Friday\u{fffd}[2J".to_owned()));
        assert_eq!((plain(" \n "), plain(&"x".repeat(9_000)).map(|kept| kept.chars().count())), (None, Some(REASON)));
    }
}
