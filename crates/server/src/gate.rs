//! What happens between a push and its ref: the commit is deployed, and the ref moves if that succeeds.

use std::sync::Arc;

use coracle_api::{DeployOptions, Problem, ProblemKind, PushRequest};
use coracle_git_door::{Door, Intent, ObjectId, Push};
use coracle_model::{AppName, Origin};
use coracle_orchestrator::StatefulChanges;
use coracle_pipeline::Trigger;
use coracle_store::Store;
use tokio_util::sync::CancellationToken;

use crate::intake;
use crate::problems;
use crate::source::{Sent, Sources};

/// A push at the gate.
pub(crate) struct Pushed {
    push: Arc<Push>,
    intent: Intent,
}

impl Pushed {
    /// A push that wants its branch moved.
    pub(crate) fn new(push: Arc<Push>, request: &PushRequest) -> Result<Self, Problem> {
        let wrong = |what: &str| Problem::new(ProblemKind::BadRequest, what);
        let object = |text: &str| text.parse::<ObjectId>().map_err(|error| wrong(&error.to_string()));
        if !request.reference.starts_with("refs/heads/") {
            return Err(wrong("only branches are deployed"));
        }
        let intent = Intent { reference: request.reference.clone(), old: object(&request.old)?, new: object(&request.new)? };
        Ok(Self { push, intent })
    }

    /// Its files, when it is its turn. From here on no other push moves the branch before this one has ended.
    pub(crate) async fn check_out(&self, sources: &Sources, cancel: &CancellationToken) -> Result<Sent, Problem> {
        let (repository, commit) = (self.push.repository(), &self.intent.new);
        let called_off = || Problem::new(ProblemKind::Cancelled, "called off while waiting; nothing changed for the app");
        let held = cancel.run_until_cancelled(self.push.take_hold(&self.intent)).await.ok_or_else(called_off)?;
        held.map_err(|error| problems::door(&error))?;
        if !repository.is_commit(commit).await.map_err(|error| problems::door(&error))? {
            return Err(Problem::new(ProblemKind::Invalid, "what was pushed to the branch is no commit"));
        }
        let submodules = repository.submodules(commit).await.map_err(|error| problems::door(&error))?;
        if !submodules.is_empty() {
            let detail = format!("the commit has submodules, which are not fetched: {}", submodules.join(", "));
            return Err(Problem::new(ProblemKind::Invalid, detail).hint(
                "make their files part of the repository (`git subtree`), or deploy the whole tree with `coracle deploy`",
            ));
        }
        let archive = repository.archive(commit).map_err(|error| problems::door(&error))?;
        let tree = intake::check_out(&sources.incoming, archive, sources.limits, cancel).await?;
        let options = DeployOptions { commit: Some(commit.to_string()), wait: true, ..DeployOptions::default() };
        let branch = self.intent.reference.strip_prefix("refs/heads/").unwrap_or(&self.intent.reference);
        let trigger = Trigger::Branch(branch.to_owned());
        let trusted = self.push.by().is_none();
        Ok(Sent { tree, options, stateful: StatefulChanges::None, trusted, trigger })
    }

    /// It is live.
    pub(crate) fn admit(&self) {
        self.push.admit();
    }
}

/// Settles what pushes intended that were cut off with their server: the ref says what is live.
pub(crate) async fn settle(door: &Door, store: &Store) {
    for app in door.apps() {
        let Some(repository) = door.repository(&app) else { continue };
        let Some(intent) = repository.intent() else { continue };
        let live = live_commit(store, &app).await;
        let fulfilled = match live.as_deref() == Some(intent.new.as_str()) {
            true => repository.fulfil(&intent).await,
            false => Ok(()),
        };
        match fulfilled {
            Ok(()) => repository.forget_intent(),
            Err(error) => tracing::error!(%app, %error, "the repository does not say what is live"),
        }
    }
}

/// The commit that the active release was made of, if it is known.
async fn live_commit(store: &Store, app: &AppName) -> Option<String> {
    let active = store.app(app).await.ok()?.active?;
    match store.release(app, active).await.ok()?.origin {
        Origin::Deploy { commit } => commit,
        _ => None,
    }
}
