//! Everything that `pyrunner serve` is told, checked: plain data that all three processes are started with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_pyrunner_store::Policy;
use coracle_sandbox::Limits;
use ipnet::IpNet;

use crate::history::HistoryMode;
use crate::queue::QueueLimits;

/// The user that the API runs as when no other is named and there is no user `pyrunner`. Nothing else has it, and what it
/// wrote still belongs to it after a restart.
pub const API_USER: u32 = 1_900_000_000;

/// What the server is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The directory of history, keys and jobs, where they are kept in SQLite.
    pub state_dir: PathBuf,
    /// The database. Never shown.
    pub database: DatabaseUrl,
    /// What the API becomes when it is started by root.
    pub user: User,
    /// Limits of each execution; a request can only lower them.
    pub limits: Limits,
    /// The image of programs that name none.
    pub default_image: String,
    /// How many execute, and how many wait.
    pub queue: QueueLimits,
    /// Executions an hour of a client without a key; 0: no limit.
    pub rate: u32,
    /// Whether whoever has no key may execute.
    pub anonymous: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Names that the server is called by, beside this machine's own; `*`: any.
    pub hosts: Vec<String>,
    /// Origins (`https://example.org`) whose pages may call, beside the server's own.
    pub origins: Vec<String>,
    /// Networks that callbacks may go to although they are private.
    pub callback_networks: Vec<IpNet>,
    /// Bytes of a request's body.
    pub most_body: usize,
    /// How long a request's body may take to arrive.
    pub body_deadline: Duration,
    /// Connections at the same time.
    pub connections: usize,
    /// How long requests that are under way may take to end when the server is asked to stop.
    pub drain: Duration,
    /// Threads of the API.
    pub threads: usize,
    /// Whether history is kept, and how surely.
    pub history: HistoryMode,
    /// How much is kept.
    pub retention: Policy,
    /// Jobs at the same time; more wait.
    pub job_workers: usize,
    /// Modules that programs may not import; empty: no policy.
    pub forbidden_imports: Vec<String>,
}

/// Where the database is: what `DATABASE_URL` says, else SQLite in the directory of the state. May hold a password.
pub fn database(state_dir: &Path) -> String {
    let named = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    named.unwrap_or_else(|| state_dir.join("pyrunner.db").to_string_lossy().into_owned())
}

/// Whom the API runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

/// A database's URL, which may hold a password: it cannot be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Keeps it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// For whoever connects.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DatabaseUrl(…)")
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(url))
    }
}

/// Why a user cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// `/etc/passwd` cannot be read.
    #[error("/etc/passwd: {0}")]
    Unreadable(#[from] std::io::Error),
    /// There is no such user.
    #[error("there is no user {0:?} in /etc/passwd; name another one or a number")]
    Unknown(String),
    /// It is root.
    #[error("the API must not run as root; name another user")]
    Root,
}

impl User {
    /// A user by its name or number; `None`: the user `pyrunner` if there is one, else [`API_USER`].
    pub fn find(name: Option<&str>) -> Result<Self, UserError> {
        let found = match name {
            None => Self::named("pyrunner").ok().flatten().unwrap_or(Self { uid: API_USER, gid: API_USER }),
            Some(name) => match name.parse() {
                Ok(uid) => Self { uid, gid: uid },
                Err(_) => Self::named(name)?.ok_or_else(|| UserError::Unknown(name.to_owned()))?,
            },
        };
        if found.uid == 0 { Err(UserError::Root) } else { Ok(found) }
    }

    fn named(name: &str) -> std::io::Result<Option<Self>> {
        let table = std::fs::read_to_string("/etc/passwd")?;
        Ok(table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            match fields.as_slice() {
                [user, _, uid, gid, ..] if *user == name => Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? }),
                _ => None,
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number_but_never_root() {
        assert_eq!(User::find(Some("4711")).unwrap(), User { uid: 4711, gid: 4711 });
        assert!(matches!(User::find(Some("root")), Err(UserError::Root)));
        assert!(matches!(User::find(Some("0")), Err(UserError::Root)));
        assert!(matches!(User::find(Some("no such user")), Err(UserError::Unknown(_))));
        assert_ne!(User::find(None).unwrap().uid, 0);
    }

    #[test]
    fn a_databases_url_is_not_shown() {
        assert!(!format!("{:?}", DatabaseUrl::new("postgres://a:secret@b/c")).contains("secret"));
    }
}
