//! A push while it is under way, as the server sees it: whose it is, whether somebody still waits for it, and whether it came
//! through the gate.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_model::{AppName, PersonName};
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

/// A push that is under way.
pub struct Push {
    app: AppName,
    repository: Repository,
    /// Who pushes, where it is not the administrator.
    by: Option<PersonName>,
    /// Fires when nobody waits for it any more.
    gone: CancellationToken,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The right to move what is deployed, from the gate until git has ended.
    held: Mutex<Option<OwnedMutexGuard<()>>>,
    /// Whether the gate said yes.
    admitted: AtomicBool,
}

impl Push {
    pub(crate) fn new(
        app: AppName,
        repository: Repository,
        by: Option<PersonName>,
        turn: Arc<tokio::sync::Mutex<()>>,
        gone: CancellationToken,
    ) -> Self {
        Self { app, repository, by, gone, turn, held: Mutex::default(), admitted: AtomicBool::new(false) }
    }

    /// The app that is pushed to.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// Who pushes; `None`: the administrator.
    pub fn by(&self) -> Option<&PersonName> {
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
    /// happen. Refused if the ref has been moved since this push began.
    pub async fn take_hold(&self, intent: &Intent) -> Result<(), DoorError> {
        let guard = self.turn.clone().lock_owned().await;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
        let now = self.repository.resolve(&intent.reference).await?;
        let expected = (!intent.old.is_zero()).then(|| intent.old.clone());
        if now != expected {
            return Err(DoorError::Moved);
        }
        self.repository.intend(intent)
    }

    /// What was pushed is live.
    pub fn admit(&self) {
        self.admitted.store(true, Ordering::Release);
    }

    /// Git has ended: the ref says what is live, whatever became of git.
    pub(crate) async fn settle(&self) {
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
