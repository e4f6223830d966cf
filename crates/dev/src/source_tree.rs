//! A stack from a source tree without a compose file: the processes of its manifest, its Procfile, or what is recognised.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_build::LARGEST_IGNORE_FILE;
use coracle_model::container::RestartPolicy;
use coracle_model::{AppSpec, EnvName, ProcessName, ProcessSpec};

use crate::error::DevError;
use crate::making::plan;
use crate::stack::{Action, Part, Rule, Source, Stack};

/// Files that say what runs, beside the code.
const FILES: [&str; 2] = ["coracle.toml", "Procfile"];

/// The processes of a tree, one copy of each. `spec` is what the manifest says, `env` lies over its environment.
///
/// # Errors
/// Nothing in the tree says what runs, a process asks for what needs a container, or a required name is not set.
pub fn read(tree: &Path, mut spec: AppSpec, env: BTreeMap<EnvName, String>) -> Result<Stack, DevError> {
    spec.env.extend(env);
    let missing: Vec<_> = spec.secrets.iter().filter(|name| !spec.env.contains_key(*name)).map(EnvName::as_str).collect();
    if !missing.is_empty() {
        let message = format!("required by coracle.toml and not set: {}", missing.join(", "));
        let hint = "write them into .env in this folder, or a file that --env-file names".to_owned();
        return Err(DevError::NoPlan { message, hint });
    }
    let found = plan(tree, &spec)?;
    for (name, command) in found.processes {
        spec.processes.entry(name).or_default().command.get_or_insert(command);
    }
    if spec.processes.is_empty() {
        // Static sites name no process; their build does.
        spec.processes.insert(ProcessName::web(), ProcessSpec::default());
    }
    // Whoever is started again with every change needs no second life in between.
    for process in spec.processes.values_mut() {
        (process.replicas, process.container.restart) = (1, RestartPolicy::Never);
    }
    let rule = tree_rule(tree)?;
    let part =
        |name: &ProcessName| Part { title: name.to_string(), source: Source::Tree, rules: vec![rule.clone()], shown: true };
    let parts = spec.processes.keys().map(|name| (name.clone(), part(name))).collect();
    Ok(Stack { spec, parts, tree: Some(tree.to_owned()), files: FILES.iter().map(|file| tree.join(file)).collect() })
}

/// Everything in the tree that a deployment would take along.
fn tree_rule(tree: &Path) -> Result<Rule, DevError> {
    let wrong = |error: coracle_build::IgnoreError| DevError::NoPlan { message: error.to_string(), hint: "mend it".to_owned() };
    let ignore = coracle_build::source_ignore(tree).map_err(wrong)?;
    let text = [".coracleignore", ".dockerignore"].iter().find_map(|file| rules_text(&tree.join(file)));
    Ok(Rule::new(tree.to_owned(), Action::Rebuild).without(tree.to_owned(), ignore, text.unwrap_or_default()))
}

/// The text of an ignore file, by which a change of it is known.
pub(crate) fn rules_text(path: &Path) -> Option<String> {
    String::from_utf8(coracle_regular_file::read(path, LARGEST_IGNORE_FILE).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_process_of_the_procfile_runs_once_and_ignored_files_start_nothing() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("Procfile"), "web: ./serve\nworker: ./work\n").unwrap();
        std::fs::write(tree.path().join(".dockerignore"), "logs\n").unwrap();
        let spec = AppSpec::named("shop".parse().unwrap());
        let stack = read(tree.path(), spec.clone(), BTreeMap::new()).unwrap();
        let names: Vec<_> = stack.spec.processes.iter().map(|(name, part)| (name.as_str(), part.replicas)).collect();
        assert_eq!(names, [("web", 1), ("worker", 1)]);
        let rule = &stack.parts[&ProcessName::web()].rules[0];
        assert!(rule.covers(&tree.path().join("serve")).is_some());
        assert!(rule.covers(&tree.path().join("logs/x")).is_none());
        let spec = AppSpec { secrets: vec!["KEY".parse().unwrap()], ..spec };
        assert!(read(tree.path(), spec, BTreeMap::new()).unwrap_err().to_string().contains("KEY"));
    }
}
