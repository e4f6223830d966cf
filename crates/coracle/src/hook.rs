//! Git's hooks of the server's repositories, when git runs this program as one of them: the branch that is deployed is deployed,
//! and told of as it happens; about the others it is told what becomes of them.
//!
//! What it prints goes to whoever pushes, through git. Whoever pushes chose the names of refs.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use coracle_api::{Client, Endpoint, PushRequest};
use coracle_git_door::hook::{self, Command, Fate, Hook, variables};
use coracle_model::AppName;

use crate::arguments::Global;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{self, Turn};
use crate::output::text::{cut, harmless};
use crate::output::{Manner, Output};

/// What stands before a phase, as it does on platforms that were pushed to before this one.
const MARK: &str = "----->";

/// Characters of a reason in git's own report, which is one line.
const REASON: usize = 160;

/// The push that this is a hook of.
struct Surroundings {
    socket: PathBuf,
    app: AppName,
    ticket: String,
    /// Branches that may be deployed, the preferred one first.
    branches: Vec<String>,
}

impl Surroundings {
    fn found() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        Some(Self {
            socket: std::env::var_os(variables::SOCKET)?.into(),
            app: variable(variables::APP)?.parse().ok()?,
            ticket: variable(variables::TICKET)?,
            branches: variable(variables::BRANCHES)?.split(' ').map(str::to_owned).collect(),
        })
    }
}

/// Does what the hook is for.
pub(crate) fn main(hook: Hook) -> ExitCode {
    // Standard output belongs to the conversation with git.
    let manner = Manner { mark: MARK, ..Manner::plain() };
    let output = Arc::new(Output::to(manner, Box::new(io::stderr()), Box::new(io::stderr())));
    let done = match (hook, Surroundings::found()) {
        (_, None) => Err(Failure::failed("this hook was not run by Coracle's server")),
        (Hook::ProcReceive, Some(push)) => gate(&push, &output),
        (Hook::PostReceive, Some(push)) => tell_kept(&push, &output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::FAILURE
        }
    }
}

fn broken(error: io::Error) -> Failure {
    Failure::failed(format!("the conversation with git broke off: {error}"))
}

/// Decides about the refs that git asks about.
fn gate(push: &Surroundings, output: &Arc<Output>) -> Result<(), Failure> {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    let commands = hook::read_commands(&mut from, &mut to).map_err(broken)?;
    let deployed = deployed(push, &commands).map(|command| command.reference.clone());
    let mut fates = Vec::new();
    for command in commands {
        let fate = match deployed.as_deref() == Some(&command.reference) {
            true => fate_of(push, &command, output),
            // A usual branch beside the one that is deployed.
            false => Fate::Move,
        };
        fates.push((command, fate));
    }
    hook::report(&mut to, &fates).and_then(|()| to.flush()).map_err(broken)
}

/// The command that moves the branch to deploy.
fn deployed<'a>(push: &Surroundings, commands: &'a [Command]) -> Option<&'a Command> {
    push.branches.iter().find_map(|branch| commands.iter().find(|command| command.branch() == Some(branch)))
}

fn fate_of(push: &Surroundings, command: &Command, output: &Arc<Output>) -> Fate {
    if command.new.is_zero() {
        let app = &push.app;
        return Fate::Refused(format!("it is what is deployed; `coracle destroy -a {app}` ends the app"));
    }
    match deploy(push, command, output) {
        Ok(()) => Fate::Move,
        Err(failure) => {
            output.failure(&failure);
            Fate::Refused(in_a_line(&failure.told()))
        }
    }
}

/// A reason as git's report takes it.
fn in_a_line(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    cut(&harmless(line), REASON).into_owned()
}

/// Has the server deploy the commit, and follows that to its end.
fn deploy(push: &Surroundings, command: &Command, output: &Arc<Output>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("the hook cannot work: {error}"));
    let directory = std::env::current_dir().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let context = Context { global: Global::default(), output: Arc::clone(output), directory };
    let client = Client::new(Endpoint::Unix(push.socket.clone()));
    let request = PushRequest {
        ticket: push.ticket.clone(),
        reference: command.reference.clone(),
        old: command.old.to_string(),
        new: command.new.to_string(),
    };
    let asked = client.deploy_push(&push.app, &request);
    runtime.block_on(follow::begin(&context, &client, Turn::default(), "asking the server", asked))
}

/// Says what became of branches that are not deployed.
fn tell_kept(push: &Surroundings, output: &Output) -> Result<(), Failure> {
    let moved = hook::read_moved(&mut io::stdin().lock()).map_err(broken)?;
    let deployed = deployed(push, &moved).and_then(Command::branch).or_else(|| push.branches.first().map(String::as_str));
    let Some(deployed) = deployed else { return Ok(()) };
    for branch in moved.iter().filter(|command| !command.new.is_zero()).filter_map(Command::branch) {
        if branch != deployed {
            let (branch, deployed) = (harmless(branch), harmless(deployed));
            output.tell(format!("{MARK} {branch} is kept and not deployed: {deployed} is what is deployed"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn command(reference: &str) -> Command {
        let id = "1111111111111111111111111111111111111111";
        Command { old: "0".repeat(40).parse().unwrap(), new: id.parse().unwrap(), reference: reference.to_owned() }
    }

    fn push(branches: &[&str]) -> Surroundings {
        let branches = branches.iter().map(ToString::to_string).collect();
        Surroundings { socket: "/nowhere".into(), app: "shop".parse().unwrap(), ticket: String::new(), branches }
    }

    #[test]
    fn the_preferred_branch_is_deployed_wherever_it_stands() {
        let both = [command("refs/heads/master"), command("refs/heads/main")];
        assert_eq!(deployed(&push(&["main", "master"]), &both).unwrap().branch(), Some("main"));
        assert_eq!(deployed(&push(&["main", "master"]), &both[..1]).unwrap().branch(), Some("master"));
        assert_eq!(deployed(&push(&["live"]), &both), None);
    }

    #[test]
    fn a_reason_is_one_harmless_line() {
        let reason = in_a_line(&format!("build failed: \x1b[2J{}\nng refs/heads/main", "x".repeat(500)));
        assert!(
            reason.starts_with("build failed: xxx") && !reason.contains('\n') && reason.chars().count() == REASON,
            "{reason}"
        );
    }
}
