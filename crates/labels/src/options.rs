//! What is said once, for all containers.

use coracle_proxy_table::Dialect;

use crate::constraints::Constraints;
use crate::rule_template::RuleTemplate;

/// What is said once, for all containers. Names and defaults are those of Traefik's Docker provider, but for `exposure`.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Makes the rule of routers that have none; ``Host(`{{ normalize .Name }}`)`` by default.
    pub default_rule: RuleTemplate,
    /// Which containers are routed if they do not say so themselves by `traefik.enable`.
    pub exposure: Exposure,
    /// The network in which containers are reached that name none by `traefik.docker.network`.
    pub network: Option<String>,
    /// Only containers whose labels match are routed.
    pub constraints: Option<Constraints>,
    /// Makes services for containers that are not healthy too, without them as servers.
    pub allow_empty_services: bool,
    /// Reaches containers by the machine's address and port to which they are published, where they are.
    pub use_bind_port_ip: bool,
    /// What rules are written in if their router does not say so by `ruleSyntax`. One that cannot be read so, and can be in the
    /// other, is taken as written in that.
    pub dialect: Dialect,
}

/// Which containers are routed if they do not say so themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// Those with at least one label that begins with `traefik.http.`.
    #[default]
    Labelled,
    /// All that expose a port: Traefik's own default.
    All,
}
