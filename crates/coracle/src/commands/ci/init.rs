//! `coracle ci init`: a workflow that passes each commit of the deploy branch on to Coracle, which tests, builds and deploys it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use coracle_api::{SshAddress, Visitor};
use serde_json::json;

use super::super::git::{in_address, reached_over_ssh};
use super::super::{DONE, ExitCode};
use super::workflow::{Branch, Way, Workflow};
use crate::context::Context;
use crate::failure::Failure;
use crate::folder::{Folder, Unwritten};
use crate::git;

/// Write the workflow that deploys by GitHub Actions or GitLab CI
///
/// The job runs nothing of the repository and installs nothing: it fetches the commit with git and pushes it to Coracle, which runs the
/// tests, builds, deploys, and answers with what happens. If a test fails, so does the job, and what is live stays. The job needs one
/// secret: a token (over https://) or a key (over ssh://) of somebody who is a deployer of the app. The server is that of --remote.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle ci init github --remote ci                     the remote's address is https://…: the secret is a token
  coracle ci init gitlab --url https://coracle.example.com
  coracle ci init github --key --remote prod             over SSH: the secret is a key
  coracle ci init gitlab --stdout                        prints it")]
pub(super) struct Arguments {
    /// Whose pipelines
    forge: Forge,
    /// The branch that is deployed [default: the one that is checked out, if it is main or master; else main]
    #[arg(long, value_parser = Branch::parse)]
    branch: Option<Branch>,
    /// Where runners reach the server, if that is not the remote's address: https://host:port
    #[arg(long, conflicts_with = "key")]
    url: Option<String>,
    /// Push over SSH with a key, to the server's own door (`server run --ssh`), instead of over HTTPS with a token
    #[arg(long)]
    key: bool,
    /// The host name that runners reach the server's SSH door at [default: that of the remote]
    #[arg(long, value_name = "HOST", requires = "key")]
    host: Option<String>,
    /// Overwrite the file if it is there
    #[arg(long, conflicts_with = "stdout")]
    force: bool,
    /// Print it; write nothing
    #[arg(long)]
    stdout: bool,
}

/// Whose pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Forge {
    /// GitHub Actions: .github/workflows/coracle.yml
    Github,
    /// GitLab CI: .gitlab-ci.yml
    Gitlab,
}

impl Forge {
    /// Where the file is read from.
    fn path(self) -> &'static str {
        match self {
            Self::Github => ".github/workflows/coracle.yml",
            Self::Gitlab => ".gitlab-ci.yml",
        }
    }

    /// Where its secrets are set.
    fn secrets(self, way: &Way) -> String {
        let (secret, is_file) = (way.secret(), matches!(way, Way::Ssh { .. }));
        match self {
            Self::Github => format!("GitHub: Settings → Secrets and variables → Actions → New repository secret, named {secret}"),
            Self::Gitlab if is_file => {
                format!("GitLab: Settings → CI/CD → Variables → Add variable {secret}, of type File, protected")
            }
            Self::Gitlab => format!("GitLab: Settings → CI/CD → Variables → Add variable {secret}, masked and protected"),
        }
    }
}

/// Does it.
pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    let root = root(context)?;
    let branch = arguments.branch.clone().unwrap_or_else(|| checked_out(&root));
    let way = way(&arguments, context).await?;
    let workflow = Workflow { app: &app, branch: &branch, way: &way };
    let text = match arguments.forge {
        Forge::Github => workflow.github(),
        Forge::Gitlab => workflow.gitlab(),
    };
    let output = &context.output;
    let path = arguments.forge.path();
    let steps = next_steps(arguments.forge, app.as_str(), &way, path);
    if arguments.stdout {
        output.document(&json!({ "path": path, "text": text, "secret": way.secret(), "next": steps }));
        output.line(text.trim_end());
    } else {
        write(&root, path, &text, arguments.force)?;
        output.document(&json!({ "path": path, "written": true, "secret": way.secret(), "next": steps }));
        output.line(format!("wrote {path}"));
    }
    for step in steps {
        output.remark(format!("next: {step}"));
    }
    if way.leads_home() {
        output.remark("this address leads a runner to itself: name the server as runners reach it, with --url https://host, or --key --host HOST");
    }
    if way.is_open() {
        output
            .remark("over http:// everybody on the way can read the token: give runners an address with https://, or use --key");
    }
    Ok(DONE)
}

/// What is left to do, in its order.
fn next_steps(forge: Forge, app: &str, way: &Way, path: &str) -> Vec<String> {
    let somebody = format!("ci-{app}");
    let credential = match way {
        Way::Https { .. } => vec![
            format!("on the server: coracle people add {somebody} --role deployer -a {app}"),
            format!("on the server: coracle people token create {somebody} --label ci"),
        ],
        Way::Ssh { .. } => vec![
            format!("ssh-keygen -t ed25519 -N '' -C {somebody} -f {somebody}    (it goes into the secret, and nowhere else)"),
            format!("on the server: coracle people add {somebody} --role deployer -a {app} --key {somebody}.pub"),
        ],
    };
    credential.into_iter().chain([forge.secrets(way), format!("commit {path} and push it")]).collect()
}

/// The repository's root, in which alone a workflow is looked for, and which is what a push deploys.
fn root(context: &Context) -> Result<PathBuf, Failure> {
    let here = &context.directory;
    let said = git::answer(here, &["rev-parse", "--show-toplevel"]);
    let Some(top) = said.map(|top| PathBuf::from(top.trim_end_matches('\n'))) else { return Ok(here.clone()) };
    let same = |a: &Path, b: &Path| a.canonicalize().ok() == b.canonicalize().ok();
    match same(&top, here) {
        true => Ok(top),
        false => Err(Failure::usage(format!("the repository begins at {}, and a push deploys what lies there", top.display()))
            .hint(format!("cd {}", top.display()))),
    }
}

fn checked_out(root: &Path) -> Branch {
    let head = git::answer(root, &["symbolic-ref", "--quiet", "--short", "HEAD"]).unwrap_or_default();
    let usual = if head.trim() == "master" { "master" } else { "main" };
    Branch::usual(usual)
}

/// How a runner gets to the server.
async fn way(arguments: &Arguments, context: &Context) -> Result<Way, Failure> {
    if let Some(url) = &arguments.url {
        return Way::over_https(url).map_err(Failure::usage);
    }
    let client = context.client()?;
    if let Some(url) = client.endpoint().url().filter(|_| !arguments.key) {
        return Way::over_https(url).map_err(Failure::usage);
    }
    let asked = client.version().await;
    if let Some(url) = asked.as_ref().ok().and_then(|version| version.api_url.as_ref()).filter(|_| !arguments.key) {
        return Way::over_https(url).map_err(Failure::usage);
    }
    if client.endpoint().is_remote() {
        asked?;
    }
    if !client.endpoint().is_remote() && arguments.host.is_none() {
        return Err(Failure::usage("where do runners reach the server? What is known is its socket on this machine").hint(
            "say it with --url https://host, or --key --host HOST, or name the server: coracle remote add prod ssh://… or https://…",
        ));
    }
    if !arguments.key {
        return Err(Failure::usage(
            "the remote is reached over SSH, and a workflow with a token needs the server's https:// address",
        )
        .hint("use a key instead (--key), or say --url https://host"));
    }
    over_ssh(arguments, &client).await
}

/// By the server's own SSH door, whose host key is written down in the workflow.
async fn over_ssh(arguments: &Arguments, client: &coracle_api::Client) -> Result<Way, Failure> {
    let version = client.version().await?;
    let came_by_the_door = matches!(version.you, Some(Visitor::Person(_)));
    let closed =
        || Failure::failed("the server does not listen for SSH").hint("start it with `coracle server run --ssh 0.0.0.0:2222`");
    let door = version.ssh.ok_or_else(closed)?;
    let address = reached_over_ssh(client, &door, came_by_the_door, arguments.host.as_deref())?;
    let known: SshAddress = format!("ssh://{address}").parse().map_err(Failure::from)?;
    in_address(&known.host)?;
    Way::over_ssh(known, &door.host_key).map_err(Failure::failed)
}

/// Writes a file that is not there, or replaces it as a whole.
fn write(root: &Path, path: &str, text: &str, force: bool) -> Result<(), Failure> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = Folder::open(root)?.below(Path::new(above))?;
    folder.write(name, text, force).map(drop).map_err(|unwritten| match unwritten {
        Unwritten::Taken => Failure::failed(format!("{} exists already; it was left as it is", root.join(path).display()))
            .hint("--stdout prints what would be written, --force overwrites it"),
        Unwritten::Failed(failure) => failure,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_workflow_is_written_into_the_repository_alone() {
        let outer = tempfile::tempdir().unwrap();
        let (root, kept) = (outer.path().join("repository"), outer.path().join("kept"));
        let path = Forge::Github.path();
        std::fs::create_dir_all(root.join(".github/workflows")).unwrap();
        std::fs::write(&kept, "kept").unwrap();
        symlink(&kept, root.join(path)).unwrap();
        assert!(write(&root, path, "text", true).unwrap_err().told().contains("coracle.yml is a symbolic link"));
        assert!(write(&root, path, "text", false).unwrap_err().told().contains("exists already"));
        std::fs::remove_dir_all(root.join(".github")).unwrap();
        symlink(outer.path().join("nowhere"), root.join(".github")).unwrap();
        for force in [false, true] {
            assert!(write(&root, path, "text", force).unwrap_err().told().contains(".github is a symbolic link"));
        }
        std::fs::remove_file(root.join(".github")).unwrap();
        for force in [false, true] {
            write(&root, path, "text", force).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept");
    }
}
