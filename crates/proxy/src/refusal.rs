//! Answers that the proxy gives by itself.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::body::Body;

/// Why a request was not answered by a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It cannot be understood in one way only.
    Malformed(&'static str),
    /// CONNECT: this is no forward proxy.
    Connect,
    /// A transfer coding other than `chunked`.
    Coding,
    /// No route matches.
    NoRoute,
    /// The service has no target.
    NoTarget,
    /// The service is closed.
    Closed {
        /// Shown to the client.
        message: String,
        /// Seconds.
        retry_after_s: u64,
    },
    /// Too many requests wait for the service already.
    TooManyWaiting,
    /// The service was held for longer than it may be.
    HeldTooLong,
    /// No target could be reached, or the one that was gave no proper answer.
    BadGateway,
    /// No answer in time.
    Timeout,
    /// The target was taken away before it answered.
    CutOff,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoTarget | Self::Closed { .. } | Self::TooManyWaiting => StatusCode::SERVICE_UNAVAILABLE,
            Self::HeldTooLong | Self::Timeout | Self::CutOff => StatusCode::GATEWAY_TIMEOUT,
            Self::BadGateway => StatusCode::BAD_GATEWAY,
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::NoTarget | Self::TooManyWaiting => Some(1),
            Self::Closed { retry_after_s, .. } => Some(*retry_after_s),
            _ => None,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Malformed(what) => format!("Bad request: {what}.\n"),
            Self::Connect => "This server does not open tunnels.\n".to_owned(),
            Self::Coding => "Only the transfer coding \"chunked\" is understood.\n".to_owned(),
            Self::NoRoute => "Nothing is served here.\n".to_owned(),
            Self::NoTarget => "No instance is ready to answer. Try again in a moment.\n".to_owned(),
            Self::Closed { message, .. } => message,
            Self::TooManyWaiting => "Too many requests wait already. Try again in a moment.\n".to_owned(),
            Self::HeldTooLong => "The service did not come back in time.\n".to_owned(),
            Self::BadGateway => "The service did not answer properly.\n".to_owned(),
            Self::Timeout => "The service did not answer in time.\n".to_owned(),
            Self::CutOff => "The instance was stopped before it answered.\n".to_owned(),
        }
    }

    /// The answer to the client.
    pub(crate) fn into_response(self) -> Response<Body> {
        let (status, retry_after) = (self.status(), self.retry_after());
        let mut response = Response::new(Body::text(self.text()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
