//! Signed requests to an authority: its directory, its nonces, its problems.

use std::sync::{Mutex, PoisonError};

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    key::{AccountKey, Signer},
    problem::{AcmeError, Problem},
    transport::{Answer, Transport},
};

/// How often a request is repeated because of its nonce alone. Authorities restart and forget them; they do not refuse ten fresh ones.
const NONCE_ATTEMPTS: usize = 12;
/// Nonces that are kept for later.
const NONCES: usize = 8;

/// Where an authority takes what (RFC 8555, section 7.1.1).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Directory {
    new_nonce: String,
    pub(crate) new_account: String,
    pub(crate) new_order: String,
    /// RFC 9773.
    pub(crate) renewal_info: Option<String>,
    #[serde(default)]
    pub(crate) meta: Meta,
}

/// What an authority says about itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    #[serde(default)]
    pub(crate) caa_identities: Vec<String>,
    #[serde(default)]
    pub(crate) external_account_required: bool,
}

/// Speaks to one authority.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Transport,
    pub(crate) directory: Directory,
    nonces: Mutex<Vec<String>>,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) location: Option<String>,
    pub(crate) retry_after: Option<Timestamp>,
    body: bytes::Bytes,
}

impl Reply {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, AcmeError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| AcmeError::Protocol(format!("the authority answers nonsense: {error}")))
    }

    pub(crate) fn text(&self) -> Result<String, AcmeError> {
        String::from_utf8(self.body.to_vec())
            .map_err(|_| AcmeError::Protocol("the authority's certificate is not PEM".to_owned()))
    }
}

impl Client {
    pub(crate) async fn open(transport: Transport, directory_url: &str) -> Result<Self, AcmeError> {
        let answer = transport.ask(Method::GET, directory_url, None).await?;
        let reply = check(answer)?;
        let directory = reply.json().map_err(|_| AcmeError::Unreachable(format!("{directory_url} is no ACME directory")))?;
        Ok(Self { transport, directory, nonces: Mutex::default() })
    }

    /// A request without a signature, for what anybody may know.
    pub(crate) async fn get(&self, url: &str) -> Result<Reply, AcmeError> {
        check(self.transport.ask(Method::GET, url, None).await?)
    }

    /// A signed request. `badNonce` (RFC 8555, section 6.5) is repeated with the nonce that came with the refusal.
    pub(crate) async fn post(
        &self,
        key: &AccountKey,
        signer: &Signer<'_>,
        url: &str,
        payload: Option<&Value>,
    ) -> Result<Reply, AcmeError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let nonce = self.nonce().await?;
            let body = key.sign(signer, &nonce, url, payload).map_err(|reason| AcmeError::Protocol(reason.to_owned()))?;
            let answer = self.transport.ask(Method::POST, url, Some(body.to_string().into_bytes())).await?;
            self.keep_nonce(&answer);
            let checked = check(answer);
            let bad_nonce = checked.as_ref().is_err_and(|error| error.problem().is_some_and(|problem| problem.is("badNonce")));
            if !bad_nonce || attempts == NONCE_ATTEMPTS {
                return checked;
            }
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn nonce(&self) -> Result<String, AcmeError> {
        // The youngest first: the older they are, the likelier they have been forgotten.
        let kept = self.kept().pop();
        if let Some(nonce) = kept {
            return Ok(nonce);
        }
        let answer = self.transport.ask(Method::HEAD, &self.directory.new_nonce, None).await?;
        let nonce = answer.header("replay-nonce").map(ToOwned::to_owned);
        nonce.ok_or_else(|| AcmeError::Unreachable(format!("{} answers without a nonce", self.directory.new_nonce)))
    }

    fn keep_nonce(&self, answer: &Answer) {
        let mut nonces = self.kept();
        if let Some(nonce) = answer.header("replay-nonce") {
            if nonces.len() == NONCES {
                nonces.remove(0);
            }
            nonces.push(nonce.to_owned());
        }
    }
}

/// Tells success from problems, and problems from answers of something that is no authority: a proxy in front of one, for example.
fn check(answer: Answer) -> Result<Reply, AcmeError> {
    let retry_after = answer.retry_after();
    if answer.status.is_success() {
        let location = answer.header("location").map(ToOwned::to_owned);
        return Ok(Reply { location, retry_after, body: answer.body });
    }
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) if !problem.kind().is_empty() => {
            Err(AcmeError::Refused { problem, status: answer.status.as_u16(), retry_after })
        }
        // Too many requests is meant for us, whoever says it and however.
        _ if answer.status == StatusCode::TOO_MANY_REQUESTS => {
            let problem = Problem::rate_limited("too many requests");
            Err(AcmeError::Refused { problem, status: answer.status.as_u16(), retry_after })
        }
        _ => Err(AcmeError::Unreachable(format!("the authority answers {} without saying why", answer.status))),
    }
}
