//! Answers 503 for everybody, or for all but a few.

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use coracle_proxy_http::{Known, RequestHead};
use coracle_proxy_table::Maintenance as Settings;
use http::StatusCode;

use crate::accept::{self, Format};
use crate::answer::Answer;
use crate::client::Client;
use crate::networks::Networks;
use crate::source::Strategy;
use crate::watched::Watched;
use crate::{pages, wrong};

/// Bytes of a page.
const PAGE_LIMIT: u64 = 1 << 20;

/// See [`Settings`].
#[derive(Debug)]
pub(crate) struct Maintenance {
    message: String,
    retry_after: String,
    allowed: Networks,
    strategy: Strategy,
    page: Option<Page>,
}

#[derive(Debug)]
struct Page {
    file: Watched,
    content: RwLock<Bytes>,
}

impl Maintenance {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        let page = |path: &String| {
            let file = Watched::new(path, PAGE_LIMIT);
            let content = file.read_if_changed().map_err(|error| wrong("page", error))?;
            Ok::<_, String>(Page { file, content: RwLock::new(content.unwrap_or_default().into()) })
        };
        let usual = "This is being worked on and will be back soon.";
        Ok(Self {
            message: settings.message.clone().unwrap_or_else(|| usual.to_owned()),
            retry_after: settings.retry_after_s.to_string(),
            allowed: Networks::compile("allowed_ips", &settings.allowed_ips)?,
            strategy: Strategy::compile(settings.ip_strategy.as_ref())?,
            page: settings.page.as_ref().map(page).transpose()?,
        })
    }

    /// Whether there is a file to look at again.
    pub(crate) fn has_file(&self) -> bool {
        self.page.is_some()
    }

    /// Reads the page again if it changed. Blocks.
    pub(crate) fn look_again(&self) {
        self.page.iter().for_each(Page::look_again);
    }

    pub(crate) fn request(&self, client: &Client, head: &RequestHead) -> Result<(), Answer> {
        if self.strategy.find(client, head).is_some_and(|ip| self.allowed.contain(ip)) {
            return Ok(());
        }
        let html = accept::format(head.fields.get_known_str(Known::Accept)) == Format::Html;
        let answer = match self.page.as_ref().filter(|_| html) {
            Some(page) => {
                let answer = Answer::new(StatusCode::SERVICE_UNAVAILABLE, "text/html; charset=utf-8", page.content());
                answer.with(Known::CacheControl, "no-store")
            }
            None => pages::refusal(head, StatusCode::SERVICE_UNAVAILABLE, &self.message),
        };
        Err(answer.with(Known::RetryAfter, &self.retry_after))
    }
}

impl Page {
    fn content(&self) -> Bytes {
        self.content.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again if it changed; the last one there was stays if it cannot be read.
    fn look_again(&self) {
        match self.file.read_if_changed() {
            Ok(Some(content)) => *self.content.write().unwrap_or_else(PoisonError::into_inner) = content.into(),
            Ok(None) => {}
            Err(error) => tracing::warn!(error, "a maintenance page cannot be read; it stays as it was"),
        }
    }
}
