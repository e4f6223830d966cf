//! `extends`: a service that begins as a copy of another one, of the same file or of another.
//!
//! Compose file specification, section "extends".

use std::collections::HashMap;

use crate::error::{ErrorKind, Fault};
use crate::loader::{Loader, SERVICE_RULE, Scope};
use crate::merge;
use crate::node::{Map, Node};
use crate::paths::{self, Base};
use crate::position::Mark;
use crate::reset::{self, Forgotten};
use crate::schema::TOP;
use crate::substitution;
use crate::trail::Trail;

/// The longest chain of services that extend each other.
const MAX_CHAIN: usize = 100;

/// The file whose services are being resolved.
pub(crate) struct Context<'s> {
    file: String,
    scope: &'s Scope<'s>,
    /// Where `extends.file` is looked for: the project's directory for its own files, else the file's.
    directory: String,
    forgotten: Vec<Forgotten>,
}

impl<'s> Context<'s> {
    pub(crate) fn new(file: &str, scope: &'s Scope<'s>, forgotten: Vec<Forgotten>) -> Self {
        Self { file: file.to_owned(), scope, directory: scope.directory.to_string_lossy().into_owned(), forgotten }
    }
}

/// A file that services are taken from; its services become resolved as they are needed.
struct Other<'s> {
    services: Map,
    context: Context<'s>,
}

/// Files read on behalf of one document, so that each is read once.
type Others<'s> = HashMap<String, Other<'s>>;

/// Resolves every `extends` of a document.
pub(crate) fn apply(loader: &mut Loader<'_>, document: &mut Node, context: Context<'_>) -> Result<(), Fault> {
    let Some(services) = document.as_map_mut().and_then(|map| map.get_mut("services")) else { return Ok(()) };
    let at = services.key_at;
    let Some(services) = services.as_map_mut() else {
        return Err(Fault::new(ErrorKind::Value, "services must be a mapping").on_path("services").at(at));
    };
    let names: Vec<String> = services.keys().cloned().collect();
    let mut others = Others::new();
    for name in names {
        resolve(loader, services, &name, &context, &mut others, &mut Vec::new())?;
    }
    Ok(())
}

/// What an `extends` says.
struct Reference {
    service: String,
    file: Option<String>,
    at: Mark,
}

fn reference(service: &Node, name: &str) -> Result<Option<Reference>, Fault> {
    let Some(extends) = service.get("extends") else { return Ok(None) };
    let at = extends.at;
    if let Some(text) = extends.as_text() {
        return Ok(Some(Reference { service: text.to_owned(), file: None, at }));
    }
    let fault = |message: &str| Fault::new(ErrorKind::Extends, message).on_path(format!("services.{name}.extends")).at(at);
    if extends.as_map().is_none() {
        return Err(fault("must be a service's name or a mapping"));
    }
    let service = extends.text_of("service").ok_or_else(|| fault("`service` is required"))?;
    let file = match extends.get("file") {
        None => None,
        Some(file) => Some(file.as_text().ok_or_else(|| fault("`file` must be a path"))?.to_owned()),
    };
    Ok(Some(Reference { service: service.to_owned(), file, at }))
}

fn resolve<'s>(
    loader: &mut Loader<'_>,
    services: &mut Map,
    name: &str,
    context: &Context<'s>,
    others: &mut Others<'s>,
    chain: &mut Vec<(String, String)>,
) -> Result<(), Fault> {
    let Some(service) = services.get(name) else { return Ok(()) };
    if service.is_null() {
        return Ok(());
    }
    if service.as_map().is_none() {
        return Err(about(name, ErrorKind::Value, "must be a mapping").at(service.key_at));
    }
    let Some(reference) = reference(service, name)? else { return Ok(()) };
    enter(chain, &context.file, name, reference.at)?;
    let base = match &reference.file {
        None => {
            if services.contains_key(&reference.service) {
                resolve(loader, services, &reference.service, context, others, chain)?;
            }
            services.get(&reference.service).cloned()
        }
        Some(file) => {
            from_file(loader, file, &reference, context, others, chain).map_err(|error| error.at_if_nowhere(reference.at))?
        }
    };
    chain.pop();
    let Some(base) = base else {
        let place = reference.file.as_deref().map_or_else(String::new, |file| format!(" in {file}"));
        let message =
            format!("cannot extend service \"{name}\" in {}: service \"{}\" not found{place}", context.file, reference.service);
        return Err(about(name, ErrorKind::Extends, message).at(reference.at));
    };
    loader.account.budget.spend(base.cost(), reference.at)?;
    let Some(slot) = services.get_mut(name) else { return Ok(()) };
    put_under(slot, base, name, &context.forgotten)
}

fn about(name: &str, kind: ErrorKind, message: impl Into<String>) -> Fault {
    Fault::new(kind, message).on_path(format!("services.{name}"))
}

/// Goes one link further along a chain of services that extend each other, unless it has come back to itself.
fn enter(chain: &mut Vec<(String, String)>, file: &str, name: &str, at: Mark) -> Result<(), Fault> {
    let link = (file.to_owned(), name.to_owned());
    if chain.contains(&link) || chain.len() >= MAX_CHAIN {
        let told: Vec<String> = chain.iter().chain([&link]).map(|(file, service)| format!("{service} in {file}")).collect();
        let message = format!("circular reference: {}", told.join(" extends "));
        return Err(about(name, ErrorKind::Cycle, message).at(at));
    }
    chain.push(link);
    Ok(())
}

/// Puts what a service says itself over what it extends.
fn put_under(service: &mut Node, mut base: Node, name: &str, forgotten: &[Forgotten]) -> Result<(), Fault> {
    if !base.is_null() {
        reset::forget_in(&mut base, "services", name, forgotten);
        let (at, key_at) = (service.at, service.key_at);
        let own = std::mem::replace(service, Node::map(Map::new(), at));
        let root = Trail::TOP;
        *service = merge::merge(base, own, &SERVICE_RULE, &root.key("services").key(name))?;
        (service.at, service.key_at) = (at, key_at);
    }
    if let Some(map) = service.as_map_mut() {
        map.shift_remove("extends");
    }
    Ok(())
}

/// The resolved service of another file, if that file has it.
fn from_file<'s>(
    loader: &mut Loader<'_>,
    file: &str,
    reference: &Reference,
    context: &Context<'s>,
    others: &mut Others<'s>,
    chain: &mut Vec<(String, String)>,
) -> Result<Option<Node>, Fault> {
    let base = Base { directory: context.directory.as_ref(), home: loader.home.as_deref() };
    let path = base.absolute(file);
    let mut other = match others.remove(&path) {
        Some(other) => other,
        None => read(loader, &path, context.scope)?,
    };
    resolve(loader, &mut other.services, &reference.service, &other.context, others, chain)?;
    let found = other.services.get(&reference.service).cloned();
    others.insert(path, other);
    Ok(found)
}

/// Reads a file for its services: interpolated and written out, its paths absolute, but neither validated nor given
/// defaults. Its includes are not followed.
fn read<'s>(loader: &mut Loader<'_>, path: &str, scope: &'s Scope<'s>) -> Result<Other<'s>, Fault> {
    let mut model = Node::map(Map::new(), Mark::default());
    let mut forgotten = Vec::new();
    for mut document in loader.documents(path)? {
        let resets = reset::collect(&mut document);
        substitution::substitute(&mut document, &TOP, scope.environment, &mut loader.account, &Trail::TOP)?;
        reset::forget(&mut model, &resets);
        forgotten.extend(resets);
        loader.put_over(&mut model, document)?;
        loader.write_out(&mut model)?;
    }
    let directory = std::path::Path::new(path).parent().unwrap_or(scope.directory);
    let base = Base { directory, home: loader.home.as_deref() };
    paths::resolve(&mut model, &TOP, base, &Trail::TOP)?;
    let at = model.at;
    let services = model.as_map_mut().and_then(|map| map.shift_remove("services"));
    let services = match services.unwrap_or_else(|| Node::map(Map::new(), at)).data {
        crate::node::Data::Map(services) => *services,
        _ => return Err(Fault::new(ErrorKind::Extends, format!("services of {path} must be a mapping"))),
    };
    let context = Context { file: path.to_owned(), scope, directory: directory.to_string_lossy().into_owned(), forgotten };
    Ok(Other { services, context })
}
