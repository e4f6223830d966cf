//! Compresses answers for clients that understand it (RFC 9110, section 8.4).

use coracle_proxy_http::{Known, RequestHead, ResponseHead};
use coracle_proxy_table::{Compress as Settings, Encoding};
use http::{Method, StatusCode};

use crate::answer::put;
use crate::encoder::Encoder;
use crate::headers::add_vary;
use crate::{accept, wrong};

/// Types (or, with a slash at the end, kinds of types) that are compressed in themselves.
const DENSE: &[&str] = &[
    "audio/",
    "image/",
    "video/",
    "font/woff",
    "font/woff2",
    "application/gzip",
    "application/java-archive",
    "application/octet-stream",
    "application/vnd.rar",
    "application/x-7z-compressed",
    "application/x-bzip2",
    "application/x-gzip",
    "application/x-xz",
    "application/zip",
    "application/zstd",
];

/// Exceptions from [`DENSE`].
const SPARSE: &[&str] = &["image/svg+xml", "image/bmp", "image/x-icon", "image/vnd.microsoft.icon"];

/// Streams of messages that are waited for one by one.
const STREAMS: &[&str] = &["text/event-stream", "application/grpc"];

/// See [`Settings`].
#[derive(Debug)]
pub(crate) struct Compress {
    types: Types,
    min_bytes: u64,
    encodings: Vec<Encoding>,
    usual: Option<Encoding>,
}

#[derive(Debug)]
enum Types {
    /// All but these, and those that are compressed in themselves.
    But(Vec<String>),
    /// These only.
    Only(Vec<String>),
}

/// What the answer needs to know of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    encoding: Option<Encoding>,
    /// Whether the answer has a body at all.
    body: bool,
}

impl Compress {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        if settings.encodings.is_empty() {
            return Err(wrong("encodings", "at least one of gzip, br, zstd"));
        }
        if settings.default_encoding.is_some_and(|usual| !settings.encodings.contains(&usual)) {
            return Err(wrong("default_encoding", "must be one of encodings"));
        }
        let types = match (&settings.excluded_content_types[..], &settings.included_content_types[..]) {
            (excluded, []) => Types::But(media_types("excluded_content_types", excluded)?),
            ([], included) => Types::Only(media_types("included_content_types", included)?),
            _ => return Err(wrong("included_content_types", "not together with excluded_content_types")),
        };
        Ok(Self {
            types,
            min_bytes: settings.min_response_body_bytes,
            encodings: settings.encodings.clone(),
            usual: settings.default_encoding,
        })
    }

    pub(crate) fn request(&self, head: &RequestHead) -> Wanted {
        let said = head.fields.contains_known(Known::AcceptEncoding);
        let encoding = if said { accept::encoding(&head.fields, &self.encodings) } else { self.usual };
        Wanted { encoding, body: head.method != Method::HEAD }
    }

    /// Changes the head, and gives what the body is to be run through.
    pub(crate) fn response(&self, wanted: Wanted, head: &mut ResponseHead) -> Option<Encoder> {
        if !wanted.body || !self.fits(head) {
            return None;
        }
        // Whatever this client gets, another one may get something else.
        add_vary(&mut head.fields, "Accept-Encoding");
        let encoding = wanted.encoding?;
        let encoder = Encoder::new(encoding, length(head))?;
        let fields = &mut head.fields;
        put(fields, Known::ContentEncoding, accept::encoding_name(encoding));
        fields.remove_known(Known::ContentLength);
        fields.remove_known(Known::AcceptRanges);
        // The bytes are others now, while what they mean is the same.
        if let Some(tag) = fields.get_known(Known::ETag).filter(|tag| !tag.starts_with(b"W/")) {
            let weak = [b"W/", tag].concat();
            put(fields, Known::ETag, weak);
        }
        Some(encoder)
    }

    fn fits(&self, head: &ResponseHead) -> bool {
        let status = head.status;
        let bodiless = status.is_informational() || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
        let fields = &head.fields;
        let encoded = fields.get_all_known(Known::ContentEncoding).any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
        let length = length(head);
        !bodiless
            && status != StatusCode::PARTIAL_CONTENT
            && !fields.contains_known(Known::ContentRange)
            && !encoded
            && !fields.has_token(Known::CacheControl, "no-transform")
            && length.is_none_or(|length| length >= self.min_bytes)
            && fields.get_known_str(Known::ContentType).is_some_and(|content_type| self.fits_type(content_type))
    }

    fn fits_type(&self, content_type: &str) -> bool {
        let essence = essence(content_type);
        let is = |known: &str| essence == known || known.ends_with('/') && essence.starts_with(known);
        if STREAMS.iter().any(|stream| essence.starts_with(stream)) {
            return false;
        }
        match &self.types {
            Types::Only(only) => only.contains(&essence),
            Types::But(excluded) => {
                !excluded.contains(&essence) && (SPARSE.iter().any(|known| is(known)) || !DENSE.iter().any(|known| is(known)))
            }
        }
    }
}

fn length(head: &ResponseHead) -> Option<u64> {
    head.fields.get_known_str(Known::ContentLength)?.parse().ok()
}

/// A content type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn media_types(setting: &str, types: &[String]) -> Result<Vec<String>, String> {
    let check = |text: &String| {
        let essence = essence(text);
        let fits = essence.split_once('/').is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty());
        if fits { Ok(essence) } else { Err(wrong(setting, format_args!("{text:?} is no content type"))) }
    };
    types.iter().map(check).collect()
}
