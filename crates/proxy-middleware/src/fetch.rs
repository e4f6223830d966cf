//! How a middleware asks somebody else: the engine lends itself.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use coracle_proxy_http::{Fields, RequestHead};
use coracle_proxy_table::{AuthTls, ServiceId};
use http::{Method, StatusCode};

/// An answer that is waited for. Whoever waits sets the deadline and drops it when it has passed.
pub type Fetched<'f> = Pin<Box<dyn Future<Output = Result<FetchedResponse, FetchError>> + Send + 'f>>;

/// Asks a URL, or a service. The engine implements it. Redirects are not followed; an answer's body is read whole.
///
/// Both give a [`FetchError`] if there is no proper answer, or its body is larger than 1 MB.
pub trait Fetch: Sync {
    /// Asks `url` (`http://…` or `https://…`) by `method` with these header fields and no body.
    fn fetch<'f>(&'f self, url: &'f str, method: &'f Method, fields: &'f Fields, tls: &'f AuthTls) -> Fetched<'f>;

    /// Asks a service of the table, without a body. Neither its answer nor its silence is any route's.
    fn page<'f>(&'f self, service: &'f ServiceId, request: RequestHead) -> Fetched<'f>;
}

/// An answer to a [`Fetch`].
#[derive(Debug, Clone)]
pub struct FetchedResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub fields: Fields,
    /// Its body, at most 1 MB.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(
    /// What went wrong, for the log; clients are not told.
    pub String,
);
