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

pub use configuration::{Configuration, Kind, Problem};
pub use constraints::{Constraints, ConstraintsError};
pub use container::{Binding, Container, Health, NetworkMode, Port, Status};
pub use dynamic::{LoadBalancer, Middleware, Router, Server, Service};
pub use inspect::{InspectError, containers as containers_of_inspect};
pub use options::{Exposure, Options};
pub use part::{Entrance, Part, part};
pub use provider::configure;
pub use rule_template::{RuleTemplate, TemplateError};

/// Whether labels say anything to this crate: one of them begins with `traefik.`, whatever its case.
pub fn are_labels<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let prefix = "traefik.";
    names.into_iter().any(|name| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}
