//! What is left of apps that were destroyed while an engine did not answer. It is written down before anything is removed, and
//! tried again until nothing is left; until then no app of that name begins anew.

use std::time::Duration;

use coracle_engine::EngineError;
use coracle_model::{AppName, Span};
use futures::future::join_all;

use crate::core::Core;
use crate::error::OrchestratorError;

/// How long an engine may take to remove everything of an app.
const REMOVAL_LIMIT: Span = Span::seconds(120);

impl Core {
    /// Removes what engines still have of destroyed apps. What fails is tried again the next time.
    pub(crate) async fn remove_remains(&self) -> Result<(), OrchestratorError> {
        for app in self.store.remains().await? {
            let lock = self.app_lock(&app);
            // Somebody else may be doing just that.
            let Ok(_not_while_deploying) = lock.try_lock() else { continue };
            match self.remove_remains_of(&app).await {
                Ok(()) => {
                    tracing::info!(%app, "nothing is left of it");
                    self.forget_app_lock(&app);
                }
                Err(error) => tracing::debug!(%app, %error, "what is left of it cannot be removed yet"),
            }
        }
        Ok(())
    }

    /// Sees to it that nothing is left of an earlier app of this name, before another one begins.
    pub(crate) async fn without_remains(&self, app: &AppName) -> Result<(), OrchestratorError> {
        if !self.store.remains().await?.contains(app) {
            return Ok(());
        }
        let lock = self.app_lock(app);
        let _not_while_reconciling = lock.lock().await;
        self.remove_remains_of(app).await
    }

    /// Removes what engines have of a destroyed app. The app's lock is held.
    pub(crate) async fn remove_remains_of(&self, app: &AppName) -> Result<(), OrchestratorError> {
        if !self.store.remains().await?.contains(app) {
            return Ok(());
        }
        let removals = self.engines.values().map(|engine| async {
            let removing = async {
                let removed = engine.runtime.remove_app(app).await;
                // One that does not answer keeps the others from nothing.
                removed.and(engine.builder.prune(app, &[]).await)
            };
            let removed = tokio::time::timeout(REMOVAL_LIMIT.duration(), removing).await;
            let late = |_| EngineError::TimedOut { action: format!("remove {app}"), limit: REMOVAL_LIMIT };
            removed.map_err(late).flatten().map_err(|error| EngineError::Unavailable {
                engine: engine.kind,
                cause: format!("{error}. {app} is forgotten, and what is left of it is removed as soon as the engine answers"),
            })
        });
        let removed = join_all(removals).await.into_iter().collect::<Result<(), _>>();
        self.mounts.remove_app(app);
        removed?;
        Ok(self.store.forget_remains(app).await?)
    }
}

/// How often what is left is tried to be removed.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
