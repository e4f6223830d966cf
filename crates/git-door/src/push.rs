//! A push while it is under way, as the server sees it: whose it is, whether somebody still waits for it, and whether it came
//! through the gate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::{AppName, Bearer};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::door::DoorError;
use crate::repository::{Intent, Repository};

/// What a hook shows to prove that it belongs to a push of this server: 128 random bits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ticket(String);

impl Ticket {
    pub(crate) fn new() -> Result<Self, DoorError> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|error| DoorError::Git(format!("no randomness: {error}")))?;
        Ok(Self(random.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// As it was shown.
    pub fn shown(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

/// One turn per branch of each app, of those that are not deployed.
#[derive(Default)]
pub(crate) struct BranchTurns(Mutex<HashMap<(AppName, String), Turn>>);

/// A turn, which is somebody's while it is locked.
type Turn = Arc<tokio::sync::Mutex<()>>;

impl BranchTurns {
    fn of(&self, app: &AppName, reference: &str) -> Turn {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever has or wants a turn holds its handle.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry((app.clone(), reference.to_owned())).or_default().clone()
    }
}

/// A push that is under way.
pub struct Push {
    app: AppName,
    repository: Repository,
    /// Who pushes, where it is not the administrator.
    by: Option<Bearer>,
    /// Fires when nobody waits for it any more.
    gone: CancellationToken,
    turn: Turn,
    /// Who has to do with it.
    parties: Mutex<Parties>,
    /// One turn per branch beside it.
    branch_turns: Arc<BranchTurns>,
    /// Whether the gate said yes.
    admitted: AtomicBool,
}

/// Git and a deployment: a push is settled when neither goes on any more, since either may end first. Git does if it is killed, or
/// does not get the memory that it needs; then the deployment goes on from its switch.
#[derive(Default)]
struct Parties {
    git_has_ended: bool,
    deploys: bool,
    /// The deployment broke off: what is live is not known here.
    broke_off: bool,
    /// The right to move what is deployed.
    held: Option<OwnedMutexGuard<()>>,
    /// The right to move these.
    held_branches: Vec<OwnedMutexGuard<()>>,
}

impl Push {
    pub(crate) fn new(
        app: AppName,
        repository: Repository,
        by: Option<Bearer>,
        (turn, branch_turns): (Turn, Arc<BranchTurns>),
        gone: CancellationToken,
    ) -> Self {
        Self { app, repository, by, gone, turn, branch_turns, parties: Mutex::default(), admitted: AtomicBool::new(false) }
    }

    /// The app that is pushed to.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// Who pushes; `None`: the administrator.
    pub fn by(&self) -> Option<&Bearer> {
        self.by.as_ref()
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Fires when whoever pushes has gone away, or the server stops.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    fn parties(&self) -> MutexGuard<'_, Parties> {
        self.parties.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a deployment, until [`Self::let_go`]. Keeps other pushes from moving what is deployed until git has carried this one
    /// out, and writes down what is about to happen. Refused if the ref has been moved since this push began, or another branch is
    /// deployed by now.
    pub async fn take_hold(&self, intent: &Intent) -> Result<(), DoorError> {
        let guard = self.turn.clone().lock_owned().await;
        {
            let mut parties = self.parties();
            (parties.held, parties.deploys) = (Some(guard), true);
        }
        let deployed = self.repository.candidates().await?;
        if !deployed.iter().any(|branch| intent.reference == format!("refs/heads/{branch}")) {
            return Err(DoorError::BranchChanged(deployed.into_iter().next().unwrap_or_default()));
        }
        self.unmoved(intent).await?;
        self.repository.intend(intent)
    }

    /// Begins what is done about a branch that is not the deployed one, until [`Self::let_go`], and keeps other pushes from moving it
    /// until git has carried this one out. Refused if the ref has been moved since this push began, or the branch is the deployed
    /// one by now. Whoever holds several takes them in the order of their names.
    pub async fn hold_branch(&self, intent: &Intent) -> Result<(), DoorError> {
        let guard = self.branch_turns.of(&self.app, &intent.reference).lock_owned().await;
        {
            let mut parties = self.parties();
            parties.held_branches.push(guard);
            parties.deploys = true;
        }
        let deployed = self.repository.branch().await?;
        if intent.reference == format!("refs/heads/{deployed}") {
            return Err(DoorError::BranchChanged(deployed));
        }
        self.unmoved(intent).await
    }

    /// Refuses a ref that does not name what it is said to.
    async fn unmoved(&self, intent: &Intent) -> Result<(), DoorError> {
        let now = self.repository.resolve(&intent.reference).await?;
        let expected = (!intent.old.is_zero()).then(|| intent.old.clone());
        if now == expected { Ok(()) } else { Err(DoorError::Moved) }
    }

    /// What was pushed is live.
    pub fn admit(&self) {
        self.admitted.store(true, Ordering::Release);
    }

    /// The deployment has ended, or waits for a person and leaves the branch to others meanwhile.
    pub async fn let_go(&self) {
        self.parties().deploys = false;
        self.settle().await;
    }

    /// The deployment broke off, of the deployed branch or of another: other pushes are not to wait for it. What is live, the next
    /// start looks up.
    pub fn abandon(&self, is_deployed: bool) {
        let mut parties = self.parties();
        parties.deploys = false;
        parties.broke_off |= is_deployed;
        if parties.git_has_ended {
            parties.held_branches.clear();
            parties.held = None;
        }
    }

    /// Git has ended, however it did.
    pub(crate) async fn git_ended(&self) {
        self.parties().git_has_ended = true;
        self.settle().await;
    }

    /// Once nobody works on it: the ref says what is live, whatever became of git.
    async fn settle(&self) {
        let _held = {
            let mut parties = self.parties();
            if parties.deploys || !parties.git_has_ended {
                return;
            }
            parties.held_branches.clear();
            // Only one settles it, and holds on until that is done.
            let Some(held) = parties.held.take() else { return };
            if parties.broke_off {
                return;
            }
            held
        };
        if let (true, Some(intent)) = (self.admitted.load(Ordering::Acquire), self.repository.intent())
            && let Err(error) = self.repository.fulfil(&intent).await
        {
            // It is kept, for the next start to try again.
            tracing::error!(app = %self.app, %error, "the repository does not say what is live");
        } else {
            self.repository.forget_intent();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::object_id::ObjectId;

    struct Case {
        _home: tempfile::TempDir,
        push: Push,
        turn: Turn,
        intent: Intent,
    }

    impl Case {
        /// A push of a commit to `main`, which is not there yet.
        async fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let repository = Repository::create(home.path().join("shop.git")).await.unwrap();
            let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
            let tree = said(repository.git(&["hash-object", "-t", "tree", "-w", "/dev/null"]).ask().await.unwrap());
            let mut making = repository.git(&["commit-tree", "-m", "first", &tree]);
            for name in ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"] {
                making.env(name, "ana@localhost");
            }
            let commit: ObjectId = said(making.ask().await.unwrap()).parse().unwrap();
            let intent = Intent { reference: "refs/heads/main".to_owned(), old: "0".repeat(40).parse().unwrap(), new: commit };
            let (turn, turns) = (Turn::default(), Arc::new(BranchTurns::default()));
            let app = "shop".parse().unwrap();
            let push = Push::new(app, repository, None, (turn.clone(), turns), CancellationToken::new());
            Self { _home: home, push, turn, intent }
        }

        /// What the branch names, and whether another push may move it.
        async fn stands(&self) -> (Option<ObjectId>, bool) {
            let named = self.push.repository.resolve(&self.intent.reference).await.unwrap();
            (named, self.turn.try_lock().is_ok())
        }

        fn live(&self) -> (Option<ObjectId>, bool) {
            (Some(self.intent.new.clone()), true)
        }
    }

    #[tokio::test]
    async fn the_branch_says_what_is_live_whichever_of_git_and_the_deployment_ends_last() {
        for git_is_first in [true, false] {
            let case = Case::new().await;
            case.push.take_hold(&case.intent).await.unwrap();
            case.push.admit();
            if git_is_first {
                case.push.git_ended().await;
            } else {
                case.push.let_go().await;
            }
            assert_eq!(case.stands().await, (None, false), "{git_is_first}");
            if git_is_first {
                case.push.let_go().await;
            } else {
                case.push.git_ended().await;
            }
            assert_eq!(case.stands().await, case.live(), "{git_is_first}");
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_person_leaves_the_branch_to_others_and_moves_it_in_the_end() {
        let case = Case::new().await;
        case.push.take_hold(&case.intent).await.unwrap();
        case.push.let_go().await;
        case.push.git_ended().await;
        assert_eq!(case.stands().await, (None, true));
        case.push.take_hold(&case.intent).await.unwrap();
        assert_eq!(case.stands().await, (None, false));
        case.push.admit();
        case.push.let_go().await;
        assert_eq!(case.stands().await, case.live());
    }

    #[tokio::test]
    async fn a_deployment_that_broke_off_keeps_no_other_push_waiting() {
        for git_is_first in [true, false] {
            let case = Case::new().await;
            case.push.take_hold(&case.intent).await.unwrap();
            if git_is_first {
                case.push.git_ended().await;
                case.push.abandon(true);
            } else {
                case.push.abandon(true);
                case.push.git_ended().await;
            }
            assert_eq!(case.stands().await, (None, true), "{git_is_first}");
            assert!(case.push.repository.intent().is_some(), "the next start looks up what is live");
        }
    }
}
