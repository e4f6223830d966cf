//! A configuration in the words of a proxy's table.
//!
//! What a table cannot say is told. Where leaving something out would open what is to be closed (a middleware that is not
//! there, a rule that cannot be read), the router is left out with it; where it only takes something away (a setting that has no
//! counterpart), the rest is done.

mod middlewares;
mod routes;
mod services;

use std::collections::BTreeMap;

use coracle_proxy_table::{RouteId, Table};

use crate::configuration::{Configuration, Kind, Problem};
use crate::options::Options;

/// What Traefik calls a provider: names in tables end with it, so that they are nobody else's.
const PROVIDER: &str = "docker";

/// How requests come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entrance {
    /// The port at which clients reach the proxy over TLS, if it listens for TLS at all.
    pub tls_port: Option<u16>,
    /// Whether certificates can be ordered by ACME.
    pub acme: bool,
    /// Sends those who come without TLS to a host that routers serve over TLS only to the same URL over TLS.
    pub redirect: bool,
}

/// A part of a table.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Part {
    /// Its routes, middlewares and services; every name in it ends in `@docker`.
    pub table: Table,
    /// The names of the containers that each route comes from.
    pub sources: BTreeMap<RouteId, Vec<String>>,
    /// Everything that does not have the effect which labels ask for, that of the configuration too.
    pub problems: Vec<Problem>,
}

/// Says a configuration in the words of a table.
pub fn part(configuration: &Configuration, options: &Options, entrance: Entrance) -> Part {
    let mut notes = Notes { problems: configuration.problems.clone() };
    let mut table = Table::default();
    let middlewares = middlewares::Middlewares::of(configuration, &mut notes);
    let sources = routes::add(&mut table, configuration, &middlewares, options, entrance, &mut notes);
    services::add(&mut table, configuration, &mut notes);
    let mut problems = notes.problems;
    problems.sort();
    problems.dedup();
    Part { table, sources, problems }
}

/// A name within the table.
fn global(name: &str) -> String {
    format!("{name}@{PROVIDER}")
}

/// What a reference means, which may name the provider.
enum Reference<'a> {
    /// Something that labels define.
    Ours(&'a str),
    /// Something of another provider.
    Foreign,
    /// Something of Traefik itself.
    Internal(&'a str),
}

impl<'a> Reference<'a> {
    fn of(text: &'a str) -> Self {
        match text.split_once('@') {
            None => Self::Ours(text),
            Some((name, PROVIDER)) => Self::Ours(name),
            Some((name, "internal")) => Self::Internal(name),
            Some(_) => Self::Foreign,
        }
    }
}

/// Collects what is to be told.
struct Notes {
    problems: Vec<Problem>,
}

impl Notes {
    fn add(&mut self, kind: Kind, containers: Option<&Vec<String>>, about: String, message: impl Into<String>) {
        let containers = containers.cloned().unwrap_or_default();
        self.problems.push(Problem { kind, containers, about: Some(about), message: message.into() });
    }
}
