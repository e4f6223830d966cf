//! Keys that are valid and do not take effect: looked for in the whole model beside the schema's table, so that none is
//! dropped in silence.

use serde_json::Value;

use super::Maker;
use super::support::{self, Support};
use crate::schema::{Rule, Shape, TOP};

impl Maker<'_> {
    /// Notes everything that a model asks for in vain, each key with its place.
    pub(super) fn note_unsupported(&mut self, model: &Value) {
        let mut seeker = Seeker { maker: self, path: Vec::new() };
        seeker.look(model, &TOP, "");
    }
}

/// Walks through a model.
struct Seeker<'m, 'p> {
    maker: &'m mut Maker<'p>,
    /// Where it is, names that the writer chose included.
    path: Vec<String>,
}

impl Seeker<'_, '_> {
    /// `key` is the value's key in the schema.
    fn look(&mut self, value: &Value, rule: &Rule, key: &str) {
        match (rule.shape, value) {
            (Shape::Object(object), Value::Object(entries)) => {
                for (name, value) in entries {
                    // `blkio_config` is printed with capitals, and is refused as a whole.
                    let Some(rule) = object.rule(name) else { continue };
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    self.within(name, |seeker| {
                        if !seeker.is_told(value, &key) {
                            seeker.look(value, rule, &key);
                        }
                    });
                }
            }
            (Shape::Map(item) | Shape::Names(item), Value::Object(entries)) => {
                for (name, value) in entries {
                    self.within(name, |seeker| seeker.look(value, item, key));
                }
            }
            (Shape::List(item) | Shape::Set(item), Value::Array(items)) => {
                for (index, value) in items.iter().enumerate() {
                    self.within(&index.to_string(), |seeker| seeker.look(value, item, key));
                }
            }
            _ => {}
        }
    }

    fn within(&mut self, name: &str, look: impl FnOnce(&mut Self)) {
        self.path.push(name.to_owned());
        look(self);
        self.path.pop();
    }

    /// Tells of a key that does not take effect; whether it has a row, so that what is below it needs no second word.
    fn is_told(&mut self, value: &Value, key: &str) -> bool {
        let Some(row) = support::row(key) else { return false };
        if (row.harmless)(value) {
            return true;
        }
        // An image is built for the platform that its service names; the builder says if it cannot.
        let is_built = key == "services.platform" && self.maker.is_built(&self.path[1]);
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        match row.support {
            Support::Refused if !is_built => self.maker.cannot(&path, row.why),
            Support::Ignored => {
                let told = self.maker.told(&path, format!("has no effect here: {}", row.why));
                self.maker.notes.push(told.to_string());
            }
            Support::Refused | Support::Development => {}
        }
        true
    }
}

impl Maker<'_> {
    fn is_built(&self, service: &str) -> bool {
        self.project.services.get(service).is_some_and(|service| service.build.is_some())
    }
}
