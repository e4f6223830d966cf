//! A compose project in a folder of its own, and what `coracle compose config` says about it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// The folder of a project, which is also its default name.
const FOLDER: &str = "proj";

/// The home directory that the reference loader had.
const HOME: &str = "/home/user";

/// How a case writes the project's folder.
pub(crate) const PLACEHOLDER: &str = "$DIR";

/// No model takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Files and how they are loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Project {
    /// Texts by path within the folder.
    pub(crate) files: BTreeMap<String, String>,
    /// Compose files for `-f`, or options as they are typed.
    pub(crate) arguments: Vec<String>,
    /// Variables of the environment, beside the home directory.
    pub(crate) environment: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The model, or that there is none.
    pub(crate) model: Option<Value>,
    /// Everything on standard error, the folder written as cases write it.
    pub(crate) said: String,
}

impl Project {
    /// A project of one file.
    pub(crate) fn of(text: String) -> Self {
        Self { files: BTreeMap::from([("compose.yaml".to_owned(), text)]), ..Self::default() }
    }

    /// Writes the files and asks the program for the model.
    pub(crate) async fn load(&self, program: &Path) -> Result<Loaded> {
        let parent = tempfile::tempdir()?;
        let folder = self.write(&parent)?;
        let mut command = Command::new(program);
        command.args(["compose", "config", "--format", "json"]).args(self.options());
        command.env_clear().env("PATH", coracle_tests::program::PATH).env("HOME", HOME).env("NO_COLOR", "1");
        command.envs(&self.environment).current_dir(&folder).stdin(Stdio::null()).kill_on_drop(true);
        let output = timeout(PATIENCE, command.output()).await.context("the program does not end")??;
        // What lies above the folder is written as seen from it.
        let placed = |bytes: &[u8]| {
            let within = String::from_utf8_lossy(bytes).replace(&*folder.to_string_lossy(), PLACEHOLDER);
            within.replace(&*parent.path().to_string_lossy(), &format!("{PLACEHOLDER}/.."))
        };
        let said = placed(&output.stderr);
        if said.contains("panicked") || output.status.code().is_none() {
            anyhow::bail!("the program broke: {}: {said}", output.status);
        }
        let model = match output.status.success() {
            true => Some(serde_json::from_str(&placed(&output.stdout)).context("what it printed is not JSON")?),
            false => None,
        };
        Ok(Loaded { model, said })
    }

    fn write(&self, parent: &TempDir) -> Result<PathBuf> {
        let folder = parent.path().join(FOLDER);
        std::fs::create_dir(&folder)?;
        for (name, text) in &self.files {
            let path = folder.join(name);
            if let Some(above) = path.parent() {
                std::fs::create_dir_all(above)?;
            }
            std::fs::write(path, text.replace(PLACEHOLDER, &folder.to_string_lossy()))?;
        }
        Ok(folder)
    }

    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            if word.starts_with('-') {
                options.push(word.clone());
                if !word.contains('=') {
                    options.extend(words.next().cloned());
                }
            } else {
                options.extend(["-f".to_owned(), word.clone()]);
            }
        }
        options
    }
}

/// The first place where two values differ, with both of them there.
pub(crate) fn difference(expected: &Value, got: &Value) -> Option<String> {
    differ(expected, got, &mut String::new())
}

fn differ(expected: &Value, got: &Value, path: &mut String) -> Option<String> {
    let length = path.len();
    let mut within = |key: &str, expected: Option<&Value>, got: Option<&Value>| {
        path.push_str(key);
        let found = match (expected, got) {
            (Some(expected), Some(got)) => differ(expected, got, path),
            (Some(expected), None) => Some(format!("at {path}: expected {expected}, got nothing")),
            (None, Some(got)) => Some(format!("at {path}: expected nothing, got {got}")),
            (None, None) => None,
        };
        path.truncate(length);
        found
    };
    match (expected, got) {
        (Value::Object(left), Value::Object(right)) => {
            let keys = left.keys().chain(right.keys().filter(|key| !left.contains_key(*key)));
            keys.map(|key| within(&format!(".{key}"), left.get(key), right.get(key))).find_map(|found| found)
        }
        (Value::Array(left), Value::Array(right)) => (0..left.len().max(right.len()))
            .map(|at| within(&format!("[{at}]"), left.get(at), right.get(at)))
            .find_map(|found| found),
        (Value::Number(left), Value::Number(right)) if left.as_f64() == right.as_f64() => None,
        _ if expected == got => None,
        _ => Some(format!("at {path}: expected {expected}, got {got}")),
    }
}
