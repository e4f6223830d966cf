//! Folders of cases: which files there are, and their rows.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// One row. What it holds is up to its file.
pub(crate) type Row = Value;

/// The files with rows, as paths within the folder, in order.
pub(crate) fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let within = if path.is_dir() {
            fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?
        } else {
            vec![path]
        };
        let rows = within.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        found.extend(rows.filter_map(|path| Some(path.strip_prefix(folder).ok()?.to_str()?.to_owned())));
    }
    found.sort();
    Ok(found)
}

/// The rows of a file.
pub(crate) fn rows(file: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| serde_json::from_str(line).with_context(|| format!("{}, line {}", file.display(), at + 1))).collect()
}

/// What identifies a row.
pub(crate) fn id(row: &Row) -> &str {
    row["id"].as_str().unwrap_or("a row without an id")
}

/// A member that is a text.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

/// A member that is true.
pub(crate) fn is_set(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// A list of texts; empty if there is none.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}
