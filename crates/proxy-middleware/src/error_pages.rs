//! Puts pages in place of error answers.

mod directory;

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use coracle_proxy_http::{Known, RequestHead, ResponseHead};
use coracle_proxy_table::{ErrorPages as Settings, ServiceId};
use http::{Method, StatusCode};

use crate::accept::{self, Format};
use crate::answer::{Answer, AnswerBody, put};
use crate::fetch::{Fetch, FetchedResponse};
use crate::headers::is_framing;
use crate::{pages, url, wrong};

use directory::Directory;

/// How long a service may take to make a page: whoever waits for it has waited for the error already.
const PATIENCE: Duration = Duration::from_secs(5);

/// See [`Settings`].
#[derive(Debug)]
pub(crate) struct ErrorPages {
    statuses: Vec<RangeInclusive<u16>>,
    /// The narrowest first.
    rewrites: Vec<(RangeInclusive<u16>, StatusCode)>,
    directory: Option<Directory>,
    maker: Option<Maker>,
}

/// A service that makes pages.
#[derive(Debug)]
struct Maker {
    service: ServiceId,
    /// With its places.
    query: String,
}

/// What the answer needs to know of the request.
#[derive(Debug)]
pub(crate) struct Asked {
    format: Format,
    body: bool,
    request_id: Option<Box<str>>,
    /// Path and query, if a service wants to know.
    url: Option<Box<str>>,
}

impl ErrorPages {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        if settings.status.is_empty() {
            return Err(wrong("status", "at least one"));
        }
        let directory = settings.directory.as_ref().map(|path| Directory::new(path)).transpose()?;
        let statuses = settings.status.iter().map(|text| statuses("status", text)).collect::<Result<_, _>>()?;
        let maker = Maker::of(settings)?;
        Ok(Self { statuses, rewrites: rewrites(settings)?, directory, maker })
    }

    /// Whether pages come from files.
    pub(crate) fn has_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// Reads those again that have changed. Blocks.
    pub(crate) fn look_again(&self) {
        self.directory.iter().for_each(Directory::look_again);
    }

    /// Whether a service may be asked.
    pub(crate) fn asks(&self) -> bool {
        self.maker.is_some()
    }

    pub(crate) fn request(&self, head: &RequestHead) -> Asked {
        Asked {
            format: accept::format(head.fields.get_known_str(Known::Accept)),
            body: head.method != Method::HEAD,
            request_id: head.fields.get_known_str(Known::XRequestId).map(Into::into),
            url: self.maker.as_ref().filter(|maker| maker.query.contains("{url}")).map(|_| head.target().into()),
        }
    }

    /// The status that stands in place of one of ours; `None` for others.
    fn becomes(&self, status: StatusCode) -> Option<StatusCode> {
        let code = status.as_u16();
        if !self.statuses.iter().any(|range| range.contains(&code)) {
            return None;
        }
        let rewritten = self.rewrites.iter().find(|(range, _)| range.contains(&code));
        Some(rewritten.map_or(status, |(_, to)| *to))
    }

    /// The page that a service makes in place of an answer; `None` if it makes none, or none is wanted.
    pub(crate) async fn fetched(
        &self,
        asked: &Asked,
        status: StatusCode,
        request: &RequestHead,
        fetch: &dyn Fetch,
    ) -> Option<FetchedResponse> {
        let (maker, becomes) = (self.maker.as_ref()?, self.becomes(status)?);
        let target = maker.target(becomes, status, asked.url.as_deref().unwrap_or_default());
        let question = question(request, &target)?;
        let service = &maker.service.0;
        match tokio::time::timeout(PATIENCE, fetch.page(&maker.service, question)).await {
            Ok(Ok(page)) if !page.status.is_server_error() && !page.status.is_informational() => return Some(page),
            Ok(Ok(page)) => tracing::warn!(service, status = page.status.as_u16(), "an error page could not be made"),
            Ok(Err(error)) => tracing::warn!(service, %error, "an error page could not be made"),
            Err(_late) => tracing::warn!(service, "an error page was not made in time"),
        }
        None
    }

    /// Puts a page that a service has made in place of an answer.
    pub(crate) fn put(&self, page: FetchedResponse, asked: &Asked, head: &mut ResponseHead) -> AnswerBody {
        head.status = self.becomes(head.status).unwrap_or(head.status);
        let replaced = |name: &str| page.fields.contains(name) && !name.eq_ignore_ascii_case("set-cookie");
        head.fields.retain_known(|known, name, _| !is_of_content(known, name) && !replaced(name));
        for (_, name, value) in page.fields.iter_known().filter(|(known, name, _)| !is_framing(name) && *known != Known::Date) {
            if let Err(error) = head.fields.append(name, value) {
                tracing::debug!(name, %error, "a header field was left out");
            }
        }
        put(&mut head.fields, Known::ContentLength, page.body.len().to_string());
        AnswerBody::Bytes(if asked.body { page.body } else { Bytes::new() })
    }

    /// The body in place of the one that came, if the status is one of ours. Fields that are about the old body go; others
    /// (cookies, challenges, `Retry-After`) stay.
    pub(crate) fn response(&self, asked: &Asked, head: &mut ResponseHead) -> Option<AnswerBody> {
        let status = self.becomes(head.status)?;
        head.status = status;
        let own = self.directory.as_ref().and_then(|directory| directory.page(status, asked.format));
        if own.is_none() && self.maker.is_some() {
            return None;
        }
        let page = match own {
            Some(content) => Answer::new(status, content_type(asked.format), content).with(Known::CacheControl, "no-store"),
            None => pages::written(asked.format, status, "", asked.request_id.as_deref()),
        };
        head.fields.retain_known(|known, name, _| !is_of_content(known, name));
        head.fields.extend_from(&page.head.fields);
        Some(if asked.body { page.body } else { AnswerBody::Bytes(Bytes::new()) })
    }
}

impl Maker {
    fn of(settings: &Settings) -> Result<Option<Self>, String> {
        let Some(service) = settings.service.clone() else {
            return match settings.query {
                Some(_) => Err(wrong("query", "is what a service is asked for, and there is no service")),
                None => Ok(None),
            };
        };
        let query = settings.query.clone().filter(|query| !query.is_empty()).unwrap_or_else(|| "/".to_owned());
        let maker = Self { service, query };
        // What is put into the places cannot make a good one bad.
        let sample = maker.target(StatusCode::NOT_FOUND, StatusCode::NOT_FOUND, "/");
        if RequestHead::new(Method::GET, &sample, "").is_err() {
            return Err(wrong("query", format_args!("{:?} is no path that begins with a slash", maker.query)));
        }
        Ok(Some(maker))
    }

    fn target(&self, status: StatusCode, original: StatusCode, url: &str) -> String {
        // The URL last: it is not to be looked at for places.
        let target = self.query.replace("{status}", status.as_str()).replace("{originalStatus}", original.as_str());
        target.replace("{url}", &url::encode_query_value(url))
    }
}

/// What a service is asked for a page: what it would be asked by the client, less what is about a body, a part of an answer, or
/// an answer that is known already.
fn question(request: &RequestHead, target: &str) -> Option<RequestHead> {
    let mut question = RequestHead::new(Method::GET, target, request.host()).ok()?;
    for (known, name, value) in request.fields.iter_known() {
        let is_about = matches!(
            known,
            Known::Host
                | Known::ContentType
                | Known::ContentEncoding
                | Known::Expect
                | Known::Range
                | Known::IfRange
                | Known::IfMatch
                | Known::IfNoneMatch
                | Known::IfModifiedSince
                | Known::IfUnmodifiedSince
        );
        if !is_about && !is_framing(name) {
            question.fields.append(name, value).ok()?;
        }
    }
    Some(question)
}

fn rewrites(settings: &Settings) -> Result<Vec<(RangeInclusive<u16>, StatusCode)>, String> {
    let rewrite = |(from, to): (&String, &u16)| {
        let to = StatusCode::from_u16(*to).ok().filter(|to| (200..600).contains(&to.as_u16()));
        let to = to.ok_or_else(|| wrong("status_rewrites", format_args!("{from:?} cannot become a status that is none")))?;
        Ok((statuses("status_rewrites", from)?, to))
    };
    let mut rewrites = settings.status_rewrites.iter().map(rewrite).collect::<Result<Vec<_>, String>>()?;
    rewrites.sort_by_key(|(range, _)| range.end() - range.start());
    Ok(rewrites)
}

/// `404`, or `500-599`; of errors only.
fn statuses(setting: &str, text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (400..600).contains(status));
    match (status(from), status(to)) {
        (Some(from), Some(to)) if from <= to => Ok(from..=to),
        _ => Err(wrong(setting, format_args!("{text:?} is neither a status nor a range of them, from 400 to 599"))),
    }
}

fn is_of_content(known: Known, name: &str) -> bool {
    const OTHERS: &[&str] =
        &["content-language", "content-disposition", "content-location", "content-md5", "digest", "repr-digest"];
    let known_one = matches!(
        known,
        Known::ContentType
            | Known::ContentLength
            | Known::ContentEncoding
            | Known::ContentRange
            | Known::TransferEncoding
            | Known::Trailer
            | Known::ETag
            | Known::LastModified
            | Known::CacheControl
            | Known::Expires
            | Known::Age
            | Known::AcceptRanges
    );
    known_one || known == Known::Other && OTHERS.iter().any(|other| other.eq_ignore_ascii_case(name))
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Html => "text/html; charset=utf-8",
        Format::Json => "application/json",
        Format::Text => "text/plain; charset=utf-8",
    }
}
