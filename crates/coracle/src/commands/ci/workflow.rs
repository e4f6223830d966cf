//! The text of a workflow. Everything that goes into it is checked first: nothing in it could end a YAML string or a word of a shell.
//!
//! A secret is named and never held. It reaches git through the environment: a credential helper of one line, for this server's address
//! alone, reads it there. So it is in no command line and no file, and git asks for it only where it belongs.

use coracle_api::SshAddress;
use coracle_model::{AppName, text};

/// The branch that is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Branch(String);

impl Branch {
    /// A name that git takes (git-check-ref-format(1)) and that is no pattern to a forge.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/');
        let parts = || text.split('/');
        let is_ref = parts().all(|part| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock"));
        match text.len() <= 200 && text.bytes().all(plain) && is_ref && !text.contains("..") && !text.ends_with('.') {
            true => Ok(Self(text.to_owned())),
            false => Err("a branch is letters, digits, dots, hyphens and slashes, as in release/1.2".to_owned()),
        }
    }

    pub(super) fn usual(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// The branch that Coracle deploys: this one if it is one of the two that it knows.
    fn deployed(&self) -> &str {
        if self.0 == "master" { "master" } else { "main" }
    }
}

/// How a runner gets to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// With a token.
    Https {
        /// `https://host:port`, without a slash at its end.
        server: String,
    },
    /// With a key, by the server's own SSH door.
    Ssh {
        /// The door.
        door: SshAddress,
        /// The line of `known_hosts`.
        known: String,
    },
}

impl Way {
    /// At this address of the API.
    pub(super) fn over_https(url: &str) -> Result<Self, String> {
        let bad = || format!("{url:?} is not an address that runners could push to: use the form https://host:port");
        let server = url.strip_suffix('/').unwrap_or(url);
        let place = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).ok_or_else(bad)?;
        // The same grammar of hosts and ports, and it knows no users.
        let address: SshAddress = format!("ssh://{place}").parse().map_err(|_| bad())?;
        if address.user.is_some() { Err(bad()) } else { Ok(Self::Https { server: server.to_owned() }) }
    }

    /// By this door, which has this host key.
    pub(super) fn over_ssh(door: SshAddress, host_key: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b' ');
        if host_key.is_empty() || !host_key.bytes().all(plain) {
            return Err("the server's host key is not one that could stand in known_hosts".to_owned());
        }
        let known = match door.port {
            None | Some(22) => format!("{} {host_key}", door.host),
            Some(port) => format!("[{}]:{port} {host_key}", door.host),
        };
        Ok(Self::Ssh { door: SshAddress { user: Some("git".to_owned()), ..door }, known })
    }

    /// The name of the one secret.
    pub(super) fn secret(&self) -> &'static str {
        match self {
            Self::Https { .. } => "CORACLE_TOKEN",
            Self::Ssh { .. } => "CORACLE_SSH_KEY",
        }
    }

    /// Whether the secret can be read by those on the way.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Https { server } if server.starts_with("http://"))
    }

    /// Whether it leads from a runner to the runner itself.
    pub(super) fn leads_home(&self) -> bool {
        text::leads_home(match self {
            Self::Https { server } => server,
            Self::Ssh { door, .. } => &door.host,
        })
    }

    /// Where the app is pushed to.
    fn repository(&self, app: &AppName) -> String {
        match self {
            Self::Https { server } => format!("{server}/git/{app}.git"),
            Self::Ssh { door, .. } => format!("{door}/{app}.git"),
        }
    }
}

/// What a workflow is about.
pub(super) struct Workflow<'a> {
    pub(super) app: &'a AppName,
    pub(super) branch: &'a Branch,
    pub(super) way: &'a Way,
}

/// Minutes that a job may take: waiting for its turn, tests, build and deployment.
const TIMEOUT: u32 = 30;

/// Puts indentation before each line that has something in it.
fn indented(text: &str, columns: usize) -> String {
    let indent = " ".repeat(columns);
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{indent}{line}\n") }).collect()
}

impl Workflow<'_> {
    /// `.github/workflows/coracle.yml`.
    pub(super) fn github(&self) -> String {
        let Self { app, branch: Branch(branch), way } = self;
        let head = self.head("GitHub: Settings, Secrets and variables, Actions");
        let (env, run) = match way {
            Way::Https { server } => (
                format!(
                    "CORACLE_TOKEN: ${{{{ secrets.CORACLE_TOKEN }}}}\nGIT_TERMINAL_PROMPT: '0'\nGIT_CONFIG_COUNT: '1'\n\
                     GIT_CONFIG_KEY_0: 'credential.{server}.helper'\nGIT_CONFIG_VALUE_0: '{}'\n",
                    helper("coracle", "CORACLE_TOKEN")
                ),
                self.push("git", "GITHUB_SHA"),
            ),
            Way::Ssh { known, .. } => (
                format!("CORACLE_SSH_KEY: ${{{{ secrets.CORACLE_SSH_KEY }}}}\nCORACLE_HOST_KEY: '{known}'\n"),
                self.push_with_key("git", "printf '%s\\n' \"$CORACLE_SSH_KEY\"", "GITHUB_SHA"),
            ),
        };
        format!(
            "{head}name: Coracle

on:
  push:
    branches: ['{branch}']

permissions:
  contents: read

# A newer push takes the place of one that is still being tested; what is live stays live meanwhile.
concurrency:
  group: 'coracle-{app}'
  cancel-in-progress: true

jobs:
  deploy:
    name: 'Test, build and deploy {app}'
    if: ${{{{ !github.event.repository.fork }}}}
    runs-on: ubuntu-24.04
    timeout-minutes: {TIMEOUT}
    defaults:
      run:
        shell: bash
    steps:
      # The commit with its history, and no files: nothing of the repository is run here.
      - name: Fetch the commit
        env:
          REPOSITORY: ${{{{ github.server_url }}}}/${{{{ github.repository }}}}
          CHECKOUT_TOKEN: ${{{{ github.token }}}}
          GIT_TERMINAL_PROMPT: '0'
          GIT_CONFIG_COUNT: '1'
          GIT_CONFIG_KEY_0: 'credential.${{{{ github.server_url }}}}.helper'
          GIT_CONFIG_VALUE_0: '{checkout}'
        run: |
          git init --quiet --bare commit.git
          git -C commit.git fetch --quiet --no-tags \"$REPOSITORY\" \"$GITHUB_SHA\"
      - name: Push it to Coracle
        working-directory: commit.git
        env:
{env}        run: |
{run}",
            checkout = helper("x-access-token", "CHECKOUT_TOKEN"),
            env = indented(&env, 10),
            run = indented(&run, 10),
        )
    }

    /// `.gitlab-ci.yml`.
    pub(super) fn gitlab(&self) -> String {
        let Self { app, branch: Branch(branch), way } = self;
        let head = self.head("GitLab: Settings, CI/CD, Variables");
        let run = match way {
            Way::Https { server } => format!(
                "export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0='credential.{server}.helper'\n\
                 export GIT_CONFIG_VALUE_0='{}'\n{}",
                helper("coracle", "CORACLE_TOKEN"),
                self.push(GIT_OF_GITLAB, "CI_COMMIT_SHA")
            ),
            Way::Ssh { known, .. } => {
                let script = self.push_with_key(GIT_OF_GITLAB, "cat \"$CORACLE_SSH_KEY\"", "CI_COMMIT_SHA");
                format!("CORACLE_HOST_KEY='{known}'\n{script}")
            }
        };
        format!(
            "{head}coracle:
  stage: deploy
  # An image of Docker's own with git and ssh. Pin it to a digest (@sha256:…) if yours does not change by itself.
  image: buildpack-deps:bookworm-scm
  rules:
    - if: '$CI_PIPELINE_SOURCE == \"push\" && $CI_COMMIT_BRANCH == \"{branch}\"'
  # A newer push takes the place of one that is still being tested; what is live stays live meanwhile.
  interruptible: true
  resource_group: 'coracle-{app}'
  timeout: {TIMEOUT} minutes
  variables:
    GIT_STRATEGY: clone
    GIT_DEPTH: '0'
    GIT_SUBMODULE_STRATEGY: none
    GIT_LFS_SKIP_SMUDGE: '1'
    GIT_TERMINAL_PROMPT: '0'
  script:
    - |
{run}",
            run = indented(&run, 6),
        )
    }

    fn head(&self, place: &str) -> String {
        let Self { app, branch: Branch(branch), way } = self;
        let secret = way.secret();
        format!(
            "# Written by `coracle ci init`. Each push to {branch} is passed on to Coracle, which runs the steps of [pipeline] in coracle.toml\n\
             # (tests are the gate), builds, starts the new release of {app} beside the old one, proves it, and moves the traffic.\n\
             # Whatever fails fails this job, and the old release goes on serving.\n\
             # It needs one secret, {secret} ({place}), of somebody who is a deployer of {app}.\n"
        )
    }

    /// Sees to it that the secret is there, and pushes the commit that this variable names.
    fn push(&self, git: &str, commit: &str) -> String {
        format!("{}{}", self.wanted(), self.pushed(git, commit))
    }

    /// The same, with a key that `key` prints. It and the server's host key lie in files that go with the job's shell.
    fn push_with_key(&self, git: &str, key: &str, commit: &str) -> String {
        format!(
            "{}umask 077\n\
             keys=$(mktemp -d)\n\
             trap 'rm -rf \"$keys\"' EXIT\n\
             {key} > \"$keys/key\"\n\
             printf '%s\\n' \"$CORACLE_HOST_KEY\" > \"$keys/known_hosts\"\n\
             ssh=\"ssh -F /dev/null -i $keys/key -o UserKnownHostsFile=$keys/known_hosts\"\n\
             export GIT_SSH_COMMAND=\"$ssh -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o BatchMode=yes\"\n\
             {}",
            self.wanted(),
            self.pushed(git, commit)
        )
    }

    fn wanted(&self) -> String {
        format!(": \"${{{}:?set this secret first, as coracle ci init told}}\"\n", self.way.secret())
    }

    fn pushed(&self, git: &str, commit: &str) -> String {
        let (repository, branch) = (self.way.repository(self.app), self.branch.deployed());
        format!("{git} push {repository} \"${commit}:refs/heads/{branch}\"\n")
    }
}

/// The clone that GitLab's runner makes may belong to another user than the job's.
const GIT_OF_GITLAB: &str = "git -c safe.directory='*'";

/// A credential helper of git's (gitcredentials(7)) that answers with the value of a variable. It has no single quote in it.
fn helper(user: &str, variable: &str) -> String {
    format!("!f() {{ echo username={user}; echo \"password=${variable}\"; }}; f")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_could_end_a_string_gets_into_no_workflow() {
        for bad in ["https://box/path", "https://a:b@box", "https://box' x", "https://$(id)", "ssh://box", "box", "https://"] {
            assert!(Way::over_https(bad).is_err(), "{bad}");
        }
        let Way::Https { server } = Way::over_https("https://box:8443/").unwrap() else { unreachable!() };
        assert_eq!(server, "https://box:8443");
        for bad in ["", "a'b", "a b", "$(id)", "-x", "a/-x", "a..b", "*", "a/", "x.lock", "refs/heads/@{", "a\nb"] {
            assert!(Branch::parse(bad).is_err(), "{bad}");
        }
        assert!(Branch::parse("release/1.2").is_ok());
        let door = || "ssh://box:2222".parse().unwrap();
        assert!(Way::over_ssh(door(), "ssh-ed25519 AAAA\n x").is_err() && Way::over_ssh(door(), "a'b").is_err());
        let Way::Ssh { known, door } = Way::over_ssh(door(), "ssh-ed25519 AAAA").unwrap() else { unreachable!() };
        assert_eq!((known.as_str(), door.to_string().as_str()), ("[box]:2222 ssh-ed25519 AAAA", "ssh://git@box:2222"));
    }
}
