//! The order in which a project is put together: each document of each file is read, interpolated, extended, freed of
//! what it resets, given its includes, merged, validated and written out; then the whole gets its defaults and paths.

use std::path::Path;

use crate::budget::Account;
use crate::canonical;
use crate::defaults;
use crate::environment;
use crate::error::{ErrorKind, Fault};
use crate::extends::{self, Context};
use crate::files::Reader;
use crate::include;
use crate::merge;
use crate::node::{Data, Map, Node};
use crate::paths::{self, Base};
use crate::position::{Mark, Sources};
use crate::reset;
use crate::rules;
use crate::schema::{self, TOP};
use crate::substitution::{self, Environment};
use crate::trail::Trail;
use crate::uniqueness;
use crate::validation;
use crate::yaml;

/// Opening a file costs this much of the budget, so that includes that multiply come to an end.
const FILE_COST: usize = 200;

/// A service costs this much of the budget beside what is written of it.
const SERVICE_COST: usize = 6;
/// A network, volume, config, secret or model costs this much beside what is written of it.
const NAME_COST: usize = 3;

/// What all files of a load share.
#[derive(Default)]
pub(crate) struct Loader<'o> {
    pub(crate) sources: Sources,
    pub(crate) account: Account,
    pub(crate) home: Option<String>,
    pub(crate) stdin: Option<&'o str>,
    pub(crate) reader: Reader,
}

/// What the files of one model share: the main one's, or an included one's.
pub(crate) struct Scope<'s> {
    /// What relative paths are relative to.
    pub(crate) directory: &'s Path,
    pub(crate) environment: &'s Environment,
    /// The files whose includes led here, outermost first.
    pub(crate) including: &'s [String],
}

impl Loader<'_> {
    /// Loads the documents of files over each other.
    pub(crate) fn model(&mut self, files: Vec<(String, Vec<Node>)>, scope: &Scope<'_>) -> Result<Node, Fault> {
        let mut model = Node::map(Map::new(), Mark::default());
        for (file, documents) in files {
            for document in documents {
                self.layer(&mut model, document, &file, scope)?;
            }
        }
        self.charge_names(&model)?;
        defaults::fill(&mut model);
        rules::check(&model)?;
        let base = Base { directory: scope.directory, home: self.home.as_deref() };
        paths::resolve(&mut model, &TOP, base, &Trail::TOP)?;
        environment::fill_names(&mut model, scope.environment);
        Ok(model)
    }

    /// What has a name is kept with room for every key that it might have.
    fn charge_names(&mut self, model: &Node) -> Result<(), Fault> {
        for (section, node) in model.as_map().into_iter().flatten() {
            let cost = if section == "services" { SERVICE_COST } else { NAME_COST };
            let names = node.as_map().filter(|_| !section.starts_with("x-")).map_or(0, Map::len);
            self.account.budget.spend(names * cost, node.key_at)?;
        }
        Ok(())
    }

    /// Reads a file's documents.
    pub(crate) fn documents(&mut self, file: &str) -> Result<Vec<Node>, Fault> {
        self.account.budget.spend(FILE_COST, Mark::default())?;
        let number = self.sources.add(file);
        let start = Mark { file: number, line: 1, column: 1 };
        let read;
        let text = match self.stdin {
            Some(text) if file == "-" => text,
            None if file == "-" => return Err(Fault::new(ErrorKind::File, "no standard input was given for `-`")),
            _ => {
                read = self.reader.text(file)?;
                &read
            }
        };
        let mut documents = Vec::new();
        for document in yaml::read(text, number, &mut self.account.budget)? {
            let document = document.ok_or_else(|| Fault::new(ErrorKind::Value, "empty compose file").at(start))?;
            if document.as_map().is_none() {
                return Err(Fault::new(ErrorKind::Value, "top-level object must be a mapping").at(document.at));
            }
            documents.push(document);
        }
        Ok(documents)
    }

    fn layer(&mut self, model: &mut Node, mut document: Node, file: &str, scope: &Scope<'_>) -> Result<(), Fault> {
        let forgotten = reset::collect(&mut document);
        substitution::substitute(&mut document, &TOP, scope.environment, &mut self.account, &Trail::TOP)?;
        extends::apply(self, &mut document, Context::new(file, scope, forgotten.clone()))?;
        reset::forget(model, &forgotten);
        include::apply(self, &mut document, file, scope, &forgotten)?;

        self.put_over(model, document)?;
        validation::validate(model, &TOP, &Trail::TOP)?;
        if model.as_map_mut().is_some_and(|map| map.shift_remove("version").is_some()) {
            self.account.warnings.add(format!(
                "{file}: the attribute `version` is obsolete, it will be ignored, please remove it to avoid potential confusion"
            ));
        }
        self.write_out(model)
    }

    /// Merges a document into a model.
    pub(crate) fn put_over(&self, model: &mut Node, document: Node) -> Result<(), Fault> {
        if let (Data::Map(map), Data::Map(over)) = (&mut model.data, document.data) {
            merge::merge_maps(map, *over, &TOP, &Trail::TOP)?;
        }
        uniqueness::enforce(model, &TOP, &Trail::TOP)
    }

    /// Brings a model to its canonical form; ranges of ports may turn out to be the same as single ones.
    pub(crate) fn write_out(&mut self, model: &mut Node) -> Result<(), Fault> {
        canonical::expand(model, &TOP, &mut self.account, &Trail::TOP)?;
        for service in defaults::services(model) {
            if let Some(Data::List(servers)) = service.as_map_mut().and_then(|map| map.get_mut("dns")).map(|node| &mut node.data)
            {
                servers.retain(|server| !server.is_null() && server.as_text() != Some(""));
            }
        }
        uniqueness::enforce(model, &TOP, &Trail::TOP)
    }
}

/// The table's row for a service.
pub(crate) const SERVICE_RULE: schema::Rule = schema::object(&schema::SERVICE);
