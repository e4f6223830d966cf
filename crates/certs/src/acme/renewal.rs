//! When to renew: what the authority suggests (RFC 9773).

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use jiff::Timestamp;
use serde::Deserialize;

use super::{client::Client, problem::AcmeError};
use crate::{chain::Chain, storage::Window};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: Suggested,
}

#[derive(Deserialize)]
struct Suggested {
    start: Timestamp,
    end: Timestamp,
}

/// A certificate's identifier for its authority (RFC 9773, section 4.1).
pub(crate) fn identifier(chain: &Chain) -> Option<String> {
    let (authority, serial) = chain.identifier.as_ref()?;
    Some(format!("{}.{}", BASE64.encode(authority), BASE64.encode(serial)))
}

/// Asks for the suggested window. `None` if the authority has no such service; otherwise the window and when to ask again, if
/// the authority says.
pub(crate) async fn ask(client: &Client, chain: &Chain) -> Result<Option<(Window, Option<Timestamp>)>, AcmeError> {
    let (Some(service), Some(identifier)) = (&client.directory.renewal_info, identifier(chain)) else { return Ok(None) };
    let reply = client.get(&format!("{}/{identifier}", service.trim_end_matches('/'))).await?;
    let Suggested { start, end } = reply.json::<RenewalInfo>()?.suggested_window;
    if end <= start {
        return Err(AcmeError::Protocol("the authority suggests a window that ends before it begins".to_owned()));
    }
    let window = Window { fingerprint: chain.facts.fingerprint.clone(), start, end };
    Ok(Some((window, reply.retry_after)))
}

/// The certificate's own time for its renewal: in the suggested window, at a place that differs from certificate to certificate and is the
/// same after a restart; without a suggestion when a third of its life is left. Never so late that nothing could be mended.
pub(crate) fn due(chain: &Chain, window: Option<&Window>) -> Timestamp {
    let usual = chain.renewal();
    let Some(window) = window.filter(|window| window.fingerprint == chain.facts.fingerprint) else { return usual };
    let (start, end) = (window.start.as_second(), window.end.as_second());
    let suggested = start + ((end - start) as f64 * chain.fraction()) as i64;
    let life = chain.facts.not_after.as_second() - chain.facts.not_before.as_second();
    let latest = chain.facts.not_after.as_second() - life / 20;
    Timestamp::from_second(suggested.min(latest)).unwrap_or(usual)
}
