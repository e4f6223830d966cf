//! Where the server is and how to prove that one may talk to it: options, environment, `config.toml`, defaults, in that order.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use coracle_api::{Client, Endpoint, Ssh, SshAddress, Tls};
use coracle_model::Secret;

use crate::failure::Failure;
use crate::remotes::{LOCAL, Remote, Remotes};

/// The state directory of a server that root runs.
const SYSTEM_STATE: &str = "/var/lib/coracle";

/// The name of the API's socket in the state directory.
pub(crate) const SOCKET: &str = "api.sock";

/// Whose machine this is, as far as addresses go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// Whether root asks.
    pub(crate) root: bool,
    /// `$HOME`.
    pub(crate) home: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`.
    pub(crate) config_home: Option<PathBuf>,
    /// `$XDG_STATE_HOME`.
    pub(crate) state_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub(crate) runtime_home: Option<PathBuf>,
    /// `$CORACLE_TOKEN`.
    pub(crate) token: Option<Secret>,
}

impl Surroundings {
    /// As the environment says.
    pub(crate) fn found() -> Self {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            root: rustix::process::geteuid().is_root(),
            home: path("HOME"),
            config_home: path("XDG_CONFIG_HOME"),
            state_home: path("XDG_STATE_HOME"),
            runtime_home: path("XDG_RUNTIME_DIR"),
            token: std::env::var("CORACLE_TOKEN").ok().filter(|token| !token.is_empty()).map(Secret::new),
        }
    }

    /// Where a server keeps its state: `/var/lib/coracle` for root, else below the XDG state directory.
    pub(crate) fn default_state(&self) -> PathBuf {
        if self.root {
            return SYSTEM_STATE.into();
        }
        let home = || self.home.clone().unwrap_or_else(|| "/".into()).join(".local/state");
        self.state_home.clone().unwrap_or_else(home).join("coracle")
    }

    /// The client's own configuration.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        let home = || self.home.as_ref().map(|home| home.join(".config"));
        self.config_home.clone().or_else(home).map(|base| base.join("coracle/config.toml"))
    }

    /// What the client's configuration says.
    pub(crate) fn remotes(&self) -> Result<Remotes, Failure> {
        self.config_file().map_or_else(|| Ok(Remotes::default()), |path| Remotes::read(&path))
    }

    /// A directory for the sockets of shared SSH connections, which nobody else can enter; `None` if none can be had, and each
    /// connection then stands for itself.
    fn sharing(&self) -> Option<PathBuf> {
        let user = rustix::process::geteuid().as_raw();
        let own = self.runtime_home.iter().map(|runtime| runtime.join("coracle"));
        own.chain([std::env::temp_dir().join(format!("coracle-{user}"))]).find(|path| is_private(path, user))
    }
}

/// Whether only this user can enter a directory, which is made if it is not there. In a place where everybody may write, somebody
/// else may have been first: that one is not used.
fn is_private(path: &Path, user: u32) -> bool {
    let there = || path.symlink_metadata().is_ok_and(|facts| facts.is_dir() && facts.uid() == user && facts.mode() & 0o077 == 0);
    there() || (std::fs::DirBuilder::new().mode(0o700).create(path).is_ok() && there())
}

/// A client of the server that these lead to.
pub(crate) fn client(server: Option<&str>, state: &Path, surroundings: &Surroundings) -> Result<Client, Failure> {
    endpoint(server, state, surroundings).map(Client::new)
}

/// The server that is meant: what was typed, else what the file says is usual, else that of this machine.
fn endpoint(typed: Option<&str>, state: &Path, surroundings: &Surroundings) -> Result<Endpoint, Failure> {
    let remotes = surroundings.remotes()?;
    let Some(meant) = typed.or(remotes.server.as_deref()) else { return Ok(Endpoint::Unix(local_socket(state))) };
    match Meant::by(meant) {
        Meant::Name(LOCAL) => Ok(Endpoint::Unix(local_socket(state))),
        Meant::Name(name) => {
            let remote = remotes.named(name)?;
            located(&remote.url, remote.token.clone(), remote.ca.clone(), surroundings).map_err(|failure| match failure {
                Wanting::Token(failure) => {
                    failure.hint(format!("set CORACLE_TOKEN, or: coracle remote add {name} {}", remote.url))
                }
                Wanting::Other(failure) => failure,
            })
        }
        // A token that was written down for one server is not shown to another.
        Meant::Place(place) => {
            let usual = remotes.server.as_deref().filter(|usual| matches!(Meant::by(usual), Meant::Place(_)));
            let token = remotes.token.clone().filter(|_| usual.is_none_or(|usual| usual == place));
            located(place, token, None, surroundings).map_err(|failure| match failure {
                Wanting::Token(failure) => failure
                    .hint("set CORACLE_TOKEN, or give the server a name, and its token with it: coracle remote add NAME URL"),
                Wanting::Other(failure) => failure,
            })
        }
    }
}

/// What a word for a server means.
enum Meant<'a> {
    /// One of the remotes.
    Name(&'a str),
    /// A URL, or the path of a socket.
    Place(&'a str),
}

impl<'a> Meant<'a> {
    fn by(word: &'a str) -> Self {
        if word.contains('/') || word.starts_with("unix:") { Self::Place(word) } else { Self::Name(word) }
    }
}

/// Why there is no way to a place.
enum Wanting {
    /// It wants a token.
    Token(Failure),
    Other(Failure),
}

/// The endpoint at a URL or a path.
fn located(place: &str, token: Option<Secret>, ca: Option<PathBuf>, surroundings: &Surroundings) -> Result<Endpoint, Wanting> {
    let place = place.strip_prefix("unix:").map_or(place, |path| path.strip_prefix("//").unwrap_or(path));
    if place.starts_with("ssh://") {
        let address = place.parse::<SshAddress>().map_err(|error| Wanting::Other(error.into()))?;
        return Ok(Endpoint::Ssh(Ssh::new(address, surroundings.sharing())));
    }
    if place.starts_with("http://") || place.starts_with("https://") {
        let token =
            surroundings.token.clone().or(token).ok_or_else(|| {
                Wanting::Token(Failure::usage(format!("the server at {place} wants a token, and there is none")))
            })?;
        return Ok(match place.starts_with("https://") {
            true => Endpoint::Tls(Tls::new(place, token, ca)),
            false => Endpoint::Tcp { url: place.to_owned(), token },
        });
    }
    if place.contains("://") || !place.contains('/') {
        let failure = Failure::usage(format!("{place:?} is not a server's address"))
            .hint("use ssh://user@host, https://host, http://host:port or the path of its Unix socket");
        return Err(Wanting::Other(failure));
    }
    Ok(Endpoint::Unix(place.into()))
}

/// The endpoint of a remote that is about to be named. `token` is what it is to be shown.
pub(crate) fn of_remote(remote: &Remote, surroundings: &Surroundings) -> Result<Endpoint, Failure> {
    located(&remote.url, remote.token.clone(), remote.ca.clone(), surroundings).map_err(|failure| match failure {
        Wanting::Token(failure) => failure.hint("--token-stdin reads it from standard input; on a terminal, it is asked for"),
        Wanting::Other(failure) => failure,
    })
}

/// The socket in the state directory; where there is none, that of the machine's own server, if there is one.
pub(crate) fn local_socket(state: &Path) -> PathBuf {
    let is_socket = |path: &Path| path.metadata().is_ok_and(|facts| facts.file_type().is_socket());
    let (own, system) = (state.join(SOCKET), Path::new(SYSTEM_STATE).join(SOCKET));
    if !is_socket(&own) && is_socket(&system) { system } else { own }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A home whose configuration holds `text` with these permissions.
    fn home(text: &str, mode: u32) -> (tempfile::TempDir, Surroundings) {
        let home = tempfile::tempdir().unwrap();
        let surroundings = Surroundings { home: Some(home.path().to_owned()), ..Surroundings::default() };
        let path = surroundings.config_file().unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (home, surroundings)
    }

    fn leads_to(server: Option<&str>, surroundings: &Surroundings) -> String {
        endpoint(server, Path::new("/nowhere"), surroundings).unwrap().to_string()
    }

    #[test]
    fn what_is_typed_wins_over_the_file_and_the_file_over_the_default() {
        let (_home, with_file) = home("server = \"http://box:9000\"\ntoken = \"t0ken\"\n", 0o600);
        assert_eq!(leads_to(Some("/tmp/x.sock"), &with_file), "/tmp/x.sock");
        assert_eq!(leads_to(Some("unix:///tmp/x.sock"), &with_file), "/tmp/x.sock");
        assert_eq!(leads_to(Some("unix:/tmp/x.sock"), &with_file), "/tmp/x.sock");
        assert_eq!(leads_to(None, &with_file), "http://box:9000");
    }

    #[test]
    fn a_remote_is_meant_by_its_name_and_this_machine_by_local() {
        let text = "server = \"prod\"\ntoken = \"t0p\"\n[remotes.prod]\nurl = \"ssh://root@box:2222\"\n[remotes.ci]\nurl = \
                    \"https://box\"\ntoken = \"c1\"\n[remotes.bare]\nurl = \"https://bare\"\n";
        let (_home, with_file) = home(text, 0o600);
        assert_eq!(leads_to(None, &with_file), "ssh://root@box:2222");
        assert_eq!(leads_to(Some("ci"), &with_file), "https://box");
        assert_eq!(leads_to(Some("ssh://other"), &with_file), "ssh://other");
        assert_eq!(leads_to(Some("local"), &with_file), "/nowhere/api.sock");
        let token = |typed| {
            let endpoint = endpoint(Some(typed), Path::new("/nowhere"), &with_file);
            endpoint.ok().and_then(|endpoint| endpoint.token().map(|token| token.expose().to_owned()))
        };
        assert_eq!(token("ci").as_deref(), Some("c1"));
        // The token without a name is for servers without one.
        assert_eq!(token("bare"), None);
        assert_eq!(token("http://box:9000").as_deref(), Some("t0p"));
        for bad in ["nobody", "ssh://-oProxyCommand=id", "ftp://box", "unix:x"] {
            assert_eq!(endpoint(Some(bad), Path::new("/nowhere"), &with_file).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_token_that_is_one_servers_is_not_shown_to_another() {
        let (_home, with_file) = home("server = \"http://box:9000\"\ntoken = \"t0ken\"\n", 0o600);
        let refused = endpoint(Some("http://elsewhere:9000"), Path::new("/nowhere"), &with_file).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
    }

    #[test]
    fn sockets_are_kept_where_nobody_else_can_enter() {
        let runtime = tempfile::tempdir().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let path = runtime.path().join("coracle");
        assert!(is_private(&path, user) && is_private(&path, user));
        assert!(!is_private(&path, user + 1));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(!is_private(&path, user));
        std::os::unix::fs::symlink(&path, runtime.path().join("link")).unwrap();
        assert!(!is_private(&runtime.path().join("link"), user));
    }

    #[test]
    fn without_anything_it_is_the_socket_in_the_state_directory() {
        let state = tempfile::tempdir().unwrap();
        let socket = state.path().join(SOCKET);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let found = endpoint(None, state.path(), &Surroundings::default()).unwrap();
        assert_eq!(found.to_string(), socket.to_string_lossy());
    }

    #[test]
    fn a_token_that_others_can_read_is_refused_and_not_shown() {
        let (_home, loose) = home("token = \"t0ken\"\n", 0o644);
        let failure = endpoint(None, Path::new("/nowhere"), &loose).unwrap_err();
        let told = failure.render(crate::output::Paint(false), true);
        assert!(told.contains("0644") && told.contains("chmod 600") && !told.contains("t0ken"), "{told}");
        assert_eq!(failure.exit_code(), 2);
        let (_home, harmless) = home("server = \"http://box:9000\"\n", 0o644);
        assert_eq!(leads_to(Some("/tmp/x.sock"), &harmless), "/tmp/x.sock");
    }

    #[test]
    fn a_damaged_file_is_refused_without_quoting_it() {
        let (_home, damaged) = home("server = \"x\"\ntoken = \"t0ken\n", 0o600);
        let told = endpoint(None, Path::new("/nowhere"), &damaged).unwrap_err().render(crate::output::Paint(false), true);
        assert!(told.contains("line 2") && !told.contains("t0ken"), "{told}");
    }

    #[test]
    fn a_server_on_the_network_wants_a_token() {
        let none = Surroundings::default();
        assert_eq!(endpoint(Some("http://box:9000"), Path::new("/nowhere"), &none).unwrap_err().exit_code(), 2);
        let with = Surroundings { token: Some(Secret::new("t0ken")), ..none };
        assert_eq!(leads_to(Some("http://box:9000"), &with), "http://box:9000");
        assert_eq!(endpoint(Some("box"), Path::new("/nowhere"), &with).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn state_lies_where_the_user_may_write() {
        let user = Surroundings { home: Some("/home/u".into()), ..Surroundings::default() };
        assert_eq!(user.default_state(), Path::new("/home/u/.local/state/coracle"));
        let xdg = Surroundings { state_home: Some("/data".into()), ..user.clone() };
        assert_eq!(xdg.default_state(), Path::new("/data/coracle"));
        let root = Surroundings { root: true, ..xdg };
        assert_eq!(root.default_state(), Path::new("/var/lib/coracle"));
    }
}
