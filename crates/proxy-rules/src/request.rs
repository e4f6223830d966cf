//! A request as rules look at it, worked out once for however many of them.

use std::borrow::Cow;

use crate::{Facts, encoding};

/// No name in the DNS is longer (RFC 1035, 2.3.4), in bytes; what is longer is no host. It bounds the work per request.
const MAX_HOST: usize = 255;

/// The facts of a request, and what follows from them.
pub(crate) struct Request<'a, F> {
    pub(crate) facts: &'a F,
    /// Without a dot at its end or brackets around it.
    pub(crate) host: &'a str,
    pub(crate) path: Cow<'a, [u8]>,
}

impl<'a, F: Facts> Request<'a, F> {
    pub(crate) fn new(facts: &'a F) -> Self {
        let host = plain_host(facts.host());
        let host = if host.len() <= MAX_HOST { host } else { "" };
        Self { facts, host, path: encoding::path(facts.path()) }
    }
}

/// A host name without the dot that ends an absolute one, an IPv6 address without its brackets.
pub(crate) fn plain_host(host: &str) -> &str {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host)
}
