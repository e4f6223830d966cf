//! The tables of a manifest, key by key.

use std::collections::BTreeMap;

use coracle_toml_reading::{Entry, Values, cut, entries as any_entries};
use toml::de::DeTable;

use super::beside_compose::ComposeChoice;
use super::layer::{BuildLayer, DeployLayer, HttpLayer, Layer, ProcessLayer, RegistryLayer};
use super::middlewares;
use super::previews;
use super::services;
use super::values::{Keys, command, cpus, entries};
use crate::names::{AppName, EnvName, HostPattern, ProcessName};
use crate::quantity::{ByteSize, Span};
use crate::spec::{BuilderChoice, EngineKind, Redirect, Strategy, TlsMode, VolumeMount};

const TOP: Keys = Keys {
    known: &[
        "app",
        "engine",
        "build",
        "http",
        "deploy",
        "processes",
        "env",
        "registry",
        "secrets",
        "services",
        "middlewares",
        "compose",
        "previews",
        "environments",
        // Read by the crates of these names.
        "pipeline",
        "policy",
    ],
    planned: &["cron"],
};
const OVERLAY: Keys = Keys {
    known: &[
        "app",
        "engine",
        "build",
        "http",
        "deploy",
        "processes",
        "env",
        "registry",
        "secrets",
        "services",
        "middlewares",
        "compose",
        "pipeline",
    ],
    planned: &["cron"],
};
const COMPOSE: Keys = Keys { known: &["files", "profiles", "env_files"], planned: &[] };
const BUILD: Keys =
    Keys { known: &["builder", "dockerfile", "target", "args", "secrets", "image", "root", "memory", "cpus"], planned: &[] };
const HTTP: Keys = Keys {
    known: &["hosts", "path_prefix", "strip_prefix", "port", "health", "tls", "redirect", "canonical_host", "middlewares"],
    planned: &[],
};
const REGISTRY: Keys = Keys { known: &["push", "required"], planned: &[] };
const DEPLOY: Keys = Keys { known: &["strategy", "release_command", "drain", "timeout", "watch", "grace", "keep"], planned: &[] };
const PROCESS: Keys =
    Keys { known: &["command", "replicas", "memory", "cpus", "pids", "volumes", "delegate_cgroup"], planned: &[] };

/// Less than this no container starts with.
const LEAST_MEMORY: ByteSize = ByteSize::mib(6);

/// The manifest's own keys and those of its environments.
pub(super) fn document(values: &mut Values<'_>, table: &DeTable<'_>) -> (Layer, BTreeMap<String, Layer>) {
    let base = layer(values, "", table, &TOP);
    let names = middlewares::names(table);
    middlewares::check_names(values, "", table, &names);
    let mut environments = BTreeMap::new();
    let mut entries = any_entries("", table);
    entries.retain(|entry| entry.key == "environments");
    for entry in entries {
        let Some(table) = values.table(&entry) else { continue };
        for entry in any_entries(&entry.path, table) {
            if entry.key.parse::<AppName>().is_err() {
                let message = "is not a name for an environment";
                let hint = "use lower-case letters, digits and hyphens, beginning with a letter";
                values.mistakes.add(entry.key_span, &entry.path, message, Some(hint.to_owned()));
                continue;
            }
            if let Some(table) = values.table(&entry) {
                let overlay = layer(values, &entry.path, table, &OVERLAY);
                let names = names.union(&middlewares::names(table)).copied().collect();
                middlewares::check_names(values, &entry.path, table, &names);
                environments.insert(entry.key.to_owned(), overlay);
            }
        }
    }
    (base, environments)
}

fn layer(values: &mut Values<'_>, path: &str, table: &DeTable<'_>, keys: &Keys) -> Layer {
    let mut layer = Layer::default();
    let mut secrets_entry = None;
    for entry in entries(values, path, table, keys) {
        match entry.key {
            "app" => layer.app = values.parsed(&entry),
            "engine" => layer.engine = engine(values, &entry),
            "secrets" => {
                layer.secrets = values.list(&entry);
                secrets_entry = Some(entry);
            }
            "environments" | "pipeline" | "policy" => {}
            section => {
                let Some(table) = values.table(&entry) else { continue };
                match section {
                    "build" => layer.build = build(values, &entry, table),
                    "http" => layer.http = http(values, &entry.path, table),
                    "deploy" => layer.deploy = deploy(values, &entry.path, table),
                    "services" => layer.services = services::read(values, &entry.path, table, path.is_empty()),
                    "processes" => layer.processes = processes(values, &entry.path, table),
                    "compose" => layer.compose = compose(values, &entry.path, table),
                    "registry" => layer.registry = registry(values, &entry.path, table),
                    "env" => layer.env = env(values, &entry.path, table),
                    "middlewares" => layer.middlewares = middlewares::read(values, &entry.path, table),
                    "previews" => layer.previews = Some(previews::read(values, &entry, table)),
                    _ => unreachable!("every known key is handled"),
                }
            }
        }
    }
    if let Some(name) = layer.services.keys().find(|name| layer.processes.contains_key(*name)) {
        let place = any_entries(path, table).into_iter().find(|entry| entry.key == "services");
        if let Some(entry) = place {
            values.wrong_key(&entry, format!("{name} is the name of a process and of a service"), None);
        }
    }
    if let (Some(entry), Some(secrets)) = (&secrets_entry, &layer.secrets) {
        for name in secrets {
            if name.as_str() == "PORT" {
                values.wrong(entry, "PORT is set by Coracle itself", None);
            } else if layer.env.contains_key(name) {
                let hint = "a secret's value is set by `coracle secrets set`, never in the file";
                values.wrong(entry, format!("{name} is in [env] as well"), Some(hint));
            }
        }
    }
    layer
}

/// Which compose files count. They are named to the server in one word, separated by commas.
fn compose(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> ComposeChoice {
    let mut choice = ComposeChoice::default();
    for entry in entries(values, path, table, &COMPOSE) {
        let Some(words) = values.list::<String>(&entry) else { continue };
        if words.is_empty() {
            values.wrong(&entry, "names nothing", Some("leave it out, or name at least one"));
        } else if let Some(word) = words.iter().find(|word| word.trim() != *word || word.is_empty() || word.contains(',')) {
            values.wrong(&entry, format!("{:?} is empty, has a comma, or begins or ends with a blank", cut(word)), None);
        } else {
            match entry.key {
                "files" => choice.files = Some(words),
                "profiles" => choice.profiles = Some(words),
                "env_files" => choice.env_files = Some(words),
                _ => unreachable!("every known key is handled"),
            }
        }
    }
    choice
}

fn engine(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<EngineKind> {
    match values.text(entry)? {
        planned @ ("swarm" | "kubernetes") => {
            let message = format!("engine \"{planned}\" is not supported by this version of Coracle");
            values.wrong(entry, message, Some("use \"docker\" or \"process\""));
            None
        }
        other => match other.parse() {
            Ok(engine) => Some(engine),
            Err(_) => {
                values.wrong(entry, format!("engine {:?} is not known", cut(other)), Some("use \"docker\" or \"process\""));
                None
            }
        },
    }
}

fn build(values: &mut Values<'_>, section: &Entry<'_, '_>, table: &DeTable<'_>) -> BuildLayer {
    let mut build = BuildLayer::default();
    for entry in entries(values, &section.path, table, &BUILD) {
        match entry.key {
            "builder" => build.builder = builder(values, &entry),
            "dockerfile" => build.dockerfile = relative_path(values, &entry),
            "target" => build.target = word(values, &entry),
            "args" => build.args = build_args(values, &entry),
            "secrets" => build.secrets = values.list(&entry),
            "image" => build.image = word(values, &entry),
            "root" => build.root = relative_path(values, &entry),
            "memory" => build.memory = memory(values, &entry),
            "cpus" => build.cpus = cpus(values, &entry),
            _ => unreachable!("every known key is handled"),
        }
    }
    let has_secrets = build.secrets.as_ref().is_some_and(|secrets| !secrets.is_empty());
    let uses_dockerfile = build.dockerfile.is_some() || build.target.is_some() || !build.args.is_empty() || has_secrets;
    let contradiction = if build.image.is_some() && (uses_dockerfile || build.builder.is_some()) {
        Some("`image` is run as it is, so `builder`, `dockerfile`, `target`, `args` and `secrets` cannot stand beside it")
    } else if build.builder == Some(BuilderChoice::Static) && uses_dockerfile {
        Some(
            "a static site is not built, so `dockerfile`, `target`, `args` and `secrets` cannot stand beside `builder = \"static\"`",
        )
    } else {
        None
    };
    if let Some(message) = contradiction {
        values.mistakes.add(section.key_span.clone(), &section.path, message, None);
    }
    build
}

fn builder(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<BuilderChoice> {
    match values.text(entry)? {
        "auto" => Some(BuilderChoice::Auto),
        "dockerfile" => Some(BuilderChoice::Dockerfile),
        "static" => Some(BuilderChoice::Static),
        other => {
            let hint = "use \"auto\", \"dockerfile\" or \"static\"";
            values.wrong(entry, format!("builder {:?} is not known", cut(other)), Some(hint));
            None
        }
    }
}

fn build_args(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> BTreeMap<String, String> {
    let Some(table) = values.table(entry) else { return BTreeMap::new() };
    let named = environment(values, &entry.path, table);
    named.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

fn http(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> HttpLayer {
    let mut http = HttpLayer::default();
    let mut canonical = None;
    for entry in entries(values, path, table, &HTTP) {
        match entry.key {
            "hosts" => http.hosts = hosts(values, &entry),
            "path_prefix" => http.path_prefix = path_prefix(values, &entry),
            "strip_prefix" => http.strip_prefix = values.boolean(&entry),
            "port" => http.port = values.integer(&entry, 1..=65535).and_then(|port| port.try_into().ok()),
            "health" => http.health = health(values, &entry),
            "tls" => http.tls = tls(values, &entry),
            "redirect" => http.redirect = redirect(values, &entry),
            "middlewares" => http.middlewares = values.list(&entry),
            "canonical_host" => {
                http.canonical_host = canonical_host(values, &entry);
                canonical = Some(entry);
            }
            _ => unreachable!("every known key is handled"),
        }
    }
    if let (Some(entry), Some(host), Some(hosts)) = (&canonical, &http.canonical_host, &http.hosts)
        && !hosts.contains(host)
    {
        values.wrong(entry, format!("{host} is not among the hosts"), Some("add it to `hosts`, too"));
    }
    http
}

fn tls(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<TlsMode> {
    match values.text(entry)? {
        "auto" => Some(TlsMode::Auto),
        "acme" => Some(TlsMode::Acme),
        "local" => Some(TlsMode::Local),
        "off" => Some(TlsMode::Off),
        other => {
            let hint = "use \"auto\", \"acme\", \"local\" or \"off\"";
            values.wrong(entry, format!("{:?} is no way to get certificates", cut(other)), Some(hint));
            None
        }
    }
}

fn redirect(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Redirect> {
    match values.text(entry)? {
        "https" => Some(Redirect::Https),
        "off" => Some(Redirect::Off),
        other => {
            values.wrong(entry, format!("redirect {:?} is not known", cut(other)), Some("use \"https\" or \"off\""));
            None
        }
    }
}

fn canonical_host(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<HostPattern> {
    let host: HostPattern = values.parsed(entry)?;
    if host.as_str().starts_with('*') {
        values.wrong(entry, format!("{host} is not one host"), Some("name the host that the others lead to"));
        return None;
    }
    Some(host)
}

fn hosts(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Vec<HostPattern>> {
    let hosts = values.list(entry)?;
    if entry.value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
        values.wrong(entry, "names no host", Some("remove the key to get <app>.localhost"));
        return None;
    }
    Some(hosts)
}

/// A path as a request has it: absolute, printable, without query.
fn request_path<'a>(values: &mut Values<'_>, entry: &Entry<'a, '_>, query: bool) -> Option<&'a str> {
    let path = values.text(entry)?;
    let clean = path.starts_with('/')
        && path.len() <= 1024
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && (query || b != b'?'));
    if !clean {
        values.wrong(entry, format!("{:?} is not a path of a request", cut(path)), Some("begin it with `/`, as in \"/health\""));
    }
    clean.then_some(path)
}

fn health(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<String> {
    request_path(values, entry, true).map(str::to_owned)
}

/// Without a slash at its end; `/` alone is every path.
fn path_prefix(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<String> {
    let path = request_path(values, entry, false)?;
    let segments: Vec<_> = path.trim_matches('/').split('/').collect();
    if path != "/" && segments.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
        values.wrong(entry, "must not have empty segments, `.` or `..`", None);
        return None;
    }
    Some(format!("/{}", segments.join("/")))
}

fn registry(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> RegistryLayer {
    let mut registry = RegistryLayer::default();
    for entry in entries(values, path, table, &REGISTRY) {
        match entry.key {
            "push" => registry.push = values.parsed(&entry),
            "required" => registry.required = values.boolean(&entry),
            _ => unreachable!("every known key is handled"),
        }
    }
    registry
}

fn deploy(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> DeployLayer {
    let mut deploy = DeployLayer::default();
    for entry in entries(values, path, table, &DEPLOY) {
        match entry.key {
            "strategy" => deploy.strategy = strategy(values, &entry),
            "release_command" => deploy.release_command = command(values, &entry),
            "drain" => deploy.drain = values.quantity(&entry, "30s"),
            "timeout" => deploy.timeout = timeout(values, &entry),
            "watch" => deploy.watch = values.quantity(&entry, "30s"),
            "grace" => deploy.grace = values.quantity(&entry, "30s"),
            "keep" => deploy.keep = values.integer(&entry, 1..=1000),
            _ => unreachable!("every known key is handled"),
        }
    }
    deploy
}

fn timeout(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Span> {
    let span: Span = values.quantity(entry, "30s")?;
    if span == Span::seconds(0) {
        values.wrong(entry, "would give a new release no time to become healthy", None);
        return None;
    }
    Some(span)
}

fn strategy(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Strategy> {
    let hint = Some("use \"blue-green\" or \"recreate\"");
    match values.text(entry)? {
        "blue-green" => return Some(Strategy::BlueGreen),
        "recreate" => return Some(Strategy::Recreate),
        planned @ ("canary" | "rolling") => {
            values.wrong(entry, format!("strategy \"{planned}\" is not supported by this version of Coracle"), hint);
        }
        other => values.wrong(entry, format!("strategy {:?} is not known", cut(other)), hint),
    }
    None
}

fn processes(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> BTreeMap<ProcessName, ProcessLayer> {
    let mut processes = BTreeMap::new();
    for entry in any_entries(path, table) {
        let name: ProcessName = match entry.key.parse() {
            Ok(name) if entry.key != "release" => name,
            Ok(_) => {
                let hint = "write it as `release_command` under [deploy]".to_owned();
                values.mistakes.add(entry.key_span, &entry.path, "`release` is a command, not a process", Some(hint));
                continue;
            }
            Err(error) => {
                values.mistakes.add(entry.key_span, &entry.path, error.to_string(), None);
                continue;
            }
        };
        if let Some(table) = values.table(&entry) {
            let process = process(values, &entry.path, table);
            processes.insert(name, process);
        }
    }
    processes
}

fn process(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> ProcessLayer {
    let mut process = ProcessLayer::default();
    for entry in entries(values, path, table, &PROCESS) {
        match entry.key {
            "command" => process.command = command(values, &entry),
            "replicas" => process.replicas = values.integer(&entry, 0..=100).and_then(|n| n.try_into().ok()),
            "memory" => process.memory = memory(values, &entry),
            "cpus" => process.cpus = cpus(values, &entry),
            "pids" => process.pids = values.integer(&entry, 1..=4_194_304),
            "volumes" => process.volumes = volumes(values, &entry),
            "delegate_cgroup" => process.delegate_cgroup = values.boolean(&entry),
            _ => unreachable!("every known key is handled"),
        }
    }
    process
}

pub(super) fn volumes(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Vec<VolumeMount>> {
    let volumes: Vec<VolumeMount> = values.list(entry)?;
    for (n, volume) in volumes.iter().enumerate() {
        if volumes[..n].iter().any(|other| other.path.trim_end_matches('/') == volume.path.trim_end_matches('/')) {
            values.wrong(entry, format!("two volumes are mounted at {}", cut(&volume.path)), None);
        }
    }
    Some(volumes)
}

pub(super) fn memory(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<ByteSize> {
    let size: ByteSize = values.quantity(entry, "256M")?;
    if size < LEAST_MEMORY {
        values.wrong(entry, format!("{size} is less than any program starts with"), Some("use at least 6M"));
        return None;
    }
    Some(size)
}

fn env(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> BTreeMap<EnvName, String> {
    let env = environment(values, path, table);
    if let Some(entry) = any_entries(path, table).into_iter().find(|entry| entry.key == "PORT") {
        let hint = "the port inside a container is `port` under [http]".to_owned();
        values.mistakes.add(entry.key_span, &entry.path, "PORT is set by Coracle itself", Some(hint));
    }
    env
}

/// Names and texts.
pub fn environment(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> BTreeMap<EnvName, String> {
    let mut all = BTreeMap::new();
    for entry in any_entries(path, table) {
        match entry.key.parse::<EnvName>() {
            Ok(name) => {
                if let Some(value) = values.text(&entry) {
                    all.insert(name, value.to_owned());
                }
            }
            Err(error) => values.mistakes.add(entry.key_span, &entry.path, error.to_string(), None),
        }
    }
    all
}

/// A path below the tree's root.
fn relative_path(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<String> {
    let path = values.text(entry)?;
    let problem = if path.is_empty() || path.len() > 1024 || path.chars().any(char::is_control) {
        Some("is not a path")
    } else if path.starts_with('/') {
        Some("must be relative to the folder of the manifest")
    } else if path.split('/').any(|piece| piece == "..") {
        Some("must not lead out of the folder of the manifest")
    } else {
        None
    };
    if let Some(problem) = problem {
        values.wrong(entry, format!("{:?} {problem}", cut(path)), None);
        return None;
    }
    let pieces: Vec<_> = path.split('/').filter(|piece| !matches!(*piece, "" | ".")).collect();
    Some(if pieces.is_empty() { ".".to_owned() } else { pieces.join("/") })
}

/// A text without blanks that cannot be taken for an option.
pub fn word(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<String> {
    let text = values.text(entry)?;
    let fine = !text.is_empty() && text.len() <= 512 && !text.starts_with('-') && text.bytes().all(|b| b.is_ascii_graphic());
    if !fine {
        values.wrong(entry, format!("{:?} is not valid here", cut(text)), None);
    }
    fine.then(|| text.to_owned())
}
