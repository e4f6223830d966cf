//! Lets only some addresses in.

use coracle_proxy_http::RequestHead;
use coracle_proxy_table::IpAllowList;
use http::StatusCode;

use crate::answer::Answer;
use crate::client::Client;
use crate::networks::Networks;
use crate::source::Strategy;
use crate::{pages, wrong};

/// See [`IpAllowList`].
#[derive(Debug)]
pub(crate) struct AllowList {
    networks: Networks,
    strategy: Strategy,
    status: StatusCode,
}

impl AllowList {
    pub(crate) fn compile(settings: &IpAllowList) -> Result<Self, String> {
        if settings.source_range.is_empty() {
            return Err(wrong("source_range", "at least one address or network"));
        }
        let status = settings.reject_status_code.unwrap_or(403);
        // A standard one: clients show others as they like.
        let status =
            StatusCode::from_u16(status).ok().filter(|status| status.canonical_reason().is_some() && status.as_u16() >= 200);
        Ok(Self {
            networks: Networks::compile("source_range", &settings.source_range)?,
            strategy: Strategy::compile(settings.ip_strategy.as_ref())?,
            status: status.ok_or_else(|| wrong("reject_status_code", "is no HTTP status"))?,
        })
    }

    pub(crate) fn request(&self, client: &Client, head: &RequestHead) -> Result<(), Answer> {
        match self.strategy.find(client, head) {
            Some(ip) if self.networks.contain(ip) => Ok(()),
            _ => Err(pages::refusal(head, self.status, "Your address may not come in here.")),
        }
    }
}
