//! Answers from a directory: nothing outside of it, and nothing whose name begins with a dot, but `/.well-known/`.

mod beneath;
mod condition;
mod range;

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use beneath::Root;
use bytes::Bytes;
use condition::{Condition, Version};
use coracle_proxy_http::{Fields, Known, RequestHead};
use coracle_proxy_table::{Encoding, StaticFiles as Settings};
use http::{HeaderValue, Method, StatusCode};
use range::Part;

use crate::answer::{Answer, AnswerBody};
use crate::headers::add_vary;
use crate::{accept, pages, url, wrong};

/// See [`Settings`].
#[derive(Debug)]
pub(crate) struct StaticFiles {
    site: Arc<Site>,
    pass_missing: bool,
}

#[derive(Debug)]
struct Site {
    root: PathBuf,
    index: Vec<String>,
    fallback: Option<PathBuf>,
    precompressed: bool,
    cache_control: Option<String>,
}

/// What a path leads to.
#[allow(clippy::large_enum_variant, reason = "it is returned once, not kept")]
enum Found {
    File {
        file: File,
        metadata: Metadata,
        encoding: Option<Encoding>,
        content_type: String,
    },
    /// A directory that was asked for without a slash at the end.
    Directory,
    Nothing,
}

impl StaticFiles {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        if !Path::new(&settings.root).is_absolute() {
            return Err(wrong("root", "must be an absolute path"));
        }
        if !Path::new(&settings.root).is_dir() {
            tracing::warn!(root = settings.root, "there is no such directory; requests get 404 until there is");
        }
        let plain = |name: &str| {
            !name.is_empty() && Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        if settings.index.iter().any(|name| !plain(name) || name.contains('/')) {
            return Err(wrong("index", "must be names of files"));
        }
        let fallback = settings.spa_fallback.as_ref().map(|path| path.trim_start_matches('/'));
        if fallback.is_some_and(|path| !plain(path)) {
            return Err(wrong("spa_fallback", "must be a path under root"));
        }
        if settings.cache_control.as_ref().is_some_and(|value| HeaderValue::from_str(value).is_err()) {
            return Err(wrong("cache_control", "has characters that cannot be in a header field"));
        }
        let site = Site {
            root: settings.root.clone().into(),
            index: settings.index.clone(),
            fallback: fallback.map(PathBuf::from),
            precompressed: settings.precompressed,
            cache_control: settings.cache_control.clone(),
        };
        Ok(Self { site: Arc::new(site), pass_missing: settings.pass_missing })
    }

    pub(crate) async fn request(&self, head: &RequestHead) -> Result<(), Answer> {
        if head.method != Method::GET && head.method != Method::HEAD {
            if self.pass_missing {
                return Ok(());
            }
            let mut answer = pages::refusal(head, StatusCode::METHOD_NOT_ALLOWED, "");
            allow(&mut answer.head.fields);
            return Err(answer);
        }
        let Some(path) = relative(head.path()) else { return self.missing(head) };
        let slash = head.path().ends_with('/');
        let accepted = if self.site.precompressed { accepted(&head.fields) } else { Vec::new() };
        let site = Arc::clone(&self.site);
        let found = tokio::task::spawn_blocking(move || site.look(&path, slash, &accepted)).await;
        match found.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(Found::File { file, metadata, encoding, content_type }) => {
                Err(self.site.file(head, file, &metadata, encoding, &content_type))
            }
            Ok(Found::Directory) => Err(to_directory(head)),
            Ok(Found::Nothing) => self.missing(head),
            Err(error) => {
                tracing::warn!(root = %self.site.root.display(), %error, "a file cannot be opened");
                Err(pages::refusal(head, StatusCode::INTERNAL_SERVER_ERROR, ""))
            }
        }
    }

    fn missing(&self, head: &RequestHead) -> Result<(), Answer> {
        if self.pass_missing { Ok(()) } else { Err(pages::refusal(head, StatusCode::NOT_FOUND, "")) }
    }
}

impl Site {
    /// Finds what a path leads to. Blocks.
    fn look(&self, path: &Path, slash: bool, accepted: &[Encoding]) -> io::Result<Found> {
        let Some(root) = present(Root::open(&self.root))? else { return Ok(Found::Nothing) };
        match present(root.find(path))? {
            Some((file, metadata)) if metadata.is_file() && !slash => return self.variant(&root, path, file, metadata, accepted),
            Some((_, metadata)) if metadata.is_dir() => {
                if !slash {
                    return Ok(Found::Directory);
                }
                for index in &self.index {
                    let path = path.join(index);
                    if let Some((file, metadata)) = present(root.find(&path))?.filter(|(_, metadata)| metadata.is_file()) {
                        return self.variant(&root, &path, file, metadata, accepted);
                    }
                }
            }
            _ => {}
        }
        let page = path.file_name().is_none_or(|name| !name.as_encoded_bytes().contains(&b'.'));
        if let Some(fallback) = self.fallback.as_ref().filter(|_| page)
            && let Some((file, metadata)) = present(root.find(fallback))?.filter(|(_, metadata)| metadata.is_file())
        {
            return self.variant(&root, fallback, file, metadata, accepted);
        }
        Ok(Found::Nothing)
    }

    /// The compressed file beside this one that the client likes best, or this one.
    fn variant(&self, root: &Root, path: &Path, file: File, metadata: Metadata, accepted: &[Encoding]) -> io::Result<Found> {
        let content_type = content_type(path);
        for encoding in accepted {
            let mut name = path.as_os_str().to_owned();
            name.push(extension(*encoding));
            if let Some((file, metadata)) = present(root.find(Path::new(&name)))?.filter(|(_, metadata)| metadata.is_file()) {
                return Ok(Found::File { file, metadata, encoding: Some(*encoding), content_type });
            }
        }
        Ok(Found::File { file, metadata, encoding: None, content_type })
    }

    fn file(
        &self,
        head: &RequestHead,
        file: File,
        metadata: &Metadata,
        encoding: Option<Encoding>,
        content_type: &str,
    ) -> Answer {
        let version = Version::of(metadata, encoding);
        let len = metadata.len();
        let (status, first, count) = match condition::judge(&head.fields, &version) {
            Condition::NotModified => return self.described(Answer::empty(StatusCode::NOT_MODIFIED), &version),
            Condition::Failed => {
                return pages::refusal(head, StatusCode::PRECONDITION_FAILED, "The file is not the one you mean.");
            }
            Condition::Serve { ranges } => match head.fields.get_known_str(Known::Range) {
                Some(range) if ranges && head.method == Method::GET => match range::part(range, len) {
                    Part::Whole => (StatusCode::OK, 0, len),
                    Part::Bytes { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
                    Part::Unsatisfiable => {
                        let answer = pages::refusal(head, StatusCode::RANGE_NOT_SATISFIABLE, "The file is shorter than that.");
                        return answer.with(Known::ContentRange, format!("bytes */{len}"));
                    }
                },
                _ => (StatusCode::OK, 0, len),
            },
        };
        let mut answer = Answer::new(status, content_type, Bytes::new()).with(Known::ContentLength, count.to_string());
        if status == StatusCode::PARTIAL_CONTENT {
            answer = answer.with(Known::ContentRange, format!("bytes {first}-{}/{len}", first + count - 1));
        }
        if let Some(encoding) = encoding {
            answer = answer.with(Known::ContentEncoding, accept::encoding_name(encoding));
        }
        if head.method == Method::GET && count > 0 {
            answer.body = AnswerBody::File { file, offset: first, len: count };
        }
        self.described(answer.with(Known::AcceptRanges, "bytes"), &version)
    }

    /// With what caches want to know.
    fn described(&self, mut answer: Answer, version: &Version) -> Answer {
        answer = answer.with(Known::ETag, &version.tag);
        if let Some(modified) = version.modified {
            answer = answer.with(Known::LastModified, httpdate::fmt_http_date(modified));
        }
        if let Some(value) = &self.cache_control {
            answer = answer.with(Known::CacheControl, value);
        }
        if self.precompressed {
            add_vary(&mut answer.head.fields, "Accept-Encoding");
        }
        answer
    }
}

/// What is not there, or may not be opened, is nothing; other errors are errors.
fn present<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    use rustix::io::Errno;
    const NOTHING: [Errno; 9] = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::ACCESS,
        Errno::LOOP,
        Errno::XDEV,
        Errno::NAMETOOLONG,
        Errno::NXIO,
        Errno::NODEV,
        Errno::INVAL,
    ];
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if NOTHING.iter().any(|nothing| error.raw_os_error() == Some(nothing.raw_os_error())) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path of a request under the root, decoded once. None if some name in it is not for everybody, or is no name.
fn relative(path: &str) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for (index, name) in path.split('/').filter(|name| !name.is_empty()).enumerate() {
        let name = url::decode(name).into_owned();
        let hidden = name.starts_with(b".") && !(index == 0 && name == b".well-known");
        if hidden || name.contains(&b'/') || name.contains(&0) {
            return None;
        }
        out.push(OsString::from_vec(name));
    }
    Some(out)
}

/// The encodings a client likes, best first; of those it likes equally well, the smallest first.
fn accepted(fields: &Fields) -> Vec<Encoding> {
    let mut offered = vec![Encoding::Br, Encoding::Zstd, Encoding::Gzip];
    let mut accepted = Vec::new();
    while let Some(best) = accept::encoding(fields, &offered) {
        offered.retain(|encoding| *encoding != best);
        accepted.push(best);
    }
    accepted
}

fn extension(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Br => ".br",
        Encoding::Zstd => ".zst",
        Encoding::Gzip => ".gz",
    }
}

fn content_type(path: &Path) -> String {
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    let essence = guess.essence_str();
    let text = guess.type_() == "text" || matches!(essence, "application/javascript" | "application/manifest+json");
    if text { format!("{essence}; charset=utf-8") } else { essence.to_owned() }
}

/// Sends the client to the same directory with a slash. The path is written anew: one that begins with two slashes would lead to
/// another host.
fn to_directory(head: &RequestHead) -> Answer {
    let names: Vec<&str> = head.path().split('/').filter(|name| !name.is_empty()).collect();
    let query = head.query().map_or_else(String::new, |query| format!("?{query}"));
    let location = url::encode_url(&format!("/{}/{query}", names.join("/")));
    Answer::new(StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8", "Moved Permanently").with(Known::Location, location)
}

fn allow(fields: &mut Fields) {
    if let Err(error) = fields.set("Allow", "GET, HEAD") {
        tracing::debug!(%error, "a header field was left out");
    }
}
