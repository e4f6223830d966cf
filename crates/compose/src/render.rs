//! The resolved model as JSON, in the shape of `docker compose config --format json`: every value of the type its key
//! has, and without what is empty.

use serde_json::{Map as Object, Number, Value};

use crate::cast;
use crate::error::{ErrorKind, Fault};
use crate::node::{Data, Map, Node};
use crate::schema::{self, Empty, Rule, Scalar, Shape};
use crate::trail::Trail;
use crate::warnings::Warnings;
use crate::{duration, size, words};

/// Renders a value; `None` if it is left out.
///
/// `x-` keys are left out, as in the reference's model, which has none but those at the top.
pub(crate) fn render(node: &Node, rule: &Rule, trail: &Trail<'_>) -> Result<Option<Value>, Fault> {
    let value = match rule.shape {
        Shape::Any => Some(plain(node)),
        Shape::Scalar(_, kind) => scalar(node, kind, trail)?,
        Shape::List(item) | Shape::Set(item) => list(node, item, trail)?,
        Shape::Object(object) => self::object(node, object, trail)?,
        Shape::Map(value) | Shape::Names(value) => names(node, value, trail)?,
        Shape::Pairs(keeps_null) => Some(pairs(node, keeps_null)),
        Shape::Hosts => Some(hosts(node, trail)?),
        Shape::Command => command(node, trail)?,
        Shape::Test => test(node),
        Shape::External => scalar(node, Scalar::Bool, trail)?,
        Shape::Ulimit => Some(ulimit(node, trail)?),
        Shape::Ssh => ssh(node),
        Shape::Options => options(node),
    };
    Ok(value.filter(|value| match rule.empty {
        Empty::Omitted => !is_empty(value),
        Empty::OmittedIfTrue => *value != Value::Bool(true),
        Empty::Kept | Empty::Always => true,
    }))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A value of no known type, as it was written.
pub(crate) fn plain(node: &Node) -> Value {
    match &node.data {
        Data::Null => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Int(value) => Value::from(*value),
        Data::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Data::Text(text) => Value::from(text.as_str()),
        Data::List(items) => Value::Array(items.iter().map(plain).collect()),
        Data::Map(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), plain(value))).collect()),
    }
}

fn invalid(message: String, node: &Node, trail: &Trail<'_>) -> Fault {
    Fault::new(ErrorKind::Value, message).on(trail).at(node.at)
}

fn scalar(node: &Node, kind: Scalar, trail: &Trail<'_>) -> Result<Option<Value>, Fault> {
    if node.is_null() {
        return Ok(None);
    }
    let Some(text) = node.printed() else {
        return Err(invalid(format!("must be one value, not a {}", node.type_name()), node, trail));
    };
    let wrong = |message: String| invalid(message, node, trail);
    let value = match (kind, &node.data) {
        (Scalar::Text, _) => Value::from(text),
        (Scalar::Bool, Data::Bool(value)) => Value::from(*value),
        (Scalar::Bool, _) => Value::from(cast::boolean(&text, &mut Warnings::default()).map_err(wrong)?),
        (Scalar::Int, Data::Float(value)) => Value::from(*value as i64),
        (Scalar::Int, _) => Value::from(cast::integer(&text).map_err(wrong)?),
        (Scalar::Float, Data::Int(value)) => Value::from(*value),
        (Scalar::Float, Data::Float(value)) => single(*value),
        (Scalar::Float, _) => single(cast::float(&text).map_err(wrong)?),
        (Scalar::Bytes, Data::Float(value)) => Value::from((*value as i64).to_string()),
        (Scalar::Bytes, Data::Int(value)) => bytes(*value),
        // -1 is "unlimited" where the engine has such a thing.
        (Scalar::Bytes, _) if text.parse::<i64>().is_ok_and(|value| value < 0) => Value::from(text),
        (Scalar::Bytes, _) => bytes(size::parse(&text).map_err(|error| wrong(error.to_string()))?),
        (Scalar::Duration, _) if text.is_empty() => return Ok(None),
        (Scalar::Duration, _) => match duration::parse(&text).map_err(|error| wrong(error.to_string()))? {
            duration if duration.as_nanoseconds() == 0 => Value::from("0s"),
            duration => Value::from(duration.to_string()),
        },
        (Scalar::FileMode, Data::Text(_)) => {
            let mode = i64::from_str_radix(text.trim_start_matches("0o"), 8)
                .map_err(|_| wrong(format!("`{text}` is no file mode; write it in octal, like 0440")))?;
            Value::from(format!("0{mode:o}"))
        }
        (Scalar::FileMode, Data::Int(value)) => Value::from(format!("0{value:o}")),
        (Scalar::FileMode, _) => return Err(wrong(format!("`{text}` is no file mode"))),
        (Scalar::Count, _) if text.eq_ignore_ascii_case("all") => Value::from(-1),
        (Scalar::Count, _) => {
            let count = cast::integer(&text).map_err(|_| wrong(format!("`{text}` is neither `all` nor a number")))?;
            Value::from(count)
        }
    };
    Ok(Some(value))
}

fn bytes(value: i64) -> Value {
    if value == 0 { Value::Null } else { Value::from(value.to_string()) }
}

/// A number in single precision: the fewest digits that tell it from its neighbours.
fn single(value: f64) -> Value {
    let shortest = (value as f32).to_string().parse::<f64>().unwrap_or(value);
    if shortest.fract() == 0.0 && shortest.abs() < 1e15 {
        return Value::from(shortest as i64);
    }
    Number::from_f64(shortest).map_or(Value::Null, Value::Number)
}

fn list(node: &Node, item: &Rule, trail: &Trail<'_>) -> Result<Option<Value>, Fault> {
    let Some(items) = node.as_list() else { return Ok(None) };
    let mut rendered = Vec::with_capacity(items.len());
    // An empty text or a zero in a list is an entry like others.
    let item = item.kept();
    for (index, value) in items.iter().enumerate() {
        rendered.extend(render(value, &item, &trail.index(index))?);
    }
    Ok(Some(Value::Array(rendered)))
}

fn object(node: &Node, object: &schema::Object, trail: &Trail<'_>) -> Result<Option<Value>, Fault> {
    let Some(map) = node.as_map() else { return Ok(None) };
    let mut rendered = Object::new();
    for (key, value) in map {
        let rendered_value = match object.rule(key) {
            Some(rule) => render(value, rule, &trail.key(key))?,
            None => None,
        };
        if let Some(value) = rendered_value {
            let name = if object.capitals { capitalised(key) } else { key.clone() };
            rendered.insert(name, value);
        }
    }
    for (key, rule) in object.keys.iter().filter(|(_, rule)| rule.empty == Empty::Always) {
        if !rendered.contains_key(*key) && matches!(rule.shape, Shape::Object(_) | Shape::Names(_)) {
            rendered.insert((*key).to_owned(), Value::Object(Object::new()));
        }
    }
    Ok(Some(Value::Object(rendered)))
}

fn capitalised(key: &str) -> String {
    let (first, rest) = key.split_at(key.len().min(1));
    first.to_ascii_uppercase() + rest
}

fn names(node: &Node, rule: &Rule, trail: &Trail<'_>) -> Result<Option<Value>, Fault> {
    let Some(map) = node.as_map() else { return Ok(None) };
    let rule = rule.kept();
    let mut rendered = Object::new();
    for (name, value) in map {
        let value = match render(value, &rule, &trail.key(name))? {
            Some(value) => value,
            // A driver's option without a value is an empty one, a network without settings is none.
            None if matches!(rule.shape, Shape::Scalar(..)) => Value::from(""),
            None => Value::Null,
        };
        rendered.insert(name.clone(), value);
    }
    Ok(Some(Value::Object(rendered)))
}

fn pairs(node: &Node, keeps_null: bool) -> Value {
    let absent = || if keeps_null { Value::Null } else { Value::from("") };
    let value = |node: &Node| node.printed().map_or_else(absent, Value::from);
    Value::Object(match &node.data {
        Data::Map(map) => map.iter().map(|(key, node)| (key.clone(), value(node))).collect(),
        Data::List(items) => items
            .iter()
            .filter_map(Node::printed)
            .map(|text| match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Value::from(value)),
                None => (text, absent()),
            })
            .collect(),
        _ => Object::new(),
    })
}

/// `host=ip` entries, sorted.
fn hosts(node: &Node, trail: &Trail<'_>) -> Result<Value, Fault> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    match &node.data {
        Data::Map(map) => {
            for (host, value) in map.iter() {
                let addresses = match value.as_list() {
                    Some(items) => items.iter().filter_map(Node::printed).collect(),
                    None => vec![value.printed().unwrap_or_default()],
                };
                found.push((host.clone(), addresses));
            }
        }
        Data::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let text = item.printed().unwrap_or_default();
                let Some((host, addresses)) = text.split_once('=').or_else(|| text.split_once(':')) else {
                    let message = format!("invalid additional host, missing IP: {text}");
                    return Err(invalid(message, item, &trail.index(index)));
                };
                found.push((host.to_owned(), addresses.split(',').map(str::to_owned).collect()));
            }
        }
        _ => {}
    }
    let mut entries = Vec::new();
    for (host, addresses) in found {
        if host.is_empty() || host.contains([':', '=']) {
            return Err(invalid(format!("bad host name '{host}'"), node, trail));
        }
        for address in addresses {
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|bare| !bare.is_empty());
            entries.push(format!("{host}={}", bare.unwrap_or(&address)));
        }
    }
    entries.sort_unstable();
    Ok(Value::from(entries))
}

fn command(node: &Node, trail: &Trail<'_>) -> Result<Option<Value>, Fault> {
    Ok(match &node.data {
        Data::Text(line) => Some(Value::from(words::split(line).map_err(|error| invalid(error.to_string(), node, trail))?)),
        Data::List(items) => Some(Value::from(items.iter().filter_map(Node::printed).collect::<Vec<_>>())),
        _ => None,
    })
}

fn test(node: &Node) -> Option<Value> {
    match &node.data {
        Data::Text(line) => Some(Value::from(vec!["CMD-SHELL", line])),
        Data::List(items) => Some(Value::from(items.iter().filter_map(Node::printed).collect::<Vec<_>>())),
        _ => None,
    }
}

fn ulimit(node: &Node, trail: &Trail<'_>) -> Result<Value, Fault> {
    let number = |node: &Node, trail: &Trail<'_>| scalar(node, Scalar::Int, trail).map(|value| value.unwrap_or(Value::from(0)));
    let Some(map) = node.as_map() else { return number(node, trail) };
    let mut rendered = Object::new();
    for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("x-")) {
        let value = number(value, &trail.key(key))?;
        if !is_empty(&value) {
            rendered.insert(key.clone(), value);
        }
    }
    Ok(Value::Object(rendered))
}

/// `build.ssh` as a list of `id=path` and `default`.
fn ssh(node: &Node) -> Option<Value> {
    let map: &Map = node.as_map()?;
    let mut keys: Vec<String> = map
        .iter()
        .map(|(id, path)| match path.printed().filter(|path| !path.is_empty()) {
            Some(path) => format!("{id}={path}"),
            None => id.clone(),
        })
        .collect();
    keys.sort_unstable();
    Some(Value::from(keys))
}

fn options(node: &Node) -> Option<Value> {
    let map = node.as_map()?;
    let values = |node: &Node| match node.as_list() {
        Some(items) => items.iter().filter_map(Node::printed).collect(),
        None => vec![node.printed().unwrap_or_default()],
    };
    Some(Value::Object(map.iter().map(|(key, node)| (key.clone(), Value::from(values(node)))).collect()))
}
