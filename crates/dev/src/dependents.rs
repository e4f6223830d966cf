//! What parts wait for before they start.

use std::time::Duration;

use coracle_engine::{Engine, Health, Instance, InstanceState};
use coracle_model::{Condition, InstanceId, ProcessName};
use tokio_util::sync::CancellationToken;

use crate::error::DevError;
use crate::stack::Stack;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a part may take to become healthy, or a task to end.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Waits until everything that a part depends on is as far as it has to be. `instances` are those of a part.
pub(crate) async fn wait(
    stack: &Stack,
    engine: &Engine,
    name: &ProcessName,
    instances: impl Fn(&ProcessName) -> Vec<InstanceId>,
    stop: &CancellationToken,
) -> Result<(), DevError> {
    let Some(part) = stack.process(name) else { return Ok(()) };
    for (on, how) in &part.depends_on {
        for id in instances(on) {
            let unmet = |what: String| DevError::Unmet { part: stack.title(name), on: stack.title(on), what };
            match until(engine, &id, how.condition, stop).await? {
                None => {}
                Some(what) if how.required => return Err(unmet(what)),
                Some(what) => tracing::info!(%id, what, "a dependency that is not required is not there"),
            }
        }
    }
    Ok(())
}

/// Waits for one instance; answers what is wrong if it will never be so far.
async fn until(
    engine: &Engine,
    id: &InstanceId,
    condition: Condition,
    stop: &CancellationToken,
) -> Result<Option<String>, DevError> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let Some(instance) = engine.runtime.inspect(id).await? else { return Ok(Some("was removed".to_owned())) };
        match stands(&instance, condition) {
            Stands::There => return Ok(None),
            Stands::Never(what) => return Ok(Some(what)),
            Stands::NotYet => {}
        }
        tokio::select! {
            () = stop.cancelled() => return Err(DevError::Stopped),
            () = tokio::time::sleep_until(deadline) => return Ok(Some(format!("is not ready after {} minutes", DEADLINE.as_secs() / 60))),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Stands {
    There,
    NotYet,
    Never(String),
}

fn stands(instance: &Instance, condition: Condition) -> Stands {
    match (condition, &instance.state) {
        (Condition::Started, _) => Stands::There,
        (Condition::Completed, InstanceState::Exited(exit)) if exit.success() => Stands::There,
        (Condition::Completed, InstanceState::Running { .. }) => Stands::NotYet,
        (Condition::Completed, InstanceState::Exited(exit)) => Stands::Never(format!("failed: {exit}")),
        (Condition::Healthy, InstanceState::Exited(exit)) => Stands::Never(format!("ended: {exit}")),
        (Condition::Healthy, InstanceState::Running { health, .. }) => match health {
            Health::Healthy => Stands::There,
            Health::Starting => Stands::NotYet,
            Health::Unhealthy => Stands::Never("is unhealthy".to_owned()),
            Health::Unchecked => Stands::Never("has no health check".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_engine::Exit;

    use super::*;

    fn instance(state: InstanceState) -> Instance {
        Instance { id: "shop.v1.db.1".parse().unwrap(), state }
    }

    fn running(health: Health) -> Instance {
        instance(InstanceState::Running { address: None, health, since: jiff::Timestamp::UNIX_EPOCH })
    }

    #[test]
    fn conditions_are_met_awaited_or_given_up() {
        let ended = |code| instance(InstanceState::Exited(Exit { code: Some(code), ..Exit::default() }));
        assert_eq!(stands(&running(Health::Starting), Condition::Started), Stands::There);
        assert_eq!(stands(&running(Health::Starting), Condition::Healthy), Stands::NotYet);
        assert_eq!(stands(&running(Health::Healthy), Condition::Healthy), Stands::There);
        assert_eq!(stands(&running(Health::Unchecked), Condition::Healthy), Stands::Never("has no health check".into()));
        assert_eq!(stands(&ended(1), Condition::Healthy), Stands::Never("ended: exit code 1".into()));
        assert_eq!(stands(&running(Health::Unchecked), Condition::Completed), Stands::NotYet);
        assert_eq!(stands(&ended(0), Condition::Completed), Stands::There);
        assert_eq!(stands(&ended(3), Condition::Completed), Stands::Never("failed: exit code 3".into()));
    }
}
