//! `poetry.lock`, of Poetry 1 (where the main group must be found by walking) and 2 (where packages name their groups).

use std::collections::BTreeMap;

use toml::Value;

use super::graph::{Edge, walk};
use super::{LockError, Pin, hashes_of, lines, normal, parse, text_of};

/// The packages of the main group.
pub(in super::super) fn from_poetry(lock: &str, pyproject: &str) -> Result<String, LockError> {
    let document = parse(lock)?;
    let packages = document.get("package").and_then(Value::as_array).cloned().unwrap_or_default();
    let needed = if packages.iter().any(|package| package.get("groups").is_some()) {
        packages
            .iter()
            .filter(|package| is_main(package))
            .map(|package| (normal(text_of(package, "name")), marker_of(package)))
            .collect()
    } else {
        let roots = roots(&parse(pyproject)?)?;
        walk(&roots, &|node| {
            let package = packages.iter().find(|package| normal(text_of(package, "name")) == node);
            package.and_then(|package| package.get("dependencies")).and_then(Value::as_table).map(edges).unwrap_or_default()
        })
    };
    pins(&packages, &document, &needed).map(lines)
}

fn is_main(package: &Value) -> bool {
    let groups = package.get("groups").and_then(Value::as_array);
    let main = groups.is_some_and(|groups| groups.iter().any(|group| group.as_str() == Some("main")));
    main && package.get("optional").and_then(Value::as_bool) != Some(true)
}

/// One marker for all groups, or one for each.
fn marker_of(package: &Value) -> String {
    let markers = package.get("markers");
    let of_main = markers.and_then(|markers| markers.get("main"));
    markers.and_then(Value::as_str).or_else(|| of_main.and_then(Value::as_str)).unwrap_or_default().to_owned()
}

/// What the project itself depends on: Poetry's table, or the standard's list.
fn roots(pyproject: &toml::Table) -> Result<Vec<Edge>, LockError> {
    let poetry = pyproject.get("tool").and_then(|tool| tool.get("poetry")).and_then(|poetry| poetry.get("dependencies"));
    let listed = pyproject.get("project").and_then(|project| project.get("dependencies")).and_then(Value::as_array);
    match (poetry.and_then(Value::as_table), listed) {
        (_, Some(list)) => Ok(list.iter().filter_map(Value::as_str).map(edge_of_requirement).collect()),
        (Some(table), None) => Ok(edges(table).into_iter().filter(|edge| edge.to != "python").collect()),
        (None, None) => Err(LockError::Damaged("pyproject.toml names no dependencies".to_owned())),
    }
}

/// `name[extra]>=1 ; marker` (PEP 508).
fn edge_of_requirement(text: &str) -> Edge {
    let (front, marker) = text.split_once(';').unwrap_or((text, ""));
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String = front.trim().chars().take_while(|letter| is_name(*letter)).collect();
    Edge { to: normal(&name), marker: marker.trim().to_owned() }
}

/// The entries of a table of dependencies. Optional ones are left out: which extras are wanted is not written in the lock,
/// except where a dependency names them, and then their packages are dependencies without being optional.
fn edges(table: &toml::Table) -> Vec<Edge> {
    let variants = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let edge = |name: &str, value: &Value| {
        let marker = text_of(value, "markers").to_owned();
        let optional = value.get("optional").and_then(Value::as_bool) == Some(true) || marker.contains("extra ==");
        (!optional).then(|| Edge { to: normal(name), marker })
    };
    table
        .iter()
        .flat_map(|(name, value)| variants(value).iter().filter_map(|value| edge(name, value)).collect::<Vec<_>>())
        .collect()
}

fn pins(packages: &[Value], document: &toml::Table, needed: &BTreeMap<String, String>) -> Result<Vec<Pin>, LockError> {
    let mut pins = Vec::new();
    for package in packages {
        let name = text_of(package, "name");
        let Some(marker) = needed.get(&normal(name)) else { continue };
        let source = package.get("source");
        let kind = source.map(|source| text_of(source, "type")).unwrap_or_default();
        let of_source = |key| source.map(|source| text_of(source, key)).unwrap_or_default();
        let requirement = match kind {
            "git" => format!("{name} @ git+{}@{}", of_source("url"), of_source("resolved_reference")),
            "url" => format!("{name} @ {}", of_source("url")),
            "directory" | "file" => {
                return Err(LockError::NeedsTool(format!("{name} comes from a folder, which only Poetry can install")));
            }
            _ => format!("{name}=={}", text_of(package, "version")),
        };
        let mut hashes = hashes_of(package.get("files"));
        if hashes.is_empty() {
            // Before 1.3 they stood together at the end.
            let together = document.get("metadata").and_then(|metadata| metadata.get("files")).and_then(|files| files.get(name));
            hashes = hashes_of(together);
        }
        let hashes = if matches!(kind, "git" | "url") { Vec::new() } else { hashes };
        pins.push(Pin { requirement, marker: marker.clone(), hashes });
    }
    Ok(pins)
}
