//! What works on this machine and what does not, as data: every check says what it found and what to do about it.
//!
//! Looks and asks; changes nothing, and asks nobody outside this machine.

mod docker;
mod kernel;
mod places;
mod tools;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use coracle_api::{Check, CheckStatus, Doctor};
use coracle_engine::Isolation;
use coracle_engine_docker::DockerEngine;
use coracle_model::{EngineKind, OwnerId};

use crate::context::Context;

/// What is known before anything is looked at.
pub(crate) struct Facts<'a> {
    pub state_dir: &'a Path,
    pub docker: Option<&'a DockerEngine>,
    /// Whether the server was told to go without Docker.
    pub docker_declined: bool,
    /// Where Docker was looked for, if it was told.
    pub docker_socket: Option<String>,
    /// For whom; only to ask Docker whether it is there.
    pub owner: OwnerId,
    pub http: &'a [SocketAddr],
    /// The version of our proxy, if it answers.
    pub proxy: Option<String>,
    pub isolation: Vec<(EngineKind, Isolation)>,
}

/// Examines the machine on behalf of a running server.
pub(crate) async fn examine(context: &Context) -> Doctor {
    let proxy = match &context.proxy {
        Some(proxy) => proxy.version().await,
        None => None,
    };
    let facts = Facts {
        state_dir: &context.state_dir,
        docker: context.docker.as_ref(),
        docker_declined: context.docker_declined,
        docker_socket: context.docker_socket.clone(),
        owner: context.store.owner().clone(),
        http: &context.http,
        proxy,
        isolation: context.engines.iter().map(|engine| (engine.kind, engine.runtime.isolation())).collect(),
    };
    examine_by(&facts).await
}

/// Examines the machine before there is a server, or when it does not start.
pub async fn examine_machine(state_dir: PathBuf, http: &[SocketAddr], docker_socket: Option<String>) -> Doctor {
    // Any id will do: nothing is created under it.
    let Ok(owner) = "00000000".parse::<OwnerId>() else { return Doctor { checks: Vec::new() } };
    let facts = Facts {
        state_dir: &state_dir,
        docker: None,
        docker_declined: false,
        docker_socket,
        owner,
        http,
        proxy: None,
        isolation: Vec::new(),
    };
    examine_by(&facts).await
}

async fn examine_by(facts: &Facts<'_>) -> Doctor {
    let mut checks = vec![docker::reachable(facts).await];
    checks.extend(kernel::checks());
    for (engine, isolation) in &facts.isolation {
        checks.push(isolated(*engine, isolation));
    }
    checks.extend(tools::checks().await);
    for address in facts.http {
        checks.push(places::port(*address, facts.proxy.as_deref()).await);
    }
    checks.push(places::state_dir(facts.state_dir));
    checks.push(places::disk_space(facts.state_dir));
    Doctor { checks }
}

/// What keeps the instances of an engine apart.
fn isolated(engine: EngineKind, isolation: &Isolation) -> Check {
    let name = format!("{engine} isolation");
    if isolation.missing.is_empty() {
        return ok(&name, isolation.enforced.join("; "));
    }
    let detail = format!("enforced: {}; not enforced: {}", listed(&isolation.enforced), listed(&isolation.missing));
    let hint = if rustix::process::geteuid().is_root() {
        "fine for apps that you trust this far; keep others on another machine"
    } else {
        "fine for apps that you trust this far; run the server as root for more"
    };
    warn(&name, detail, hint)
}

fn listed(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join("; ") }
}

fn ok(name: &str, detail: impl Into<String>) -> Check {
    Check { name: name.to_owned(), status: CheckStatus::Ok, detail: detail.into(), hint: None }
}

fn warn(name: &str, detail: impl Into<String>, hint: &str) -> Check {
    Check { name: name.to_owned(), status: CheckStatus::Warn, detail: detail.into(), hint: Some(hint.to_owned()) }
}

fn fail(name: &str, detail: impl Into<String>, hint: &str) -> Check {
    Check { name: name.to_owned(), status: CheckStatus::Fail, detail: detail.into(), hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_machine_can_be_examined_without_a_server() {
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = Some(format!("unix://{}/no.sock", dir.path().display()));
        let doctor = examine_machine(dir.path().join("state"), &[taken.local_addr().unwrap()], nobody).await;
        let find = |name: &str| doctor.checks.iter().find(|check| check.name.starts_with(name)).unwrap();
        assert_eq!(find("docker").status, CheckStatus::Warn);
        assert_eq!(find("port").status, CheckStatus::Fail, "{:?}", find("port"));
        assert_eq!(find("disk space").name, "disk space");
        for check in &doctor.checks {
            assert_eq!(check.hint.is_none(), check.status == CheckStatus::Ok, "{check:?}");
            assert!(!check.detail.is_empty(), "{check:?}");
        }
        assert_eq!(doctor.worst(), CheckStatus::Fail);
    }
}
