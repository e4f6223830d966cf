//! Puts pages in place of error answers.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_proxy_http::{Known, RequestHead, ResponseHead};
use coracle_proxy_table::ErrorPages as Settings;
use http::{Method, StatusCode};

use crate::accept::{self, Format};
use crate::answer::{Answer, AnswerBody};
use crate::{pages, wrong};

/// Bytes of a page.
const PAGE_LIMIT: u64 = 1 << 20;
/// How long a page that was read is taken for the file's content.
const FRESH: Duration = Duration::from_secs(1);

/// See [`Settings`].
#[derive(Debug)]
pub(crate) struct ErrorPages {
    statuses: Vec<RangeInclusive<u16>>,
    directory: Option<Directory>,
}

/// What the answer needs to know of the request.
#[derive(Debug)]
pub(crate) struct Asked {
    format: Format,
    body: bool,
    request_id: Option<Box<str>>,
}

impl ErrorPages {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        if settings.service.is_some() || settings.query.is_some() {
            let setting = if settings.service.is_some() { "service" } else { "query" };
            return Err(wrong(setting, "pages made by a service are not supported; use directory, or the built-in ones"));
        }
        if settings.status.is_empty() {
            return Err(wrong("status", "at least one"));
        }
        let directory = settings.directory.as_ref().map(|path| Directory::new(path)).transpose()?;
        Ok(Self { statuses: settings.status.iter().map(|text| statuses(text)).collect::<Result<_, _>>()?, directory })
    }

    pub(crate) fn request(&self, head: &RequestHead) -> Asked {
        Asked {
            format: accept::format(head.fields.get_known_str(Known::Accept)),
            body: head.method != Method::HEAD,
            request_id: head.fields.get_known_str(Known::XRequestId).map(Into::into),
        }
    }

    /// The body in place of the one that came, if the status is one of ours. Fields that are about the old body go; others
    /// (cookies, challenges, `Retry-After`) stay.
    pub(crate) fn response(&self, asked: &Asked, head: &mut ResponseHead) -> Option<AnswerBody> {
        let status = head.status;
        if !self.statuses.iter().any(|range| range.contains(&status.as_u16())) {
            return None;
        }
        let own = self.directory.as_ref().and_then(|directory| directory.page(status, asked.format));
        let page = match own {
            Some(content) => Answer::new(status, content_type(asked.format), content).with(Known::CacheControl, "no-store"),
            None => pages::written(asked.format, status, "", asked.request_id.as_deref()),
        };
        head.fields.retain_known(|known, name, _| !is_of_content(known, name));
        head.fields.extend_from(&page.head.fields);
        Some(if asked.body { page.body } else { AnswerBody::Bytes(Bytes::new()) })
    }
}

/// `404`, or `500-599`; of errors only.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (400..600).contains(status));
    match (status(from), status(to)) {
        (Some(from), Some(to)) if from <= to => Ok(from..=to),
        _ => Err(wrong("status", format_args!("{text:?} is neither a status nor a range of them, from 400 to 599"))),
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

fn extension(format: Format) -> &'static str {
    match format {
        Format::Html => "html",
        Format::Json => "json",
        Format::Text => "txt",
    }
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Html => "text/html; charset=utf-8",
        Format::Json => "application/json",
        Format::Text => "text/plain; charset=utf-8",
    }
}

/// When a page was looked for, and what was found.
type Read = (Instant, Option<Bytes>);

/// A directory with pages: `404.html`, `40x.html`, `4xx.html`, `error.html`; the closest is taken. JSON and plain text have files
/// of their own (`4xx.json`, `4xx.txt`).
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// What was read, or not found, and when. There are a few hundred names at most.
    read: Mutex<HashMap<(u16, &'static str), Read>>,
}

impl Directory {
    fn new(path: &str) -> Result<Self, String> {
        if !Path::new(path).is_dir() {
            return Err(wrong("directory", format_args!("{path:?} is no directory")));
        }
        Ok(Self { path: path.into(), read: Mutex::default() })
    }

    /// Reads at most once a second for each status, and only when there is an error to answer: small local files.
    fn page(&self, status: StatusCode, format: Format) -> Option<Bytes> {
        let key = (status.as_u16(), extension(format));
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match read.get(&key) {
            Some((at, content)) if at.elapsed() < FRESH => content.clone(),
            _ => {
                let content = self.load(status.as_u16(), extension(format));
                read.insert(key, (Instant::now(), content.clone()));
                content
            }
        }
    }

    fn load(&self, status: u16, extension: &str) -> Option<Bytes> {
        let names = [status.to_string(), format!("{}x", status / 10), format!("{}xx", status / 100), "error".to_owned()];
        names.iter().find_map(|name| load(&self.path.join(format!("{name}.{extension}"))))
    }
}

fn load(path: &Path) -> Option<Bytes> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > PAGE_LIMIT {
        tracing::warn!(path = %path.display(), "an error page is no file, or too large");
        return None;
    }
    std::fs::read(path).ok().map(Bytes::from)
}
