//! Rows about compose files: the model they come to, or what is said of them.
//!
//! Rows about a leaf of the syntax (a template, an environment file, the short form of a key) are wrapped in the smallest project
//! that has such a leaf, so that all of them pass through the command that anybody can type.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::cases::{Row, text, texts};
use crate::compose_project::{Loaded, Project, difference};
use crate::report::Verdict;

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ComposeSuite {
    /// Whole projects.
    Model,
    /// Templates.
    Interpolation,
    /// Environment files.
    EnvFile,
    /// Keys of a service in their short form.
    ShortSyntax,
}

/// Judges a row.
pub(crate) async fn verdict(row: &Row, suite: ComposeSuite, program: &Path) -> Verdict {
    let project = project(row, suite)?;
    let loaded = project.load(program).await.map_err(|error| format!("{error:#}"))?;
    let expected_error = match suite {
        ComposeSuite::Model if row["expect"]["ok"] == false => Some(text(&row["expect"], "error").unwrap_or_default()),
        ComposeSuite::Model => None,
        _ => text(row, "expect_error"),
    };
    if let Some(expected) = expected_error {
        return refused(expected, &loaded);
    }
    let model = loaded.model.as_ref().ok_or_else(|| format!("it was refused: {}", loaded.said.trim()))?;
    let nothing = Value::Null;
    let service = &model["services"]["s"];
    let (expected, got) = match suite {
        ComposeSuite::Model => (&row["expect"]["config"], model),
        ComposeSuite::Interpolation => (&row["expect"], &service["labels"]["v"]),
        ComposeSuite::EnvFile => (&row["expect"], service.get("environment").unwrap_or(&EMPTY)),
        ComposeSuite::ShortSyntax => {
            (&row["expect"], service.get(text(row, "kind").ok_or("the row has no kind")?).unwrap_or(&nothing))
        }
    };
    if let Some(difference) = difference(expected, got) {
        return Err(difference);
    }
    warned(row, &loaded)
}

static EMPTY: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::Object(serde_json::Map::new()));

/// The project of a row.
pub(crate) fn project(row: &Row, suite: ComposeSuite) -> Result<Project, String> {
    let variables = |key: &str| -> BTreeMap<String, String> {
        let pairs = row.get(key).and_then(Value::as_object).into_iter().flatten();
        pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    };
    let head = "services:\n  s:\n    image: x\n";
    Ok(match suite {
        ComposeSuite::Model => {
            let (files, environment) = (variables("files"), variables("env"));
            Project { files, arguments: texts(&row["args"]), environment }
        }
        ComposeSuite::Interpolation => {
            // What JSON writes as a text, YAML reads as the same one.
            let template = &row["template"];
            let project = Project::of(format!("{head}    labels:\n      v: {template}\n"));
            Project { environment: variables("env"), ..project }
        }
        ComposeSuite::EnvFile => {
            let mut project = Project::of(format!("{head}    env_file: x.env\n"));
            project.files.insert("x.env".to_owned(), text(row, "env_file").ok_or("the row has no env_file")?.to_owned());
            Project { environment: variables("process_env"), ..project }
        }
        ComposeSuite::ShortSyntax => {
            let lines = text(row, "yaml").ok_or("the row has no yaml")?;
            Project { environment: variables("env"), ..Project::of(format!("{head}{lines}")) }
        }
    })
}

/// The words of errors are our own, but the key, the service or the file at fault must be among them.
fn refused(expected: &str, loaded: &Loaded) -> Verdict {
    if loaded.model.is_some() {
        return Err(format!("expected to be refused with {expected:?}, but it was taken"));
    }
    let names = names(expected);
    let said = loaded.said.to_lowercase();
    if names.is_empty() || names.iter().any(|name| said.contains(&name.to_lowercase())) {
        return Ok(());
    }
    Err(format!("refused without naming one of {names:?}, which {expected:?} names: {}", loaded.said.trim()))
}

/// Top-level keys, with which the path of a key begins.
const TOP: &[&str] = &["services", "networks", "volumes", "secrets", "configs", "include", "name", "models"];

/// What an error of the reference loader names: texts in quotes, the last key of a path, files, and what is undefined.
fn names(error: &str) -> Vec<String> {
    let quoted = error.split('"').skip(1).step_by(2).map(str::to_owned);
    let words: Vec<_> = error.split_whitespace().map(|word| word.trim_matches(['"', '\'', '`', ':', ',', '.', '('])).collect();
    let keys = words.iter().filter(|word| TOP.contains(&word.split(['.', '[']).next().unwrap_or_default())).filter_map(|path| {
        let mut segments = path.split(['.', '[', ']']);
        segments.rfind(|segment| !segment.is_empty() && segment.parse::<u64>().is_err()).map(str::to_owned)
    });
    // The file that a mistake stands in is in all of our errors, so that it tells nothing.
    let pairs = words.iter().zip(words.iter().skip(1)).filter(|(before, word)| word.contains('/') && **before != "validating");
    let files = pairs.filter_map(|(_, path)| path.rsplit('/').next().map(str::to_owned));
    quoted.chain(keys).chain(undefined(&words)).chain(files).filter(|name| !name.is_empty()).collect()
}

fn undefined(words: &[&str]) -> Option<String> {
    let at = words.iter().position(|word| *word == "undefined")?;
    words.get(at + 2).map(|name| (*name).to_owned())
}

/// Each warning of the reference loader is about something that ours must mention, too.
fn warned(row: &Row, loaded: &Loaded) -> Verdict {
    let listed = row.get("warnings").or_else(|| row["expect"].get("warnings"));
    for warning in listed.map(texts).unwrap_or_default() {
        let plain = warning.replace("\\\"", "\"");
        let about = plain.split(['"', '`']).nth(1).unwrap_or_default();
        if !loaded.said.contains(about) {
            return Err(format!("expected a warning that mentions {about:?}, as in {warning:?}; got {:?}", loaded.said.trim()));
        }
    }
    Ok(())
}
