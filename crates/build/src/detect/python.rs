//! Python: where the dependencies are written down, and which server runs the app.

mod packages;
mod web;

use coracle_model::plan::{PythonDependencies, Recipe};

use super::{PlanError, Recognised, Tree, unsuitable};
pub(super) use web::web_command;

/// The version that generated images use and that a wish is measured against.
const DEFAULT_VERSION: (u32, u32) = (3, 11);

/// Files that make a tree without any list of dependencies a Python app.
const PROGRAMS: [&str; 5] = ["manage.py", "app.py", "main.py", "wsgi.py", "asgi.py"];

/// Whether the tree is a Python app, and how its dependencies are installed.
pub(super) fn recognise(tree: &Tree<'_>) -> Result<Option<Recognised>, PlanError> {
    let has = |path: &str| tree.source.is_file(path);
    let pyproject = tree.source.read("pyproject.toml")?;
    let (dependencies, found) = if has("uv.lock") && pyproject.is_some() {
        (PythonDependencies::UvLock, "uv.lock")
    } else if has("poetry.lock") && pyproject.is_some() {
        (PythonDependencies::PoetryLock, "poetry.lock")
    } else if has("Pipfile.lock") {
        (PythonDependencies::PipfileLock, "Pipfile.lock")
    } else if has("requirements.txt") {
        let files = packages::requirement_files(tree)?;
        (PythonDependencies::Requirements { files }, "requirements.txt")
    } else if pyproject.as_deref().is_some_and(packages::lists_dependencies) {
        (PythonDependencies::Pyproject, "pyproject.toml")
    } else if has("Pipfile") {
        return Err(unsuitable("there is a Pipfile, but no Pipfile.lock", "run `pipenv lock` and deploy again"));
    } else if let Some(program) = PROGRAMS.iter().find(|program| has(program)) {
        (PythonDependencies::None, *program)
    } else {
        return Ok(None);
    };
    let version = version(tree, pyproject.as_deref())?;
    Ok(Some(Recognised { recipe: Recipe::Python { dependencies, version }, reason: format!("found {found}") }))
}

/// The version asked for, if it is another than any would do.
fn version(tree: &Tree<'_>, pyproject: Option<&str>) -> Result<Option<String>, PlanError> {
    for path in [".python-version", "runtime.txt"] {
        let text = tree.source.read(path)?.unwrap_or_default();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
        let wanted = line.strip_prefix("python-").unwrap_or(line);
        if is_version(wanted) {
            return Ok(Some(wanted.to_owned()));
        }
    }
    Ok(pyproject.and_then(required_version))
}

/// `3`, `3.11` or `3.11.4`, and nothing that could be anything else in a Dockerfile or on a command line.
fn is_version(text: &str) -> bool {
    let pieces: Vec<_> = text.split('.').collect();
    pieces.len() <= 3
        && pieces[0] == "3"
        && pieces.iter().all(|piece| (1..=3).contains(&piece.len()) && piece.bytes().all(|b| b.is_ascii_digit()))
}

/// What `requires-python` demands. A lower bound that the default meets is no wish.
fn required_version(pyproject: &str) -> Option<String> {
    let document: toml::Table = pyproject.parse().ok()?;
    let of_project = document.get("project").and_then(|project| project.get("requires-python"));
    let of_poetry = || document.get("tool")?.get("poetry")?.get("dependencies")?.get("python");
    let wanted = of_project.or_else(of_poetry)?.as_str()?;
    let first = wanted.split(',').next()?.trim();
    let bound = first.trim_start_matches(['=', '~', '>', '<', '^', '!', ' ']);
    let operator = &first[..first.len() - bound.len()];
    let version = bound.trim_end_matches(".*");
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let numbers = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let demands = match operator.trim() {
        "==" | "~=" | "~" | "" => true,
        ">=" | "^" => numbers > DEFAULT_VERSION,
        _ => false,
    };
    (demands && numbers != DEFAULT_VERSION && is_version(version)).then(|| format!("{}.{}", numbers.0, numbers.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_version_is_a_wish_only_beyond_the_default() {
        for (wanted, expected) in [
            (">=3.9", None),
            (">=3.11", None),
            (">=3.12", Some("3.12")),
            ("==3.10.*", Some("3.10")),
            ("~=3.13.1", Some("3.13")),
            ("^3.12", Some("3.12")),
            (">=3.12,<4", Some("3.12")),
            ("<4", None),
            ("; rm -rf /", None),
            (">=3", None),
        ] {
            let text = format!("[project]\nrequires-python = {wanted:?}\n");
            assert_eq!(required_version(&text).as_deref(), expected, "{wanted}");
        }
        assert_eq!(required_version("not toml ["), None);
        let poetry = "[tool.poetry.dependencies]\npython = \"^3.13\"\n";
        assert_eq!(required_version(poetry).as_deref(), Some("3.13"));
    }

    #[test]
    fn versions_are_numbers() {
        for good in ["3", "3.11", "3.12.1"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "2.7", "3.", "3.11-rc", "3.1.1.1", "pypy3", "3.11\nRUN x", "3.11111"] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
