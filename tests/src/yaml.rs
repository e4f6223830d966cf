//! YAML as the JSON that a schema is for: plain words by the core schema of YAML 1.2, and no key twice. Anchors and tags are refused:
//! what is read here has none.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Reads the one document of a text.
pub fn read(text: &str) -> Value {
    let mut events = Parser::new_from_str(text).map(|event| event.unwrap_or_else(|error| panic!("{error}\n{text}")).0);
    let first = events.by_ref().find(|event| !matches!(event, Event::StreamStart | Event::DocumentStart(_)));
    let value = value(first.expect("an empty text"), &mut events);
    assert!(!events.any(|event| matches!(event, Event::DocumentStart(_))), "there are several documents");
    value
}

fn value<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, 0, None) => plain(&text),
        Event::Scalar(text, _, 0, None) => Value::String(text.into_owned()),
        Event::SequenceStart(0, None) => {
            let mut list = Vec::new();
            loop {
                match events.next().expect("a list ends") {
                    Event::SequenceEnd => return Value::Array(list),
                    event => list.push(value(event, events)),
                }
            }
        }
        Event::MappingStart(0, None) => {
            let mut map = Map::new();
            loop {
                let key = match events.next().expect("a mapping ends") {
                    Event::MappingEnd => return Value::Object(map),
                    Event::Scalar(text, ..) => text.into_owned(),
                    other => panic!("{other:?} is no key"),
                };
                let next = events.next().expect("a key has a value");
                let content = value(next, events);
                assert!(map.insert(key.clone(), content).is_none(), "the key {key} is there twice");
            }
        }
        other => panic!("{other:?} is not expected here"),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text.parse::<i64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
    }
}
