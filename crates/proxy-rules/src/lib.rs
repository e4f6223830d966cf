//! The rule language of routes, as Traefik has it: parsing, matching, and finding the route among many.
//!
//! A [`Rule`] is parsed once, in one of two [`Dialect`]s, and then says of a request ([`Facts`]) whether it matches. A
//! [`Router`] holds many rules and finds the first by priority that matches; what that costs does not grow with the number
//! of host names.
//!
//! Nothing here reads from a connection, looks up a name or knows what a route leads to. Nothing is repaired either: host
//! names and paths are compared as they came, after the few steps that [`Facts`] names.

mod encoding;
mod error;
mod expression;
mod matcher;
mod pathindex;
mod pattern;
mod request;
mod requirement;
mod router;
mod rule;
mod syntax;
mod template;

use std::net::IpAddr;

pub use error::RuleError;
pub use router::Router;
pub use rule::{Dialect, Rule, domains};

/// What rules ask of a request.
pub trait Facts {
    /// The host that was asked for: lower case, without a port; empty if the client named none. The dot at the end of an
    /// absolute name and the brackets of an IPv6 address may be there or not; they make no difference. What is longer than
    /// 255 bytes counts as none.
    fn host(&self) -> &str;

    /// The method, as it was sent.
    fn method(&self) -> &str;

    /// The path, as it was sent: with its percent-encodings and without the query. Rules see it with those undone that do
    /// not change its meaning: all but those of the reserved characters (RFC 3986, 2.2) and of `%`.
    fn path(&self) -> &str;

    /// The query, as it was sent and without its `?`; empty if there is none.
    fn query(&self) -> &str;

    /// Shows each value of a header field, whatever the case of its name, in order, until `visit` answers `true`.
    fn header_values(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> bool);

    /// The client's address.
    fn client_ip(&self) -> IpAddr;
}
