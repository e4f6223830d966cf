//! `uv.lock`.

use toml::Value;

use super::graph::{Edge, walk};
use super::{LockError, Pin, hashes_of, lines, parse, text_of};

/// The packages that the project needs.
pub(in super::super) fn from_uv(text: &str) -> Result<String, LockError> {
    let document = parse(text)?;
    let packages = document.get("package").and_then(Value::as_array).cloned().unwrap_or_default();
    let is_project = |package: &&Value| {
        let source = package.get("source");
        source.is_some_and(|source| {
            ["editable", "virtual"].iter().any(|kind| source.get(kind).is_some_and(|at| at.as_str() == Some(".")))
        })
    };
    let project = packages.iter().find(is_project).ok_or_else(|| LockError::Damaged("it names no project".to_owned()))?;
    let roots = edges_of(&packages, project.get("dependencies"));
    let needed = walk(&roots, &|node| {
        let (name, extra) = node.split_once('[').unwrap_or((node, ""));
        let Some(package) = find(&packages, name) else { return Vec::new() };
        match extra.strip_suffix(']') {
            None => edges_of(&packages, package.get("dependencies")),
            // A package with an extra is the package, and what the extra brings.
            Some(extra) => {
                let brought = package.get("optional-dependencies").and_then(|all| all.get(extra));
                let itself = Edge { to: name.to_owned(), marker: String::new() };
                std::iter::once(itself).chain(edges_of(&packages, brought)).collect()
            }
        }
    });
    let pins = needed.into_iter().filter(|(node, _)| !node.contains('[')).map(|(node, marker)| {
        let package = find(&packages, &node).ok_or_else(|| LockError::Damaged(format!("{node} is missing")))?;
        pin(package, marker)
    });
    pins.collect::<Result<Vec<_>, _>>().map(lines)
}

/// A node is `name@version`, or `name@version[extra]`: one name may have several versions for several platforms.
fn node_of(package: &Value) -> String {
    format!("{}@{}", text_of(package, "name"), text_of(package, "version"))
}

fn find<'a>(packages: &'a [Value], node: &str) -> Option<&'a Value> {
    packages.iter().find(|package| node_of(package) == node)
}

fn edges_of(packages: &[Value], list: Option<&Value>) -> Vec<Edge> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    let targets = |entry: &Value| {
        let (name, version) = (text_of(entry, "name"), text_of(entry, "version"));
        let fits =
            |package: &&Value| text_of(package, "name") == name && (version.is_empty() || text_of(package, "version") == version);
        let nodes: Vec<String> = packages.iter().filter(fits).map(node_of).collect();
        let extras: Vec<&str> =
            entry.get("extra").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let marker = text_of(entry, "marker").to_owned();
        let with_extras = |node: &String| extras.iter().map(|extra| format!("{node}[{extra}]")).collect::<Vec<_>>();
        let all: Vec<String> = nodes.iter().flat_map(|node| std::iter::once(node.clone()).chain(with_extras(node))).collect();
        all.into_iter().map(|to| Edge { to, marker: marker.clone() }).collect::<Vec<_>>()
    };
    entries.flat_map(targets).collect()
}

fn pin(package: &Value, marker: String) -> Result<Pin, LockError> {
    let (name, version) = (text_of(package, "name"), text_of(package, "version"));
    let source = package.get("source");
    let of = |kind: &str| source.and_then(|source| source.get(kind)).and_then(Value::as_str);
    if let Some(git) = of("git") {
        // `https://host/repository?rev=main#commit`
        let (place, commit) = git.split_once('#').unwrap_or((git, ""));
        let place = place.split('?').next().unwrap_or(place);
        return Ok(Pin { requirement: format!("{name} @ git+{place}@{commit}"), marker, hashes: Vec::new() });
    }
    if let Some(url) = of("url") {
        return Ok(Pin { requirement: format!("{name} @ {url}"), marker, hashes: Vec::new() });
    }
    if of("registry").is_none() {
        return Err(LockError::NeedsTool(format!("{name} comes from a folder, which needs uv; install uv on this machine")));
    }
    let mut hashes = hashes_of(package.get("wheels"));
    hashes.extend(package.get("sdist").and_then(|sdist| sdist.get("hash")).and_then(Value::as_str).map(str::to_owned));
    Ok(Pin { requirement: format!("{name}=={version}"), marker, hashes })
}
