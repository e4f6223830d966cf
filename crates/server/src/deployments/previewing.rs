//! Deployments into previews, and what is left of those that were never live.

use coracle_api::{DeploymentEvent, Problem, ProblemKind};
use coracle_model::AppName;
use coracle_orchestrator::Progress;
use coracle_store::StoreError;

use super::{Deployments, Files, Inner, Manner};
use crate::forges::Fetched;
use crate::journal::Journal;
use crate::previews::expected::Left;
use crate::previews::{Admitted, shown};
use crate::source::Sent;
use crate::{farewell, problems};

impl Deployments {
    /// A preview is deployed by its branch alone.
    pub(crate) async fn refuse_previews(&self, app: &AppName) -> Result<(), Problem> {
        let preview = self.inner.sources.store.preview(app).await.map_err(|error| problems::store(&error))?;
        let Some(preview) = preview else { return Ok(()) };
        let (parent, branch) = (&preview.parent, shown(&preview.branch));
        Err(Problem::new(ProblemKind::Conflict, format!("{app} is the preview of branch {branch} of {parent}"))
            .hint(format!("push to {branch} of {parent}; or deploy an app of another name")))
    }

    /// Deploys a commit into its preview. One that has never been live is not left behind by a failure.
    pub(super) async fn preview(
        &self,
        journal: &Journal,
        preview: Admitted,
        files: Files,
        progress: &Progress,
    ) -> Result<(), Problem> {
        let sources = &self.inner.sources;
        let app = &journal.app;
        for text in preview.notes {
            journal.tell(DeploymentEvent::Note { text });
        }
        let deploying = async {
            let sent = match &files {
                Files::Fetched(Fetched { tip, connected }) => {
                    self.require_connected(connected).await?;
                    tip.check_out(sources, &journal.cancel).await?
                }
                Files::Pushed(pushed) => pushed.check_out(sources, &journal.cancel).await?,
            };
            self.deploy_as(journal, Sent { trusted: false, ..sent }, progress, Manner::Preview).await
        };
        let deployed = deploying.await;
        if let Files::Pushed(pushed) = &files {
            pushed.settle().await;
        }
        if deployed.is_ok() {
            let told = |error: StoreError| problems::store(&error);
            sources.store.preview_deployed(app, &preview.commit).await.map_err(told)?;
        }
        deployed
    }

    /// Ends a preview that has never been live, when nobody works on it any more, and nobody is about to: its branch may have come
    /// again meanwhile.
    pub(super) async fn end_unborn(&self, left: Left) {
        let Inner { orchestrator, sources, door, .. } = &*self.inner;
        let app = &left.app;
        // Whoever has the turn came later, and looks in turn.
        let Ok(_turn) = self.try_turn(app) else { return };
        let is_unborn = matches!(sources.store.app(app).await, Ok(record) if record.active.is_none());
        let is_latest = matches!(sources.store.preview(app).await, Ok(Some(now)) if left.is_latest(&now));
        if is_unborn
            && is_latest
            && let Err(error) = farewell::destroy(orchestrator, &sources.store, door, app).await
        {
            tracing::warn!(%app, %error, "a preview that never was live is left behind until its time is over");
        }
    }

    /// What waited for its turn may find that its preview has ended: without that, it would be an app like any other.
    pub(super) async fn require_preview(&self, app: &AppName) -> Result<(), Problem> {
        match self.inner.sources.store.preview(app).await.map_err(|error| problems::store(&error))? {
            Some(_) => Ok(()),
            None => Err(Problem::new(ProblemKind::Conflict, format!("the preview {app} has ended meanwhile"))
                .hint("push the branch again to have another")),
        }
    }
}
