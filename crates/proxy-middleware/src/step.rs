//! One compiled middleware of a chain.

use coracle_proxy_http::{RequestHead, ResponseHead};
use coracle_proxy_table::Middleware;

use crate::answer::Answer;
use crate::basic_auth::BasicAuth;
use crate::chain::{Outcome, Retry};
use crate::client::Client;
use crate::fetch::Fetch;
use crate::headers::{Asked, Headers};
use crate::ip_allow_list::AllowList;
use crate::path::{Add, Replace, ReplaceRegex, Strip};
use crate::redirect::{ByRegex, ByScheme, ToHost};

/// One compiled middleware.
#[derive(Debug)]
pub(crate) enum Step {
    RedirectRegex(ByRegex),
    RedirectScheme(ByScheme),
    CanonicalHost(ToHost),
    BasicAuth(Box<BasicAuth>),
    Strip(Strip),
    Add(Add),
    Replace(Replace),
    ReplaceRegex(ReplaceRegex),
    Headers(Box<Headers>),
    AllowList(AllowList),
}

/// What a middleware has to know of a request when its answer comes, or holds until then.
#[derive(Debug)]
pub(crate) enum Note {
    Headers(Asked),
}

impl Step {
    pub(crate) fn compile(settings: &Middleware) -> Result<Self, String> {
        Ok(match settings {
            Middleware::RedirectRegex(settings) => Self::RedirectRegex(ByRegex::compile(settings)?),
            Middleware::RedirectScheme(settings) => Self::RedirectScheme(ByScheme::compile(settings)?),
            Middleware::CanonicalHost(settings) => Self::CanonicalHost(ToHost::compile(settings)?),
            Middleware::BasicAuth(settings) => Self::BasicAuth(Box::new(BasicAuth::compile(settings)?)),
            Middleware::StripPrefix(settings) => Self::Strip(Strip::prefixes(settings)?),
            Middleware::StripPrefixRegex(settings) => Self::Strip(Strip::expressions(settings)?),
            Middleware::AddPrefix(settings) => Self::Add(Add::compile(settings)?),
            Middleware::ReplacePath(settings) => Self::Replace(Replace::compile(settings)?),
            Middleware::ReplacePathRegex(settings) => Self::ReplaceRegex(ReplaceRegex::compile(settings)?),
            Middleware::Headers(settings) => Self::Headers(Box::new(Headers::compile(settings)?)),
            Middleware::IpAllowList(settings) => Self::AllowList(AllowList::compile(settings)?),
            _ => return Err("not yet".to_owned()),
        })
    }

    /// Whether [`Step::response`] does anything.
    pub(crate) fn answers(&self) -> bool {
        matches!(self, Self::Headers(_))
    }

    /// Lets a request pass, or answers it.
    pub(crate) async fn request(
        &self,
        client: &Client,
        head: &mut RequestHead,
        _fetch: &dyn Fetch,
    ) -> Result<Option<Note>, Answer> {
        match self {
            Self::RedirectRegex(step) => step.request(client, head)?,
            Self::RedirectScheme(step) => step.request(client, head)?,
            Self::CanonicalHost(step) => step.request(client, head)?,
            // In boxes of their own: a chain without them should not carry room for what they wait for.
            Self::BasicAuth(step) => Box::pin(step.request(head)).await?,
            Self::Strip(step) => step.request(head)?,
            Self::Add(step) => step.request(head)?,
            Self::Replace(step) => step.request(head)?,
            Self::ReplaceRegex(step) => step.request(head)?,
            Self::Headers(step) => return Ok(step.request(client, head)?.map(Note::Headers)),
            Self::AllowList(step) => step.request(client, head)?,
        }
        Ok(None)
    }

    /// Changes an answer on its way back. What it gives back is held until the answer has been sent.
    pub(crate) fn response(&self, note: Option<Note>, head: &mut ResponseHead, _outcome: &mut Outcome) -> Option<Note> {
        if let Self::Headers(step) = self {
            let asked = match &note {
                Some(Note::Headers(asked)) => Some(asked),
                _ => None,
            };
            step.response(asked, head);
        }
        None
    }

    /// What the engine is told of the middlewares that only it can be.
    pub(crate) fn body_limit(&self) -> Option<u64> {
        None
    }

    pub(crate) fn retry(&self) -> Option<Retry> {
        None
    }
}
