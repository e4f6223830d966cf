//! `environment`, `env_file`, `label_file` and secrets from the environment: names looked up, files read.

use std::path::Path;

use indexmap::IndexMap;

use crate::defaults;
use crate::dotenv;
use crate::error::{ErrorKind, Fault};
use crate::files::Reader;
use crate::node::{Data, Map, Node};
use crate::position::Mark;
use crate::substitution::Environment;

/// Gives names that stand without a value (`- HOME`) the value that the file's environment has for them.
pub(crate) fn fill_names(top: &mut Node, environment: &Environment) {
    for service in defaults::services(top) {
        let Some(service) = service.as_map_mut() else { continue };
        if let Some(node) = service.get_mut("environment") {
            fill(node, environment);
        }
        let build = service.get_mut("build").and_then(Node::as_map_mut);
        if let Some(args) = build.and_then(|build| build.get_mut("args")) {
            fill(args, environment);
        }
    }
}

fn fill(node: &mut Node, environment: &Environment) {
    match &mut node.data {
        Data::List(items) => {
            for item in items {
                if let Data::Text(text) = &mut item.data
                    && let Some(value) = environment.get(text.as_str())
                {
                    *text = format!("{text}={value}");
                }
            }
        }
        Data::Map(map) => {
            for (key, value) in map.iter_mut().filter(|(_, value)| value.is_null()) {
                if let Some(known) = environment.get(key) {
                    value.data = Data::Text(known.clone());
                }
            }
        }
        _ => {}
    }
}

/// Reads a service's `env_file` and `label_file` entries into `environment` and `labels`, and takes them away.
pub(crate) fn read_files(service: &mut Node, environment: &Environment, reader: &Reader) -> Result<(), Fault> {
    let at = service.at;
    let Some(service) = service.as_map_mut() else { return Ok(()) };
    if let Some(files) = service.shift_remove("env_file") {
        let own = as_pairs(service.get("environment"));
        let mut read: IndexMap<String, Option<String>> = IndexMap::new();
        for file in files.as_list().unwrap_or_default() {
            read_env_file(file, (environment, &own), reader, &mut read)?;
        }
        overlay(service, "environment", read, own, at);
    }
    if let Some(files) = service.shift_remove("label_file") {
        let own = as_pairs(service.get("labels"));
        let mut read = IndexMap::new();
        for file in files.as_list().unwrap_or_default() {
            let path = file.as_text().unwrap_or_default();
            read_pairs(reader, (path, file.at), &|name| environment.get(name).cloned(), &mut read)?;
        }
        overlay(service, "labels", read, own, at);
    }
    Ok(())
}

type Pairs = IndexMap<String, (Option<String>, Mark)>;

fn as_pairs(node: Option<&Node>) -> Pairs {
    let Some(node) = node else { return Pairs::new() };
    match &node.data {
        Data::Map(map) => map.iter().map(|(key, value)| (key.clone(), (value.printed(), value.key_at))).collect(),
        Data::List(items) => items
            .iter()
            .filter_map(|item| {
                let text = item.printed()?;
                Some(match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), (Some(value.to_owned()), item.at)),
                    None => (text, (None, item.at)),
                })
            })
            .collect(),
        _ => Pairs::new(),
    }
}

/// Writes what files said, under what the service itself says.
fn overlay(service: &mut Map, key: &str, read: IndexMap<String, Option<String>>, own: Pairs, at: Mark) {
    if read.is_empty() {
        return;
    }
    let node = |text: Option<String>, at| Node::new(text.map_or(Data::Null, Data::Text), at);
    let mut map: Map = read.into_iter().map(|(name, value)| (name, node(value, at))).collect();
    map.extend(own.into_iter().map(|(name, (value, at))| (name, node(value, at))));
    let at = service.get(key).map_or(at, |node| node.at);
    service.insert(key.to_owned(), Node::map(map, at));
}

fn read_env_file(
    file: &Node,
    (environment, own): (&Environment, &Pairs),
    reader: &Reader,
    read: &mut IndexMap<String, Option<String>>,
) -> Result<(), Fault> {
    let Some(path) = file.text_of("path") else { return Ok(()) };
    let optional = file.get("required").is_some_and(|required| required.data == Data::Bool(false));
    if !Path::new(path).exists() {
        return if optional {
            Ok(())
        } else {
            let message = format!("env file {path} not found");
            Err(Fault::new(ErrorKind::File, message).at(file.at).hint("create it, or say `required: false`"))
        };
    }
    match file.text_of("format") {
        None | Some("") => {}
        Some("raw") => return read_raw(reader, (path, file.at), environment, read),
        Some(other) => {
            let message = format!("unsupported env_file format \"{other}\"");
            return Err(Fault::new(ErrorKind::Value, message).at(file.at).hint("leave `format` out, or say `raw`"));
        }
    }
    let earlier = read.clone();
    let lookup = |name: &str| {
        let declared = || own.get(name).and_then(|(value, _)| value.clone());
        environment.get(name).cloned().or_else(declared).or_else(|| earlier.get(name).cloned().flatten())
    };
    read_pairs(reader, (path, file.at), &lookup, read)
}

/// Reads a file as `docker run --env-file` does: values stand as they are, quotes and all.
fn read_raw(
    reader: &Reader,
    (path, at): (&str, Mark),
    environment: &Environment,
    read: &mut IndexMap<String, Option<String>>,
) -> Result<(), Fault> {
    let text = reader.text(path).map_err(|fault| fault.at(at))?;
    let lines = text.strip_prefix('\u{FEFF}').unwrap_or(&text).lines().map(str::trim_start).enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value.to_owned())));
        let wrong = match name {
            "" => Some("there is no variable name before the `=`".to_owned()),
            name if name.contains([' ', '\t']) => Some(format!("the variable {name:?} contains whitespace")),
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(Fault::new(ErrorKind::Value, format!("{path}: line {}: {wrong}", index + 1)).at(at));
        }
        // A name alone has the value that is known; where none is, the line says nothing.
        if let Some(value) = value.or_else(|| environment.get(name).cloned()) {
            read.insert(name.to_owned(), Some(value));
        }
    }
    Ok(())
}

fn read_pairs(
    reader: &Reader,
    (path, at): (&str, Mark),
    lookup: &dyn Fn(&str) -> Option<String>,
    read: &mut IndexMap<String, Option<String>>,
) -> Result<(), Fault> {
    let text = reader.text(path).map_err(|fault| fault.at(at))?;
    let pairs = dotenv::parse(&text, lookup).map_err(|error| Fault::new(ErrorKind::Value, format!("{path}: {error}")).at(at))?;
    for (name, value) in pairs {
        // A name without a value says nothing.
        if let Some(value) = value {
            read.insert(name, Some(value));
        }
    }
    Ok(())
}

/// Reads project-level environment files; later ones win, and each sees `environment` and the ones before.
pub(crate) fn read_project_files(paths: &[String], environment: &Environment, reader: &Reader) -> Result<Environment, Fault> {
    let mut read: IndexMap<String, Option<String>> = IndexMap::new();
    for path in paths {
        let earlier = read.clone();
        let lookup = |name: &str| environment.get(name).cloned().or_else(|| earlier.get(name).cloned().flatten());
        read_pairs(reader, (path, Mark::default()), &lookup, &mut read)?;
    }
    Ok(read.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}
