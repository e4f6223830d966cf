//! `!reset` and `!override`: what a later file makes the earlier ones forget.

use crate::node::{Data, Node, Tag};

/// The way to a value that is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forgotten(Vec<String>);

/// Takes the values tagged `!reset` out of a tree and lists what the files before must forget.
pub(crate) fn collect(node: &mut Node) -> Vec<Forgotten> {
    let mut found = Vec::new();
    walk(node, &mut Vec::new(), &mut found);
    found
}

fn walk(node: &mut Node, path: &mut Vec<String>, found: &mut Vec<Forgotten>) {
    match &mut node.data {
        Data::Map(map) => {
            map.retain(|key, value| {
                path.push(key.clone());
                let keep = visit(value, path, found);
                path.pop();
                keep
            });
        }
        Data::List(items) => {
            let mut index = 0;
            items.retain_mut(|value| {
                path.push(index.to_string());
                index += 1;
                let keep = visit(value, path, found);
                path.pop();
                keep
            });
        }
        _ => {}
    }
}

/// Whether the value stays.
fn visit(value: &mut Node, path: &mut Vec<String>, found: &mut Vec<Forgotten>) -> bool {
    if value.tag != Tag::Plain {
        found.push(Forgotten(path.clone()));
    }
    if value.tag == Tag::Reset {
        return false;
    }
    walk(value, path, found);
    true
}

/// Removes from `base` what is to be forgotten.
pub(crate) fn forget(base: &mut Node, forgotten: &[Forgotten]) {
    for path in forgotten {
        remove(base, &path.0);
    }
}

/// Removes from a resource what is to be forgotten of the one of this name in this section.
pub(crate) fn forget_in(resource: &mut Node, section: &str, name: &str, forgotten: &[Forgotten]) {
    for Forgotten(path) in forgotten {
        if let [of_section, of, rest @ ..] = path.as_slice()
            && of_section == section
            && of == name
            && !rest.is_empty()
        {
            remove(resource, rest);
        }
    }
}

fn remove(node: &mut Node, path: &[String]) {
    let [first, rest @ ..] = path else { return };
    let Some(map) = node.as_map_mut() else { return };
    if rest.is_empty() {
        map.shift_remove(first);
    } else if let Some(child) = map.get_mut(first) {
        remove(child, rest);
    }
}
