//! What is done with requests and answers on their way: redirects, authentication, limits, headers, compression, files.
//!
//! A [`Chain`] is a route's middlewares, compiled from `coracle-proxy-table`'s settings: requests pass it in the order written,
//! answers in the reverse order. An answer that a middleware gives itself passes those before it, as a service's would.
//!
//! Nothing here opens a connection, chooses a target or reads a body: the engine does, and lends itself as [`Fetch`] where a
//! middleware has to ask somebody. Nothing here decides whom to believe about `X-Forwarded-*`: the engine removes such fields
//! of clients it does not trust before a request comes here, and adds the client's own address after.

mod accept;
mod answer;
mod basic_auth;
mod chain;
mod circuit_breaker;
mod client;
mod compress;
mod encoder;
mod error_pages;
mod fetch;
mod forward_auth;
mod headers;
mod in_flight;
mod ip_allow_list;
mod maintenance;
mod networks;
pub mod pages;
mod password;
mod path;
mod rate_limit;
mod redirect;
mod source;
mod state;
mod static_files;
mod step;
mod url;
mod watched;

pub use answer::{Answer, AnswerBody};
pub use chain::{After, Chain, Passage, Retry};
pub use client::Client;
pub use encoder::Encoder;
pub use fetch::{Fetch, FetchError, Fetched, FetchedResponse};
pub use state::State;
pub use watched::Stamp;

use coracle_proxy_table::MiddlewareId;

/// Why a middleware cannot be made of its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("middleware {:?}: {reason}", middleware.0)]
pub struct ConfigError {
    /// The middleware.
    pub middleware: MiddlewareId,
    /// What is wrong, beginning with the setting's name. Without secrets.
    pub reason: String,
}

/// A setting's name and what is wrong with it.
pub(crate) fn wrong(setting: &str, what: impl std::fmt::Display) -> String {
    format!("{setting}: {what}")
}

/// A regular expression from a setting. Errors are one line.
pub(crate) fn expression(setting: &str, text: &str) -> Result<regex::Regex, String> {
    regex::Regex::new(text).map_err(|error| wrong(setting, brief(&error)))
}

/// The same for bytes, which a decoded path is.
pub(crate) fn bytes_expression(setting: &str, text: &str) -> Result<regex::bytes::Regex, String> {
    regex::bytes::Regex::new(text).map_err(|error| wrong(setting, brief(&error)))
}

/// The crate draws the place of an error on lines of its own; the last line says what it is.
fn brief(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    format!("not a regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
}
