//! Lock files of tools that are not installed here, as lines that pip reads: `name==version` with markers and hashes.
//!
//! Only what a release needs is taken: not the groups for development and tests. Which packages those are is found by
//! walking from the project's own dependencies, since lock files list everything side by side.

mod graph;
mod pipfile;
mod poetry;
mod uv;

use toml::Value;

pub(super) use pipfile::from_pipfile;
pub(super) use poetry::from_poetry;
pub(super) use uv::from_uv;

/// Why a lock file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LockError {
    /// It is not what it should be.
    #[error("cannot be read: {0}")]
    Damaged(String),
    /// It needs the tool itself.
    #[error("{0}")]
    NeedsTool(String),
}

/// A package as pip is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pin {
    /// `name==version`, or `name @ git+https://…`.
    requirement: String,
    /// When it is installed; empty: always.
    marker: String,
    /// `sha256:…`.
    hashes: Vec<String>,
}

/// The text for pip. pip wants hashes for all packages or for none.
fn lines(mut pins: Vec<Pin>) -> String {
    pins.sort_by(|one, other| one.requirement.cmp(&other.requirement));
    let hashed = pins.iter().all(|pin| !pin.hashes.is_empty());
    let mut text = String::new();
    for pin in pins {
        text.push_str(&pin.requirement);
        if !pin.marker.is_empty() {
            text.push_str(" ; ");
            text.push_str(&pin.marker);
        }
        for hash in pin.hashes.iter().filter(|_| hashed) {
            text.push_str(" \\\n    --hash=");
            text.push_str(hash);
        }
        text.push('\n');
    }
    text
}

fn parse(text: &str) -> Result<toml::Table, LockError> {
    text.parse().map_err(|error: toml::de::Error| LockError::Damaged(error.to_string()))
}

/// Names that differ in case, hyphens, underscores and dots are the same (PEP 503).
fn normal(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if matches!(letter, '-' | '_' | '.') {
            if !text.ends_with('-') {
                text.push('-');
            }
        } else {
            text.extend(letter.to_lowercase());
        }
    }
    text
}

/// The text under a key, or nothing.
fn text_of<'a>(table: &'a Value, key: &str) -> &'a str {
    table.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The `hash` of each entry of a list.
fn hashes_of(list: Option<&Value>) -> Vec<String> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(|entry| entry.get("hash")?.as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
