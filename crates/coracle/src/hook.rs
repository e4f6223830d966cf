//! Git's hook of the server's repositories, when git runs this program as it: the branch that is deployed is deployed, other
//! branches are deployed into their previews if the app has such, and whoever pushes is told of it as it happens.
//!
//! What it prints goes to whoever pushes, through git. Whoever pushes chose the names of refs.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use coracle_api::{BranchAnswer, BranchPushed, Client, Endpoint, PushRequest};
use coracle_git_door::hook::{self, Command, Fate, Hook, variables};
use coracle_model::{AppName, DeploymentId};
use tokio::runtime::Runtime;

use crate::arguments::Global;
use crate::context::Context;
use crate::failure::Failure;
use crate::follow;
use crate::output::text::{cut, harmless};
use crate::output::{Manner, Output};

/// What stands before a phase, as it does on platforms that were pushed to before this one.
const MARK: &str = "----->";

/// Characters of a branch's name in a line.
const BRANCH: usize = 100;

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
        (Hook::PreReceive, Some(_)) => unmark(),
        (Hook::ProcReceive, Some(push)) => gate(push, &output),
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

/// What was pushed is to be taken over whatever else is being pushed. A push that only deletes brings nothing.
fn unmark() -> Result<(), Failure> {
    let Some(quarantine) = std::env::var_os("GIT_QUARANTINE_PATH") else { return Ok(()) };
    hook::unmark(quarantine.as_ref()).map_err(|error| Failure::failed(format!("what was pushed cannot be taken over: {error}")))
}

/// Decides about the refs that git asks about.
fn gate(push: Surroundings, output: &Arc<Output>) -> Result<(), Failure> {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    let mut commands = hook::read_commands(&mut from, &mut to).map_err(broken)?;
    let deployed = deployed(&push, &commands).map(|command| command.reference.clone());
    // The one that is deployed first; the others by their names, so that no two pushes wait for each other.
    commands.sort_by_key(|command| (Some(&command.reference) != deployed.as_ref(), command.reference.clone()));
    let known = deployed.as_ref().and_then(|reference| reference.text()?.strip_prefix("refs/heads/"));
    let main = known.or_else(|| push.branches.first().map(String::as_str)).unwrap_or_default().to_owned();
    let gate = Gate::new(push, (main, deployed.is_some()), output)?;
    let mut fates = Vec::new();
    for command in commands {
        let fate = match deployed.as_ref() == Some(&command.reference) {
            true => gate.fate_of(&command),
            false => gate.fate_of_another(&command),
        };
        fates.push((command, fate));
    }
    hook::report(&mut to, &fates).and_then(|()| to.flush()).map_err(broken)
}

/// The command that moves the branch to deploy.
fn deployed<'a>(push: &Surroundings, commands: &'a [Command]) -> Option<&'a Command> {
    push.branches.iter().find_map(|branch| commands.iter().find(|command| command.branch() == Some(branch)))
}

/// A reason as git's report takes it.
fn in_a_line(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    cut(&harmless(line), REASON).into_owned()
}

/// Asks the server about one branch after the other.
struct Gate<'a> {
    push: Surroundings,
    /// The branch that is deployed.
    main: String,
    /// Whether this push moves it.
    deploys: bool,
    output: &'a Arc<Output>,
    context: Context,
    client: Client,
    runtime: Runtime,
}

impl<'a> Gate<'a> {
    fn new(push: Surroundings, (main, deploys): (String, bool), output: &'a Arc<Output>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::failed(format!("the hook cannot work: {error}"));
        let directory = std::env::current_dir().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let context = Context { global: Global::default(), output: Arc::clone(output), directory };
        let client = Client::new(Endpoint::Unix(push.socket.clone()));
        Ok(Self { push, main, deploys, output, context, client, runtime })
    }

    /// The fate of the branch that is deployed.
    fn fate_of(&self, command: &Command) -> Fate {
        if command.new.is_zero() {
            let app = &self.push.app;
            return Fate::Refused(format!("it is what is deployed; `coracle destroy -a {app}` ends the app"));
        }
        match self.deploy(command) {
            Ok(Some(id)) => {
                self.output.tell(format!("{MARK} the branch is moved when it is live"));
                Fate::Waits(format!("{}{id}", hook::WAITING))
            }
            done => self.decided(done.map(drop)),
        }
    }

    /// The fate of a branch beside it.
    fn fate_of_another(&self, command: &Command) -> Fate {
        // What is no text has no preview.
        let Some(branch) = command.branch() else { return Fate::Move };
        self.decided(self.pass_on(command, branch))
    }

    fn decided(&self, done: Result<(), Failure>) -> Fate {
        match done {
            Ok(()) => Fate::Move,
            Err(failure) => {
                self.output.failure(&failure);
                Fate::Refused(in_a_line(failure.message()))
            }
        }
    }

    fn request(&self, command: &Command) -> PushRequest {
        PushRequest {
            ticket: self.push.ticket.clone(),
            reference: command.reference.text().unwrap_or_default().to_owned(),
            old: command.old.to_string(),
            new: command.new.to_string(),
        }
    }

    /// Has the server deploy the commit, and follows that to its end.
    fn deploy(&self, command: &Command) -> Result<Option<DeploymentId>, Failure> {
        let request = self.request(command);
        let asked = self.client.deploy_push(&self.push.app, &request);
        self.runtime.block_on(follow::begin_or_wait(&self.context, &self.client, "asking the server", asked))
    }

    /// Tells the server of a branch, and whoever pushes what becomes of it.
    fn pass_on(&self, command: &Command, branch: &str) -> Result<(), Failure> {
        let request = self.request(command);
        let shown = cut(&harmless(branch), BRANCH).into_owned();
        self.runtime.block_on(async {
            let answer = match self.client.push_branch(&self.push.app, &request).await? {
                BranchPushed::Deploying(events) => {
                    return follow::to_its_end(&self.context, &self.client, events).await;
                }
                BranchPushed::Answered(answer) => answer,
            };
            // Nobody is told to type what a shell might take for something else.
            let may_be_typed =
                !branch.starts_with('-') && branch.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
            let is_first = matches!(answer, BranchAnswer::Kept) && self.push.branches.len() > 1 && !self.deploys;
            let line = match answer {
                BranchAnswer::Gone => return Ok(()),
                BranchAnswer::Kept => format!("{shown} is kept and not deployed: {} is what is deployed", harmless(&self.main)),
                BranchAnswer::WithoutPreview { why } => format!("{shown} is kept and has no preview: {}", harmless(&why)),
                BranchAnswer::PreviewGone { app } => format!("{shown} goes, and its preview {app} with it"),
            };
            self.output.tell(format!("{MARK} {line}"));
            if is_first && may_be_typed {
                let next = format!("to deploy it, push it as {0}: git push REMOTE {branch}:{0}", harmless(&self.main));
                self.output.tell(format!("{MARK} no branch was pushed to be deployed yet; {next}"));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn command(reference: &str) -> Command {
        let id = "1111111111111111111111111111111111111111";
        Command { old: "0".repeat(40).parse().unwrap(), new: id.parse().unwrap(), reference: reference.into() }
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
