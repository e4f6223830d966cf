//! Where the server is and how to prove that one may talk to it: options, environment, `config.toml`, defaults, in that order.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle_api::{Client, Endpoint};
use coracle_model::Secret;
use serde::Deserialize;

use crate::failure::Failure;

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
}

/// `~/.config/coracle/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The server to talk to unless told otherwise.
    server: Option<String>,
    /// The token it wants.
    token: Option<String>,
}

/// A client of the server that these lead to.
pub(crate) fn client(server: Option<&str>, state: &Path, surroundings: &Surroundings) -> Result<Client, Failure> {
    endpoint(server, state, surroundings).map(Client::new)
}

fn endpoint(server: Option<&str>, state: &Path, surroundings: &Surroundings) -> Result<Endpoint, Failure> {
    let file = match surroundings.config_file() {
        Some(path) => read_file(&path)?,
        None => File::default(),
    };
    let Some(address) = server.map(str::to_owned).or(file.server) else { return Ok(Endpoint::Unix(local_socket(state))) };
    let address = address.strip_prefix("unix:").map_or(address.as_str(), |path| path.strip_prefix("//").unwrap_or(path));
    if address.starts_with("http://") || address.starts_with("https://") {
        let token = surroundings.token.clone().or(file.token.map(Secret::new)).ok_or_else(|| {
            Failure::usage(format!("the server at {address} wants a token, and there is none"))
                .hint("set CORACLE_TOKEN, or write token = \"…\" into ~/.config/coracle/config.toml (mode 0600)")
        })?;
        return Ok(Endpoint::Tcp { url: address.to_owned(), token });
    }
    if address.contains('/') {
        return Ok(Endpoint::Unix(address.into()));
    }
    Err(Failure::usage(format!("{address:?} is not a server's address"))
        .hint("use http://host:port or the path of its Unix socket"))
}

/// The socket in the state directory; where there is none, that of the machine's own server, if there is one.
fn local_socket(state: &Path) -> PathBuf {
    let is_socket = |path: &Path| path.metadata().is_ok_and(|facts| facts.file_type().is_socket());
    let (own, system) = (state.join(SOCKET), Path::new(SYSTEM_STATE).join(SOCKET));
    if !is_socket(&own) && is_socket(&system) { system } else { own }
}

/// Reads the configuration. A token in a file that others can read is refused, as ssh refuses such keys.
fn read_file(path: &Path) -> Result<File, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(Failure::failed(format!("cannot read {}: {error}", path.display()))),
    };
    // The message of the TOML reader quotes the line, which may hold the token.
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map(|line| format!(" (line {line})")).unwrap_or_default();
        Failure::usage(format!("{} is not valid{place}", path.display()))
            .hint("it may hold two keys: server = \"http://host:port\" and token = \"…\"")
    })?;
    let mode = path.metadata().map(|facts| facts.permissions().mode() & 0o777).unwrap_or(0);
    if file.token.is_some() && mode & 0o077 != 0 {
        return Err(Failure::usage(format!("{} holds a token and can be read by others (mode {mode:04o})", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
