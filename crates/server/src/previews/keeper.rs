//! Who ends previews when their time is over: one task that sleeps until the next of them has to go.

use std::time::Duration;

use coracle_api::Problem;
use coracle_model::AppName;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Previews;
use crate::{farewell, problems};

/// How long a deployment into a preview that is to end may take to let go of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// When something that could not be ended is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// The longest sleep: clocks are set now and then.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

impl Previews {
    /// Ends what has to end, until `halt` fires. Times are kept in the store, so a restart changes nothing about them.
    pub(crate) async fn keep(self, halt: CancellationToken) {
        loop {
            let Some(sleep) = halt.run_until_cancelled(self.end_due()).await else { return };
            tokio::select! {
                () = halt.cancelled() => return,
                () = self.inner.wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Ends what is due; how long there is nothing more to do.
    async fn end_due(&self) -> Duration {
        let store = &self.inner.store;
        let due = match store.due_previews(Timestamp::now()).await {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(%error, "which previews are to end is not known");
                return AGAIN;
            }
        };
        let ending = due.iter().map(async |app| {
            let ended = self.tear_down(app).await;
            if let Err(problem) = &ended {
                tracing::warn!(%app, detail = problem.detail, "a preview is not ended yet");
            }
            ended.is_ok()
        });
        let all_ended = futures::future::join_all(ending).await.into_iter().all(|ended| ended);
        match store.next_preview_expiry().await {
            _ if !all_ended => AGAIN,
            Ok(None) => LONGEST_SLEEP,
            Ok(Some(next)) => {
                let left = Timestamp::now().duration_until(next);
                // A moment later than told, and not a moment earlier.
                Duration::try_from(left).unwrap_or_default().saturating_add(Duration::from_millis(1)).min(LONGEST_SLEEP)
            }
            Err(error) => {
                tracing::warn!(%error, "when the next preview is to end is not known");
                AGAIN
            }
        }
    }

    /// Ends a preview, now or as soon as it can be: what is not ended here, the keeper ends.
    pub(crate) async fn end(&self, app: &AppName) -> Result<(), Problem> {
        self.inner.store.end_preview(app).await.map_err(|error| problems::store(&error))?;
        let previews = self.clone();
        let app = app.clone();
        // Half an app helps nobody: it goes on even if whoever asked for it goes away.
        let ending = self.inner.deployments.own(async move {
            let ended = previews.tear_down(&app).await;
            if ended.is_err() {
                previews.inner.wake.notify_one();
            }
            ended
        });
        ending.await
    }

    /// Ends a preview if it is still due when it is nobody else's turn.
    async fn tear_down(&self, app: &AppName) -> Result<(), Problem> {
        let super::Inner { store, orchestrator, deployments, door, .. } = &*self.inner;
        let told = |error| problems::store(&error);
        if !store.is_preview_due(app, Timestamp::now()).await.map_err(told)? {
            return Ok(());
        }
        deployments.call_off(app);
        let _turn = deployments.turn_within(app, PATIENCE).await?;
        // It was pushed to meanwhile, or somebody else has ended it.
        if !store.is_preview_due(app, Timestamp::now()).await.map_err(told)? {
            return Ok(());
        }
        tracing::info!(%app, "a preview ends");
        farewell::destroy(orchestrator, store, door, app).await.map_err(problems::orchestrator)
    }
}
