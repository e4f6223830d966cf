//! Middlewares that make answers, or change those of targets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::limits::IpStrategy;
use crate::{ServiceId, is_default};

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// Brotli, RFC 7932.
    Br,
    /// Zstandard, RFC 8878.
    Zstd,
}

/// Compresses answers for clients that understand it. Never event streams, parts of files, what is compressed already, nor
/// what says `no-transform`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compress {
    /// Content types that are left alone. Not together with `included_content_types`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_content_types: Vec<String>,
    /// The only content types that are compressed. If both lists are empty, all are, but those that are compressed in
    /// themselves (pictures, films, archives).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub included_content_types: Vec<String>,
    /// Answers of fewer bytes are left alone.
    pub min_response_body_bytes: u64,
    /// Which to use; of those that a client likes equally well, the first.
    pub encodings: Vec<Encoding>,
    /// The one for clients that send no `Accept-Encoding`; without one, they get none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_encoding: Option<Encoding>,
}

impl Default for Compress {
    fn default() -> Self {
        Self {
            excluded_content_types: Vec::new(),
            included_content_types: Vec::new(),
            min_response_body_bytes: 1024,
            encodings: vec![Encoding::Zstd, Encoding::Br, Encoding::Gzip],
            default_encoding: None,
        }
    }
}

/// Puts pages in place of error answers: a service's, a directory's, or the built-in ones (HTML for browsers, JSON or plain text
/// for others). Of a service that gives no page, the directory's stands in; without a directory the answer stays as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorPages {
    /// Statuses and ranges of them, from 400 to 599, as `404` and `500-599`.
    pub status: Vec<String>,
    /// A directory with pages `404.html`, `40x.html`, `4xx.html`, `error.html`, and the same for `.json` and `.txt`: the closest
    /// one is taken, the built-in one if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// A service that makes the pages. It is asked by GET, with the request's host and header fields, and has 5 seconds; what it
    /// answers goes out with the status of the error, unless it fails itself (5xx) or its page is larger than 1 MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// The path and query that the service is asked for; `/` if left out. `{status}` stands for the status, `{originalStatus}`
    /// for what it was before it was rewritten, `{url}` for the path and query of the request, encoded as a query's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Other statuses in place of some of those in `status`, by status or range of them. Of several that fit, the narrowest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status_rewrites: BTreeMap<String, u16>,
}

impl Default for ErrorPages {
    fn default() -> Self {
        Self { status: vec!["400-599".to_owned()], directory: None, service: None, query: None, status_rewrites: BTreeMap::new() }
    }
}

/// Answers 503 with `Retry-After` and a page, for everybody but a few.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Maintenance {
    /// One or two sentences for the page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Seconds, for `Retry-After`.
    pub retry_after_s: u64,
    /// Addresses and networks that pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<String>,
    /// How the client's address is found; without one, it is the one the proxy sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_strategy: Option<IpStrategy>,
    /// An HTML file in place of the built-in page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

impl Default for Maintenance {
    fn default() -> Self {
        Self { message: None, retry_after_s: 300, allowed_ips: Vec::new(), ip_strategy: None, page: None }
    }
}

/// Answers GET and HEAD from a directory. Nothing outside of it, and nothing whose name begins with a
/// dot, but `/.well-known/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticFiles {
    /// The directory, as an absolute path.
    pub root: String,
    /// Files that answer for a directory, tried in this order; `index.html` if left out.
    #[serde(default = "index", skip_serializing_if = "is_index")]
    pub index: Vec<String>,
    /// A file, relative to the root, that answers (200) for paths without one and without a dot in the last segment: what
    /// single-page applications need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spa_fallback: Option<String>,
    /// Takes `NAME.br`, `NAME.zst` and `NAME.gz` beside a file for clients that understand them.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub precompressed: bool,
    /// `Cache-Control` of the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Lets requests without a file go on to the service, in place of 404.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pass_missing: bool,
}

impl StaticFiles {
    /// The files of a directory, with usual settings.
    pub fn new(root: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            index: index(),
            spa_fallback: None,
            precompressed: true,
            cache_control: None,
            pass_missing: false,
        }
    }
}

fn index() -> Vec<String> {
    vec!["index.html".to_owned()]
}

fn is_index(value: &[String]) -> bool {
    value == index()
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}
