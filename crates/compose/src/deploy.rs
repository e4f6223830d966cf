//! From a resolved project to an app that Coracle deploys: which services are processes and which keep data, how they are
//! made, what their containers ask for, and who sends them requests.
//!
//! Nothing is dropped in silence: a key that is valid and cannot be honoured is an [`Obstacle`] with its place, which the
//! caller refuses or, where a person said so, warns of. What decides whether a service keeps data is told in [`keeping`].

mod build;
mod files;
mod keeping;
mod lifetimes;
mod mounts;
mod power;
mod reached;
mod service;
pub(crate) mod support;
#[cfg(test)]
mod tests;
mod unsupported;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component, Path, PathBuf};

use coracle_model::{AppName, AppSpec, EngineKind, EnvName, HostPattern, ProcessName, ProcessSpec, Span};
use serde_json::Value;

use crate::service::Service;
use crate::{Loaded, Position, Project};

/// What a project is deployed as.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// The app.
    pub app: AppName,
    /// The source tree that was sent, absolute: paths of the project lie in it.
    pub tree: &'a Path,
    /// A directory of the server's own: nothing of it is mounted, however a path gets there.
    pub closed: Option<&'a Path>,
    /// Where it is reached, if that was said elsewhere; else at `<app>.localhost`.
    pub hosts: Option<Vec<HostPattern>>,
}

/// An app, and what stands against it.
#[derive(Debug, Clone)]
pub struct Deployable {
    /// The app.
    pub spec: AppSpec,
    /// Keys that are valid and cannot be honoured.
    pub obstacles: Vec<Obstacle>,
    /// Mistakes: these cannot be overlooked.
    pub mistakes: Vec<Obstacle>,
    /// What was decided, one sentence each.
    pub notes: Vec<String>,
}

/// A key that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The key, dotted from the top.
    pub path: String,
    /// Where it was written; the file is named as it is in the tree.
    pub position: Option<Position>,
    /// Why not.
    pub message: String,
    /// Whether it only stands against releases that replace each other, and so against nothing while developing.
    pub of_releases: bool,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Makes an app of a project.
pub fn app_spec(loaded: &Loaded, surroundings: Surroundings<'_>) -> Deployable {
    let tree = surroundings.tree.canonicalize().unwrap_or_else(|_| surroundings.tree.to_owned());
    let mut spec = AppSpec::named(surroundings.app.clone());
    spec.engine = Some(EngineKind::Docker);
    spec.http.hosts = surroundings.hosts.unwrap_or(spec.http.hosts);
    let mut maker = Maker {
        project: &loaded.project,
        tree,
        closed: surroundings.closed.map(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned())),
        names: BTreeMap::new(),
        obstacles: Vec::new(),
        mistakes: Vec::new(),
        notes: Vec::new(),
        secrets: Vec::new(),
        claimed: BTreeSet::new(),
    };
    maker.note_unsupported(&loaded.value);
    maker.top(&mut spec);
    maker.name_services();
    maker.check_ports();
    let parts: Vec<(String, ProcessName)> = maker.names.clone().into_iter().collect();
    let mut made: BTreeMap<ProcessName, Made> = BTreeMap::new();
    for (service, name) in &parts {
        let Some(definition) = loaded.project.services.get(service) else { continue };
        let mut part = maker.part(service, definition);
        let (keeps, for_volume) = maker.keeps_data(service, definition, &part);
        maker.keep_directories(service, keeps, &mut part);
        maker.note_power(service, definition);
        maker.note_proxy(service, definition);
        made.insert(name.clone(), Made { part, keeps, for_volume });
    }
    lifetimes::find_tasks(&mut made);
    maker.put_behind_processes(&mut made);
    maker.note_one_network();
    maker.expose(&spec.http.hosts.clone(), &mut made);
    maker.give_links(&mut made);
    for (name, Made { part, keeps, .. }) in made {
        let parts = if keeps { &mut spec.services } else { &mut spec.processes };
        parts.insert(name, part);
    }
    spec.services_only = spec.processes.is_empty() && !spec.services.is_empty();
    maker.secrets.sort();
    maker.secrets.dedup();
    spec.secrets.append(&mut maker.secrets);
    let Maker { obstacles, mistakes, notes, .. } = maker;
    Deployable { spec, obstacles, mistakes, notes }
}

/// Makes the parts of an app and notes what stands against them.
struct Maker<'a> {
    project: &'a Project,
    tree: PathBuf,
    closed: Option<PathBuf>,
    /// The services by the names that they have in the app.
    names: BTreeMap<String, ProcessName>,
    obstacles: Vec<Obstacle>,
    mistakes: Vec<Obstacle>,
    notes: Vec<String>,
    /// Names of the configuration that must be set.
    secrets: Vec<EnvName>,
    /// Ports of the machine that the file gives to somebody, by protocol.
    claimed: BTreeSet<(String, u16)>,
}

/// A part of the app while it is being made.
struct Made {
    part: ProcessSpec,
    /// Whether it keeps data, and so is a stateful service.
    keeps: bool,
    /// Whether that is for a volume of its own alone, so that something weightier may decide otherwise.
    for_volume: bool,
}

impl Maker<'_> {
    fn told(&self, path: &[&str], message: impl Into<String>) -> Obstacle {
        let mut position = self.project.position(path);
        if let Some(position) = &mut position
            && let Ok(inside) = Path::new(&position.file).strip_prefix(&self.tree)
        {
            position.file = inside.to_string_lossy().into_owned();
        }
        Obstacle { path: path.join("."), position, message: message.into(), of_releases: false }
    }

    /// Notes a key that cannot be honoured.
    fn cannot(&mut self, path: &[&str], message: impl Into<String>) {
        let told = self.told(path, message);
        self.obstacles.push(told);
    }

    /// Notes a mistake.
    fn wrong(&mut self, path: &[&str], message: impl Into<String>) {
        let told = self.told(path, message);
        self.mistakes.push(told);
    }

    /// A value that another type reads; what it says against it becomes a mistake at the key.
    fn read<T, E: fmt::Display>(&mut self, path: &[&str], read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.wrong(path, error.to_string())).ok()
    }

    fn span(&mut self, path: &[&str], text: Option<&str>) -> Option<Span> {
        let duration = self.read(path, crate::duration::parse(text?))?;
        match duration.to_std().and_then(|duration| u64::try_from(duration.as_millis()).ok()) {
            Some(millis) => Some(Span::millis(millis)),
            None => {
                self.wrong(path, "must not be negative");
                None
            }
        }
    }

    /// What the top level says that is not about one service.
    fn top(&mut self, spec: &mut AppSpec) {
        let own = |external: bool, name: &str, key: &str| !external && name != format!("{}_{key}", self.project.name);
        let networks = self.project.networks.iter().filter(|(key, network)| own(network.external, &network.name, key));
        let volumes = self.project.volumes.iter().filter(|(key, volume)| own(volume.external, &volume.name, key));
        let (networks, volumes): (Vec<_>, Vec<_>) = (networks.collect(), volumes.collect());
        for (key, network) in networks {
            let message = format!(
                "each release has a network of its own, and nothing outside of it joins it by the name {}; `external: true` shares \
                 one that exists",
                network.name
            );
            self.cannot(&["networks", key, "name"], message);
        }
        for (key, volume) in volumes {
            let message = format!(
                "volumes are named after the app, so the data of {} would not be found; `external: true` takes one that exists",
                volume.name
            );
            self.cannot(&["volumes", key, "name"], message);
        }
        for (key, volume) in &self.project.volumes {
            if !volume.driver_opts.is_empty() && mounts::directory(volume).is_none() {
                self.cannot(&["volumes", key, "driver_opts"], "only a directory is taken: `{type: none, o: bind, device: PATH}`");
            }
        }
        self.own_word(spec);
    }

    /// The `x-coracle` block of the top level: where the app is reached and how releases replace each other.
    fn own_word(&mut self, spec: &mut AppSpec) {
        let Some(Value::Object(own)) = self.project.extensions.get("x-coracle") else { return };
        for (key, value) in own {
            let path = ["x-coracle", key.as_str()];
            match key.as_str() {
                "hosts" => {
                    let hosts = value.as_array().into_iter().flatten().map(|host| host.as_str().unwrap_or_default().parse());
                    if let Some(hosts) = self.read(&path, hosts.collect::<Result<Vec<HostPattern>, _>>()) {
                        spec.http.hosts = hosts;
                    }
                }
                "strategy" => spec.deploy.strategy = self.read(&path, serde_json::from_value(value.clone())),
                "keep" => spec.deploy.keep = self.read(&path, serde_json::from_value(value.clone())).unwrap_or(spec.deploy.keep),
                "drain" | "timeout" | "watch" | "grace" => {
                    let Some(span) = self.span(&path, value.as_str()) else { continue };
                    let policy = &mut spec.deploy;
                    match key.as_str() {
                        "drain" => policy.drain = span,
                        "timeout" => policy.timeout = span,
                        "watch" => policy.watch = span,
                        _ => policy.grace = span,
                    }
                }
                _ => self.wrong(&path, "unknown key; known here: hosts, strategy, keep, drain, timeout, watch, grace"),
            }
        }
    }

    /// Services keep their names as far as they are names of processes; what differs is told, and the name resolves anyway.
    fn name_services(&mut self) {
        let mut taken = BTreeSet::new();
        for service in self.project.services.keys() {
            let lower = service.to_ascii_lowercase();
            let begins = lower.starts_with(|first: char| first.is_ascii_lowercase());
            let mut text = if begins { lower } else { format!("s{lower}") };
            text.truncate(32);
            match text.trim_end_matches(['.', '-']).replace("..", ".").parse::<ProcessName>() {
                Ok(name) if !taken.insert(name.clone()) => {
                    self.wrong(&["services", service], format!("there is another service that is called {name} here"));
                }
                Ok(name) => {
                    self.names.insert(service.clone(), name);
                }
                Err(error) => self.wrong(&["services", service], error.to_string()),
            }
        }
    }

    /// Networks of a file keep services apart; a release is one network.
    fn note_one_network(&mut self) {
        let own = |service: &Service| -> BTreeSet<String> {
            let is_own = |name: &&String| self.project.networks.get(*name).is_none_or(|network| !network.external);
            service.networks.keys().filter(is_own).cloned().collect()
        };
        // The first service of each set of networks speaks for the others, of which there may be thousands.
        let mut seen = BTreeSet::new();
        let all = self.project.services.iter().map(|(name, service)| (name, own(service)));
        let all: Vec<(&String, BTreeSet<String>)> = all.filter(|(_, networks)| seen.insert(networks.clone())).collect();
        let apart = all.iter().enumerate().find_map(|(at, (one, networks))| {
            let other = all[at + 1..]
                .iter()
                .find(|(_, others)| !networks.is_empty() && !others.is_empty() && networks.is_disjoint(others));
            other.map(|(other, _)| (*one, *other))
        });
        if let Some((one, other)) = apart {
            self.notes.push(format!(
                "{one} and {other} have no network in common in the file, and reach each other here: a release is one network"
            ));
        }
    }

    /// A link is a name under which another service is reached; everybody in the release may use it.
    fn give_links(&mut self, made: &mut BTreeMap<ProcessName, Made>) {
        for service in self.project.services.values() {
            for link in &service.links {
                let Some((target, alias)) = link.split_once(':') else { continue };
                let part = self.names.get(target).and_then(|name| made.get_mut(name));
                let aliases = part.map(|made| &mut made.part.container.aliases);
                if let Some(aliases) = aliases.filter(|aliases| !aliases.iter().any(|known| known == alias)) {
                    aliases.push(alias.to_owned());
                }
            }
        }
    }

    /// A path of the project within the tree; `None` if it lies elsewhere.
    fn inside(&self, path: &str) -> Option<String> {
        let mut clean = PathBuf::new();
        for piece in Path::new(path).components() {
            match piece {
                Component::ParentDir => {
                    clean.pop();
                }
                Component::CurDir => {}
                other => clean.push(other),
            }
        }
        let inside = clean.strip_prefix(&self.tree).ok()?.to_str()?;
        Some(if inside.is_empty() { ".".to_owned() } else { inside.to_owned() })
    }

    /// The text of a file of the tree.
    fn text(&self, inside: &str) -> Result<String, String> {
        crate::files::text_within(&self.tree, inside).map_err(|error| format!("{inside}: {error}"))
    }

    /// The `x-coracle` block of a service.
    fn word_of(service: &Service, key: &str) -> Option<Value> {
        service.extensions.get("x-coracle")?.get(key).cloned()
    }
}
