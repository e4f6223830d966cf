//! Short forms written out: what is one line in a file and a mapping in the model.

use crate::budget::Account;
use crate::error::{ErrorKind, Fault};
use crate::merge;
use crate::node::{Data, Map, Node};
use crate::ports;
use crate::schema::{Rule, Shape, Short};
use crate::trail::Trail;
use crate::volumes::{self, Mount};
use crate::warnings::Warnings;

/// Writes out every short form below `node`.
pub(crate) fn expand(node: &mut Node, rule: &Rule, account: &mut Account, trail: &Trail<'_>) -> Result<(), Fault> {
    if expand_here(node, rule, trail)? {
        // A short form is read once and kept as all that it stands for.
        account.budget.spend(node.cost(), node.at)?;
    }
    if let Shape::Ssh = rule.shape {
        return ssh(node, trail);
    }
    match &mut node.data {
        Data::Map(map) => {
            for (key, value) in map.iter_mut() {
                expand(value, rule.child(key), account, &trail.key(key))?;
            }
            if matches!(rule.child("external").shape, Shape::External) {
                external(map, &mut account.warnings, trail)?;
            }
        }
        Data::List(items) => {
            let item_rule = rule.item();
            if item_rule.short == Short::Port {
                *items = all_ports(std::mem::take(items), account, trail)?;
            }
            for (index, value) in items.iter_mut().enumerate() {
                expand(value, item_rule, account, &trail.index(index))?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Writes out the short form that a node is itself, and answers whether it was one.
fn expand_here(node: &mut Node, rule: &Rule, trail: &Trail<'_>) -> Result<bool, Fault> {
    let (at, key_at) = (node.at, node.key_at);
    let text = node.as_text();
    let expanded = match (rule.short, text) {
        (Short::Field(key), Some(text)) => Node::pairs([(key, Data::Text(text.to_owned()))], at),
        (Short::One, Some(text)) => Node::new(Data::List(vec![Node::text(text, at)]), at),
        (Short::EnvFile, Some(text)) => Node::pairs([("path", Data::Text(text.to_owned())), ("required", Data::Bool(true))], at),
        (Short::Volume, Some(text)) => {
            let mount = volumes::parse(text).map_err(|error| invalid(&error.to_string(), node, trail))?;
            mount_node(mount, at)
        }
        (Short::Device, Some(text)) => device(text, node, trail)?,
        (Short::Gpus, Some(_)) => Node::new(Data::List(vec![Node::pairs([("count", Data::Int(-1))], at)]), at),
        (Short::Names, _) if node.as_list().is_some() => merge::names(std::mem::replace(node, Node::new(Data::Null, at))),
        (Short::Dependencies, _) if node.as_list().is_some() => {
            merge::dependencies(std::mem::replace(node, Node::new(Data::Null, at)))
        }
        (Short::Dependencies, _) => {
            for dependency in node.as_map_mut().into_iter().flat_map(|map| map.values_mut()) {
                let at = dependency.at;
                if let Some(map) = dependency.as_map_mut() {
                    map.entry("required".to_owned()).or_insert_with(|| Node::new(Data::Bool(true), at));
                }
            }
            return Ok(false);
        }
        (Short::EnvFile, _) => {
            if let Some(map) = node.as_map_mut() {
                map.entry("required".to_owned()).or_insert_with(|| Node::new(Data::Bool(true), at));
            }
            return Ok(false);
        }
        _ => return Ok(false),
    };
    *node = expanded;
    node.key_at = key_at;
    Ok(true)
}

fn invalid(message: &str, node: &Node, trail: &Trail<'_>) -> Fault {
    Fault::new(ErrorKind::Value, message).on(trail).at(node.at)
}

fn all_ports(items: Vec<Node>, account: &mut Account, trail: &Trail<'_>) -> Result<Vec<Node>, Fault> {
    let mut expanded = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let Some(text) = item.printed() else {
            expanded.push(item);
            continue;
        };
        let mappings = ports::parse(&text).map_err(|error| invalid(&error.to_string(), &item, &trail.index(index)))?;
        // A range is a mapping of six values for each of its ports.
        account.budget.spend(mappings.len() * 6, item.at)?;
        for mapping in mappings {
            let mut map = Map::new();
            let mut set = |key: &str, data: Data| map.insert(key.to_owned(), Node::new(data, item.at));
            set("mode", Data::Text("ingress".to_owned()));
            if !mapping.host_ip.is_empty() {
                set("host_ip", Data::Text(mapping.host_ip));
            }
            set("target", Data::Int(i64::from(mapping.target)));
            if !mapping.published.is_empty() {
                set("published", Data::Text(mapping.published));
            }
            set("protocol", Data::Text(mapping.protocol));
            expanded.push(Node::map(map, item.at));
        }
    }
    Ok(expanded)
}

fn mount_node(mount: Mount, at: crate::position::Mark) -> Node {
    let mut node = Node::pairs([("type", Data::Text(mount.kind.as_str().to_owned()))], at);
    let Some(map) = node.as_map_mut() else { return node };
    let mut set = |key: &str, value: Node| map.insert(key.to_owned(), value);
    if !mount.source.is_empty() {
        set("source", Node::text(mount.source, at));
    }
    set("target", Node::text(mount.target, at));
    if mount.read_only {
        set("read_only", Node::new(Data::Bool(true), at));
    }
    if let Some(bind) = mount.bind {
        let fields = [("propagation", bind.propagation), ("selinux", bind.selinux)];
        let fields = fields.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Node::text(text?, at))));
        set("bind", Node::map(fields.collect(), at));
    }
    if let Some(volume) = mount.volume {
        let nocopy = volume.nocopy.then(|| ("nocopy".to_owned(), Node::new(Data::Bool(true), at)));
        set("volume", Node::map(nocopy.into_iter().collect(), at));
    }
    node
}

fn device(text: &str, node: &Node, trail: &Trail<'_>) -> Result<Node, Fault> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => return Err(invalid("confusing device mapping; use the long form", node, trail)),
    };
    let text = |text: &str| Data::Text(text.to_owned());
    Ok(Node::pairs([("source", text(source)), ("target", text(target)), ("permissions", text(permissions))], node.at))
}

/// `ssh: [default, id=path]` as a mapping.
fn ssh(node: &mut Node, trail: &Trail<'_>) -> Result<(), Fault> {
    let Data::List(items) = &node.data else { return Ok(()) };
    let mut map = Map::new();
    for (index, item) in items.iter().enumerate() {
        let text = item.as_text().unwrap_or_default();
        let (id, value) = match text.split_once('=') {
            Some((id, path)) => (id, Node::text(path, item.at)),
            None if text == "default" => (text, Node::new(Data::Null, item.at)),
            None => {
                return Err(invalid(
                    &format!("invalid ssh key `{text}`; it is `default` or `id=path`"),
                    item,
                    &trail.index(index),
                ));
            }
        };
        map.insert(id.to_owned(), value);
    }
    node.data = Data::Map(Box::new(map));
    Ok(())
}

/// The old form of `external`, a mapping with a name, as the new one.
fn external(map: &mut Map, warnings: &mut Warnings, trail: &Trail<'_>) -> Result<(), Fault> {
    let Some(external) = map.get_mut("external") else { return Ok(()) };
    if external.as_map().is_none() {
        return Ok(());
    }
    let at = external.at;
    let old = std::mem::replace(&mut external.data, Data::Bool(true));
    let Data::Map(mut old) = old else { return Ok(()) };
    let Some(name) = old.shift_remove("name") else { return Ok(()) };
    warnings.add(format!("{trail}: external.name is deprecated. Please set name and external: true"));
    match map.get("name") {
        Some(given) if *given != name => {
            let message = "name and external.name conflict; only use name";
            Err(Fault::new(ErrorKind::Conflict, message).on(trail).at(at))
        }
        Some(_) => Ok(()),
        None => {
            map.insert("name".to_owned(), name);
            Ok(())
        }
    }
}
