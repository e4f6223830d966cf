//! The client's own configuration, `~/.config/coracle/config.toml`: servers by name, the usual one, and their tokens.
//!
//! People edit this file as well, so changes touch only the lines that they are about; comments stay. A file with a token in it is
//! written so that only its owner can read it, and is refused when others can.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_model::Secret;
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;

use crate::failure::Failure;

/// The name that always means this machine's own server.
pub(crate) const LOCAL: &str = "local";

/// Letters of a name.
const LONGEST_NAME: usize = 63;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remotes {
    /// The usual server: the name of one of the remotes, a URL, or the path of a socket.
    pub(crate) server: Option<String>,
    /// The token of a usual server that has no name.
    #[serde(default, deserialize_with = "secret")]
    pub(crate) token: Option<Secret>,
    /// Servers by name.
    #[serde(default)]
    pub(crate) remotes: BTreeMap<String, Remote>,
}

/// A server that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remote {
    /// Where it is.
    pub(crate) url: String,
    /// What it wants to see over HTTP or HTTPS.
    #[serde(default, deserialize_with = "secret")]
    pub(crate) token: Option<Secret>,
    /// The only authorities that it is believed by, over HTTPS.
    pub(crate) ca: Option<PathBuf>,
}

/// Secrets cannot be read from just anywhere; this is one of the places.
fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Secret::new))
}

impl Remotes {
    /// Reads the file; one that is not there says nothing.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let Some(text) = text_of(path)? else { return Ok(Self::default()) };
        let remotes = Self::parse(&text).map_err(|line| {
            let place = line.map(|line| format!(" (line {line})")).unwrap_or_default();
            Failure::usage(format!("{} is not valid{place}", path.display()))
                .hint("it may hold server = \"NAME or URL\", token = \"…\", and [remotes.NAME] with url, token and ca")
        })?;
        let mode = path.metadata().map(|facts| facts.permissions().mode() & 0o777).unwrap_or(0);
        if remotes.holds_a_token() && mode & 0o077 != 0 {
            return Err(Failure::usage(format!("{} holds a token and can be read by others (mode {mode:04o})", path.display()))
                .hint(format!("chmod 600 {}", path.display())));
        }
        Ok(remotes)
    }

    /// Reads the text, or tells the line of the mistake. The message of the TOML reader would quote it, and it may hold a token.
    fn parse(text: &str) -> Result<Self, Option<usize>> {
        toml::from_str(text)
            .map_err(|error: toml::de::Error| error.span().map(|span| text[..span.start].matches('\n').count() + 1))
    }

    fn holds_a_token(&self) -> bool {
        self.token.is_some() || self.remotes.values().any(|remote| remote.token.is_some())
    }

    /// The remote of this name.
    pub(crate) fn named(&self, name: &str) -> Result<&Remote, Failure> {
        self.remotes.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.remotes.keys().map(String::as_str).collect();
            let hint = match known.as_slice() {
                [] => format!("name one: coracle remote add {name} ssh://user@host"),
                known => format!("there are {}, and {LOCAL}; `coracle remote add` names others", known.join(", ")),
            };
            Failure::usage(format!("there is no remote {name:?}")).hint(hint)
        })
    }
}

/// Whether a text can be the name of a remote, and of nothing else that `--remote` takes.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    match text {
        LOCAL => Err("it means this machine's own server, and cannot be given to another".to_owned()),
        _ if begins && text.len() <= LONGEST_NAME && text.bytes().all(plain) => Ok(text.to_owned()),
        _ => {
            Err(format!("a name is up to {LONGEST_NAME} lower-case letters, digits, - and _, and begins with a letter or digit"))
        }
    }
}

/// A change of the file.
pub(crate) enum Change<'a> {
    /// Another remote.
    Add(&'a str, Remote),
    /// One less; if it was the usual one, none is.
    Remove(&'a str),
    /// Another usual server, or that of this machine.
    Default(Option<&'a str>),
}

impl Change<'_> {
    /// Makes it. `refuse` looks at what is there before.
    pub(crate) fn make(self, path: &Path, refuse: impl FnOnce(&Remotes) -> Result<(), Failure>) -> Result<(), Failure> {
        // A link to a file elsewhere stays one.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let failed = |error: std::io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
        let directory = path.parent().ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let held = File::open(directory).map_err(failed)?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Failure::failed(format!("{} is being changed by another command", path.display())).hint("try again"))?;
        let before = Remotes::read(&path)?;
        refuse(&before)?;
        let text = text_of(&path)?.unwrap_or_default();
        write(&path, &self.edited(&text, before)).map_err(failed)?;
        held.sync_all().map_err(failed)
    }

    /// The text after the change. If the lines to touch cannot be told, it is written anew.
    fn edited(self, text: &str, before: Remotes) -> String {
        let (edited, after) = match self {
            Self::Add(name, remote) => {
                let mut after = before;
                let edited =
                    format!("{}{}{}", text.trim_end(), if text.trim().is_empty() { "" } else { "\n\n" }, table(name, &remote));
                after.remotes.insert(name.to_owned(), remote);
                (edited, after)
            }
            Self::Remove(name) => {
                let was_usual = before.server.as_deref() == Some(name);
                let mut after = Remotes { server: before.server.filter(|_| !was_usual), ..before };
                after.remotes.remove(name);
                let rest = without_table(text, name);
                (if was_usual { with_server(&rest, None) } else { rest }, after)
            }
            Self::Default(server) => {
                let after = Remotes { server: server.map(str::to_owned), ..before };
                (with_server(text, server), after)
            }
        };
        if Remotes::parse(&edited).is_ok_and(|read| read == after) { edited } else { anew(&after) }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn table(name: &str, remote: &Remote) -> String {
    let token = remote.token.as_ref().map(|token| format!("token = {}\n", quoted(token.expose()))).unwrap_or_default();
    let ca = remote.ca.as_ref().map(|path| format!("ca = {}\n", quoted(&path.to_string_lossy()))).unwrap_or_default();
    format!("[remotes.{name}]\nurl = {}\n{token}{ca}", quoted(&remote.url))
}

/// The text without the lines of a remote's table.
fn without_table(text: &str, name: &str) -> String {
    let header = [format!("[remotes.{name}]"), format!("[remotes.{}]", quoted(name))];
    let mut inside = false;
    let keep = text.lines().filter(|line| {
        let line = line.trim();
        if line.starts_with('[') {
            inside = header.iter().any(|header| line == header);
        }
        !inside
    });
    keep.map(|line| format!("{line}\n")).collect()
}

/// The text with another usual server.
fn with_server(text: &str, server: Option<&str>) -> String {
    let mut at_top = true;
    let rest = text.lines().filter(|line| {
        at_top &= !line.trim_start().starts_with('[');
        let is_key = line.trim_start().strip_prefix("server").is_some_and(|rest| rest.trim_start().starts_with('='));
        !(at_top && is_key)
    });
    let rest: String = rest.map(|line| format!("{line}\n")).collect();
    match server {
        Some(server) => format!("server = {}\n{rest}", quoted(server)),
        None => rest,
    }
}

fn anew(remotes: &Remotes) -> String {
    let server = remotes.server.as_ref().map(|server| format!("server = {}\n", quoted(server))).unwrap_or_default();
    let token = remotes.token.as_ref().map(|token| format!("token = {}\n", quoted(token.expose()))).unwrap_or_default();
    let tables: String = remotes.remotes.iter().map(|(name, remote)| format!("\n{}", table(name, remote))).collect();
    format!("{server}{token}{tables}")
}

fn text_of(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let staged = path.with_file_name(format!(".config.toml.{}", std::process::id()));
    // What a killed process of the same number has left.
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&staged, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn remote(url: &str) -> Remote {
        Remote { url: url.to_owned(), token: None, ca: None }
    }

    fn edited(change: Change<'_>, text: &str) -> String {
        change.edited(text, Remotes::parse(text).unwrap())
    }

    const FILE: &str = "# mine\nserver = \"http://box:9000\" # the old one\ntoken = \"t0ken\"\n\n# the shop\n[remotes.prod]\nurl = \
                        \"ssh://root@box\"\n\n[remotes.ci]\nurl = \"https://box\"\ntoken = \"other\"\n";

    #[test]
    fn a_change_touches_the_lines_that_it_is_about() {
        let added = edited(Change::Add("stage", remote("ssh://stage")), FILE);
        assert_eq!(added, format!("{FILE}\n[remotes.stage]\nurl = \"ssh://stage\"\n"));
        assert_eq!(edited(Change::Remove("stage"), &added).trim_end(), FILE.trim_end());
        let usual = edited(Change::Default(Some("prod")), FILE);
        assert_eq!(usual, FILE.replace("# mine\nserver = \"http://box:9000\" # the old one\n", "server = \"prod\"\n# mine\n"));
        let without = edited(Change::Remove("prod"), &usual);
        assert!(!without.contains("prod") && without.contains("# mine") && without.contains("# the shop"), "{without}");
        assert_eq!(Remotes::parse(&without).unwrap().server, None);
        assert_eq!(edited(Change::Add("a", remote("ssh://a")), ""), "[remotes.a]\nurl = \"ssh://a\"\n");
    }

    #[test]
    fn a_file_that_is_written_otherwise_is_written_anew_and_loses_nothing() {
        let inline =
            "remotes = { prod = { url = \"ssh://box\" }, ci = { url = \"https://box\", token = \"t\", ca = \"/ca.pem\" } }\n";
        let before = Remotes::parse(inline).unwrap();
        let after = Remotes::parse(&edited(Change::Remove("prod"), inline)).unwrap();
        assert_eq!(after.remotes.len(), 1);
        assert_eq!(after.remotes["ci"], before.remotes["ci"]);
        // A key of that name in another place is another one.
        let text = "note = 1\n";
        assert!(Remotes::parse(text).is_err());
    }

    #[test]
    fn the_file_is_private_and_a_link_to_it_stays_one() {
        let home = tempfile::tempdir().unwrap();
        let (real, link) = (home.path().join("dotfiles.toml"), home.path().join("coracle/config.toml"));
        std::fs::create_dir(home.path().join("coracle")).unwrap();
        std::fs::write(&real, "# mine\n").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let with = Remote { token: Some(Secret::new("t0ken")), ..remote("https://box") };
        Change::Add("prod", with.clone()).make(&link, |_| Ok(())).unwrap();
        assert!(link.is_symlink());
        assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Remotes::read(&link).unwrap().named("prod").ok(), Some(&with));
        let new = home.path().join("new/coracle/config.toml");
        Change::Default(Some("prod")).make(&new, |_| Ok(())).unwrap();
        assert_eq!(std::fs::read_to_string(&new).unwrap(), "server = \"prod\"\n");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
        let told = Remotes::read(&link).unwrap_err().render(crate::output::Paint(false), true);
        assert!(told.contains("chmod 600") && !told.contains("t0ken"), "{told}");
    }

    #[test]
    fn names_are_plain_and_none_is_a_path_or_this_machine() {
        for good in ["prod", "box-1", "9_lives"] {
            assert!(parse_name(good).is_ok(), "{good}");
        }
        for bad in ["", "local", "-o", "Prod", "a.b", "a/b", "a b", "ssh://x", "é", &"a".repeat(64)] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_knows_no_such_remote_is_told_which_there_are() {
        let remotes = Remotes::parse(FILE).unwrap();
        let told = remotes.named("prd").unwrap_err().render(crate::output::Paint(false), false);
        assert!(told.contains("ci, prod, and local") && !told.contains("t0ken"), "{told}");
    }
}
