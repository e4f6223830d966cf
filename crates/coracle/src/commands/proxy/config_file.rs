//! `coracle proxy --config FILE`: the file as options and table, and again whenever it changes.

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_proxy::certs::{AcmeOptions, ChallengeKind, GivenFiles, LETS_ENCRYPT, check_given};
use coracle_proxy::{AccessLog, BadTable, Changes, EncodedCharacters, Limits, ListenerOptions, ProxyOptions, Source, Trust};
use coracle_proxy_config::{self as config, AcmeChallenge, Config};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// The control socket's name in the state directory.
pub(super) const SOCKET: &str = "control.sock";
/// Programs write a file in several steps: it is read when so long nothing has happened to it,
const SETTLES: Duration = Duration::from_millis(100);
/// but no later than this after it began.
const SETTLES_AT_LAST: Duration = Duration::from_secs(2);

/// The state directory of a proxy whose file names none: of the system for root, of the user otherwise.
pub(super) fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return "/var/lib/coracle-proxy".into();
    }
    let of = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")));
    state.unwrap_or_else(|| "/var/tmp".into()).join("coracle-proxy")
}

/// A configuration file that is served by.
pub(super) struct ConfigFile {
    path: PathBuf,
    /// As it was read last.
    last: Config,
    /// What was wrong with it last, so that it is said once.
    told: Option<String>,
    changed: Arc<Notify>,
    /// It has changed and is not read yet.
    pending: bool,
    watch: Option<Watch>,
}

/// The folder of a file, and that of what it is a link to.
struct Watch {
    watcher: RecommendedWatcher,
    /// Where the link leads, if it is one that leads to another folder.
    behind: Option<PathBuf>,
    /// What the file is called in either.
    names: Arc<Mutex<Vec<OsString>>>,
}

/// Reads a file and looks at everything that can be looked at without serving by it. Errors name the file, the line and the
/// column.
pub(super) fn read(path: &Path) -> Result<Config, String> {
    let config = Config::read(path).map_err(|error| error.to_string())?;
    let file = path.display();
    for (at, given) in given(&config).iter().enumerate() {
        check_given(given).map_err(|error| format!("{file}{}: {error}", place(&config, &format!("tls.certificates[{at}]"))))?;
    }
    coracle_proxy::check(config.table.clone()).map_err(|error| explain(path, &config, &error))?;
    Ok(config)
}

/// Why a table is not served by, with the place in the file.
pub(super) fn explain(path: &Path, config: &Config, error: &BadTable) -> String {
    let place = error.at_fault().iter().map(|key| place(config, key)).find(|place| !place.is_empty()).unwrap_or_default();
    format!("{}{place}: {error}", path.display())
}

/// `:line:column` of what is called so in the file.
fn place(config: &Config, key: &str) -> String {
    config.places.get(key).map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default()
}

fn given(config: &Config) -> Vec<GivenFiles> {
    let files = config.certificates.iter();
    files.map(|it| GivenFiles { cert: it.cert.clone(), key: it.key.clone(), default: it.default }).collect()
}

/// What the proxy is started with.
pub(super) fn options(
    config: &Config,
    control_socket: Option<PathBuf>,
    state_dir: Option<PathBuf>,
) -> Result<ProxyOptions, String> {
    let state_dir = state_dir.or_else(|| config.state_dir.clone()).unwrap_or_else(default_state_dir);
    let control_socket = control_socket.or_else(|| config.control_socket.clone()).unwrap_or_else(|| state_dir.join(SOCKET));
    let mut options = ProxyOptions::new(Vec::new(), control_socket, state_dir);
    for listener in &config.listeners {
        options.listeners.push(ListenerOptions {
            name: listener.name.clone(),
            address: everywhere(listener.address),
            tls: listener.tls,
            proxy_protocol: listener.proxy_protocol.as_deref().map(trust).transpose()?,
        });
    }
    options.forwarding.trust = trust(&config.trusted_proxies)?;
    options.forwarding.server = config.forwarded_server.clone().map(String::into_boxed_str);
    options.forwarding.append_peer = config.forwarded_append.unwrap_or(options.forwarding.append_peer);
    options.forwarding.scheme_fields = config.forwarded_scheme.unwrap_or(options.forwarding.scheme_fields);
    options.connection_fields.clone_from(&config.connection_fields);
    if let Some(names) = &config.encoded_characters {
        let named = EncodedCharacters::named(names.iter().copied());
        options.encoded_characters = named.map_err(|name| format!("{name} is no character that paths may have"))?;
    }
    options.limits = limits(&config.limits);
    options.max_connections_per_client = config.limits.connections_per_client;
    options.certificates.acme = config.acme.as_ref().map(acme);
    options.certificates.given = given(config);
    options.access_log = match &config.access_log {
        config::AccessLog::Off => AccessLog::Off,
        config::AccessLog::Stdout => AccessLog::Stdout,
        config::AccessLog::File(path) => AccessLog::File(path.clone()),
    };
    options.workers = config.workers.unwrap_or(options.workers);
    options.drain = config.drain.unwrap_or(options.drain);
    options.metrics = config.metrics;
    options.table = Some(config.table.clone());
    Ok(options)
}

fn trust(nets: &[ipnet::IpNet]) -> Result<Trust, String> {
    Trust::parse(nets.iter().map(ToString::to_string)).map_err(|error| error.to_string())
}

/// All addresses, where there is no IPv6, are those of IPv4.
fn everywhere(address: SocketAddr) -> SocketAddr {
    if address.ip() == Ipv6Addr::UNSPECIFIED && TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_err() {
        return (Ipv4Addr::UNSPECIFIED, address.port()).into();
    }
    address
}

fn limits(config: &config::Limits) -> Limits {
    let usual = Limits::default();
    Limits {
        header_read: config.header_read.unwrap_or(usual.header_read),
        idle: config.idle.unwrap_or(usual.idle),
        connect: config.connect.unwrap_or(usual.connect),
        response_header: config.response.unwrap_or(usual.response_header),
        body_rate: config.body_rate.unwrap_or(usual.body_rate),
        body_grace: usual.body_grace,
        stall: config.stall.unwrap_or(usual.stall),
        upstream_idle: config.upstream_idle.unwrap_or(usual.upstream_idle),
        upstream_idle_count: config.upstream_idle_connections.unwrap_or(usual.upstream_idle_count),
        header_bytes: config.header_bytes.unwrap_or(usual.header_bytes),
        header_fields: config.header_fields.unwrap_or(usual.header_fields),
        http2_streams: config.http2_streams.unwrap_or(usual.http2_streams),
    }
}

fn acme(config: &config::Acme) -> AcmeOptions {
    let mut acme = AcmeOptions {
        directory_url: config.directory.clone().unwrap_or_else(|| LETS_ENCRYPT.to_owned()),
        ca_file: config.ca_file.clone(),
        email: config.email.clone(),
        ..AcmeOptions::default()
    };
    if !config.challenges.is_empty() {
        let kind = |challenge: &AcmeChallenge| match challenge {
            AcmeChallenge::Http01 => ChallengeKind::Http01,
            AcmeChallenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
        };
        acme.challenges = config.challenges.iter().map(kind).collect();
    }
    if !config.preflight {
        acme.preflight = crate::acme::no_preflight();
    }
    acme
}

/// What only a restart can change, and has.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let differs = [
        ("listen", old.listeners != new.listeners),
        ("forwarded_server", old.forwarded_server != new.forwarded_server),
        ("forwarded_append", old.forwarded_append != new.forwarded_append),
        ("forwarded_scheme", old.forwarded_scheme != new.forwarded_scheme),
        ("connection_fields", old.connection_fields != new.connection_fields),
        ("encoded_characters", old.encoded_characters != new.encoded_characters),
        ("limits", old.limits != new.limits),
        ("tls.acme", old.acme != new.acme),
        ("access_log", old.access_log != new.access_log),
        ("workers", old.workers != new.workers),
        ("drain", old.drain != new.drain),
        ("metrics", old.metrics != new.metrics),
        ("control_socket", old.control_socket != new.control_socket),
        ("state_dir", old.state_dir != new.state_dir),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

impl ConfigFile {
    /// Watches a file that was read just now.
    pub(super) fn watch(path: PathBuf, config: Config) -> Self {
        let changed = Arc::new(Notify::new());
        let watch = Watch::new(&path, Arc::clone(&changed)).inspect_err(|error| {
            tracing::warn!(%error, path = %path.display(), "cannot be watched; SIGHUP reads it again");
        });
        Self { path, last: config, told: None, changed, pending: false, watch: watch.ok() }
    }

    /// Tells why what is in the file is not served by, once.
    fn refuse(&mut self, text: String) {
        if self.told.as_ref() != Some(&text) {
            tracing::error!("the configuration is not served by; the last good one is: {text}");
            self.told = Some(text);
        }
    }
}

impl Watch {
    /// Watches the folder: most programs put another file in the place of the one before.
    fn new(path: &Path, changed: Arc<Notify>) -> notify::Result<Self> {
        let names = Arc::new(Mutex::new(path.file_name().map(ToOwned::to_owned).into_iter().collect::<Vec<OsString>>()));
        let known = Arc::clone(&names);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return changed.notify_one() };
            // What is written to other files of the folder, logs for example, is of no interest; what is moved there may be.
            let is_moved = !matches!(event.kind, EventKind::Access(_) | EventKind::Modify(notify::event::ModifyKind::Data(_)));
            let names = known.lock().unwrap_or_else(PoisonError::into_inner);
            let is_it = event.paths.iter().any(|path| names.iter().any(|name| path.file_name() == Some(name)));
            if !matches!(event.kind, EventKind::Access(_)) && (is_it || is_moved) {
                changed.notify_one();
            }
        })?;
        watcher.watch(folder(path), RecursiveMode::NonRecursive)?;
        let mut watch = Self { watcher, behind: None, names };
        watch.follow(path);
        Ok(watch)
    }

    /// Watches where the link leads by now, if the file is one.
    fn follow(&mut self, path: &Path) {
        let Ok(real) = path.canonicalize() else { return };
        let behind = Some(real).filter(|real| folder(path).canonicalize().is_ok_and(|folder| Some(&*folder) != real.parent()));
        if behind == self.behind {
            return;
        }
        if let Some(before) = self.behind.take()
            && let Err(error) = self.watcher.unwatch(folder(&before))
        {
            tracing::debug!(%error, path = %before.display(), "is not watched any more");
        }
        let names = [Some(path), behind.as_deref()].into_iter().flatten().filter_map(Path::file_name);
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names.map(ToOwned::to_owned).collect();
        if let Some(real) = &behind
            && let Err(error) = self.watcher.watch(folder(real), RecursiveMode::NonRecursive)
        {
            tracing::warn!(%error, path = %real.display(), "cannot be watched; SIGHUP reads it again");
        }
        self.behind = behind;
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Source for ConfigFile {
    async fn changed(&mut self) {
        if !self.pending {
            self.changed.notified().await;
            self.pending = true;
        }
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < SETTLES_AT_LAST && tokio::time::timeout(SETTLES, self.changed.notified()).await.is_ok() {}
        self.pending = false;
    }

    fn read(&mut self) -> Option<Changes> {
        if let Some(watch) = &mut self.watch {
            watch.follow(&self.path);
        }
        let config = match read(&self.path) {
            Ok(config) => config,
            Err(text) => {
                self.refuse(text);
                return None;
            }
        };
        if config.table.routes.is_empty() && !self.last.table.routes.is_empty() {
            let file = self.path.display();
            self.refuse(format!("{file}: has neither sites nor routes; it is taken for one that is just being written"));
            return None;
        }
        if config == self.last && self.told.is_none() {
            return None;
        }
        self.told = None;
        for key in needs_restart(&self.last, &config) {
            tracing::warn!("{key} has changed in {}; that takes effect with a restart", self.path.display());
        }
        let changes = Changes {
            table: config.table.clone(),
            given: given(&config),
            // Networks are texts that can be read again.
            trust: trust(&config.trusted_proxies).unwrap_or_default(),
        };
        self.last = config;
        Some(changes)
    }

    fn refused(&mut self, error: &BadTable) {
        self.refuse(explain(&self.path, &self.last, error));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The rows of a table of the reference, below a heading: its first column, without the code marks, and its last.
    fn rows(heading: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/proxy.md")).unwrap();
        let section = text.split_once(&format!("\n## {heading}\n")).unwrap().1.split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let cells = rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
        cells.map(|cells| (cells[0].trim_matches('`').to_owned(), cells.last().unwrap().clone())).collect()
    }

    fn of_file(text: &str) -> ProxyOptions {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.toml");
        std::fs::write(&path, text).unwrap();
        options(&read(&path).unwrap(), None, None).unwrap()
    }

    #[test]
    fn the_limits_that_the_reference_names_are_those_that_hold() {
        let rows = rows("`[limits]`");
        assert_eq!(rows.len(), 12);
        let said = |(key, value): &(String, String)| match value.strip_prefix('`') {
            Some(value) => format!("{key} = {}\n", value.trim_end_matches('`')),
            None => format!("# {key}: {value}\n"),
        };
        let file: String = rows.iter().map(said).collect();
        let (told, usual) = (of_file(&format!("[limits]\n{file}")), of_file(""));
        assert_eq!(told.limits, usual.limits, "{file}");
        assert!(file.contains("# connections_per_client: no limit") && usual.max_connections_per_client.is_none());
    }

    #[test]
    fn what_the_reference_says_of_the_top_holds() {
        let value = |key: &str| rows("At the top").into_iter().find(|row| row.0 == key).unwrap().1;
        let usual = of_file("");
        assert_eq!(of_file(&format!("drain = {}", value("drain").trim_matches('`'))).drain, usual.drain);
        assert_eq!((value("access_log").as_str(), usual.access_log), ("`\"off\"`", AccessLog::Off));
        assert_eq!((value("forwarded_append").as_str(), usual.forwarding.append_peer), ("`true`", true));
        assert_eq!((value("forwarded_scheme").as_str(), usual.forwarding.scheme_fields), ("`false`", false));
        assert_eq!((value("metrics").as_str(), usual.metrics), ("none", None));
        assert_eq!(value("workers"), "one per core");
        assert_eq!(usual.workers, std::thread::available_parallelism().map_or(1, usize::from));
        assert_eq!(usual.control_socket, usual.state_dir.join(SOCKET));
        assert!(value("state_dir").contains("`/var/lib/coracle-proxy` for root") && value("control_socket").contains(SOCKET));
    }
}
