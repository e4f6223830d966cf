//! So many requests at once, for each source.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_proxy_http::RequestHead;
use coracle_proxy_table::InFlightLimit;
use http::StatusCode;

use crate::answer::Answer;
use crate::client::Client;
use crate::source::{Criterion, Usual};
use crate::{pages, wrong};

/// See [`InFlightLimit`].
#[derive(Debug)]
pub(crate) struct InFlight {
    source: Criterion,
    amount: u64,
    counts: Arc<Counts>,
}

/// Requests in flight by source; a source without any is not there.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<u64, u64>>);

impl Counts {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one request until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    counts: Arc<Counts>,
    key: u64,
}

impl InFlight {
    pub(crate) fn compile(settings: &InFlightLimit) -> Result<Self, String> {
        if settings.amount == 0 {
            return Err(wrong("amount", "must be at least 1"));
        }
        let source = Criterion::compile(settings.source_criterion.as_ref(), Usual::Host)?;
        Ok(Self { source, amount: settings.amount, counts: Arc::default() })
    }

    pub(crate) fn request(&self, client: &Client, head: &RequestHead) -> Result<Permit, Answer> {
        let key = self.source.key(client, head);
        let mut counts = self.counts.lock();
        let count = counts.entry(key).or_default();
        if *count >= self.amount {
            return Err(pages::refusal(head, StatusCode::TOO_MANY_REQUESTS, "Too many requests are being answered already."));
        }
        *count += 1;
        Ok(Permit { counts: Arc::clone(&self.counts), key })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}
