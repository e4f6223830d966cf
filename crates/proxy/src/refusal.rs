//! Answers that the proxy gives by itself.

use coracle_proxy_http::{Known, ParseError, RequestHead};
use coracle_proxy_middleware::{Answer, pages};
use http::StatusCode;

/// Why a request was not answered by a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It cannot be understood in one way only.
    Malformed(ParseError),
    /// What it says is its body is none.
    BadBody,
    /// Its body is longer than the route takes.
    TooLarge,
    /// Its path has an encoded character that this proxy does not let pass.
    EncodedCharacter,
    /// CONNECT: this is no forward proxy.
    Connect,
    /// It came over a connection with another host's certificate (RFC 9110, section 15.5.20).
    Misdirected,
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
    /// The client did not send its request to the end in time.
    SlowClient,
    /// The target was taken away before it answered.
    CutOff,
}

impl Refusal {
    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(error) => error.status(),
            Self::BadBody | Self::EncodedCharacter => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoTarget | Self::Closed { .. } | Self::TooManyWaiting => StatusCode::SERVICE_UNAVAILABLE,
            Self::HeldTooLong | Self::Timeout | Self::CutOff => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowClient => StatusCode::REQUEST_TIMEOUT,
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

    /// What the client reads, besides the status.
    fn text(&self) -> String {
        match self {
            Self::Malformed(error) => format!("Bad request: {error}.\n"),
            Self::BadBody => "Bad request: the body is malformed.\n".to_owned(),
            Self::TooLarge => String::new(),
            Self::EncodedCharacter => "Bad request: the path has an encoded character that does not pass here.\n".to_owned(),
            Self::Misdirected => "This connection is for another host.\n".to_owned(),
            Self::Connect => "This server does not open tunnels.\n".to_owned(),
            Self::NoRoute => "Nothing is served here.\n".to_owned(),
            Self::NoTarget => "No instance is ready to answer. Try again in a moment.\n".to_owned(),
            Self::Closed { message, .. } => message.clone(),
            Self::TooManyWaiting => "Too many requests wait already. Try again in a moment.\n".to_owned(),
            Self::HeldTooLong => "The service did not come back in time.\n".to_owned(),
            Self::BadGateway => "The service did not answer properly.\n".to_owned(),
            Self::Timeout => "The service did not answer in time.\n".to_owned(),
            Self::SlowClient => "The request did not come to its end in time.\n".to_owned(),
            Self::CutOff => "The instance was stopped before it answered.\n".to_owned(),
        }
    }

    /// The whole answer to a request, as its client likes to read it.
    pub(crate) fn answer(&self, request: &RequestHead) -> Answer {
        let mut answer = pages::refusal(request, self.status(), self.text().trim_end());
        if let Some(seconds) = self.retry_after() {
            let told = answer.head.fields.set_known(Known::RetryAfter, seconds.to_string());
            debug_assert!(told.is_ok(), "digits");
        }
        answer
    }
}
