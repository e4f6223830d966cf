//! Traefik's container labels, read into routes, services and middlewares.
//!
//! It takes two steps. [`configure`] reads the labels of [`Container`]s into a [`Configuration`] in Traefik's own words, as
//! Traefik's Docker provider does: which containers are routed, what their routers and services are if labels say little, how
//! replicas are merged, what contradicts itself and is dropped. [`part`] then says the same in the words of a proxy's table.
//! Whatever is left out or has no effect, in either step, is told as a [`Problem`]; nothing is dropped in silence.
//!
//! Nothing here asks an engine, looks up a name or reads a file. Labels for TCP and UDP are named and not served.
//!
//! The rules are those of Traefik's documentation (Docker provider, routing by labels) for versions 2 and 3.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod configuration;
mod constraints;
mod container;
mod decode;
mod dynamic;
mod go_duration;
mod inspect;
mod merge;
mod node;
mod options;
mod part;
mod provider;
mod rule_template;

use std::collections::BTreeSet;

use coracle_proxy_table::{Dialect, Route};

pub use configuration::{Configuration, Kind, Problem};
pub use constraints::{Constraints, ConstraintsError};
pub use container::{Binding, Container, Health, NetworkMode, Port, Status};
pub use dynamic::{LoadBalancer, Middleware, Router, Server, Service};
pub use inspect::{InspectError, containers as containers_of_inspect};
pub use options::{Exposure, Options};
pub use part::{Entrance, Part, part};
pub use provider::configure;
pub use rule_template::{RuleTemplate, TemplateError};

/// The literal host names by which requests come to a route: those that a browser can be sent to.
pub fn hosts_of(route: &Route) -> Vec<String> {
    parsed(route).map(|rule| rule.hosts()).unwrap_or_default()
}

/// What a rule says of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleHosts {
    /// The names, addresses and patterns (`*.shop.example`, `**.shop.example`) of which it takes requests, in lower case.
    pub named: BTreeSet<String>,
    /// Whether it takes requests of others as well: whatever their host, or of hosts that an expression tells.
    pub and_others: bool,
}

/// What a rule says of hosts, in every dialect in which it can be read.
///
/// # Errors
/// What is wrong with it if it can be read in none.
pub fn hosts_of_rule(rule: &str) -> Result<RuleHosts, String> {
    use coracle_proxy_rules::{Dialect, Rule};
    let read = [Dialect::V3, Dialect::V2].map(|dialect| Rule::parse(rule, dialect));
    if let [Err(error), Err(_)] = &read {
        return Err(error.to_string());
    }
    let mut hosts = RuleHosts { named: BTreeSet::new(), and_others: false };
    for rule in read.iter().flatten() {
        let demanded = rule.demanded_hosts();
        hosts.and_others |= demanded.is_none();
        hosts.named.extend(rule.hosts().into_iter().chain(rule.wildcards()).chain(demanded.into_iter().flatten()));
    }
    Ok(hosts)
}

/// What orders a route of labels among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// Its labels say its priority.
    Given(i64),
    /// All its hosts are named in full, and this is the length of its rule.
    Exact(i64),
    /// It takes requests of hosts that nobody names in full. Its rule's length orders it.
    Open,
}

/// What orders a route of labels among others.
pub fn precedence_of(route: &Route) -> Precedence {
    let is_exact = |host: &String| !host.starts_with('*');
    let rule = || parsed(route).filter(|rule| rule.demanded_hosts().is_some_and(|hosts| hosts.iter().all(is_exact)));
    match route.priority {
        Some(priority) => Precedence::Given(priority),
        None => rule().map_or(Precedence::Open, |rule| Precedence::Exact(rule.priority())),
    }
}

fn parsed(route: &Route) -> Option<coracle_proxy_rules::Rule> {
    let dialect = match route.dialect {
        Dialect::V2 => coracle_proxy_rules::Dialect::V2,
        Dialect::V3 => coracle_proxy_rules::Dialect::V3,
    };
    coracle_proxy_rules::Rule::parse(&route.rule, dialect).ok()
}

/// Whether two routes match the same requests by the same words, apart from how they are written.
pub fn have_same_rule(one: &Route, other: &Route) -> bool {
    parsed(one).is_some_and(|rule| parsed(other).is_some_and(|other| rule == other))
}
