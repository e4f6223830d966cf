//! How a middleware asks somebody else: the engine lends itself.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use coracle_proxy_http::Fields;
use http::{Method, StatusCode};

/// Asks a URL. The engine implements it.
pub trait Fetch: Sync {
    /// Asks `url` (`http://…` or `https://…`) by `method` with these header fields and no body. Redirects are not followed; an
    /// answer's body is read whole. Whoever calls sets the deadline and drops the future when it has passed.
    ///
    /// # Errors
    /// [`FetchError`] if there is no proper answer, or its body is larger than 1 MB.
    fn fetch<'f>(
        &'f self,
        url: &'f str,
        method: &'f Method,
        fields: &'f Fields,
    ) -> Pin<Box<dyn Future<Output = Result<FetchedResponse, FetchError>> + Send + 'f>>;
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
