//! `Pipfile.lock`.

use serde_json::Value;

use super::{LockError, Pin, lines};

/// The packages of the default section.
pub(in super::super) fn from_pipfile(text: &str) -> Result<String, LockError> {
    let document: Value = serde_json::from_str(text).map_err(|error| LockError::Damaged(error.to_string()))?;
    let Some(packages) = document.get("default").and_then(Value::as_object) else {
        return Err(LockError::Damaged("it has no default section".to_owned()));
    };
    packages.iter().map(|(name, package)| pin(name, package)).collect::<Result<Vec<_>, _>>().map(lines)
}

fn pin(name: &str, package: &Value) -> Result<Pin, LockError> {
    let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
    let list = |key: &str| {
        let entries = package.get(key).and_then(Value::as_array).into_iter().flatten();
        entries.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let extras = list("extras");
    let name = if extras.is_empty() { name.to_owned() } else { format!("{name}[{}]", extras.join(",")) };
    let requirement = match (text("git"), text("version")) {
        ("", "") => return Err(LockError::NeedsTool(format!("{name} is neither from an index nor from git"))),
        ("", version) => format!("{name}{version}"),
        (git, _) => format!("{name} @ git+{git}@{}", text("ref")),
    };
    Ok(Pin { requirement, marker: text("markers").to_owned(), hashes: list("hashes") })
}
