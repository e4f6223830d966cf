//! `unpinned`: requirements without exact versions, and no lock file.

use std::collections::BTreeSet;

use coracle_model::plan::{PythonDependencies, Recipe};
use coracle_model::policy::Rule;
use serde_json::Value;

use crate::observation::{Observation, plain};
use crate::subject::Looked;

/// How many names are told.
const MOST_TOLD: usize = 4;
/// The most files that include each other.
const MOST_FILES: usize = 16;
/// Lock files of package managers for Node.js.
const LOCKS: [&str; 6] = ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock", "bun.lock", "bun.lockb"];

const MEND_PYTHON: &str = "write the exact versions: `pip freeze > requirements.txt`, or keep a lock file (uv, Poetry, Pipenv)";
const MEND_NODE: &str = "`npm install` writes package-lock.json; keep it in the repository";

/// What is installed without a version that holds.
pub(super) fn observe(looked: &Looked<'_>) -> Vec<Observation> {
    match &looked.part.recipe {
        Recipe::Python(python) => match &python.dependencies {
            PythonDependencies::Requirements { files } => of_files(looked, files.first().map(String::as_str).into_iter()),
            PythonDependencies::Pyproject { listed } => {
                let loose: Vec<String> = listed.iter().filter(|one| !is_pinned(one)).map(|one| name(one).to_owned()).collect();
                told(&loose, "pyproject.toml", None, MEND_PYTHON).into_iter().collect()
            }
            _ => Vec::new(),
        },
        Recipe::Node(node) if node.lock.is_none() => of_package(looked).into_iter().collect(),
        Recipe::Dockerfile { .. } => of_dockerfile(looked),
        _ => Vec::new(),
    }
}

/// What the steps of a Dockerfile install by.
fn of_dockerfile(looked: &Looked<'_>) -> Vec<Observation> {
    let Some((file, target)) = &looked.dockerfile else { return Vec::new() };
    let steps: Vec<&str> = file
        .used(*target)
        .into_iter()
        .flat_map(|at| &file.stages[at].instructions)
        .filter(|step| step.keyword == "RUN")
        .map(|step| step.text.as_str())
        .collect();
    let mut files: Vec<String> = Vec::new();
    for step in steps.iter().filter(|step| step.contains("pip")) {
        let mut words = step.split_whitespace();
        while let Some(word) = words.next() {
            let named = match word {
                "-r" | "--requirement" => words.next(),
                word => word.strip_prefix("--requirement=").or_else(|| word.strip_prefix("-r").filter(|rest| !rest.is_empty())),
            };
            let Some(named) = named.map(|named| named.trim_matches(['"', '\'', ';'])) else { continue };
            let candidates = [named.trim_start_matches("./"), named.rsplit('/').next().unwrap_or(named)];
            files.extend(candidates.into_iter().find(|path| looked.source.is_file(path)).map(str::to_owned));
        }
    }
    files.dedup();
    let mut seen = of_files(looked, files.iter().map(String::as_str));
    let installs = |step: &&str| {
        ["npm install", "npm i ", "pnpm install", "pnpm i ", "yarn install", "bun install"]
            .iter()
            .any(|words| step.contains(words))
    };
    if steps.iter().any(installs) && !LOCKS.iter().any(|lock| looked.source.is_file(lock)) {
        seen.extend(of_package(looked));
    }
    seen
}

fn of_package(looked: &Looked<'_>) -> Option<Observation> {
    let package: Value = serde_json::from_str(&looked.read("package.json")?).ok()?;
    let of = |key: &str| package[key].as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let names: Vec<String> = of("dependencies").chain(of("devDependencies")).collect();
    told(&names, &looked.path("package.json"), None, MEND_NODE).map(|mut seen| {
        seen.what = seen.what.replace("without an exact version", "without a lock file");
        seen
    })
}

/// What is loose in files of requirements and those that they include.
fn of_files<'a>(looked: &Looked<'_>, files: impl Iterator<Item = &'a str>) -> Vec<Observation> {
    let (mut left, mut done, mut pins): (Vec<String>, Vec<String>, BTreeSet<String>) =
        (files.map(str::to_owned).collect(), Vec::new(), BTreeSet::new());
    let mut loose: Vec<(String, u32, String)> = Vec::new();
    while let Some(path) = left.pop() {
        if done.contains(&path) || done.len() >= MOST_FILES {
            continue;
        }
        let Some(text) = looked.read(&path) else { continue };
        for (number, line) in lines(&text) {
            let beside = |other: &str| match path.rsplit_once('/') {
                Some((folder, _)) => format!("{folder}/{other}"),
                None => other.to_owned(),
            };
            if let Some(other) = option(&line, "-r", "--requirement") {
                left.push(beside(&other));
            } else if let Some(other) = option(&line, "-c", "--constraint") {
                let text = looked.read(&beside(&other)).unwrap_or_default();
                pins.extend(lines(&text).filter(|(_, line)| is_pinned(line)).map(|(_, line)| normalised(name(&line))));
            } else if !line.starts_with(['-', '.', '/']) && !line.starts_with("file:") && !is_pinned(&line) {
                loose.push((path.clone(), number, name(&line).to_owned()));
            }
        }
        done.push(path);
    }
    loose.retain(|(_, _, name)| !pins.contains(&normalised(name)));
    let mut seen = Vec::new();
    for path in &done {
        let of_file: Vec<&(String, u32, String)> = loose.iter().filter(|(of, ..)| of == path).collect();
        let names: Vec<String> = of_file.iter().map(|(_, _, name)| name.clone()).collect();
        seen.extend(told(&names, &looked.path(path), of_file.first().map(|(_, line, _)| *line), MEND_PYTHON));
    }
    seen
}

fn told(names: &[String], file: &str, line: Option<u32>, mend: &str) -> Option<Observation> {
    let first: Vec<String> = names.iter().take(MOST_TOLD).map(|name| plain(name)).collect();
    let more = names.len().saturating_sub(MOST_TOLD);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let sentence =
        format!("{}{more} {} installed without an exact version", first.join(", "), if names.len() == 1 { "is" } else { "are" });
    (!names.is_empty()).then(|| Observation::new(Rule::Unpinned, sentence, mend).at(file, line))
}

/// The requirements of a file with their lines: comments gone, continued lines joined (pip, "Requirements File Format").
fn lines(text: &str) -> impl Iterator<Item = (u32, String)> {
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        let (number, first) = lines.next()?;
        let mut whole = first.to_owned();
        while let Some(rest) = whole.strip_suffix('\\').map(str::to_owned) {
            whole = rest + lines.next().map(|(_, line)| line).unwrap_or_default();
        }
        let without = if whole.trim_start().starts_with('#') { "" } else { whole.split(" #").next().unwrap_or(&whole) };
        Some((u32::try_from(number + 1).unwrap_or(u32::MAX), without.trim().to_owned()))
    })
    .filter(|(_, line)| !line.is_empty())
}

/// The value of an option that stands on a line of its own.
fn option(line: &str, short: &str, long: &str) -> Option<String> {
    let rest = line.strip_prefix(long).or_else(|| line.strip_prefix(short))?;
    let value = rest.trim_start_matches(['=', ' ', '\t']).trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// The name of a requirement (PEP 508).
fn name(requirement: &str) -> &str {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    match end {
        // `git+https://…`
        Some(0) | None => requirement.split_whitespace().next().unwrap_or(requirement),
        Some(end) if requirement[end..].starts_with(['+', ':']) => requirement.split_whitespace().next().unwrap_or(requirement),
        Some(end) => &requirement[..end],
    }
}

fn normalised(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

/// Whether a requirement always means the same: an exact version, a hash, or an address that does.
fn is_pinned(requirement: &str) -> bool {
    if requirement.contains("--hash") || requirement.contains("sha256=") {
        return true;
    }
    let requirement = requirement.split(" --").next().unwrap_or(requirement);
    let address =
        requirement.split_once('@').filter(|(name, _)| !name.contains("://")).map_or(requirement, |(_, address)| address).trim();
    if address.contains("://") {
        let address = address.split(['#', ';', ' ']).next().unwrap_or(address);
        if !address.contains('+') {
            return true;
        }
        let path = address.split_once("://").map_or("", |(_, rest)| rest);
        let path = path.split_once('/').map_or("", |(_, path)| path);
        let reference = path.rsplit_once('@').map(|(_, reference)| reference);
        return reference.is_some_and(|reference| !matches!(reference, "main" | "master" | "HEAD" | "develop" | "trunk"));
    }
    let specifier = requirement.split(';').next().unwrap_or(requirement);
    specifier.split_once("==").is_some_and(|(_, version)| {
        let version = version.trim_start_matches('=').split(',').next().unwrap_or_default().trim();
        !version.is_empty() && !version.contains('*')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pinned_and_what_is_not() {
        for pinned in [
            "flask==3.1.0",
            "flask[async] === 3.1.0 ; python_version >= '3.9'",
            "flask>=3 --hash=sha256:00",
            "shop @ https://example.com/shop-1.0.whl",
            "git+https://github.com/a/b@v1.2.3#egg=b",
            "b @ git+ssh://git@github.com/a/b@0a1b2c3",
        ] {
            assert!(is_pinned(pinned), "{pinned}");
        }
        for loose in [
            "flask",
            "flask>=3",
            "flask~=3.1",
            "flask==3.*",
            "flask ; python_version == '3.9'",
            "git+https://github.com/a/b",
            "git+https://user@github.com/a/b",
            "git+https://github.com/a/b@main",
        ] {
            assert!(!is_pinned(loose), "{loose}");
        }
        assert_eq!(name("flask[async]>=3"), "flask");
        assert_eq!(name("git+https://github.com/a/b"), "git+https://github.com/a/b");
    }
}
