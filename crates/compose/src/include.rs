//! `include`: other projects' files, each with its own directory and environment, as if their resources were declared here.
//!
//! Compose file specification, section "include". Files are local; remote ones (`oci://`, git) are refused.

use std::path::{Path, PathBuf};

use crate::environment;
use crate::error::{ErrorKind, Fault};
use crate::loader::{Loader, Scope};
use crate::merge;
use crate::node::{Data, Map, Node};
use crate::paths::{self, Base};
use crate::reset::{self, Forgotten};
use crate::schema::TOP;
use crate::trail::Trail;
use crate::validation;

/// How deep files may include each other.
const MAX_INCLUDES: usize = 50;

/// Follows every `include` of a document and takes the key away.
pub(crate) fn apply(
    loader: &mut Loader<'_>,
    document: &mut Node,
    file: &str,
    scope: &Scope<'_>,
    forgotten: &[Forgotten],
) -> Result<(), Fault> {
    let Some(map) = document.as_map_mut() else { return Ok(()) };
    let Some(entries) = map.shift_remove("include") else { return Ok(()) };
    let root = Trail::TOP;
    let trail = root.key("include");
    if entries.is_null() {
        return Ok(());
    }
    validation::validate(&entries, TOP.child("include"), &trail)?;
    let mut including = scope.including.to_vec();
    including.push(file.to_owned());
    for (index, entry) in entries.as_list().unwrap_or_default().iter().enumerate() {
        let trail = trail.index(index);
        let imported = one(loader, entry, &including, scope, &trail).map_err(|fault| fault.at_if_nowhere(entry.at))?;
        import(map, imported, forgotten)?;
    }
    Ok(())
}

fn one(loader: &mut Loader<'_>, entry: &Node, including: &[String], scope: &Scope<'_>, trail: &Trail<'_>) -> Result<Node, Fault> {
    let base = Base { directory: scope.directory, home: loader.home.as_deref() };
    let fault = |kind, message: String| Fault::new(kind, message).on(trail).at(entry.at);
    let written = match entry.as_text() {
        Some(text) => vec![text.to_owned()],
        None => texts(entry.get("path")),
    };
    if let Some(remote) = written.iter().find(|path| path.contains("://") || path.starts_with("git@")) {
        return Err(fault(ErrorKind::Include, format!("{remote} is not a local file; only local files can be included")));
    }
    let files: Vec<String> = written.iter().map(|path| base.absolute(path)).collect();
    let Some(main) = files.first() else { return Err(fault(ErrorKind::Include, "`path` is missing".to_owned())) };
    if including.contains(main) || including.len() >= MAX_INCLUDES {
        let told: Vec<&str> = including.iter().chain([main]).map(String::as_str).collect();
        return Err(fault(ErrorKind::Cycle, format!("include cycle detected: {}", told.join(" includes "))));
    }
    let directory = match entry.text_of("project_directory").filter(|directory| !directory.is_empty()) {
        Some(directory) => PathBuf::from(base.absolute(directory)),
        None => Path::new(main).parent().map_or_else(|| scope.directory.to_path_buf(), Path::to_path_buf),
    };
    let env_files = match texts(entry.get("env_file")) {
        named if !named.is_empty() => named.iter().map(|path| base.absolute(path)).filter(|path| path != "/dev/null").collect(),
        _ => {
            let usual = paths::join(&directory, ".env");
            if Path::new(&usual).is_file() { vec![usual] } else { Vec::new() }
        }
    };
    let mut variables = environment::read_project_files(&env_files, scope.environment, &loader.reader)?;
    // What the including project knows has precedence.
    variables.extend(scope.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
    let inner = Scope { directory: &directory, environment: &variables, including };
    let files = files.into_iter().map(|file| Ok((file.clone(), loader.documents(&file)?))).collect::<Result<_, Fault>>()?;
    loader.model(files, &inner)
}

fn texts(node: Option<&Node>) -> Vec<String> {
    match node.map(|node| &node.data) {
        Some(Data::Text(text)) => vec![text.clone()],
        Some(Data::List(items)) => items.iter().filter_map(|item| item.as_text().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Declares an included model's resources here. What this file says of a resource of the same name is put over it.
fn import(map: &mut Map, imported: Node, forgotten: &[Forgotten]) -> Result<(), Fault> {
    let Data::Map(imported) = imported.data else { return Ok(()) };
    let root = Trail::TOP;
    for (section, from) in *imported {
        if !matches!(section.as_str(), "services" | "volumes" | "networks" | "secrets" | "configs" | "models") {
            continue;
        }
        let (at, rule, trail) = (from.at, TOP.child(&section), root.key(&section));
        let Data::Map(from) = from.data else { continue };
        let into = map.entry(section.clone()).or_insert_with(|| Node::map(Map::new(), at));
        let Some(into) = into.as_map_mut() else { continue };
        for (name, mut resource) in *from {
            match into.get_mut(&name) {
                None => {
                    into.insert(name, resource);
                }
                Some(own) if *own == resource => {}
                Some(own) => {
                    reset::forget_in(&mut resource, &section, &name, forgotten);
                    let later = std::mem::replace(own, Node::new(Data::Null, at));
                    *own = merge::merge(resource, later, rule.child(&name), &trail.key(&name))?;
                }
            }
        }
    }
    Ok(())
}
