//! One compiled middleware of a chain.

use std::time::{Duration, Instant};

use coracle_proxy_http::{Known, RequestHead, ResponseHead};
use coracle_proxy_table::Middleware;
use http::StatusCode;

use crate::answer::Answer;
use crate::basic_auth::BasicAuth;
use crate::chain::{Outcome, Retry};
use crate::circuit_breaker::{CircuitBreaker, Counted};
use crate::client::Client;
use crate::compress::{Compress, Wanted};
use crate::error_pages::{self, ErrorPages};
use crate::fetch::Fetch;
use crate::forward_auth::{Cookies, ForwardAuth, add_cookies};
use crate::headers::{self, Headers};
use crate::in_flight::{InFlight, Permit};
use crate::ip_allow_list::AllowList;
use crate::maintenance::Maintenance;
use crate::path::{Add, Replace, ReplaceRegex, Strip};
use crate::rate_limit::RateLimit;
use crate::redirect::{ByRegex, ByScheme, ToHost};
use crate::static_files::StaticFiles;
use crate::{pages, wrong};

/// One compiled middleware.
#[derive(Debug)]
pub(crate) enum Step {
    RedirectRegex(ByRegex),
    RedirectScheme(ByScheme),
    CanonicalHost(ToHost),
    BasicAuth(Box<BasicAuth>),
    ForwardAuth(Box<ForwardAuth>),
    Strip(Strip),
    Add(Add),
    Replace(Replace),
    ReplaceRegex(ReplaceRegex),
    Headers(Box<Headers>),
    AllowList(AllowList),
    RateLimit(Box<RateLimit>),
    InFlight(InFlight),
    /// Bytes.
    BodyLimit(u64),
    Retry(Retry),
    CircuitBreaker(Box<CircuitBreaker>),
    Compress(Compress),
    ErrorPages(ErrorPages),
    Maintenance(Box<Maintenance>),
    StaticFiles(StaticFiles),
}

/// What a middleware has to know of a request when its answer comes, or holds until that is sent.
#[derive(Debug)]
pub(crate) enum Note {
    Headers(headers::Asked),
    Cookies(Cookies),
    /// Held for what dropping it does.
    Permit(#[allow(dead_code, reason = "held for what dropping it does")] Permit),
    Circuit(Instant),
    Counted(Counted),
    Compress(Wanted),
    ErrorPages(error_pages::Asked),
}

impl Step {
    pub(crate) fn compile(settings: &Middleware) -> Result<Self, String> {
        Ok(match settings {
            Middleware::RedirectRegex(settings) => Self::RedirectRegex(ByRegex::compile(settings)?),
            Middleware::RedirectScheme(settings) => Self::RedirectScheme(ByScheme::compile(settings)?),
            Middleware::CanonicalHost(settings) => Self::CanonicalHost(ToHost::compile(settings)?),
            Middleware::BasicAuth(settings) => Self::BasicAuth(Box::new(BasicAuth::compile(settings)?)),
            Middleware::ForwardAuth(settings) => Self::ForwardAuth(Box::new(ForwardAuth::compile(settings)?)),
            Middleware::StripPrefix(settings) => Self::Strip(Strip::prefixes(settings)?),
            Middleware::StripPrefixRegex(settings) => Self::Strip(Strip::expressions(settings)?),
            Middleware::AddPrefix(settings) => Self::Add(Add::compile(settings)?),
            Middleware::ReplacePath(settings) => Self::Replace(Replace::compile(settings)?),
            Middleware::ReplacePathRegex(settings) => Self::ReplaceRegex(ReplaceRegex::compile(settings)?),
            Middleware::Headers(settings) => Self::Headers(Box::new(Headers::compile(settings)?)),
            Middleware::IpAllowList(settings) => Self::AllowList(AllowList::compile(settings)?),
            Middleware::RateLimit(settings) => Self::RateLimit(Box::new(RateLimit::compile(settings)?)),
            Middleware::InFlightLimit(settings) => Self::InFlight(InFlight::compile(settings)?),
            Middleware::BodyLimit(settings) => Self::BodyLimit(settings.max_bytes),
            Middleware::Retry(settings) if settings.attempts == 0 => return Err(wrong("attempts", "must be at least 1")),
            Middleware::Retry(settings) => Self::Retry(Retry {
                attempts: settings.attempts,
                initial_interval: Duration::from_millis(settings.initial_interval_ms),
            }),
            Middleware::CircuitBreaker(settings) => Self::CircuitBreaker(Box::new(CircuitBreaker::compile(settings)?)),
            Middleware::Compress(settings) => Self::Compress(Compress::compile(settings)?),
            Middleware::ErrorPages(settings) => Self::ErrorPages(ErrorPages::compile(settings)?),
            Middleware::Maintenance(settings) => Self::Maintenance(Box::new(Maintenance::compile(settings)?)),
            Middleware::StaticFiles(settings) => Self::StaticFiles(StaticFiles::compile(settings)?),
        })
    }

    /// Lets a request pass, or answers it.
    pub(crate) async fn request(
        &self,
        client: &Client,
        head: &mut RequestHead,
        fetch: &dyn Fetch,
    ) -> Result<Option<Note>, Answer> {
        match self {
            Self::RedirectRegex(step) => step.request(client, head)?,
            Self::RedirectScheme(step) => step.request(client, head)?,
            Self::CanonicalHost(step) => step.request(client, head)?,
            // `*` is no path (RFC 9112, section 3.2.4).
            Self::Strip(_) | Self::Add(_) | Self::Replace(_) | Self::ReplaceRegex(_) if !head.path().starts_with('/') => {}
            Self::Strip(step) => step.request(head)?,
            Self::Add(step) => step.request(head)?,
            Self::Replace(step) => step.request(head)?,
            Self::ReplaceRegex(step) => step.request(head)?,
            Self::AllowList(step) => step.request(client, head)?,
            Self::Maintenance(step) => step.request(client, head)?,
            Self::RateLimit(step) => step.request(client, head)?,
            Self::BodyLimit(bytes) => within(*bytes, head)?,
            Self::Retry(_) => {}
            Self::Headers(step) => return Ok(step.request(client, head)?.map(Note::Headers)),
            Self::InFlight(step) => return step.request(client, head).map(|permit| Some(Note::Permit(permit))),
            Self::CircuitBreaker(step) => return step.request(head).map(|began| Some(Note::Circuit(began))),
            Self::Compress(step) => return Ok(Some(Note::Compress(step.request(head)))),
            Self::ErrorPages(step) => return Ok(Some(Note::ErrorPages(step.request(head)))),
            // In boxes of their own: chains without them should not carry room for what they wait for.
            Self::BasicAuth(step) => Box::pin(step.request(head)).await?,
            Self::StaticFiles(step) => Box::pin(step.request(head)).await?,
            Self::ForwardAuth(step) => return Ok(Box::pin(step.request(client, head, fetch)).await?.map(Note::Cookies)),
        }
        Ok(None)
    }

    /// Whether it was made of files that may change while it is in use.
    pub(crate) fn has_files(&self) -> bool {
        match self {
            Self::BasicAuth(step) => step.has_file(),
            Self::Maintenance(step) => step.has_file(),
            Self::ErrorPages(step) => step.has_directory(),
            _ => false,
        }
    }

    /// Reads those again that have changed. Blocks.
    pub(crate) fn look_again(&self) {
        match self {
            Self::BasicAuth(step) => step.look_again(),
            Self::Maintenance(step) => step.look_again(),
            Self::ErrorPages(step) => step.look_again(),
            _ => {}
        }
    }

    /// Whether [`Step::response`] does anything.
    pub(crate) fn answers(&self) -> bool {
        matches!(
            self,
            Self::Headers(_)
                | Self::ForwardAuth(_)
                | Self::InFlight(_)
                | Self::CircuitBreaker(_)
                | Self::Compress(_)
                | Self::ErrorPages(_)
        )
    }

    /// Whether it may ask a service about an answer.
    pub(crate) fn asks(&self) -> bool {
        matches!(self, Self::ErrorPages(pages) if pages.asks())
    }

    /// Changes an answer on its way back. What it gives back is held until the answer has been sent.
    pub(crate) fn response(&self, note: Option<Note>, head: &mut ResponseHead, outcome: &mut Outcome) -> Option<Note> {
        match (self, note) {
            (Self::Headers(step), Some(Note::Headers(asked))) => step.response(Some(&asked), head),
            (Self::Headers(step), _) => step.response(None, head),
            (_, Some(Note::Cookies(cookies))) => add_cookies(&cookies, head),
            (Self::CircuitBreaker(step), Some(Note::Circuit(began))) => {
                return step.response(began, head.status).map(Note::Counted);
            }
            (Self::ErrorPages(step), Some(Note::ErrorPages(asked))) => {
                if let Some(body) = step.response(&asked, head) {
                    *outcome = Outcome::page(body);
                }
            }
            (Self::Compress(step), Some(Note::Compress(wanted))) if outcome.encoder.is_none() => {
                outcome.encoder = step.response(wanted, head);
            }
            (_, held @ Some(Note::Permit(_))) => return held,
            _ => {}
        }
        None
    }

    /// The answer has broken off; `held` is what [`Step::response`] gave back.
    pub(crate) fn broke(&self, held: &Note) {
        if let (Self::CircuitBreaker(step), Note::Counted(counted)) = (self, held) {
            step.broke(*counted);
        }
    }

    /// See [`Chain::body_limit`](crate::Chain::body_limit).
    pub(crate) fn body_limit(&self) -> Option<u64> {
        match self {
            Self::BodyLimit(bytes) => Some(*bytes),
            _ => None,
        }
    }

    /// See [`Chain::retry`](crate::Chain::retry).
    pub(crate) fn retry(&self) -> Option<Retry> {
        match self {
            Self::Retry(retry) => Some(*retry),
            _ => None,
        }
    }
}

/// Refuses a request that says its body is larger.
fn within(bytes: u64, head: &RequestHead) -> Result<(), Answer> {
    let length = head.fields.get_known_str(Known::ContentLength).and_then(|length| length.trim().parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes) {
        return Err(pages::refusal(head, StatusCode::PAYLOAD_TOO_LARGE, ""));
    }
    Ok(())
}
