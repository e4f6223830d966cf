//! JSON Schema (draft 7), as far as published schemas of workflows use it: a keyword that constrains and that is not known here is an
//! error, so that nothing is passed over. Formats are not looked at, as the draft allows.

use regex::Regex;
use serde_json::{Map, Value};

/// Keywords that constrain nothing.
const REMARKS: [&str; 9] =
    ["$schema", "$id", "$comment", "title", "description", "markdownDescription", "default", "examples", "format"];

/// What is wrong with a document, as place and reason; nothing if it is as the schema wants it.
pub fn faults(schema: &Value, document: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    Checker { root: schema }.check(schema, document, "", &mut faults);
    faults
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn holds(&self, schema: &Value, value: &Value) -> bool {
        let mut faults = Vec::new();
        self.check(schema, value, "", &mut faults);
        faults.is_empty()
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        let keywords = match schema {
            Value::Bool(true) => return,
            Value::Object(keywords) => keywords,
            _ => return faults.push(format!("{place}: nothing may be here")),
        };
        // Beside a reference, draft 7 looks at nothing else.
        if let Some(reference) = keywords.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return self.check(target.unwrap_or_else(|| panic!("{reference} leads nowhere")), value, place, faults);
        }
        for (keyword, rule) in keywords.iter().filter(|(keyword, _)| !REMARKS.contains(&keyword.as_str())) {
            match (keyword.as_str(), value) {
                ("definitions" | "then" | "else", _) => {}
                ("type" | "enum" | "const" | "allOf" | "anyOf" | "oneOf" | "not" | "if", _) => {
                    self.check_any(keyword, rule, keywords, value, place, faults);
                }
                ("minLength" | "maxLength" | "pattern", value) => self.check_text(keyword, rule, value, place, faults),
                ("minimum" | "maximum", value) => {
                    let (limit, number) = (rule.as_f64().unwrap(), value.as_f64());
                    if number.is_some_and(|number| if keyword == "minimum" { number < limit } else { number > limit }) {
                        faults.push(format!("{place}: {value} is beyond its {keyword}, {limit}"));
                    }
                }
                ("items" | "minItems" | "maxItems" | "uniqueItems", value) => {
                    self.check_list(keyword, rule, value, place, faults)
                }
                ("properties", value) => self.check_object(keywords, value, place, faults),
                ("patternProperties" | "additionalProperties", value) if !keywords.contains_key("properties") => {
                    // Seen once, whichever of them comes first.
                    if keyword == "patternProperties" || !keywords.contains_key("patternProperties") {
                        self.check_object(keywords, value, place, faults);
                    }
                }
                ("patternProperties" | "additionalProperties", _) => {}
                ("required" | "minProperties" | "maxProperties" | "dependencies", value) => {
                    self.check_keys(keyword, rule, value, place, faults);
                }
                (unknown, _) => panic!("{unknown} is a keyword that is not known here"),
            }
        }
    }

    fn check_any(
        &self,
        keyword: &str,
        rule: &Value,
        beside: &Map<String, Value>,
        value: &Value,
        place: &str,
        faults: &mut Vec<String>,
    ) {
        let all = || rule.as_array().unwrap().iter();
        let is_fine = match keyword {
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| is_of(name, value)),
                name => is_of(name, value),
            },
            "enum" => all().any(|one| one == value),
            "const" => rule == value,
            "allOf" => return all().for_each(|schema| self.check(schema, value, place, faults)),
            "anyOf" => all().any(|schema| self.holds(schema, value)),
            "oneOf" => all().filter(|schema| self.holds(schema, value)).count() == 1,
            "not" => !self.holds(rule, value),
            _ => {
                let branch = if self.holds(rule, value) { "then" } else { "else" };
                if let Some(schema) = beside.get(branch) {
                    self.check(schema, value, place, faults);
                }
                return;
            }
        };
        if !is_fine {
            faults.push(format!("{place}: {value} does not fit {keyword}"));
        }
    }

    fn check_text(&self, keyword: &str, rule: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        let Some(text) = value.as_str() else { return };
        let length = || text.chars().count() as u64;
        let is_fine = match keyword {
            "minLength" => length() >= rule.as_u64().unwrap(),
            "maxLength" => length() <= rule.as_u64().unwrap(),
            _ => matches(rule.as_str().unwrap(), text),
        };
        if !is_fine {
            faults.push(format!("{place}: {text:?} does not fit {keyword} {rule}"));
        }
    }

    fn check_list(&self, keyword: &str, rule: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        let Some(list) = value.as_array() else { return };
        let is_fine = match (keyword, rule) {
            ("minItems", _) => list.len() as u64 >= rule.as_u64().unwrap(),
            ("maxItems", _) => list.len() as u64 <= rule.as_u64().unwrap(),
            ("uniqueItems", _) => list.iter().enumerate().all(|(at, item)| !list[..at].contains(item)),
            (_, Value::Array(schemas)) => {
                let pairs = schemas.iter().zip(list).enumerate();
                return pairs.for_each(|(at, (schema, item))| self.check(schema, item, &format!("{place}/{at}"), faults));
            }
            _ => return list.iter().enumerate().for_each(|(at, item)| self.check(rule, item, &format!("{place}/{at}"), faults)),
        };
        if !is_fine {
            faults.push(format!("{place}: the list does not fit {keyword} {rule}"));
        }
    }

    /// What each key holds: by its name, by its pattern, or as any other.
    fn check_object(&self, keywords: &Map<String, Value>, value: &Value, place: &str, faults: &mut Vec<String>) {
        let Some(object) = value.as_object() else { return };
        let of = |keyword: &str| keywords.get(keyword).and_then(Value::as_object);
        for (key, value) in object {
            let place = format!("{place}/{key}");
            let named = of("properties").and_then(|named| named.get(key));
            let patterns = of("patternProperties").into_iter().flatten();
            let patterned: Vec<&Value> =
                patterns.filter(|(pattern, _)| matches(pattern, key)).map(|(_, schema)| schema).collect();
            for schema in named.into_iter().chain(patterned.iter().copied()) {
                self.check(schema, value, &place, faults);
            }
            if let Some(other) = keywords.get("additionalProperties").filter(|_| named.is_none() && patterned.is_empty()) {
                self.check(other, value, &place, faults);
            }
        }
    }

    fn check_keys(&self, keyword: &str, rule: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
        let Some(object) = value.as_object() else { return };
        let has = |key: &Value| object.contains_key(key.as_str().unwrap());
        let is_fine = match keyword {
            "required" => rule.as_array().unwrap().iter().all(has),
            "minProperties" => object.len() as u64 >= rule.as_u64().unwrap(),
            "maxProperties" => object.len() as u64 <= rule.as_u64().unwrap(),
            _ => rule.as_object().unwrap().iter().filter(|(key, _)| object.contains_key(*key)).all(|(_, wanted)| match wanted {
                Value::Array(keys) => keys.iter().all(has),
                schema => self.holds(schema, value),
            }),
        };
        if !is_fine {
            faults.push(format!("{place}: its keys do not fit {keyword} {rule}"));
        }
    }
}

fn is_of(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("{other} is no type"),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).unwrap_or_else(|error| panic!("{error}")).is_match(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_found_at_its_place() {
        let schema = json!({
            "type": "object", "required": ["on"], "additionalProperties": false,
            "properties": { "on": { "oneOf": [{ "type": "string" }, { "$ref": "#/definitions/list" }] } },
            "patternProperties": { "^x-": { "minLength": 2 } },
            "definitions": { "list": { "type": "array", "minItems": 1, "uniqueItems": true, "items": { "enum": ["a", "b"] } } }
        });
        for good in [json!({ "on": "a" }), json!({ "on": ["a", "b"], "x-y": "zz" }), json!({ "on": "a", "x-y": 1 })] {
            assert_eq!(faults(&schema, &good), Vec::<String>::new(), "{good}");
        }
        for (bad, place) in [
            (json!({}), ": its keys"),
            (json!([]), ": [] does not fit type"),
            (json!({ "on": [] }), "/on: [] does not fit oneOf"),
            (json!({ "on": ["a", "a"] }), "/on:"),
            (json!({ "on": ["c"] }), "/on:"),
            (json!({ "on": "a", "off": 1 }), "/off: nothing may be here"),
            (json!({ "on": "a", "x-y": "z" }), "/x-y: \"z\" does not fit minLength"),
        ] {
            assert!(faults(&schema, &bad).iter().any(|fault| fault.contains(place)), "{bad}: {:?}", faults(&schema, &bad));
        }
        let when =
            json!({ "if": { "required": ["a"] }, "then": { "not": { "required": ["b"] } }, "else": { "maxProperties": 1 } });
        assert!(faults(&when, &json!({ "a": 1 })).is_empty() && faults(&when, &json!({ "c": 1 })).is_empty());
        assert!(!faults(&when, &json!({ "a": 1, "b": 1 })).is_empty() && !faults(&when, &json!({ "c": 1, "d": 1 })).is_empty());
    }
}
