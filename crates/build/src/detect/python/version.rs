//! Which Python an app asks for.

use crate::detect::versions::{Range, refused, written};
use crate::detect::{PlanError, Tree};

/// The second numbers of the versions that there are images of, in the order in which they are tried: the one that is taken
/// where nothing else is asked for, then newer ones, then older ones.
const TRIED: [u32; 5] = [11, 12, 13, 14, 10];

/// They as a person reads them.
const SUPPORTED: [&str; 5] = ["3.10", "3.11", "3.12", "3.13", "3.14"];

/// Files of one line that name a version.
const FILES: [&str; 2] = [".python-version", "runtime.txt"];

/// The version that images get of which nothing else is asked. It is also what the Python of Debian 12 is, so that an app runs
/// under the same one on either engine.
pub(crate) const DEFAULT: &str = "3.11";

/// The version asked for, if it is another than any would do.
pub(super) fn wanted(tree: &Tree<'_>, pyproject: Option<&str>) -> Result<Option<String>, PlanError> {
    if let Some((path, line)) = written(tree, &FILES)? {
        return named(line.strip_prefix("python-").unwrap_or(&line)).ok_or_else(|| unsupported(path, &line));
    }
    let Some(required) = pyproject.and_then(requirement) else { return Ok(None) };
    let range = Range::parse(&required);
    let Some(minor) = range.and_then(|range| TRIED.into_iter().find(|minor| range.admits(&[3, *minor]))) else {
        return Err(unsupported("pyproject.toml", &required));
    };
    Ok((minor != TRIED[0]).then(|| format!("3.{minor}")))
}

/// The line of releases that `3`, `3.12` or `3.12.4` means; `None` if that is none that is supported. Whoever names `3` takes any.
fn named(text: &str) -> Option<Option<String>> {
    let number = |piece: &str| piece.parse().ok().filter(|_| piece.len() <= 3 && piece.bytes().all(|b| b.is_ascii_digit()));
    let numbers: Vec<u32> = text.split('.').map(number).collect::<Option<_>>()?;
    match numbers.as_slice() {
        [3] => Some(None),
        [3, minor] | [3, minor, _] if TRIED.contains(minor) => Some(Some(format!("3.{minor}"))),
        _ => None,
    }
}

fn unsupported(path: &str, wanted: &str) -> PlanError {
    refused((path, ""), "Python", wanted, &SUPPORTED)
}

/// `requires-python`, or what Poetry has in its place.
fn requirement(pyproject: &str) -> Option<String> {
    let document: toml::Table = pyproject.parse().ok()?;
    let of_project = document.get("project").and_then(|project| project.get("requires-python"));
    let of_poetry = || document.get("tool")?.get("poetry")?.get("dependencies")?.get("python");
    of_project.or_else(of_poetry)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        for (good, meant) in [("3", None), ("3.11", Some("3.11")), ("3.12.1", Some("3.12"))] {
            assert_eq!(named(good), Some(meant.map(str::to_owned)), "{good}");
        }
        for bad in ["", "2.7", "3.", "3.9", "3.99", "3.11-rc", "3.1.1.1", "pypy3", "3.11 RUN x", "3.0011", "+3.11"] {
            assert_eq!(named(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_said_to_be_supported_is_what_is_tried() {
        let mut tried = TRIED.map(|minor| format!("3.{minor}"));
        tried.sort();
        assert_eq!(tried.to_vec(), SUPPORTED);
        assert_eq!(format!("3.{}", TRIED[0]), DEFAULT);
    }
}
