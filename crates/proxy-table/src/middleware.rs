//! What is done with a request on its way to a service, and with the answer on its way back.
//!
//! Each middleware is one name with a table of settings, as `{"strip-prefix": {"prefixes": ["/api"]}}`. What the names mean, and
//! what is taken for settings that are left out, is as Traefik's users know it; times carry their unit in the name. Regular
//! expressions, networks and expressions are texts here: the proxy compiles them, and refuses a table with one it cannot.

mod answers;
mod auth;
mod headers;
mod limits;
mod path;
mod redirect;

use serde::{Deserialize, Serialize};

pub use answers::{Compress, Encoding, ErrorPages, Maintenance, StaticFiles};
pub use auth::{AuthTls, BasicAuth, Credential, ForwardAuth, IpAllowList};
pub use headers::Headers;
pub use limits::{BodyLimit, CircuitBreaker, InFlightLimit, IpStrategy, RateLimit, Retry, SourceCriterion};
pub use path::{AddPrefix, ReplacePath, ReplacePathRegex, StripPrefix, StripPrefixRegex};
pub use redirect::{CanonicalHost, RedirectRegex, RedirectScheme};

/// One middleware, by its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Middleware {
    /// Sends clients elsewhere whose whole URL matches.
    RedirectRegex(RedirectRegex),
    /// Sends clients to the same URL with another scheme, usually `https`.
    RedirectScheme(RedirectScheme),
    /// Sends clients that came by another host name to the one that is meant, as from `www.` to the name without.
    CanonicalHost(CanonicalHost),
    /// Asks for a name and a password.
    BasicAuth(BasicAuth),
    /// Asks another service whether the request may pass.
    ForwardAuth(ForwardAuth),
    /// Takes the first of these prefixes that fits off the path, and tells the target in `X-Forwarded-Prefix`.
    StripPrefix(StripPrefix),
    /// The same by regular expressions.
    StripPrefixRegex(StripPrefixRegex),
    /// Puts something before the path.
    AddPrefix(AddPrefix),
    /// Puts another path in place of the one asked for, and tells the target in `X-Replaced-Path`.
    ReplacePath(ReplacePath),
    /// The same by a regular expression.
    ReplacePathRegex(ReplacePathRegex),
    /// Sets, changes and removes header fields; security headers; CORS.
    Headers(Box<Headers>),
    /// Lets only some addresses in.
    IpAllowList(IpAllowList),
    /// So many requests in a time, for each source.
    RateLimit(RateLimit),
    /// So many requests at once, for each source.
    InFlightLimit(InFlightLimit),
    /// Refuses large request bodies.
    BodyLimit(BodyLimit),
    /// Asks once more when a target could not be reached.
    Retry(Retry),
    /// Stops asking a service that fails.
    CircuitBreaker(CircuitBreaker),
    /// Compresses answers for clients that understand it.
    Compress(Compress),
    /// Puts pages in place of error answers.
    ErrorPages(ErrorPages),
    /// Answers 503 for everybody, or for all but a few.
    Maintenance(Maintenance),
    /// Answers from a directory.
    StaticFiles(StaticFiles),
}

impl Middleware {
    /// The kind's name, as it is written in a table.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RedirectRegex(_) => "redirect-regex",
            Self::RedirectScheme(_) => "redirect-scheme",
            Self::CanonicalHost(_) => "canonical-host",
            Self::BasicAuth(_) => "basic-auth",
            Self::ForwardAuth(_) => "forward-auth",
            Self::StripPrefix(_) => "strip-prefix",
            Self::StripPrefixRegex(_) => "strip-prefix-regex",
            Self::AddPrefix(_) => "add-prefix",
            Self::ReplacePath(_) => "replace-path",
            Self::ReplacePathRegex(_) => "replace-path-regex",
            Self::Headers(_) => "headers",
            Self::IpAllowList(_) => "ip-allow-list",
            Self::RateLimit(_) => "rate-limit",
            Self::InFlightLimit(_) => "in-flight-limit",
            Self::BodyLimit(_) => "body-limit",
            Self::Retry(_) => "retry",
            Self::CircuitBreaker(_) => "circuit-breaker",
            Self::Compress(_) => "compress",
            Self::ErrorPages(_) => "error-pages",
            Self::Maintenance(_) => "maintenance",
            Self::StaticFiles(_) => "static-files",
        }
    }

    /// The service that it asks itself, if any: a table that has the middleware needs the service too.
    pub fn service(&self) -> Option<&crate::ServiceId> {
        match self {
            Self::ErrorPages(pages) => pages.service.as_ref(),
            _ => None,
        }
    }

    /// The files and folders of the proxy's machine that it reads.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let paths = match self {
            Self::StaticFiles(files) => [Some(&mut files.root), None, None],
            Self::ErrorPages(pages) => [pages.directory.as_mut(), None, None],
            Self::Maintenance(maintenance) => [maintenance.page.as_mut(), None, None],
            Self::BasicAuth(auth) => [auth.users_file.as_mut(), None, None],
            Self::ForwardAuth(ForwardAuth { tls, .. }) => [tls.ca_file.as_mut(), tls.cert_file.as_mut(), tls.key_file.as_mut()],
            _ => [None, None, None],
        };
        paths.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests;
