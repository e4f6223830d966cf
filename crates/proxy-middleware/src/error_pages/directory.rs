//! A directory with pages: `404.html`, `40x.html`, `4xx.html`, `error.html`; the closest is taken. JSON and plain text have files
//! of their own (`4xx.json`, `4xx.txt`).
//!
//! All of it is read when a table is taken, and what has changed every now and then; never when there is an error to answer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::StatusCode;

use crate::accept::Format;
use crate::watched::{self, Stamp};
use crate::wrong;

/// Bytes of a page.
const PAGE_LIMIT: u64 = 1 << 20;
/// Bytes of all pages of a directory: they are kept in memory.
const DIRECTORY_LIMIT: usize = 64 << 20;
const EXTENSIONS: [&str; 3] = ["html", "json", "txt"];

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    pages: RwLock<Arc<Pages>>,
}

/// What was there when it was looked at last.
#[derive(Debug, Default)]
struct Pages {
    files: HashMap<String, Page>,
    /// By status and extension, the closest of the files.
    by_status: HashMap<(u16, &'static str), Bytes>,
    /// Why the directory could not be looked at.
    failure: Option<String>,
}

#[derive(Debug, Clone)]
struct Page {
    /// Of what it was tried to read.
    stamp: Option<Stamp>,
    /// Nothing if it has never been read.
    content: Option<Bytes>,
}

impl Directory {
    pub(super) fn new(path: &str) -> Result<Self, String> {
        if !Path::new(path).is_dir() {
            return Err(wrong("directory", format_args!("{path:?} is no directory")));
        }
        let directory = Self { path: path.into(), pages: RwLock::default() };
        directory.look_again();
        Ok(directory)
    }

    pub(super) fn page(&self, status: StatusCode, format: Format) -> Option<Bytes> {
        self.pages().by_status.get(&(status.as_u16(), extension(format))).cloned()
    }

    /// Reads what has changed. A file that cannot be read stays as it was, and so does all if the directory cannot be.
    pub(super) fn look_again(&self) {
        let before = self.pages();
        let pages = match self.read(&before) {
            Ok(files) if before.failure.is_none() && before.has(&files) => return,
            Ok(files) => Pages { by_status: by_status(&files), files, failure: None },
            Err(failure) if before.failure.as_ref() == Some(&failure) => return,
            Err(failure) => {
                let directory = self.path.display();
                tracing::warn!(%directory, failure, "error pages cannot be read; they stay as they were");
                Pages { files: before.files.clone(), by_status: before.by_status.clone(), failure: Some(failure) }
            }
        };
        *self.pages.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pages);
    }

    fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.pages.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn read(&self, before: &Pages) -> Result<HashMap<String, Page>, String> {
        let entries = std::fs::read_dir(&self.path).map_err(|error| error.to_string())?;
        let mut files = HashMap::new();
        let mut total = 0;
        for entry in entries {
            let entry = entry.map_err(|error| error.to_string())?;
            let Some(name) = entry.file_name().to_str().filter(|name| is_page(name)).map(ToOwned::to_owned) else { continue };
            let page = read(&entry.path(), before.files.get(&name));
            total += page.content.as_ref().map_or(0, Bytes::len);
            if total > DIRECTORY_LIMIT {
                return Err(format!("its pages have more than {DIRECTORY_LIMIT} bytes"));
            }
            files.insert(name, page);
        }
        Ok(files)
    }
}

impl Pages {
    /// Whether these are the same versions of the same files.
    fn has(&self, files: &HashMap<String, Page>) -> bool {
        let same = |(name, page): (&String, &Page)| self.files.get(name).is_some_and(|before| before.stamp == page.stamp);
        files.len() == self.files.len() && files.iter().all(same)
    }
}

/// A page, as it was if it has not changed or cannot be read, which is told once for each version of the file.
fn read(path: &Path, before: Option<&Page>) -> Page {
    let stamp = Stamp::at(path).ok();
    if let Some(before) = before.filter(|before| before.stamp == stamp) {
        return before.clone();
    }
    match watched::read(path, PAGE_LIMIT) {
        Ok((stamp, content)) => Page { stamp: Some(stamp), content: Some(content.into()) },
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "an error page cannot be read");
            Page { stamp, content: before.and_then(|before| before.content.clone()) }
        }
    }
}

/// Whether it is `404`, `40x`, `4xx` or `error`, with one of the extensions.
fn is_page(name: &str) -> bool {
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    let is_stem = match stem.as_bytes() {
        b"error" => true,
        [b'2'..=b'5', b'x', b'x'] => true,
        [b'2'..=b'5', tens, b'x'] => tens.is_ascii_digit(),
        [b'2'..=b'5', tens, ones] => tens.is_ascii_digit() && ones.is_ascii_digit(),
        _ => false,
    };
    is_stem && EXTENSIONS.contains(&extension)
}

fn by_status(files: &HashMap<String, Page>) -> HashMap<(u16, &'static str), Bytes> {
    let mut pages = HashMap::new();
    for (status, extension) in (200_u16..600).flat_map(|status| EXTENSIONS.map(|extension| (status, extension))) {
        let stems = [status.to_string(), format!("{}x", status / 10), format!("{}xx", status / 100), "error".to_owned()];
        let content = |stem: &String| files.get(&format!("{stem}.{extension}"))?.content.clone();
        if let Some(content) = stems.iter().find_map(content) {
            pages.insert((status, extension), content);
        }
    }
    pages
}

fn extension(format: Format) -> &'static str {
    match format {
        Format::Html => "html",
        Format::Json => "json",
        Format::Text => "txt",
    }
}
