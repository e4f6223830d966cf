//! A push while it is under way, as the server sees it: whose it is, whether somebody still waits for it, and whether it came
//! through the gate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// The right to move what is deployed, from the gate until git has ended.
    held: Mutex<Option<OwnedMutexGuard<()>>>,
    /// One turn per branch beside it.
    branch_turns: Arc<BranchTurns>,
    /// The right to move these, until git has ended.
    held_branches: Mutex<Vec<OwnedMutexGuard<()>>>,
    /// Whether the gate said yes.
    admitted: AtomicBool,
}

impl Push {
    pub(crate) fn new(
        app: AppName,
        repository: Repository,
        by: Option<Bearer>,
        (turn, branch_turns): (Turn, Arc<BranchTurns>),
        gone: CancellationToken,
    ) -> Self {
        let (held, held_branches, admitted) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Self { app, repository, by, gone, turn, held, branch_turns, held_branches, admitted }
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

    /// Keeps other pushes from moving what is deployed until git has carried this one out, and writes down what is about to
    /// happen. Refused if the ref has been moved since this push began, or another branch is deployed by now.
    pub async fn take_hold(&self, intent: &Intent) -> Result<(), DoorError> {
        let guard = self.turn.clone().lock_owned().await;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
        let deployed = self.repository.candidates().await?;
        if !deployed.iter().any(|branch| intent.reference == format!("refs/heads/{branch}")) {
            return Err(DoorError::BranchChanged(deployed.into_iter().next().unwrap_or_default()));
        }
        self.unmoved(intent).await?;
        self.repository.intend(intent)
    }

    /// Keeps other pushes from moving a branch that is not the deployed one until git has carried this one out. Refused if the
    /// ref has been moved since this push began, or the branch is the deployed one by now. Whoever holds several takes them in the
    /// order of their names.
    pub async fn hold_branch(&self, intent: &Intent) -> Result<(), DoorError> {
        let guard = self.branch_turns.of(&self.app, &intent.reference).lock_owned().await;
        self.held_branches.lock().unwrap_or_else(PoisonError::into_inner).push(guard);
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

    /// Git has ended: the ref says what is live, whatever became of git.
    pub async fn settle(&self) {
        self.held_branches.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let holds = self.held.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !holds {
            return;
        }
        if let (true, Some(intent)) = (self.admitted.load(Ordering::Acquire), self.repository.intent())
            && let Err(error) = self.repository.fulfil(&intent).await
        {
            // It is kept, for the next start to try again.
            tracing::error!(app = %self.app, %error, "the repository does not say what is live");
        } else {
            self.repository.forget_intent();
        }
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
