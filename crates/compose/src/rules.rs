//! Rules of the specification that no schema can say, for one model before it is joined with others.

use std::net::IpAddr;

use crate::error::{ErrorKind, Fault};
use crate::node::{Data, Node};
use crate::trail::Trail;

/// Finds the first rule that the model breaks.
pub(crate) fn check(top: &Node) -> Result<(), Fault> {
    let root = Trail::TOP;
    for (section, keys) in [("configs", &["file", "environment", "content"][..]), ("secrets", &["file", "environment"][..])] {
        let trail = root.key(section);
        for (name, node) in entries(top, section) {
            file_object(node, keys, &trail.key(name))?;
        }
    }
    let trail = root.key("volumes");
    for (name, node) in entries(top, "volumes") {
        external(node, &trail.key(name))?;
    }
    let trail = root.key("services");
    for (name, node) in entries(top, "services") {
        service(node, &trail.key(name))?;
    }
    Ok(())
}

fn entries<'n>(node: &'n Node, key: &str) -> impl Iterator<Item = (&'n String, &'n Node)> {
    node.get(key).and_then(Node::as_map).into_iter().flatten()
}

fn items(node: Option<&Node>) -> &[Node] {
    node.and_then(Node::as_list).unwrap_or_default()
}

fn file_object(node: &Node, keys: &[&str], trail: &Trail<'_>) -> Result<(), Fault> {
    let given = keys.iter().filter(|key| node.get(key).is_some()).count();
    let told = keys.join("|");
    if given > 1 {
        return Err(Fault::new(ErrorKind::Conflict, format!("{told} attributes are mutually exclusive"))
            .on(trail)
            .at(node.key_at));
    }
    if given == 0 && node.get("driver").is_none() && node.get("external").is_none() {
        return Err(Fault::new(ErrorKind::Value, format!("one of {told} must be set")).on(trail).at(node.key_at));
    }
    Ok(())
}

fn external(node: &Node, trail: &Trail<'_>) -> Result<(), Fault> {
    if node.get("external").map(|external| &external.data) != Some(&Data::Bool(true)) {
        return Ok(());
    }
    let other = node
        .as_map()
        .into_iter()
        .flatten()
        .find(|(key, _)| !matches!(key.as_str(), "name" | "external") && !key.starts_with("x-"));
    match other {
        Some((key, value)) => {
            let message = format!("conflicting parameters \"external\" and \"{key}\" specified");
            Err(Fault::new(ErrorKind::Conflict, message).on(trail).at(value.key_at))
        }
        None => Ok(()),
    }
}

fn service(node: &Node, trail: &Trail<'_>) -> Result<(), Fault> {
    let ports = trail.key("ports");
    for (key, sort) in [("ports", "port"), ("volumes", "mount")] {
        let entries = items(node.get(key));
        if let Some(index) = entries.iter().position(|entry| entry.get("target").is_none()) {
            let message = format!("the {sort} has no target");
            return Err(Fault::new(ErrorKind::Value, message).on(&trail.key(key).index(index)).at(entries[index].at));
        }
    }
    for (index, port) in items(node.get("ports")).iter().enumerate() {
        if let Some(host) = port.get("host_ip")
            && let Some(text) = host.as_text()
            && text.parse::<IpAddr>().is_err()
        {
            let message = format!("invalid ip address: {text}");
            return Err(Fault::new(ErrorKind::Value, message).on(&ports.index(index)).at(host.at));
        }
    }
    let develop = trail.key("develop");
    let watch = develop.key("watch");
    for (index, rule) in items(node.get("develop").and_then(|develop| develop.get("watch"))).iter().enumerate() {
        if rule.text_of("path") == Some("") {
            return Err(Fault::new(ErrorKind::Value, "path can't be blank").on(&watch.index(index)).at(rule.at));
        }
    }
    let gpus = trail.key("gpus");
    requests(items(node.get("gpus")), &gpus)?;
    let reserved =
        node.get("deploy").and_then(|deploy| deploy.get("resources")).and_then(|resources| resources.get("reservations"));
    let deploy = trail.key("deploy.resources.reservations");
    let (devices, trail) = (items(reserved.and_then(|reserved| reserved.get("devices"))), deploy.key("devices"));
    let is_vague =
        |request: &Node| request.as_map().is_some() && ["capabilities", "driver"].iter().all(|key| request.get(key).is_none());
    if let Some(index) = devices.iter().position(is_vague) {
        let message = "must say which `capabilities` the device has";
        return Err(Fault::new(ErrorKind::Value, message).on(&trail.index(index)).at(devices[index].at));
    }
    requests(devices, &trail)
}

fn requests(requests: &[Node], trail: &Trail<'_>) -> Result<(), Fault> {
    for (index, request) in requests.iter().enumerate() {
        if request.get("count").is_some() && request.get("device_ids").is_some() {
            let message = "\"count\" and \"device_ids\" attributes are exclusive";
            return Err(Fault::new(ErrorKind::Conflict, message).on(&trail.index(index)).at(request.at));
        }
    }
    Ok(())
}
