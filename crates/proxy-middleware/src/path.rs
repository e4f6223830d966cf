//! Changes the path that a target sees. The query stays as it is.
//!
//! Prefixes and expressions see the decoded path, while what is left goes on as the client encoded it. A path that leads above
//! its root afterwards is refused (400): `/api../secret` without `/api` would be `/../secret`.

use coracle_proxy_http::RequestHead;
use coracle_proxy_table::{AddPrefix, ReplacePath, ReplacePathRegex, StripPrefix, StripPrefixRegex};
use http::StatusCode;
use regex::{Regex, bytes};

use crate::answer::Answer;
use crate::{bytes_expression, expression, pages, url, wrong};

const FORWARDED_PREFIX: &str = "X-Forwarded-Prefix";
const REPLACED_PATH: &str = "X-Replaced-Path";

/// What finds the prefix to strip.
#[derive(Debug)]
pub(crate) enum Strip {
    /// See [`StripPrefix`].
    Prefixes(Vec<String>),
    /// See [`StripPrefixRegex`].
    Expressions(Vec<bytes::Regex>),
}

impl Strip {
    pub(crate) fn prefixes(settings: &StripPrefix) -> Result<Self, String> {
        if settings.prefixes.is_empty() || settings.prefixes.iter().any(String::is_empty) {
            return Err(wrong("prefixes", "at least one, and none of them empty"));
        }
        if settings.prefixes.iter().any(|prefix| prefix.bytes().any(|byte| byte.is_ascii_control())) {
            return Err(wrong("prefixes", "control characters cannot be in a path"));
        }
        Ok(Self::Prefixes(settings.prefixes.clone()))
    }

    pub(crate) fn expressions(settings: &StripPrefixRegex) -> Result<Self, String> {
        if settings.regex.is_empty() {
            return Err(wrong("regex", "at least one"));
        }
        let compiled = settings.regex.iter().map(|text| bytes_expression("regex", text.trim()));
        Ok(Self::Expressions(compiled.collect::<Result<_, _>>()?))
    }

    /// How many bytes of the decoded path are the prefix.
    fn find(&self, path: &[u8]) -> Option<usize> {
        match self {
            Self::Prefixes(prefixes) => {
                prefixes.iter().find(|prefix| path.starts_with(prefix.as_bytes())).map(|prefix| prefix.len())
            }
            // As Go's leftmost match: one that begins later may have the same text as the path's beginning.
            Self::Expressions(expressions) => expressions
                .iter()
                .filter_map(|regex| regex.find(path))
                .find(|found| !found.is_empty() && path.starts_with(found.as_bytes()))
                .map(|found| found.len()),
        }
    }

    pub(crate) fn request(&self, head: &mut RequestHead) -> Result<(), Answer> {
        let path = url::decode(head.path());
        let Some(prefix_len) = self.find(&path) else { return Ok(()) };
        let prefix = path[..prefix_len].trim_ascii().to_vec();
        let rest = &head.path()[url::encoded_len(head.path(), prefix_len)..];
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        set_path(head, &rest)?;
        head.fields.append(FORWARDED_PREFIX, &prefix).map_err(|_bad| refused(head))
    }
}

/// See [`AddPrefix`].
#[derive(Debug)]
pub(crate) struct Add(String);

impl Add {
    pub(crate) fn compile(settings: &AddPrefix) -> Result<Self, String> {
        if settings.prefix.is_empty() {
            return Err(wrong("prefix", "must not be empty"));
        }
        Ok(Self(url::encode_path(settings.prefix.as_bytes())))
    }

    pub(crate) fn request(&self, head: &mut RequestHead) -> Result<(), Answer> {
        if url::climbs(head.path()) {
            return Err(refused(head));
        }
        let path = format!("{}{}", self.0, head.path());
        set_path(head, &path)
    }
}

/// See [`ReplacePath`].
#[derive(Debug)]
pub(crate) struct Replace(String);

impl Replace {
    pub(crate) fn compile(settings: &ReplacePath) -> Result<Self, String> {
        if url::is_malformed(&settings.path) {
            return Err(wrong("path", "a % must be followed by two hexadecimal digits"));
        }
        let path = url::encode_path(settings.path.as_bytes());
        if url::climbs(&path) {
            return Err(wrong("path", "leads above the root"));
        }
        Ok(Self(path))
    }

    pub(crate) fn request(&self, head: &mut RequestHead) -> Result<(), Answer> {
        note_replaced(head)?;
        set_path(head, &self.0)
    }
}

/// See [`ReplacePathRegex`].
#[derive(Debug)]
pub(crate) struct ReplaceRegex {
    regex: Regex,
    replacement: String,
}

impl ReplaceRegex {
    pub(crate) fn compile(settings: &ReplacePathRegex) -> Result<Self, String> {
        let regex = expression("regex", settings.regex.trim())?;
        Ok(Self { regex, replacement: settings.replacement.trim().to_owned() })
    }

    pub(crate) fn request(&self, head: &mut RequestHead) -> Result<(), Answer> {
        if !self.regex.is_match(head.path()) {
            return Ok(());
        }
        let replaced = self.regex.replace_all(head.path(), &self.replacement).into_owned();
        if url::is_malformed(&replaced) {
            return Err(pages::refusal(head, StatusCode::INTERNAL_SERVER_ERROR, "The replacement of this path gives no path."));
        }
        note_replaced(head)?;
        set_path(head, &url::encode_path(replaced.as_bytes()))
    }
}

fn note_replaced(head: &mut RequestHead) -> Result<(), Answer> {
    let asked = head.path().to_owned();
    head.fields.append(REPLACED_PATH, asked).map_err(|_bad| refused(head))
}

fn set_path(head: &mut RequestHead, path: &str) -> Result<(), Answer> {
    if url::climbs(path) {
        return Err(refused(head));
    }
    let target = match head.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    head.set_target(&target).map_err(|_bad| refused(head))
}

fn refused(head: &RequestHead) -> Answer {
    pages::refusal(head, StatusCode::BAD_REQUEST, "This path leads outside of what is served here.")
}
