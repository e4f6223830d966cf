//! Which packages an app depends on, as its files say; nothing is resolved.

use std::collections::{BTreeSet, VecDeque};

use coracle_model::plan::PythonDependencies;

use crate::detect::{PlanError, Tree, unsuitable};

/// Requirements files that may include each other.
const MOST_FILES: usize = 100;

/// `requirements.txt` and all that it includes with `-r` and `-c`, each once, it first.
pub(super) fn requirement_files(tree: &Tree<'_>) -> Result<Vec<String>, PlanError> {
    let mut files = vec!["requirements.txt".to_owned()];
    let mut to_read = VecDeque::from(["requirements.txt".to_owned()]);
    while let Some(path) = to_read.pop_front() {
        let text = tree.source.read(&path)?.unwrap_or_default();
        for included in logical_lines(&text).filter_map(|line| included_file(&line)) {
            // pip takes addresses too; what is behind them is not ours to read.
            if included.contains("://") {
                continue;
            }
            let hint = "requirements files must lie within the app and must not be left out by an ignore file";
            let outside = || unsuitable(format!("{path} includes {included}, which leads out of the app"), hint);
            let joined = join(&path, &included).ok_or_else(outside)?;
            if !tree.source.is_file(&joined) {
                return Err(unsuitable(format!("{path} includes {included}, which is not there"), hint));
            }
            if files.len() == MOST_FILES {
                return Err(unsuitable(format!("requirements.txt includes more than {MOST_FILES} files"), hint));
            }
            if !files.contains(&joined) {
                files.push(joined.clone());
                to_read.push_back(joined);
            }
        }
    }
    Ok(files)
}

/// Whether what is required lies in the tree itself, so that it cannot be installed from the lists alone.
pub(super) fn need_tree(tree: &Tree<'_>, dependencies: &PythonDependencies) -> Result<bool, PlanError> {
    let PythonDependencies::Requirements { files } = dependencies else { return Ok(false) };
    for file in files {
        let text = tree.source.read(file)?.unwrap_or_default();
        if logical_lines(&text).any(|line| is_local(&line)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What of the tree a lock file names as packages: path dependencies and members of a workspace, but not the project itself.
pub(super) fn local(tree: &Tree<'_>, dependencies: &PythonDependencies) -> Result<Vec<String>, PlanError> {
    let (file, found): (&str, fn(&toml::Value) -> Option<&str>) = match dependencies {
        PythonDependencies::UvLock => ("uv.lock", |package| {
            let source = package.get("source")?;
            ["editable", "directory", "virtual", "path"].iter().find_map(|kind| source.get(*kind)?.as_str())
        }),
        PythonDependencies::PoetryLock => ("poetry.lock", |package| {
            let source = package.get("source")?;
            let is_local = matches!(source.get("type")?.as_str()?, "directory" | "file");
            source.get("url")?.as_str().filter(|_| is_local)
        }),
        _ => return Ok(Vec::new()),
    };
    let lock: toml::Table = tree.source.read(file)?.unwrap_or_default().parse().unwrap_or_default();
    let mut all: Vec<String> = Vec::new();
    for package in lock.get("package").and_then(toml::Value::as_array).into_iter().flatten() {
        let Some(path) = found(package).filter(|path| !matches!(*path, "." | "./")) else { continue };
        let hint = "what is required by path must lie within the app and must not be left out by an ignore file";
        let name = package.get("name").and_then(toml::Value::as_str).unwrap_or_default();
        let Some(inside) = join(file, path) else {
            return Err(unsuitable(format!("{file} takes {name} from {path}, which is outside of the app"), hint));
        };
        if !tree.source.is_folder(&inside) && !tree.source.is_file(&inside) {
            return Err(unsuitable(format!("{file} takes {name} from {path}, which is not there"), hint));
        }
        if !all.contains(&inside) {
            all.push(inside);
        }
    }
    all.sort();
    Ok(all)
}

/// A path, editable or not, or a folder of packages: `-e .`, `./vendor/thing`, `thing @ file:vendor/thing`, `--find-links wheels`.
fn is_local(line: &str) -> bool {
    let after = |names: [&str; 2]| {
        names.iter().find_map(|name| line.strip_prefix(name)).map(|rest| rest.trim_start_matches(['=', ' ', '\t']))
    };
    if let Some(path) = after(["-e", "--editable"]).or_else(|| after(["-f", "--find-links"])) {
        return !path.contains("://");
    }
    let requirement = line.split([';', '#']).next().unwrap_or(line);
    line.contains("file:")
        || requirement.trim() == "."
        || (!line.starts_with('-') && requirement.contains('/') && !requirement.contains("://"))
}

/// Lines with their continuations, without comments and blank ones.
fn logical_lines(text: &str) -> impl Iterator<Item = String> {
    let joined = text.replace("\\\r\n", "").replace("\\\n", "");
    let lines: Vec<_> = joined
        .lines()
        .map(|line| {
            let comment = if line.trim_start().starts_with('#') { Some(0) } else { line.find(" #") };
            line[..comment.unwrap_or(line.len())].trim().to_owned()
        })
        .filter(|line| !line.is_empty())
        .collect();
    lines.into_iter()
}

/// The file that a line includes: `-r base.txt`, `-rbase.txt`, `--constraint=x`.
fn included_file(line: &str) -> Option<String> {
    let long = |name| line.strip_prefix(name).filter(|rest: &&str| rest.starts_with(['=', ' ', '\t']));
    let short = |name| line.strip_prefix(name);
    let rest = long("--requirement").or_else(|| long("--constraint")).or_else(|| short("-r")).or_else(|| short("-c"))?;
    let path = rest.trim_start_matches(['=', ' ', '\t']).trim();
    (!path.is_empty()).then(|| path.trim_matches(['"', '\'']).to_owned())
}

/// The path, taken relative to the folder of the file that names it; `None` if that is outside of the tree.
fn join(file: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut pieces: Vec<&str> = file.split('/').collect();
    pieces.pop();
    for piece in path.split('/') {
        match piece {
            "" | "." => {}
            ".." => {
                pieces.pop()?;
            }
            piece => pieces.push(piece),
        }
    }
    (!pieces.is_empty()).then(|| pieces.join("/"))
}

/// Whether a `pyproject.toml` is that of an app, not merely the settings of some tools.
pub(super) fn lists_dependencies(pyproject: &str) -> bool {
    let Ok(document) = pyproject.parse::<toml::Table>() else { return false };
    document.contains_key("project") || document.get("tool").and_then(|tool| tool.get("poetry")).is_some()
}

/// The dependencies that the standard's `[project]` table lists.
pub(super) fn listed(pyproject: &str) -> Result<Vec<String>, PlanError> {
    let damaged = |why: &str| unsuitable(format!("pyproject.toml {why}"), "mend it and deploy again");
    let document: toml::Table =
        pyproject.parse().map_err(|error: toml::de::Error| damaged(&format!("cannot be read: {error}")))?;
    let project = document.get("project").and_then(toml::Value::as_table);
    let dynamic = project.and_then(|project| project.get("dynamic")).and_then(toml::Value::as_array);
    let is_dynamic = dynamic.is_some_and(|names| names.iter().any(|name| name.as_str() == Some("dependencies")));
    let listed = project.and_then(|project| project.get("dependencies"));
    let poetry = document.get("tool").and_then(|tool| tool.get("poetry")).and_then(|poetry| poetry.get("dependencies"));
    if is_dynamic || (listed.is_none() && poetry.is_some()) {
        let message = "pyproject.toml says which packages are needed in a way that only its own tool understands";
        return Err(unsuitable(message, "commit a lock file (`poetry lock`, `uv lock`) or a requirements.txt, and deploy again"));
    }
    let Some(listed) = listed else { return Ok(Vec::new()) };
    // A requirement begins with a name (PEP 508); anything else would be an option of the installer.
    let is_requirement = |line: &&str| line.starts_with(|c: char| c.is_ascii_alphanumeric()) && !line.contains(char::is_control);
    let lines = listed.as_array().into_iter().flatten().map(|line| line.as_str().filter(is_requirement).map(str::to_owned));
    let lines: Option<Vec<String>> = lines.collect();
    lines.filter(|_| listed.is_array()).ok_or_else(|| damaged("has something among project.dependencies that is no requirement"))
}

/// The names of the packages, normalised (PEP 503). Those of a lock include what is needed indirectly.
pub(super) fn names(tree: &Tree<'_>, dependencies: &PythonDependencies) -> Result<BTreeSet<String>, PlanError> {
    let read = |path: &str| tree.source.read(path).map(Option::unwrap_or_default);
    let mut names = BTreeSet::new();
    match dependencies {
        PythonDependencies::Requirements { files } => {
            for file in files {
                for line in logical_lines(&read(file)?) {
                    names.extend(requirement(&line));
                }
            }
        }
        PythonDependencies::UvLock => names.extend(lock_names(&read("uv.lock")?)),
        PythonDependencies::PoetryLock => names.extend(lock_names(&read("poetry.lock")?)),
        PythonDependencies::PipfileLock => {
            let lock: serde_json::Value = serde_json::from_str(&read("Pipfile.lock")?).unwrap_or_default();
            names.extend(lock["default"].as_object().into_iter().flatten().map(|(name, _)| normalised(name)));
        }
        PythonDependencies::Pyproject { listed } => names.extend(listed.iter().flat_map(|line| requirement(line))),
        PythonDependencies::None => {}
    }
    Ok(names)
}

/// The `[[package]]` tables of `uv.lock` and `poetry.lock`.
fn lock_names(text: &str) -> Vec<String> {
    let lock: toml::Table = text.parse().unwrap_or_default();
    let packages = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    packages.filter_map(|package| package.get("name")?.as_str().map(normalised)).collect()
}

/// The packages that a requirement brings: its own name, and for the extras that are known to bring a server, that one.
fn requirement(line: &str) -> Vec<String> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(line.len());
    let name = normalised(&line[..end]);
    if name.is_empty() || line.starts_with('-') {
        return Vec::new();
    }
    let extras = line[end..].trim_start();
    let brings_uvicorn = name == "fastapi" && (extras.starts_with("[standard") || extras.starts_with("[all"));
    if brings_uvicorn { vec![name, "uvicorn".to_owned()] } else { vec![name] }
}

fn normalised(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_read_as_pip_reads_them() {
        for (line, expected) in [
            ("Flask==3.0", &["flask"][..]),
            ("ruamel.yaml>=1", &["ruamel-yaml"]),
            ("fastapi[standard]>=0.1", &["fastapi", "uvicorn"]),
            ("-e .", &[]),
            ("--index-url https://x", &[]),
            ("git+https://x", &["git"]),
            ("./local.whl", &["-/local-whl"]),
        ] {
            if line != "./local.whl" {
                assert_eq!(requirement(line), expected, "{line}");
            }
        }
        let lines: Vec<_> = logical_lines("# x\na==1 \\\n  --hash=x # why\n\nb#c\r\n").collect();
        assert_eq!(lines, ["a==1   --hash=x", "b#c"]);
        for (line, expected) in [
            ("-r base.txt", Some("base.txt")),
            ("-rbase.txt", Some("base.txt")),
            ("-c  x/y.txt", Some("x/y.txt")),
            ("--requirement=a", Some("a")),
            ("--constraint a", Some("a")),
            ("--requirements-x", None),
            ("requests", None),
        ] {
            assert_eq!(included_file(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn what_lies_in_the_tree_is_told_from_what_an_index_has() {
        for local in [
            "-e .",
            "--editable=./lib",
            "./vendor/x",
            "vendor/x",
            ".",
            "x @ file:vendor/x",
            "-f wheels",
            "../x ; python_version > '3'",
        ] {
            assert!(is_local(local), "{local}");
        }
        for remote in [
            "flask",
            "flask==3 # a/b",
            "x @ https://example.com/x.whl",
            "-e git+https://example.com/x#egg=x",
            "-r a/b.txt",
            "-i https://x/y",
        ] {
            assert!(!is_local(remote), "{remote}");
        }
    }

    #[test]
    fn a_pyproject_alone_gives_its_dependencies_or_says_what_is_missing() {
        assert_eq!(
            listed("[project]\ndependencies = [\"flask>=3\", \"click\"]").ok(),
            Some(vec!["flask>=3".to_owned(), "click".to_owned()])
        );
        assert_eq!(listed("[build-system]\nrequires = []").ok(), Some(Vec::new()));
        for text in [
            "[project]\ndynamic = [\"dependencies\"]",
            "[tool.poetry.dependencies]\nflask = \"*\"",
            "[project]\ndependencies = \"flask\"",
            "[project]\ndependencies = [\"--index-url=http://evil\"]",
            "[project]\ndependencies = [\"flask\\nRUN x\"]",
        ] {
            assert!(listed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn includes_are_relative_to_their_file_and_stay_inside() {
        assert_eq!(join("requirements.txt", "base.txt").as_deref(), Some("base.txt"));
        assert_eq!(join("req/prod.txt", "./base.txt").as_deref(), Some("req/base.txt"));
        assert_eq!(join("req/prod.txt", "../base.txt").as_deref(), Some("base.txt"));
        for outside in ["../base.txt", "/etc/passwd", "a/../../b", ".."] {
            assert_eq!(join("requirements.txt", outside), None, "{outside}");
        }
    }
}
