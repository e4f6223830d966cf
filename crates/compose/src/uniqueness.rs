//! Lists in which a later entry takes the place of an earlier one that means the same thing.

use indexmap::IndexMap;

use crate::error::{ErrorKind, Fault};
use crate::node::{Data, Node};
use crate::schema::{Rule, Unique};
use crate::trail::Trail;
use crate::volumes;

/// Leaves one of every group of same entries: the last, where the first was.
pub(crate) fn enforce(node: &mut Node, rule: &Rule, trail: &Trail<'_>) -> Result<(), Fault> {
    match &mut node.data {
        Data::Map(map) => {
            for (key, value) in map.iter_mut() {
                enforce(value, rule.child(key), &trail.key(key))?;
            }
        }
        Data::List(items) if rule.unique != Unique::No => {
            let mut kept: IndexMap<String, Node> = IndexMap::with_capacity(items.len());
            for (index, item) in std::mem::take(items).into_iter().enumerate() {
                let key = identity(&item, rule.unique, &trail.index(index))?;
                kept.insert(key, item);
            }
            *items = kept.into_values().collect();
        }
        _ => {}
    }
    Ok(())
}

/// What makes an entry the same as another one.
fn identity(item: &Node, unique: Unique, trail: &Trail<'_>) -> Result<String, Fault> {
    let wrong = |message: &str| Err(Fault::new(ErrorKind::Value, message).on(trail).at(item.at));
    let printed = |key: &str| item.get(key).and_then(Node::printed);
    let text = item.printed();
    // An entry without what makes it unique is like no other one; the validation says what it lacks.
    let unlike = || trail.to_string();
    match (unique, text, item.as_map().is_some()) {
        (Unique::Key, Some(text), _) => Ok(text.split_once('=').map_or(text.clone(), |(key, _)| key.to_owned())),
        (Unique::EnvFile, Some(text), _) | (Unique::Port, Some(text), _) => Ok(text),
        (Unique::Mount(folder), Some(text), _) => Ok(format!("{folder}/{text}")),
        (Unique::Device, Some(text), _) => {
            let mut parts = text.split(':');
            let source = parts.next().unwrap_or_default();
            Ok(parts.next().unwrap_or(source).to_owned())
        }
        (Unique::Volume, Some(text), _) => match volumes::parse(&text) {
            Ok(mount) => Ok(mount.target),
            Err(error) => wrong(&error.to_string()),
        },
        (Unique::Volume | Unique::Device, None, true) => Ok(printed("target").unwrap_or_else(unlike)),
        (Unique::EnvFile, None, true) => Ok(printed("path").unwrap_or_else(unlike)),
        (Unique::Mount(folder), None, true) => match (printed("target"), printed("source")) {
            (Some(target), _) => Ok(target),
            (None, source) => Ok(format!("{folder}/{}", source.unwrap_or_default())),
        },
        (Unique::Port, None, true) => {
            let Some(target) = printed("target") else { return Ok(unlike()) };
            let published = printed("published").unwrap_or_default();
            let host = printed("host_ip").unwrap_or_else(|| "0.0.0.0".to_owned());
            let protocol = printed("protocol").unwrap_or_else(|| "tcp".to_owned());
            Ok(format!("{host}:{published}:{target}/{protocol}"))
        }
        _ => wrong("an entry is of a type that cannot stand here"),
    }
}
