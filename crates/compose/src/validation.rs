//! Whether a tree is what the table allows: known keys, values of the right types.
//!
//! The table says what the Compose Specification's JSON schema says; a text that must be of some form only (a port, a
//! duration) is looked at where it is read.

use std::collections::HashSet;

use crate::error::{ErrorKind, Fault};
use crate::node::{Data, Map, Node};
use crate::schema::{self, Accept, Object, Rule, Shape, Short};
use crate::trail::Trail;

/// Finds what is not allowed.
pub(crate) fn validate(node: &Node, rule: &Rule, trail: &Trail<'_>) -> Result<(), Fault> {
    if is_short_form(node, rule.short) {
        return match node.as_list() {
            Some(items) if matches!(rule.short, Short::Names | Short::Dependencies) => {
                scalars(items, &schema::TEXT, schema::STRING, trail)?;
                distinct(items, trail)
            }
            _ => Ok(()),
        };
    }
    match rule.shape {
        Shape::Any => Ok(()),
        Shape::Scalar(accept, _) => scalar(node, rule, accept, trail),
        Shape::List(item) | Shape::Set(item) => {
            let items = node.as_list().ok_or_else(|| wrong_type(node, "list", trail))?;
            Fault::gather(items.iter().enumerate().map(|(index, value)| validate(value, item, &trail.index(index))))?;
            if matches!(rule.shape, Shape::Set(_)) { distinct(items, trail) } else { Ok(()) }
        }
        Shape::Object(object) => fields(node, object, trail),
        Shape::Map(value) => each(mapping(node, trail)?, value, trail),
        Shape::Names(value) => {
            let map = mapping(node, trail)?;
            for (name, value) in map {
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
                    let message = format!("`{name}` is no name; it takes letters, digits, `.`, `_` and `-`");
                    return Err(Fault::new(ErrorKind::UnknownKey, message).on(&trail.key(name)).at(value.key_at));
                }
            }
            each(map, value, trail)
        }
        Shape::Pairs(_) | Shape::Ssh => pairs(node, trail),
        Shape::Hosts => hosts(node, trail),
        Shape::Command if node.is_null() => Ok(()),
        Shape::Command | Shape::Test => texts(node, trail),
        Shape::External => external(node, trail),
        Shape::Ulimit => ulimit(node, trail),
        Shape::Options => options(node, trail),
    }
}

fn is_short_form(node: &Node, short: Short) -> bool {
    match short {
        Short::Field(_) | Short::One | Short::EnvFile | Short::Volume | Short::Device => node.as_text().is_some(),
        Short::Port => matches!(node.data, Data::Text(_) | Data::Int(_) | Data::Float(_)),
        Short::Gpus => node.as_text() == Some("all"),
        Short::Names | Short::Dependencies => node.as_list().is_some(),
        Short::None => false,
    }
}

fn each(map: &Map, rule: &Rule, trail: &Trail<'_>) -> Result<(), Fault> {
    Fault::gather(map.iter().map(|(key, value)| validate(value, rule, &trail.key(key))))
}

fn fields(node: &Node, object: &Object, trail: &Trail<'_>) -> Result<(), Fault> {
    if node.is_null() && object.nullable {
        return Ok(());
    }
    let map = mapping(node, trail)?;
    let keys = map.iter().map(|(key, value)| match object.rule(key) {
        Some(rule) => validate(value, rule, &trail.key(key)),
        None if object.extensible && key.starts_with("x-") => Ok(()),
        None => Err(unknown(key, value, object, trail)),
    });
    let missing =
        object.required.iter().filter(|key| !map.contains_key(**key)).map(|missing| {
            Err(Fault::new(ErrorKind::Value, format!("the key `{missing}` is missing")).on(trail).at(node.key_at))
        });
    Fault::gather(keys.chain(missing))
}

fn unknown(key: &str, value: &Node, object: &Object, trail: &Trail<'_>) -> Fault {
    let fault = Fault::new(ErrorKind::UnknownKey, format!("`{key}` is not a key that can stand here"))
        .on(&trail.key(key))
        .at(value.key_at);
    match nearest(key, object.keys.iter().map(|(name, _)| *name)) {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None if object.extensible => fault.hint("keys of your own begin with `x-`"),
        None => fault,
    }
}

/// The name that somebody most likely meant.
pub(crate) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let short: String = word.chars().take(64).collect::<String>().to_lowercase().replace('-', "_");
    names
        .map(|name| (strsim::damerau_levenshtein(&short, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

fn scalar(node: &Node, rule: &Rule, accept: Accept, trail: &Trail<'_>) -> Result<(), Fault> {
    let accepted = match node.data {
        Data::Text(_) => accept & schema::STRING,
        Data::Int(_) => accept & (schema::INTEGER | schema::NUMBER),
        Data::Float(value) if value.fract() == 0.0 => accept & (schema::INTEGER | schema::NUMBER),
        Data::Float(_) => accept & schema::NUMBER,
        Data::Bool(_) => accept & schema::BOOLEAN,
        Data::Null => accept & schema::NULL,
        Data::List(_) | Data::Map(_) => 0,
    };
    if accepted == 0 {
        return Err(wrong_type(node, &accepted_types(accept), trail));
    }
    let refused = |message: String| Err(Fault::new(ErrorKind::Value, message).on(trail).at(node.at));
    if let Some(text) = node.as_text() {
        if !rule.values.is_empty() && !rule.values.contains(&text) {
            return refused(format!("`{text}` is not one of {}", rule.values.join(", ")));
        }
        if let Some(form) = rule.form.filter(|form| !(form.holds)(text)) {
            return refused(format!("`{text}` is not {}", form.described));
        }
    }
    match (rule.range, &node.data) {
        (Some((low, high)), Data::Int(value)) if !(low..=high).contains(value) => refused(if high == i64::MAX {
            format!("{value} is less than {low}")
        } else {
            format!("{value} is not within {low} and {high}")
        }),
        (Some((low, high)), Data::Float(value)) if *value < low as f64 || *value > high as f64 => {
            refused(format!("{value} is not within {low} and {high}"))
        }
        _ => Ok(()),
    }
}

fn scalars(items: &[Node], rule: &Rule, accept: Accept, trail: &Trail<'_>) -> Result<(), Fault> {
    Fault::gather(items.iter().enumerate().map(|(index, item)| scalar(item, rule, accept, &trail.index(index))))
}

fn accepted_types(accept: Accept) -> String {
    let names = [
        (schema::STRING, "string"),
        (schema::INTEGER, "integer"),
        (schema::NUMBER, "number"),
        (schema::BOOLEAN, "boolean"),
        (schema::NULL, "null"),
    ];
    names.iter().filter(|(bit, _)| accept & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>().join(" or ")
}

fn wrong_type(node: &Node, expected: &str, trail: &Trail<'_>) -> Fault {
    let at = if node.at.line == 0 { node.key_at } else { node.at };
    let article = if expected.starts_with(['i', 'a']) { "an" } else { "a" };
    Fault::new(ErrorKind::Value, format!("must be {article} {expected}, not {}", node.type_name())).on(trail).at(at)
}

fn mapping<'n>(node: &'n Node, trail: &Trail<'_>) -> Result<&'n Map, Fault> {
    node.as_map().ok_or_else(|| wrong_type(node, "mapping", trail))
}

/// Refuses a list with two equal entries.
fn distinct(items: &[Node], trail: &Trail<'_>) -> Result<(), Fault> {
    let mut seen = HashSet::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        if !seen.insert(fingerprint(item)) {
            return Err(Fault::new(ErrorKind::Value, "this entry is in the list twice").on(&trail.index(index)).at(item.at));
        }
    }
    Ok(())
}

/// A text that equal values share and others do not.
fn fingerprint(node: &Node) -> String {
    match &node.data {
        Data::Text(text) => format!("{text:?}"),
        Data::List(items) => format!("[{}]", items.iter().map(fingerprint).collect::<Vec<_>>().join(",")),
        Data::Map(map) => {
            let mut fields: Vec<String> = map.iter().map(|(key, value)| format!("{key:?}:{}", fingerprint(value))).collect();
            fields.sort_unstable();
            format!("{{{}}}", fields.join(","))
        }
        _ => node.printed().unwrap_or_else(|| "null".to_owned()),
    }
}

fn texts(node: &Node, trail: &Trail<'_>) -> Result<(), Fault> {
    match &node.data {
        Data::Text(_) => Ok(()),
        Data::List(items) => scalars(items, &schema::TEXT, schema::STRING, trail),
        _ => Err(wrong_type(node, "string or list", trail)),
    }
}

const PAIR_VALUE: Accept = schema::STRING | schema::NUMBER | schema::BOOLEAN | schema::NULL;

fn pairs(node: &Node, trail: &Trail<'_>) -> Result<(), Fault> {
    match &node.data {
        Data::Map(map) => Fault::gather(map.iter().map(|(key, value)| scalar(value, &schema::ANY, PAIR_VALUE, &trail.key(key)))),
        Data::List(items) => {
            scalars(items, &schema::TEXT, schema::STRING, trail)?;
            distinct(items, trail)
        }
        _ => Err(wrong_type(node, "mapping or list", trail)),
    }
}

fn hosts(node: &Node, trail: &Trail<'_>) -> Result<(), Fault> {
    match &node.data {
        Data::Map(map) => map.iter().try_for_each(|(key, value)| texts(value, &trail.key(key))),
        _ => pairs(node, trail),
    }
}

fn external(node: &Node, trail: &Trail<'_>) -> Result<(), Fault> {
    match &node.data {
        Data::Bool(_) | Data::Text(_) => Ok(()),
        Data::Map(map) => map.iter().try_for_each(|(key, value)| match key.as_str() {
            "name" => scalar(value, &schema::TEXT, schema::STRING, &trail.key(key)),
            key if key.starts_with("x-") => Ok(()),
            _ => {
                let message = format!("`{key}` is not a key that can stand here");
                Err(Fault::new(ErrorKind::UnknownKey, message).on(&trail.key(key)).at(value.key_at))
            }
        }),
        _ => Err(wrong_type(node, "boolean", trail)),
    }
}

fn ulimit(node: &Node, trail: &Trail<'_>) -> Result<(), Fault> {
    let Some(map) = node.as_map() else {
        return scalar(node, &schema::INT_CAST, schema::INTEGER | schema::STRING, trail);
    };
    for (key, value) in map {
        match key.as_str() {
            "soft" | "hard" => scalar(value, &schema::INT_CAST, schema::INTEGER | schema::STRING, &trail.key(key))?,
            key if key.starts_with("x-") => {}
            _ => {
                let message = format!("`{key}` is not a key that can stand here");
                return Err(Fault::new(ErrorKind::UnknownKey, message).on(&trail.key(key)).at(value.key_at));
            }
        }
    }
    match ["soft", "hard"].iter().find(|key| !map.contains_key(**key)) {
        Some(missing) => {
            let message = format!("must be a number, or a mapping with `soft` and `hard`; `{missing}` is missing");
            Err(Fault::new(ErrorKind::Value, message).on(trail).at(node.key_at))
        }
        None => Ok(()),
    }
}

fn options(node: &Node, trail: &Trail<'_>) -> Result<(), Fault> {
    let accept = schema::STRING | schema::NUMBER | schema::BOOLEAN;
    for (key, value) in mapping(node, trail)? {
        let trail = trail.key(key);
        match value.as_list() {
            Some(items) => scalars(items, &schema::ANY, accept, &trail)?,
            None => scalar(value, &schema::ANY, accept, &trail)?,
        }
    }
    Ok(())
}
