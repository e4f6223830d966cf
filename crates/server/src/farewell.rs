//! The end of an app, and of its repository with it: what was pushed to it is nobody's who makes an app of that name later.

use coracle_git_door::Door;
use coracle_model::AppName;
use coracle_orchestrator::{HostOrchestrator, OrchestratorError};
use coracle_store::{Store, StoreError};

/// Destroys an app and its repository. That it was begun is written down first, so that a server which is killed in between goes
/// on with it at its next start ([`settle`]).
pub(crate) async fn destroy(
    orchestrator: &HostOrchestrator,
    store: &Store,
    door: &Door,
    app: &AppName,
) -> Result<(), OrchestratorError> {
    // What was pushed before there is an app waits for it.
    store.app(app).await?;
    if let Some(repository) = door.repository(app)
        && let Err(error) = repository.part()
    {
        tracing::warn!(%app, %error, "a server that is killed now would keep the repository");
    }
    let done = orchestrator.destroy(app).await;
    // It may be off the record although something of it could not be removed.
    part(store, door, app).await;
    done
}

/// Ends what destroying apps left of their repositories when the server was killed.
pub(crate) async fn settle(store: &Store, door: &Door) {
    for app in door.apps() {
        if door.repository(&app).is_some_and(|repository| repository.is_parting()) {
            part(store, door, &app).await;
        }
    }
}

/// The repository goes if the app is gone, and stays if it is not.
async fn part(store: &Store, door: &Door, app: &AppName) {
    let parted = match store.app(app).await {
        Err(StoreError::NoSuchApp(_)) => door.remove(app).await,
        Ok(_) => door.repository(app).map_or(Ok(()), |repository| repository.stay()),
        Err(error) => {
            tracing::error!(%app, %error, "it is not known whether the app is gone; the next start looks again at its repository");
            return;
        }
    };
    if let Err(error) = parted {
        tracing::warn!(%app, %error, "the repository of an app is not as it should be; the next start looks again");
    }
}
