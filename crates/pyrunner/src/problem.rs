//! Errors on the wire: problem details (RFC 9457) with what a person needs to go on.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of a problem.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not carried out. A program that fails is no problem: that is an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:pyrunner:problem:` and the kind (RFC 9457 section 3.1.1).
    #[serde(rename = "type")]
    pub type_uri: String,
    /// What kind of problem it is, for people.
    pub title: &'static str,
    /// The HTTP status code.
    #[schema(example = 422)]
    pub status: u16,
    /// What is wrong this time, in a sentence.
    pub detail: String,
    /// What kind of problem it is, for programs.
    pub kind: ProblemKind,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// After so many seconds it may work; the header `Retry-After` says the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem of this kind, with a sentence about this time.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("urn:pyrunner:problem:{}", kind.as_str()),
            title: kind.title(),
            status: kind.status(),
            detail: detail.into(),
            kind,
            hint: None,
            retry_after_s: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds when it may work.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $text:tt, $status:literal, $title:literal;)*) => {
        /// Kinds of problems; each has its HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
        pub enum ProblemKind {
            $($(#[$doc])* #[serde(rename = $text)] $kind,)*
        }

        impl ProblemKind {
            /// The word for it on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $text,)* }
            }

            /// The HTTP status code.
            pub fn status(self) -> u16 {
                match self { $(Self::$kind => $status,)* }
            }

            fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }
        }
    };
}

kinds! {
    /// The request is not what is wanted here.
    BadRequest = "bad_request", 400, "The request is not valid";
    /// A key is needed, or this one is not known.
    Unauthenticated = "unauthenticated", 401, "A valid API key is needed";
    /// This key may not do that.
    Forbidden = "forbidden", 403, "That is not allowed";
    /// There is no such thing, or it is somebody else's.
    NotFound = "not_found", 404, "There is no such thing";
    /// The path does not take this method.
    MethodNotAllowed = "method_not_allowed", 405, "The path does not take this method";
    /// The body did not arrive in time.
    TimedOut = "timed_out", 408, "The request did not arrive in time";
    /// Something stands in the way.
    Conflict = "conflict", 409, "Something stands in the way";
    /// The body is too large.
    TooLarge = "too_large", 413, "The request is too large";
    /// The body is of a type that is not read here.
    UnsupportedMediaType = "unsupported_media_type", 415, "The body has a type that is not read here";
    /// It is meant for another server.
    Misdirected = "misdirected", 421, "The request is meant for another server";
    /// Limits can only be lowered.
    LimitTooHigh = "limit_too_high", 422, "A limit is higher than this server grants";
    /// There is no such image.
    NoSuchImage = "no_such_image", 422, "There is no such image";
    /// The import policy does not let this program through.
    PolicyViolation = "policy_violation", 422, "The import policy refuses this program";
    /// An idempotency key was used for another request before.
    KeyReused = "idempotency_key_reused", 422, "The Idempotency-Key belongs to another request";
    /// A callback's address is not one that is called.
    CallbackRefused = "callback_refused", 422, "The callback's address is refused";
    /// Too many calls, or too many at once.
    TooMany = "too_many_requests", 429, "Too many requests";
    /// Something is wrong here.
    Internal = "internal", 500, "Something is wrong with the server";
    /// Not now.
    Unavailable = "unavailable", 503, "The server cannot do it now";
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(kind = self.kind.as_str(), detail = self.detail, "a request could not be answered");
        }
        let body = serde_json::to_vec(&self).unwrap_or_else(|_| unreachable!("a problem is plain data"));
        let mut response = (status, [(CONTENT_TYPE, PROBLEM_MEDIA_TYPE)], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pyrunner\""));
        }
        response.extensions_mut().insert(self.kind);
        // For those who tell it in other words: a page, an endpoint of another program.
        response.extensions_mut().insert(self);
        response
    }
}
