//! How a later file's tree meets an earlier one's, key by key as the table says.
//!
//! Compose file specification, section "Merge".

use crate::error::{ErrorKind, Fault};
use crate::node::{Data, Map, Node};
use crate::schema::{Merge, Rule};
use crate::trail::Trail;

/// Puts `later` over `base`.
pub(crate) fn merge(base: Node, later: Node, rule: &Rule, trail: &Trail<'_>) -> Result<Node, Fault> {
    match rule.merge {
        Merge::Replace => Ok(later),
        Merge::Append => Ok(append(base, later, false)),
        Merge::AppendNew => Ok(append(base, later, true)),
        Merge::Build => deep(field("context", base), field("context", later), rule, trail),
        Merge::Dependencies => deep(dependencies(base), dependencies(later), rule, trail),
        Merge::Names => deep(names(base), names(later), rule, trail),
        Merge::Logging => logging(base, later, rule, trail),
        Merge::Ulimit if base.as_map().is_some() && later.as_map().is_some() => deep(base, later, rule, trail),
        Merge::Ulimit => Ok(later),
        Merge::Pools => pools(base, later, rule, trail),
        Merge::Deep => deep(base, later, rule, trail),
    }
}

fn deep(base: Node, later: Node, rule: &Rule, trail: &Trail<'_>) -> Result<Node, Fault> {
    if later.is_null() {
        return Ok(base);
    }
    let Node { data, at, key_at, tag } = base;
    let (later_at, later_key_at) = (later.at, later.key_at);
    match (data, later.data) {
        (Data::Map(mut map), Data::Map(over)) => {
            merge_maps(&mut map, *over, rule, trail)?;
            Ok(Node { data: Data::Map(map), at, key_at, tag })
        }
        (Data::List(mut items), Data::List(over)) => {
            // The same entry twice says no more than once.
            let over: Vec<Node> = over.into_iter().filter(|item| !items.contains(item)).collect();
            items.extend(over);
            Ok(Node { data: Data::List(items), at: later_at, key_at: later_key_at, tag })
        }
        (base @ (Data::Map(_) | Data::List(_)), over) => {
            let base = Node::new(base, at);
            let over = Node::new(over, later_at);
            let message = format!("a {} cannot override a {}", over.type_name(), base.type_name());
            Err(Fault::new(ErrorKind::Value, message).on(trail).at(later_at))
        }
        (_, over) => Ok(Node { data: over, at: later_at, key_at: later_key_at, tag }),
    }
}

/// Puts the keys of `over` over those of `map`.
pub(crate) fn merge_maps(map: &mut Map, over: Map, rule: &Rule, trail: &Trail<'_>) -> Result<(), Fault> {
    for (key, value) in over {
        match map.get_mut(&key) {
            None => {
                map.insert(key, value);
            }
            Some(slot) => {
                let base = std::mem::replace(slot, Node::new(Data::Null, value.at));
                let child = rule.child(&key);
                *slot = merge(base, value, child, &trail.key(&key))?;
            }
        }
    }
    Ok(())
}

fn append(base: Node, later: Node, only_new: bool) -> Node {
    let (at, key_at) = (later.at, later.key_at);
    let mut items = sequence(base);
    let later = sequence(later);
    let later = later.into_iter().filter(|item| !only_new || !items.contains(item)).collect::<Vec<_>>();
    items.extend(later);
    let mut node = Node::new(Data::List(items), at);
    node.key_at = key_at;
    node
}

/// A value as a list: a mapping becomes `KEY=value` entries, sorted, a scalar a list of one.
fn sequence(node: Node) -> Vec<Node> {
    match node.data {
        Data::List(items) => items,
        Data::Null => Vec::new(),
        Data::Map(map) => {
            let mut entries = Vec::new();
            for (key, value) in *map {
                let at = value.key_at;
                match &value.data {
                    Data::List(items) => {
                        entries.extend(items.iter().filter_map(|item| Some((format!("{key}={}", item.printed()?), item.at))));
                    }
                    _ => entries.push((value.printed().map_or_else(|| key.clone(), |text| format!("{key}={text}")), at)),
                }
            }
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
            entries.into_iter().map(|(text, at)| Node::text(text, at)).collect()
        }
        _ => vec![node],
    }
}

/// A text as a mapping with this key.
fn field(key: &str, node: Node) -> Node {
    match node.data {
        Data::Text(_) => {
            let (at, key_at) = (node.at, node.key_at);
            let mut map = Node::map(Map::from_iter([(key.to_owned(), node)]), at);
            map.key_at = key_at;
            map
        }
        Data::Null => Node::map(Map::new(), node.at),
        _ => node,
    }
}

/// A list of names as a mapping to nothing.
pub(crate) fn names(node: Node) -> Node {
    named(node, |at| Node::new(Data::Null, at))
}

/// A list of services as a mapping to the condition that they have started.
pub(crate) fn dependencies(node: Node) -> Node {
    named(node, |at| Node::pairs([("condition", Data::Text("service_started".to_owned())), ("required", Data::Bool(true))], at))
}

fn named(node: Node, value: impl Fn(crate::position::Mark) -> Node) -> Node {
    let (at, key_at) = (node.at, node.key_at);
    let map = match node.data {
        // What is no name is left for the validation to refuse.
        Data::List(items) if items.iter().any(|item| item.as_text().is_none()) => {
            return Node { data: Data::List(items), ..Node::new(Data::Null, at) };
        }
        Data::List(items) => items.into_iter().filter_map(|item| Some((item.printed()?, value(item.at)))).collect(),
        Data::Null => Map::new(),
        _ => return node,
    };
    let mut node = Node::map(map, at);
    node.key_at = key_at;
    node
}

fn logging(base: Node, later: Node, rule: &Rule, trail: &Trail<'_>) -> Result<Node, Fault> {
    let same = match (base.get("driver"), later.get("driver")) {
        (Some(base), Some(later)) => base == later,
        _ => true,
    };
    if same { deep(base, later, rule, trail) } else { Ok(later) }
}

/// IPAM pools: one of the later file is merged with the earlier one of its subnet; earlier ones with no counterpart go.
fn pools(base: Node, later: Node, rule: &Rule, trail: &Trail<'_>) -> Result<Node, Fault> {
    let (at, key_at) = (later.at, later.key_at);
    let (Data::List(base), Data::List(later)) = (base.data, later.data) else {
        return Err(Fault::new(ErrorKind::Value, "must be a list of pools").on(trail).at(at));
    };
    let subnet = |pool: &Node| pool.text_of("subnet").unwrap_or_default().to_owned();
    let mut merged: Vec<Node> = Vec::new();
    for (index, pool) in later.into_iter().enumerate() {
        let counterpart = base.iter().find(|candidate| subnet(candidate) == subnet(&pool));
        merged.push(match counterpart {
            Some(counterpart) => deep(counterpart.clone(), pool, rule.item(), &trail.index(index))?,
            None => pool,
        });
    }
    let mut node = Node::new(Data::List(merged), at);
    node.key_at = key_at;
    Ok(node)
}
