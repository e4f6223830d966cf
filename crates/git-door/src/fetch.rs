//! Fetching a branch from a repository elsewhere into an app's own, by the system's git.
//!
//! Git is told one way to get there and no other; it follows no redirection, fetches no submodule and no tag, and asks nobody for
//! a password. A token travels in its environment, never in an argument or a file. A key lies in a private file for as long as the
//! fetch takes, and `ssh` is started by our own program ([`crate::errand`]), with options of ours alone and a host key that is known
//! beforehand. What is fetched is checked as what is pushed is, and lies under refs that nobody sees from outside.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_model::{AppName, Secret};
use tempfile::TempDir;

use crate::door::{Door, DoorError};
use crate::errand;
use crate::git::{Git, read_answer};
use crate::object_id::ObjectId;
use crate::repository::Repository;

/// How long a fetch may take.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// Bytes of a pack that is fetched; of one that is pushed it is the same.
const LARGEST: u64 = 4 << 30;

/// Seconds without a thousand bytes each after which a fetch over HTTP breaks off.
const SILENCE: &str = "60";

/// Where fetched branches lie, each by a digest of its name: as names of refs, `a` and `a/b` could not both be there, and that `a` is
/// gone elsewhere is not always told.
const REFS: &str = "refs/forge/tips/";

/// Bytes of what a host shows as its keys.
const LONGEST_KEYS: u64 = 16 << 10;

/// What git shows to be let in.
#[derive(Debug, Clone)]
pub enum Means {
    /// Nothing: anybody may read the repository.
    Open,
    /// A token, as the password of a user, over HTTP.
    Token {
        /// The user.
        user: String,
        /// The token.
        token: Secret,
    },
    /// A key, over SSH.
    Key {
        /// The private half, as OpenSSH writes it.
        private: Secret,
        /// The keys that the host may show, as they stand in `known_hosts`.
        known_hosts: String,
    },
}

/// A repository elsewhere.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where: an address of `https`, `http` or `ssh` that whoever calls has looked at. It holds no password.
    pub url: String,
    /// What git shows there.
    pub means: Means,
}

impl Door {
    /// Fetches a branch; what it names now. The repository of the app is made if it is not there. Of one app, only one fetch
    /// goes on at a time: that is the caller's part.
    pub async fn fetch(&self, app: &AppName, origin: &Origin, branch: &str) -> Result<ObjectId, DoorError> {
        let repository = self.ensure(app).await?;
        let refused = |what: &str| DoorError::Git(format!("{what} is not fetched"));
        if branch.is_empty() || branch.starts_with('-') || branch.contains([':', '*', ' ']) {
            return Err(refused("such a branch"));
        }
        let scheme = origin.url.split_once("://").map(|(scheme, _)| scheme);
        let scheme =
            scheme.filter(|scheme| matches!(*scheme, "https" | "http" | "ssh")).ok_or_else(|| refused("such an address"))?;
        let mut git =
            repository.git(&["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--force"]);
        git.set(&format!("protocol.{scheme}.allow"), "always")
            .set("http.followRedirects", "false")
            .set("maintenance.auto", "false");
        git.set("http.lowSpeedLimit", "1000").set("http.lowSpeedTime", SILENCE).set("fetch.unpackLimit", "1");
        // What only old versions of git wrote differently is let in, as in a push.
        for mark in ["zeroPaddedFilemode", "badTimezone", "missingSpaceBeforeDate"] {
            git.set(&format!("fetch.fsck.{mark}"), "ignore");
        }
        git.writes_at_most(LARGEST);
        let _key = self.show(&mut git, &origin.means)?;
        let target = fetched_as(branch);
        git.argument("--end-of-options").argument(&origin.url).argument(format!("+refs/heads/{branch}:{target}"));
        let fetched = self.inner.stop.run_until_cancelled(git.ask_within(LONGEST)).await;
        match fetched.unwrap_or_else(|| Err(DoorError::Git("the server stops".to_owned()))) {
            Ok(_) => {}
            Err(error) => {
                discard_unfinished(&repository);
                return Err(error);
            }
        }
        let found = repository.resolve(&target).await?;
        self.tidy(repository);
        found.ok_or_else(|| DoorError::Git(format!("the branch {branch} is not there")))
    }

    /// Forgets what was fetched of a branch, or of all of them. Nothing to forget is no error.
    pub async fn forget_fetched(&self, app: &AppName, branch: Option<&str>) -> Result<(), DoorError> {
        let Some(repository) = self.repository(app) else { return Ok(()) };
        match branch {
            Some(branch) => repository.remove_ref(&fetched_as(branch)).await,
            None => repository.remove_refs(REFS).await,
        }
    }

    /// Has git show what it is let in by. What comes back has to live as long as the fetch.
    fn show(&self, git: &mut Git, means: &Means) -> Result<Option<TempDir>, DoorError> {
        match means {
            Means::Open => Ok(None),
            Means::Token { user, token } => {
                let pair = STANDARD.encode(format!("{user}:{}", token.expose()));
                git.set("http.extraHeader", format!("Authorization: Basic {pair}"));
                Ok(None)
            }
            Means::Key { private, known_hosts } => {
                let place = &self.inner.keys;
                let failed = |error| DoorError::file(place, error);
                let directory =
                    tempfile::Builder::new().prefix("key-").permissions(Permissions::from_mode(0o700)).tempdir_in(place);
                let directory = directory.map_err(failed)?;
                let (key, known) = (directory.path().join("key"), directory.path().join("known_hosts"));
                write_private(&key, private.expose()).and_then(|()| write_private(&known, known_hosts)).map_err(failed)?;
                git.env("GIT_SSH", &self.inner.ssh).env("GIT_SSH_VARIANT", "ssh");
                git.env(errand::KEY, key).env(errand::KNOWN_HOSTS, known);
                Ok(Some(directory))
            }
        }
    }
}

/// The ref of what was fetched of a branch.
fn fetched_as(branch: &str) -> String {
    format!("{REFS}{}", blake3::hash(branch.as_bytes()).to_hex())
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

/// Removes what a fetch left that was cut off. Pushes write elsewhere until they are whole.
fn discard_unfinished(repository: &Repository) {
    let packs = std::fs::read_dir(repository.path().join("objects/pack")).into_iter().flatten().flatten();
    for entry in packs.filter(|entry| entry.file_name().to_string_lossy().starts_with("tmp_")) {
        if let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::debug!(path = %entry.path().display(), %error, "what a fetch left stays");
        }
    }
}

/// The keys by which a host shows who it is, as lines of `known_hosts`: asked now, and believed by whoever compares them with what
/// the host's people say. `host` and `port` are those of an address that was looked at.
pub async fn host_keys(host: &str, port: u16) -> Result<Vec<String>, DoorError> {
    let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    let shown =
        read_answer("ssh-keyscan", &["-T", "10", "-t", "ed25519,ecdsa", "-p", &port.to_string(), "--", host], LONGEST_KEYS)
            .await?;
    let shown = String::from_utf8_lossy(&shown);
    let mut lines: Vec<String> = shown.lines().filter_map(|line| key_of_line(&name, line)).collect();
    lines.sort();
    lines.dedup();
    match lines.is_empty() {
        true => Err(DoorError::Git(format!("{name} shows no Ed25519 or ECDSA host key: nothing listens there, or not for SSH"))),
        false => Ok(lines),
    }
}

/// `NAME TYPE KEY`, whatever the host calls itself.
fn key_of_line(name: &str, line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (_, kind, key) = (words.next().filter(|word| !word.starts_with('#'))?, words.next()?, words.next()?);
    let known = kind == "ssh-ed25519" || kind.starts_with("ecdsa-sha2-nistp");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-".contains(&byte);
    (known && key.bytes().chain(kind.bytes()).all(plain)).then(|| format!("{name} {kind} {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_says_its_keys_and_nothing_else() {
        assert_eq!(key_of_line("box", "evil ssh-ed25519 AAAA= x").as_deref(), Some("box ssh-ed25519 AAAA="));
        for bad in [
            "# box:22 SSH-2.0",
            "box ssh-rsa AAAA",
            "box ssh-ed25519",
            "box ssh-ed25519 A\u{1b}",
            "@cert-authority * ssh-ed25519 AAAA",
        ] {
            assert_eq!(key_of_line("box", bad), None, "{bad}");
        }
    }
}
