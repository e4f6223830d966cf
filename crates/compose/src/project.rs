//! A whole project, typed, and how it is made from its files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map as Object, Value};

use crate::consistency;
use crate::discovery::{self, Place};
use crate::environment;
use crate::error::{ComposeError, ErrorKind, Fault};
use crate::files::Reader;
use crate::loader::{Loader, SERVICE_RULE, Scope};
use crate::node::Node;
use crate::normalize;
use crate::position::{Mark, Position, Sources};
use crate::render;
use crate::schema::TOP;
use crate::service::{Service, Texts};
use crate::trail::Trail;
use crate::{Loaded, Options};

/// A resolved project.
#[derive(Debug, Clone)]
pub struct Project {
    /// The project's name.
    pub name: String,
    /// The directory that relative paths were relative to, absolute.
    pub directory: PathBuf,
    /// The services of the active profiles.
    pub services: BTreeMap<String, Service>,
    /// Services that only inactive profiles have.
    pub disabled: BTreeMap<String, Service>,
    /// `networks`, with the default one if a service uses it.
    pub networks: BTreeMap<String, Network>,
    /// `volumes`.
    pub volumes: BTreeMap<String, Volume>,
    /// `configs`.
    pub configs: BTreeMap<String, FileObject>,
    /// `secrets`.
    pub secrets: BTreeMap<String, FileObject>,
    /// `models`.
    pub models: BTreeMap<String, Model>,
    /// The `x-` keys at the top.
    pub extensions: BTreeMap<String, Value>,
    /// The active profiles.
    pub profiles: Vec<String>,
    /// The variables that the files saw: the process's, then the env files'.
    pub environment: BTreeMap<String, String>,
    tree: Arc<Node>,
    sources: Arc<Sources>,
}

/// A network of the top level.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The name on the engine.
    pub name: String,
    /// The driver, if not the engine's default one.
    pub driver: Option<String>,
    /// The driver's options.
    pub driver_opts: Texts,
    /// Address management.
    pub ipam: Option<Ipam>,
    /// Whether it exists already and is not the project's.
    pub external: bool,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether containers of others may attach.
    pub attachable: bool,
    /// Whether it has IPv4 addresses, if that was said.
    pub enable_ipv4: Option<bool>,
    /// Whether it has IPv6 addresses, if that was said.
    pub enable_ipv6: Option<bool>,
    /// Labels.
    pub labels: Texts,
    /// The `x-` keys.
    pub extensions: BTreeMap<String, Value>,
}

/// Address management of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Ipam {
    /// The driver.
    pub driver: Option<String>,
    /// Address pools.
    pub config: Vec<IpamPool>,
    /// The driver's options.
    pub options: Texts,
}

/// A pool of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IpamPool {
    /// The subnet, in CIDR form.
    pub subnet: Option<String>,
    /// The range that addresses are given from.
    pub ip_range: Option<String>,
    /// The gateway's address.
    pub gateway: Option<String>,
    /// Addresses that are taken.
    pub aux_addresses: Texts,
}

/// A volume of the top level.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// The name on the engine.
    pub name: String,
    /// The driver, if not the engine's default one.
    pub driver: Option<String>,
    /// The driver's options.
    pub driver_opts: Texts,
    /// Whether it exists already and is not the project's.
    pub external: bool,
    /// Labels.
    pub labels: Texts,
    /// The `x-` keys.
    pub extensions: BTreeMap<String, Value>,
}

/// A config or secret of the top level. Content that comes from a variable is not in it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct FileObject {
    /// The name on the engine.
    pub name: String,
    /// The file that holds the content, absolute.
    pub file: Option<String>,
    /// The variable that holds the content; see [`Project::environment`].
    pub environment: Option<String>,
    /// The content itself, of a config.
    pub content: Option<String>,
    /// Whether it exists already and is not the project's.
    pub external: bool,
    /// Labels.
    pub labels: Texts,
    /// The driver, of a secret.
    pub driver: Option<String>,
    /// The driver's options.
    pub driver_opts: Texts,
    /// The driver that fills in templates.
    pub template_driver: Option<String>,
    /// The `x-` keys.
    pub extensions: BTreeMap<String, Value>,
}

/// A language model of the top level.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Model {
    /// A name of its own.
    pub name: Option<String>,
    /// The model to run.
    pub model: String,
    /// The size of its context.
    pub context_size: Option<i64>,
    /// Flags of the engine that runs it.
    pub runtime_flags: Vec<String>,
    /// The `x-` keys.
    pub extensions: BTreeMap<String, Value>,
}

impl Project {
    /// Where a value was written: `&["services", "web", "ports", "0", "target"]`.
    ///
    /// Of a value that stands in no file (a default) it is the place of the nearest one around it that does.
    pub fn position(&self, path: &[&str]) -> Option<Position> {
        let mut node = &*self.tree;
        let mut mark = node.key_at;
        for key in path {
            let next = match node.as_list() {
                Some(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
                None => node.get(key),
            };
            let Some(next) = next else { break };
            node = next;
            if node.key_at.line != 0 {
                mark = node.key_at;
            }
        }
        self.sources.position(mark)
    }

    /// Every file the project was loaded from, included and extended ones too.
    pub fn files(&self) -> &[String] {
        self.sources.files()
    }
}

/// Loads a project.
pub(crate) fn load(options: &Options) -> Result<Loaded, ComposeError> {
    let mut loader = Loader {
        home: options.environment.get("HOME").cloned(),
        stdin: options.stdin.as_deref(),
        reader: Reader::new(options.within.as_deref()),
        ..Loader::default()
    };
    assemble(options, &mut loader).map_err(|fault| fault.tell(&loader.sources))
}

fn assemble(options: &Options, loader: &mut Loader<'_>) -> Result<Loaded, Fault> {
    let mut place = discovery::find(options, &loader.reader, &mut loader.account.warnings)?;
    let mut files = Vec::new();
    for file in &place.files {
        files.push((file.clone(), loader.documents(file)?));
    }
    let written =
        files.iter().flat_map(|(_, documents)| documents).filter_map(|top| top.text_of("name")).rfind(|name| !name.is_empty());
    let written = written.map(str::to_owned);
    let name = discovery::name(options, &place, written.as_deref(), &mut loader.account.warnings)?;
    place.environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());

    let scope = Scope { directory: &place.directory, environment: &place.environment, including: &[] };
    let mut tree = loader.model(files, &scope)?;
    if tree.as_map().is_none_or(crate::node::Map::is_empty) {
        return Err(Fault::new(ErrorKind::Value, "empty compose file"));
    }
    normalize::normalize(&mut tree, &name);
    resolve(loader, tree, name, place)
}

/// From a normalised tree to the model.
fn resolve(loader: &mut Loader<'_>, mut tree: Node, name: String, place: Place) -> Result<Loaded, Fault> {
    let inactive: BTreeSet<String> = tree
        .get("services")
        .and_then(Node::as_map)
        .into_iter()
        .flatten()
        .filter(|(_, service)| !is_active(service, &place.profiles))
        .map(|(name, _)| name.clone())
        .collect();

    let mut value = model(&tree, &name)?;
    let disabled = take_services(&mut value, &inactive);
    consistency::check(&consistency::Model { tree: &tree, disabled: &disabled, value: &value })?;

    read_files(&mut tree, &mut value, &place, &loader.reader)?;
    let project = typed(&value, &disabled, name, place, tree, loader.sources.clone())?;
    Ok(Loaded { project, value, warnings: std::mem::take(&mut loader.account.warnings).into_texts() })
}

/// Reads the environment and label files of the active services, whose values the files change.
fn read_files(tree: &mut Node, value: &mut Value, place: &Place, reader: &Reader) -> Result<(), Fault> {
    let Some(services) = tree.as_map_mut().and_then(|top| top.get_mut("services")).and_then(Node::as_map_mut) else {
        return Ok(());
    };
    let root = Trail::TOP;
    let trail = root.key("services");
    for (name, service) in services.iter_mut() {
        let names_files = service.get("env_file").is_some() || service.get("label_file").is_some();
        if !names_files || !is_active(service, &place.profiles) {
            continue;
        }
        environment::read_files(service, &place.environment, reader).map_err(|fault| fault.on(&trail.key(name)))?;
        let Some(rendered) = value["services"].get_mut(name).and_then(Value::as_object_mut) else { continue };
        for key in ["env_file", "label_file"] {
            rendered.remove(key);
        }
        for key in ["environment", "labels"] {
            let node = service.get(key);
            let read =
                node.map(|node| render::render(node, SERVICE_RULE.child(key), &trail.key(name).key(key))).transpose()?.flatten();
            rendered.extend(read.map(|read| (key.to_owned(), read)));
        }
    }
    Ok(())
}

/// Whether a service belongs to no profile or to an active one.
fn is_active(service: &Node, profiles: &[String]) -> bool {
    let own = service.get("profiles").and_then(Node::as_list).unwrap_or_default();
    own.is_empty() || profiles.iter().any(|profile| profile == "*" || own.iter().any(|own| own.as_text() == Some(profile)))
}

/// The tree as JSON.
fn model(tree: &Node, name: &str) -> Result<Value, Fault> {
    let mut value = render::render(tree, &TOP, &Trail::TOP)?.unwrap_or(Value::Null);
    if let Value::Object(top) = &mut value {
        top.insert("name".to_owned(), Value::from(name));
        top.extend(extensions(tree));
        for service in top.get_mut("services").and_then(Value::as_object_mut).into_iter().flat_map(|all| all.values_mut()) {
            // `scale` is the older word and wins where `deploy` says nothing.
            let scale = service["scale"].clone();
            if let (Value::Number(_), Some(deploy)) = (&scale, service.get_mut("deploy").and_then(Value::as_object_mut)) {
                deploy.entry("replicas").or_insert(scale);
            }
        }
    }
    Ok(value)
}

/// A mapping's `x-` keys.
fn extensions(node: &Node) -> impl Iterator<Item = (String, Value)> {
    let own = node.as_map().into_iter().flatten().filter(|(key, _)| key.starts_with("x-"));
    own.map(|(key, node)| (key.clone(), render::plain(node)))
}

/// Takes the services of inactive profiles out of a model.
fn take_services(value: &mut Value, inactive: &BTreeSet<String>) -> Object<String, Value> {
    let Some(services) = value.get_mut("services").and_then(Value::as_object_mut) else { return Object::new() };
    inactive.iter().filter_map(|name| services.remove_entry(name)).collect()
}

fn typed(
    value: &Value,
    disabled: &Object<String, Value>,
    name: String,
    place: Place,
    tree: Node,
    sources: Sources,
) -> Result<Project, Fault> {
    let section = |key: &'static str| Section { key, entries: value[key].as_object(), tree: tree.get(key) };
    Ok(Project {
        name,
        directory: place.directory,
        services: section("services").parse(|service: &mut Service, own| service.extensions = own)?,
        disabled: Section { entries: Some(disabled), ..section("services") }
            .parse(|service: &mut Service, own| service.extensions = own)?,
        networks: section("networks").parse(|network: &mut Network, own| network.extensions = own)?,
        volumes: section("volumes").parse(|volume: &mut Volume, own| volume.extensions = own)?,
        configs: section("configs").parse(|config: &mut FileObject, own| config.extensions = own)?,
        secrets: section("secrets").parse(|secret: &mut FileObject, own| secret.extensions = own)?,
        models: section("models").parse(|model: &mut Model, own| model.extensions = own)?,
        extensions: extensions(&tree).collect(),
        profiles: place.profiles,
        environment: place.environment,
        tree: Arc::new(tree),
        sources: Arc::new(sources),
    })
}

/// A section of the top level, as JSON and as it was written.
struct Section<'m> {
    key: &'static str,
    entries: Option<&'m Object<String, Value>>,
    tree: Option<&'m Node>,
}

impl<'m> Section<'m> {
    /// Reads it entry by entry, so that an error names its entry; `extend` takes an entry's `x-` keys.
    fn parse<T: Deserialize<'m>>(&self, extend: impl Fn(&mut T, BTreeMap<String, Value>)) -> Result<BTreeMap<String, T>, Fault> {
        let entries = self.entries.into_iter().flatten().map(|(name, value)| {
            let node = self.tree.and_then(|tree| tree.get(name));
            let mut entry = T::deserialize(value).map_err(|error| {
                let at = node.map_or_else(Mark::default, |node| node.key_at);
                Fault::new(ErrorKind::Value, error.to_string()).on_path(format!("{}.{name}", self.key)).at(at)
            })?;
            extend(&mut entry, node.map(|node| extensions(node).collect()).unwrap_or_default());
            Ok((name.clone(), entry))
        });
        entries.collect()
    }
}
