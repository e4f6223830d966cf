//! What is implied made explicit: the default network, dependencies that follow from links and shared namespaces, the
//! Dockerfile's name, the names of networks and volumes on the engine.

use std::path::Path;

use crate::defaults;
use crate::node::{Data, Map, Node};
use crate::paths;
use crate::position::Mark;

/// Completes a loaded model; `project` is the project's name.
pub(crate) fn normalize(top: &mut Node, project: &str) {
    default_network(top);
    for service in defaults::services(top) {
        let at = service.at;
        if let Some(service) = service.as_map_mut() {
            normalize_service(service, at);
        }
    }
    for section in ["networks", "volumes", "configs", "secrets"] {
        name_resources(top, section, project);
    }
}

fn default_network(top: &mut Node) {
    let at = top.at;
    let mut used = false;
    for service in defaults::services(top) {
        let Some(service) = service.as_map_mut() else { continue };
        if service.contains_key("provider") || service.contains_key("network_mode") {
            continue;
        }
        let networks = service.get("networks").and_then(Node::as_map);
        if networks.is_none_or(Map::is_empty) {
            let only = Map::from_iter([("default".to_owned(), Node::new(Data::Null, Mark::default()))]);
            service.insert("networks".to_owned(), Node::map(only, Mark::default()));
            used = true;
        } else {
            used |= networks.is_some_and(|networks| networks.contains_key("default"));
        }
    }
    let Some(top) = top.as_map_mut() else { return };
    if used {
        let networks = top.entry("networks".to_owned()).or_insert_with(|| Node::map(Map::new(), at));
        if let Some(networks) = networks.as_map_mut() {
            networks.entry("default".to_owned()).or_insert_with(|| Node::new(Data::Null, Mark::default()));
        }
    }
}

fn normalize_service(service: &mut Map, at: Mark) {
    let text = |text: &str| Node::text(text, Mark::default());
    if let Some(policy) = service.get_mut("pull_policy")
        && policy.as_text() == Some("if_not_present")
    {
        policy.data = Data::Text("missing".to_owned());
    }
    if let Some(build) = service.get_mut("build").and_then(Node::as_map_mut)
        && !build.contains_key("dockerfile")
        && !build.contains_key("dockerfile_inline")
    {
        build.insert("dockerfile".to_owned(), text("Dockerfile"));
    }
    // A build argument that nobody has a value for is not passed.
    let build = service.get_mut("build").and_then(Node::as_map_mut);
    match build.and_then(|build| build.get_mut("args")).map(|node| &mut node.data) {
        Some(Data::Map(args)) => args.retain(|_, value| !value.is_null()),
        Some(Data::List(args)) => args.retain(|arg| arg.as_text().is_none_or(|text| text.contains('='))),
        _ => {}
    }
    if let Some(Data::List(volumes)) = service.get_mut("volumes").map(|node| &mut node.data) {
        for target in volumes.iter_mut().filter_map(|volume| volume.as_map_mut()?.get_mut("target")) {
            if let Data::Text(path) = &mut target.data
                && !path.is_empty()
            {
                *path = paths::clean(Path::new(path.as_str())).to_string_lossy().into_owned();
            }
        }
    }
    let implied = implied_dependencies(service);
    if implied.is_empty() {
        return;
    }
    let dependencies = service.entry("depends_on".to_owned()).or_insert_with(|| Node::map(Map::new(), at));
    let Some(dependencies) = dependencies.as_map_mut() else { return };
    for (name, restart, at) in implied {
        dependencies.entry(name).or_insert_with(|| {
            let started = Data::Text("service_started".to_owned());
            Node::pairs([("condition", started), ("restart", Data::Bool(restart)), ("required", Data::Bool(true))], at)
        });
    }
}

/// Services that this one needs without saying so, and whether it restarts with them.
fn implied_dependencies(service: &Map) -> Vec<(String, bool, Mark)> {
    let mut implied = Vec::new();
    let texts = |key: &str| {
        service.get(key).and_then(Node::as_list).unwrap_or_default().iter().filter_map(|item| Some((item.as_text()?, item.at)))
    };
    for (link, at) in texts("links") {
        let name = link.split_once(':').map_or(link, |(name, _)| name);
        implied.push((name.to_owned(), true, at));
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some(node) = service.get(key)
            && let Some(name) = node.as_text().and_then(|mode| mode.strip_prefix("service:"))
        {
            implied.push((name.to_owned(), true, node.at));
        }
    }
    for (source, at) in texts("volumes_from") {
        if !source.starts_with("container:") {
            let name = source.split_once(':').map_or(source, |(name, _)| name);
            implied.push((name.to_owned(), false, at));
        }
    }
    implied
}

/// Resources without a name of their own are `project_key`, external ones `key`.
fn name_resources(top: &mut Node, section: &str, project: &str) {
    let Some(section) = top.as_map_mut().and_then(|top| top.get_mut(section)).and_then(Node::as_map_mut) else { return };
    for (key, resource) in section.iter_mut() {
        if resource.is_null() {
            resource.data = Data::Map(Box::default());
        }
        let external = resource.get("external").is_some_and(|external| external.data == Data::Bool(true));
        let Some(resource) = resource.as_map_mut() else { continue };
        resource
            .entry("name".to_owned())
            .or_insert_with(|| Node::text(if external { key.clone() } else { format!("{project}_{key}") }, Mark::default()));
    }
}
