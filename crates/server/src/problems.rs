//! From errors of the inside to problems on the wire: which status, which words, which next step.

use coracle_api::{Problem, ProblemKind};
use coracle_engine::EngineError;
use coracle_git_door::DoorError;
use coracle_model::NameError;
use coracle_model::manifest::ManifestErrors;
use coracle_orchestrator::OrchestratorError;
use coracle_proxy::control::ControlError;
use coracle_store::StoreError;

/// What every name that breaks its rule is answered with.
pub(crate) fn name(error: &NameError) -> Problem {
    Problem::new(ProblemKind::BadRequest, error.to_string())
}

pub(crate) fn manifest(errors: &ManifestErrors) -> Problem {
    let count = errors.all.len();
    let detail = match errors.all.as_slice() {
        [only] => format!("coracle.toml, line {}: {}", only.place.map_or(0, |place| place.line), only.message),
        _ => format!("coracle.toml has {count} mistakes"),
    };
    let hint = errors.all.iter().find_map(|error| error.hint.clone()).unwrap_or_else(|| "correct coracle.toml".to_owned());
    let evidence = errors.to_string().lines().map(str::to_owned).collect();
    Problem::new(ProblemKind::Invalid, detail).hint(hint).evidence(evidence)
}

pub(crate) fn store(error: &StoreError) -> Problem {
    let (kind, hint) = match error {
        StoreError::NoSuchApp(_) => {
            (ProblemKind::NotFound, "`coracle apps` lists the apps; `coracle deploy` makes a new one".to_owned())
        }
        StoreError::NoSuchRelease(app, _) => {
            (ProblemKind::NotFound, format!("`coracle releases -a {app}` lists the releases that are kept"))
        }
        StoreError::NoSuchDeployment(_) => (ProblemKind::NotFound, "`coracle deployments` lists them".to_owned()),
        StoreError::Busy(deployment) => (ProblemKind::Busy, busy_hint(&deployment.app)),
        StoreError::NoSuchPerson(_) => (ProblemKind::NotFound, "`coracle people` lists everybody".to_owned()),
        StoreError::NoSuchCredential(..) => {
            (ProblemKind::NotFound, "`coracle people` lists keys and tokens with their numbers".to_owned())
        }
        StoreError::PersonExists(name) => (ProblemKind::Conflict, format!("`coracle people role {name} …` changes roles")),
        StoreError::KeyTaken { person, .. } => {
            (ProblemKind::Conflict, format!("make a key for each person, or remove it first: coracle people key remove {person}"))
        }
        StoreError::Active(app, _) => (ProblemKind::Conflict, format!("`coracle releases -a {app}` shows which one is active")),
        StoreError::Ended(_) => (ProblemKind::Conflict, String::new()),
        StoreError::NotWaiting(id) => (ProblemKind::Conflict, format!("`coracle deployments {id}` tells how it stands")),
        StoreError::DiskFull { .. } => {
            (ProblemKind::DiskFull, "free some space on the server; `coracle doctor` shows how much there is".to_owned())
        }
        StoreError::Locked { .. }
        | StoreError::OutOfOrder { .. }
        | StoreError::Newer { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Key { .. }
        | StoreError::Failed { .. } => {
            (ProblemKind::Internal, "the server's log has the details; `coracle doctor` checks the machine".to_owned())
        }
    };
    Problem::new(kind, error.to_string()).hint(hint)
}

/// What to do about another deployment that is running.
pub(crate) fn busy_hint(app: &coracle_model::AppName) -> String {
    format!("wait for it with `--wait`, or look at it with `coracle status -a {app}`")
}

pub(crate) fn door(error: &DoorError) -> Problem {
    let (kind, hint) = match error {
        DoorError::NoRepository(_) => (ProblemKind::NotFound, "push to it first: `git push`"),
        DoorError::Moved => (ProblemKind::Conflict, "fetch first, as from any remote: `git pull`, then push again"),
        DoorError::BranchChanged(_) => {
            (ProblemKind::Conflict, "push to that branch, or have an owner choose this one again: `coracle git branch`")
        }
        DoorError::TooManyRefs(_) => (ProblemKind::TooLarge, "delete branches and tags that nobody needs: `git push --delete`"),
        DoorError::TooManyFiles(_) => (ProblemKind::TooLarge, "take out of the repository what the app does not need"),
        DoorError::Program { .. } => (ProblemKind::Unavailable, "install OpenSSH's client on the server"),
        DoorError::Start(_) => (ProblemKind::Unavailable, "install git on the server; `coracle doctor` tells what is missing"),
        DoorError::Git(_) | DoorError::File { .. } => (ProblemKind::Internal, "the server's log has the details"),
    };
    Problem::new(kind, error.to_string()).hint(hint)
}

pub(crate) fn engine(error: &EngineError) -> Problem {
    let (kind, hint) = match error {
        EngineError::Unavailable { .. } => (ProblemKind::Unavailable, "`coracle doctor` tells what is missing"),
        EngineError::NoSuchInstance(_) => (ProblemKind::NotFound, "`coracle ps` lists the instances"),
        EngineError::DiskFull { .. } => {
            (ProblemKind::DiskFull, "free some space on the server; `coracle doctor` shows how much there is")
        }
        EngineError::CannotStart { .. } => (ProblemKind::Invalid, "check the command and what it needs"),
        EngineError::NoSuchArtifact(_) => (ProblemKind::Conflict, "deploy again: what this release was built from is gone"),
        EngineError::TimedOut { .. } => (ProblemKind::Unavailable, "try again; `coracle doctor` tells what is slow or missing"),
        EngineError::Cancelled => (ProblemKind::Cancelled, ""),
        EngineError::Failed { .. } => (ProblemKind::Internal, "the server's log has the details"),
    };
    Problem::new(kind, error.to_string()).hint(hint)
}

/// What the proxy refuses is not there; otherwise it does not answer.
pub(crate) fn proxy(error: &ControlError) -> Problem {
    match error {
        ControlError::Refused { status: 404, message } => Problem::new(ProblemKind::NotFound, message.clone()),
        _ => Problem::new(ProblemKind::Unavailable, error.to_string())
            .hint("the server starts the proxy again by itself; its log is proxy.log in the state directory"),
    }
}

pub(crate) fn orchestrator(error: OrchestratorError) -> Problem {
    match error {
        OrchestratorError::Store(error) => store(&error),
        OrchestratorError::Engine(error) => engine(&error),
        OrchestratorError::Traffic(error) => Problem::new(ProblemKind::Unavailable, error.to_string())
            .hint("the server starts the proxy again by itself; its log is proxy.log in the state directory"),
        OrchestratorError::Refused { message, hint } => Problem::new(ProblemKind::Invalid, message).hint(hint),
        OrchestratorError::Deployment { phase, cause, evidence, hint } => {
            Problem::new(ProblemKind::DeploymentFailed, format!("{phase} failed: {cause}")).hint(hint).evidence(evidence)
        }
        OrchestratorError::Cancelled(phase) => {
            Problem::new(ProblemKind::Cancelled, format!("called off during {phase}; nothing changed for the app"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such_wherever_it_is_met() {
        let store = StoreError::DiskFull { path: "/x".into() };
        let engine = EngineError::DiskFull { place: "/y".into() };
        for error in [OrchestratorError::from(store), OrchestratorError::from(engine)] {
            let problem = orchestrator(error);
            assert_eq!((problem.status, problem.kind), (507, ProblemKind::DiskFull));
            assert!(problem.hint.unwrap().contains("free some space"));
        }
    }

    #[test]
    fn what_does_not_exist_is_404_and_what_is_unavailable_503() {
        let missing = orchestrator(StoreError::NoSuchApp("shop".parse().unwrap()).into());
        assert_eq!(missing.status, 404);
        let gone = EngineError::Unavailable { engine: coracle_model::EngineKind::Docker, cause: "stopped".into() };
        assert_eq!(orchestrator(gone.into()).status, 503);
    }
}
