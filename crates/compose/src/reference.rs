//! `docs/reference/compose.md` lists every key of the schema once, and none that the schema does not have.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use crate::schema::{Object, Rule, Shape, TOP};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/compose.md");

/// Words of the second column.
const WORDS: &[&str] = &["honoured", "development", "ignored", "refused"];

/// Keys of the schema, names that a writer chooses left out: `services.build.args`.
fn keys() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(&TOP, "", &mut found);
    found
}

fn collect(rule: &Rule, path: &str, found: &mut BTreeSet<String>) {
    match rule.shape {
        Shape::Object(object) => below(object, path, found),
        Shape::List(item) | Shape::Set(item) | Shape::Map(item) | Shape::Names(item) => collect(item, path, found),
        _ => {}
    }
}

fn below(object: &Object, path: &str, found: &mut BTreeSet<String>) {
    for (key, rule) in object.keys {
        let path = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
        collect(rule, &path, found);
        assert!(found.insert(path.clone()), "{path} is twice in the schema");
    }
}

/// Keys and words of the page's tables. A heading names what the keys below it are below of.
fn listed(page: &str) -> Vec<(String, String)> {
    let mut above = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            above = heading.split('`').nth(1).map(|path| path.replace("NAME", "")).unwrap_or_default();
        } else if let Some((key, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) {
            rows.push((format!("{above}{key}"), rest.split(" | ").next().unwrap_or_default().to_owned()));
        }
    }
    rows
}

#[test]
fn every_key_is_in_the_reference() {
    let rows = listed(&std::fs::read_to_string(PAGE).unwrap());
    let words: Vec<_> = rows.iter().filter(|(_, word)| !WORDS.contains(&word.as_str())).collect();
    assert!(words.is_empty(), "the second column has other words than {WORDS:?}: {words:?}");
    let documented: BTreeSet<String> = rows.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(documented.len(), rows.len(), "a key is twice on the page");
    let keys = keys();
    let missing: Vec<_> = keys.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&keys).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not on the page: {missing:?}; not in the schema: {unknown:?}");
}
