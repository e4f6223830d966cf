//! What a canonical model has even where nothing was written.

use crate::node::{Data, Map, Node};

/// Fills in the defaults of every service.
pub(crate) fn fill(top: &mut Node) {
    for service in services(top) {
        let at = service.at;
        let Some(service) = service.as_map_mut() else { continue };
        if let Some(build) = service.get_mut("build").and_then(Node::as_map_mut) {
            set_missing(build, "context", Data::Text(".".to_owned()), at);
        }
        for secret in maps(service.get_mut("secrets")) {
            let source = secret.get("source").and_then(Node::as_text).unwrap_or_default();
            let target = Data::Text(format!("/run/secrets/{source}"));
            set_missing(secret, "target", target, at);
        }
        for port in maps(service.get_mut("ports")) {
            set_missing(port, "protocol", Data::Text("tcp".to_owned()), at);
            set_missing(port, "mode", Data::Text("ingress".to_owned()), at);
        }
        for request in maps(service.get_mut("gpus")) {
            all_devices(request);
        }
        let reserved = ["resources", "reservations"].iter().try_fold(service.get_mut("deploy"), |node, key| {
            node.map(|node| node.as_map_mut().and_then(|map| map.get_mut(*key)))
        });
        let devices = reserved.flatten().and_then(Node::as_map_mut).and_then(|map| map.get_mut("devices"));
        for request in maps(devices) {
            all_devices(request);
        }
    }
}

fn all_devices(request: &mut Map) {
    if !request.contains_key("device_ids") {
        set_missing(request, "count", Data::Int(-1), crate::position::Mark::default());
    }
}

fn set_missing(map: &mut Map, key: &str, data: Data, at: crate::position::Mark) {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), Node::new(data, at));
    }
}

/// The services of a tree.
pub(crate) fn services(top: &mut Node) -> impl Iterator<Item = &mut Node> {
    top.as_map_mut().and_then(|map| map.get_mut("services")).and_then(Node::as_map_mut).into_iter().flat_map(Map::values_mut)
}

/// The mappings of a list.
fn maps(list: Option<&mut Node>) -> impl Iterator<Item = &mut Map> {
    let items = match list.map(|node| &mut node.data) {
        Some(Data::List(items)) => items.as_mut_slice(),
        _ => &mut [],
    };
    items.iter_mut().filter_map(Node::as_map_mut)
}
