//! What happens between a push and its ref: the commit is deployed, and the ref moves if that succeeds. What is fetched from
//! elsewhere is deployed by the same rules, and has no ref to move.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use coracle_api::{DeployOptions, Problem, ProblemKind, PushRequest};
use coracle_git_door::hook::WAITING;
use coracle_git_door::{Door, Intent, ObjectId, Push, Repository};
use coracle_model::{AppName, Bearer, DeploymentId, Origin, PersonName};
use coracle_orchestrator::StatefulChanges;
use coracle_pipeline::Trigger;
use coracle_store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::intake;
use crate::problems;
use crate::source::{Sent, Sources};

/// A push at the gate.
pub(crate) struct Pushed {
    push: Arc<Push>,
    intent: Intent,
    /// Whether the branch is the one that says what is live.
    is_deployed: bool,
    /// Where it lies while it waits for a person; git has ended then.
    aside: OnceLock<String>,
    /// Whether it has, or waits for, the right to move the branch.
    holds: AtomicBool,
}

impl Drop for Pushed {
    fn drop(&mut self) {
        if *self.holds.get_mut() {
            self.push.abandon(self.is_deployed);
        }
    }
}

impl Pushed {
    /// A push that wants the branch moved that is deployed.
    pub(crate) fn new(push: Arc<Push>, request: &PushRequest) -> Result<Self, Problem> {
        Self::of(push, request, true)
    }

    /// A push that wants another branch moved.
    pub(crate) fn of_another_branch(push: Arc<Push>, request: &PushRequest) -> Result<Self, Problem> {
        Self::of(push, request, false)
    }

    fn of(push: Arc<Push>, request: &PushRequest, is_deployed: bool) -> Result<Self, Problem> {
        let wrong = |what: &str| Problem::new(ProblemKind::BadRequest, what);
        let object = |text: &str| text.parse::<ObjectId>().map_err(|error| wrong(&error.to_string()));
        if !request.reference.starts_with("refs/heads/") {
            return Err(wrong("only branches are deployed"));
        }
        let intent = Intent { reference: request.reference.clone(), old: object(&request.old)?, new: object(&request.new)? };
        Ok(Self { push, intent, is_deployed, aside: OnceLock::new(), holds: AtomicBool::new(false) })
    }

    /// The branch.
    pub(crate) fn branch(&self) -> &str {
        self.intent.reference.strip_prefix("refs/heads/").unwrap_or(&self.intent.reference)
    }

    /// The commit that it is to name; `None`: it is to go.
    pub(crate) fn commit(&self) -> Option<&str> {
        (!self.intent.new.is_zero()).then(|| self.intent.new.as_str())
    }

    /// Waits for its turn. From here on no other push moves the branch before this one has ended.
    pub(crate) async fn take_hold(&self, cancel: &CancellationToken) -> Result<(), Problem> {
        let holding = async {
            self.holds.store(true, Ordering::Relaxed);
            match self.is_deployed {
                true => self.push.take_hold(&self.intent).await,
                false => self.push.hold_branch(&self.intent).await,
            }
        };
        let called_off = || Problem::new(ProblemKind::Cancelled, "called off while waiting; nothing changed for the app");
        cancel.run_until_cancelled(holding).await.ok_or_else(called_off)?.map_err(|error| problems::door(&error))
    }

    /// Its files, when it is its turn.
    pub(crate) async fn check_out(&self, sources: &Sources, cancel: &CancellationToken) -> Result<Sent, Problem> {
        self.take_hold(cancel).await?;
        let tip = Tip {
            repository: self.push.repository().clone(),
            commit: self.intent.new.clone(),
            branch: self.branch().to_owned(),
            trusted: self.push.by().is_none(),
            by: self.push.by().map(|bearer| bearer.name.clone()),
        };
        tip.check_out(sources, cancel).await
    }

    /// It is live.
    pub(crate) fn admit(&self) {
        self.push.admit();
    }

    /// Who pushed, where it is not the administrator.
    pub(crate) fn by(&self) -> Option<&Bearer> {
        self.push.by()
    }

    /// The branch that it wants moved.
    pub(crate) fn reference(&self) -> &str {
        &self.intent.reference
    }

    /// The commit, in short.
    pub(crate) fn short_commit(&self) -> &str {
        let commit = self.intent.new.as_str();
        commit.get(..7).unwrap_or(commit)
    }

    /// Lays the commit aside while it waits for a person: whoever pushes is told so and leaves, and the branch is not moved.
    pub(crate) async fn set_aside(&self, id: DeploymentId) {
        let reference = format!("{WAITING}{id}");
        if let Err(error) = self.push.repository().set(&reference, &self.intent.new).await {
            // The files are here; only its objects might be cleaned away in a week.
            tracing::warn!(deployment = %id, %error, "what waits has no ref");
        }
        self.aside.get_or_init(|| reference);
        self.lets_go().await;
    }

    /// Takes hold of the branch once more. Refused if it has been moved since.
    pub(crate) async fn hold_again(&self) -> Result<(), Problem> {
        self.holds.store(true, Ordering::Relaxed);
        self.push.take_hold(&self.intent).await.map_err(|error| problems::door(&error))
    }

    async fn lets_go(&self) {
        self.push.let_go().await;
        self.holds.store(false, Ordering::Relaxed);
    }

    /// The deployment has ended. If git has as well, be it because this waited for a person, the branch is moved here if it is live.
    pub(crate) async fn settle(&self) {
        self.lets_go().await;
        let Some(reference) = self.aside.get() else { return };
        if let Err(error) = self.push.repository().remove_ref(reference).await {
            tracing::warn!(app = %self.push.app(), %error, "the ref of what waited stays until the next start");
        }
    }
}

/// What a branch is to be deployed at, however it came into the repository.
pub(crate) struct Tip {
    pub repository: Repository,
    pub commit: ObjectId,
    pub branch: String,
    /// Whether the administrator asks for it.
    pub trusted: bool,
    /// Who asks for it, where that is a person.
    pub by: Option<PersonName>,
}

impl Tip {
    /// Its files.
    pub(crate) async fn check_out(&self, sources: &Sources, cancel: &CancellationToken) -> Result<Sent, Problem> {
        let Self { repository, commit, branch, trusted, by } = self;
        if !repository.is_commit(commit).await.map_err(|error| problems::door(&error))? {
            return Err(Problem::new(ProblemKind::Invalid, "what was pushed to the branch is no commit"));
        }
        let submodules =
            repository.submodules(commit, sources.limits.unpacked.entries).await.map_err(|error| problems::door(&error))?;
        if !submodules.is_empty() {
            let detail = format!("the commit has submodules, which are not fetched: {}", submodules.join(", "));
            return Err(Problem::new(ProblemKind::Invalid, detail).hint(
                "make their files part of the repository (`git subtree`), or deploy the whole tree with `coracle deploy`",
            ));
        }
        let archive = repository.archive(commit).map_err(|error| problems::door(&error))?;
        let tree = intake::check_out(&sources.incoming, archive, sources.limits, cancel).await?;
        let options = DeployOptions { commit: Some(commit.to_string()), wait: true, ..DeployOptions::default() };
        let trigger = Trigger::Branch(branch.clone());
        Ok(Sent { tree, options, stateful: StatefulChanges::None, trusted: *trusted, trigger, by: by.clone() })
    }
}

/// Settles what pushes intended that were cut off with their server: the ref says what is live. What is not known now is settled at
/// the next start.
pub(crate) async fn settle(door: &Door, store: &Store) {
    for app in door.apps() {
        let Some(repository) = door.repository(&app) else { continue };
        if let Err(error) = repository.remove_refs(WAITING).await {
            tracing::warn!(%app, %error, "refs of what waited stay");
        }
        let Some(intent) = repository.intent() else { continue };
        let fulfilled = match live_commit(store, &app).await {
            Ok(live) if live.as_deref() == Some(intent.new.as_str()) => repository.fulfil(&intent).await,
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(%app, %error, "it is not known whether what was pushed is live; the next start looks again");
                continue;
            }
        };
        match fulfilled {
            Ok(()) => repository.forget_intent(),
            Err(error) => tracing::error!(%app, %error, "the repository does not say what is live"),
        }
    }
}

/// The commit that the active release was made of, if it is known.
pub(crate) async fn live_commit(store: &Store, app: &AppName) -> Result<Option<String>, StoreError> {
    let active = match store.app(app).await {
        Ok(record) => record.active,
        Err(StoreError::NoSuchApp(_)) => None,
        Err(error) => return Err(error),
    };
    let Some(active) = active else { return Ok(None) };
    match store.release(app, active).await?.origin {
        Origin::Deploy { commit } => Ok(commit),
        _ => Ok(None),
    }
}
