//! Whether Docker answers, and what it can do.

use coracle_api::Check;
use coracle_engine::EngineError;
use coracle_engine_docker::{DockerEngine, Facts as DockerFacts};

use super::{Facts, ok, warn};
use crate::engines;

const NAME: &str = "docker";

/// Whether Docker answers. Going without it is possible, so this never fails.
pub(super) async fn reachable(facts: &Facts<'_>) -> Check {
    match facts.docker {
        Some(docker) => match docker.probe().await {
            Ok(found) => described(&found),
            Err(error) => warn(
                NAME,
                format!("it answered at the start, but not now: {error}"),
                "start Docker again: `systemctl start docker`",
            ),
        },
        None if facts.docker_declined => ok(NAME, "not used: the server was started with `--engine process`"),
        None => match ask(facts).await {
            Ok(docker) => warn(
                NAME,
                format!("{} answers, but this server does not use it", docker.facts().version),
                "restart the server to use it; start it with `--engine process` to go without on purpose",
            ),
            Err(error) => warn(
                NAME,
                format!("{error}"),
                "install it (Debian: `apt install docker.io`) and start it, or go on with the process engine",
            ),
        },
    }
}

async fn ask(facts: &Facts<'_>) -> Result<DockerEngine, EngineError> {
    let scratch = tempfile::tempdir().map_err(|error| EngineError::io("make a temporary directory", &error))?;
    engines::connect(engines::docker_options(facts.owner.clone(), facts.docker_socket.clone(), scratch.path().to_owned())).await
}

fn described(found: &DockerFacts) -> Check {
    let builder = if found.buildkit { "BuildKit" } else { "the classic builder" };
    let detail = format!(
        "{:?} {} (API {}) at {}, builds with {builder}, cgroup v{}, {}",
        found.flavour, found.version, found.api_version, found.socket, found.cgroup_version, found.storage_driver
    );
    let limits = found.limits;
    if limits.memory && limits.cpus && limits.pids {
        ok(NAME, detail)
    } else {
        warn(
            NAME,
            format!("{detail}; it cannot set every limit: {limits:?}"),
            "delegate the memory, cpu and pids controllers to Docker",
        )
    }
}
