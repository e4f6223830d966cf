//! One order, from the name to the certificate (RFC 8555, section 7.4).

use std::{sync::Arc, time::Duration};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use jiff::Timestamp;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    account::Session,
    client::Reply,
    problem::{AcmeError, Problem},
};
use crate::{
    ChallengeKind,
    challenges::{Challenges, Posted},
};

/// An order for one name.
pub(crate) struct Order<'a> {
    pub(crate) session: &'a Session,
    pub(crate) name: &'a str,
    /// Ways to prove control that are open, the preferred first.
    pub(crate) kinds: &'a [ChallengeKind],
    /// The certificate that is to be replaced (RFC 9773, section 5).
    pub(crate) replaces: Option<&'a str>,
    pub(crate) challenges: &'a Arc<Challenges>,
    pub(crate) provider: &'a CryptoProvider,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
    Deactivated,
    Expired,
    Revoked,
}

#[derive(Debug, Deserialize)]
struct OrderState {
    status: Status,
    authorizations: Vec<String>,
    finalize: String,
    certificate: Option<String>,
    error: Option<Problem>,
}

#[derive(Debug, Deserialize)]
struct Authorization {
    status: Status,
    challenges: Vec<Challenge>,
}

#[derive(Debug, Deserialize)]
struct Challenge {
    #[serde(rename = "type")]
    kind: String,
    url: String,
    #[serde(default)]
    token: String,
    error: Option<Problem>,
}

impl Order<'_> {
    /// Places the order and sees it through. Returns the chain and its key as PEM.
    pub(crate) async fn run(&self) -> Result<String, AcmeError> {
        let (url, order) = self.place().await?;
        for authorization in &order.authorizations {
            self.authorize(authorization).await?;
        }
        let order = self.wait::<OrderState>(&url, |order| order.status == Status::Pending).await?;
        let key = KeyPair::generate().map_err(|error| broken(&error))?;
        let order = match order.status {
            Status::Ready => self.finalize(&url, &order, &key).await?,
            _ => return Err(came_to_nothing(order)),
        };
        let certificate = match (order.status, &order.certificate) {
            (Status::Valid, Some(certificate)) => self.session.read(certificate).await?.text()?,
            _ => return Err(came_to_nothing(order)),
        };
        // The chain ends with its last line, as PEM does, but not every authority's.
        Ok(format!("{}\n{}", certificate.trim_end(), key.serialize_pem()))
    }

    async fn place(&self) -> Result<(String, OrderState), AcmeError> {
        let mut payload = json!({ "identifiers": [{ "type": "dns", "value": self.name }] });
        let plain = payload.clone();
        if let Some(replaces) = self.replaces {
            payload["replaces"] = json!(replaces);
        }
        let new_order = &self.session.client.directory.new_order;
        let reply = match self.session.post(new_order, &payload).await {
            // The authority does not know it, or somebody has replaced it already. It was a courtesy (RFC 9773, section 5).
            Err(error) if self.replaces.is_some() && is_about_replacing(&error) => self.session.post(new_order, &plain).await?,
            other => other?,
        };
        let order = reply.json()?;
        let url = reply.location.ok_or_else(|| AcmeError::Protocol("the authority's new order has no URL".to_owned()))?;
        Ok((url, order))
    }

    async fn authorize(&self, url: &str) -> Result<(), AcmeError> {
        let state: Authorization = self.session.read(url).await?.json()?;
        if state.status == Status::Valid {
            return Ok(());
        }
        let (kind, challenge) = self.choose(&state)?;
        // Posted until the authority has made up its mind.
        let _posted = self.answer(kind, challenge)?;
        self.session.post(&challenge.url, &json!({})).await?;
        let state: Authorization = self.wait(url, |state: &Authorization| state.status == Status::Pending).await?;
        if state.status == Status::Valid {
            return Ok(());
        }
        let error = state.challenges.into_iter().find_map(|challenge| challenge.error);
        Err(match error {
            Some(problem) => AcmeError::inside(problem),
            None => AcmeError::Protocol(format!("the authority has not accepted {}, and does not say why", kind.as_str())),
        })
    }

    fn choose<'c>(&self, state: &'c Authorization) -> Result<(ChallengeKind, &'c Challenge), AcmeError> {
        let offered = |kind: ChallengeKind| state.challenges.iter().find(|challenge| challenge.kind == kind.as_str());
        let chosen = self.kinds.iter().find_map(|kind| Some((*kind, offered(*kind)?)));
        chosen.ok_or_else(|| {
            let offered: Vec<&str> = state.challenges.iter().map(|challenge| challenge.kind.as_str()).collect();
            AcmeError::Protocol(format!("the authority offers {} only", offered.join(", ")))
        })
    }

    fn answer(&self, kind: ChallengeKind, challenge: &Challenge) -> Result<Posted, AcmeError> {
        // What is posted goes out to whoever asks, so it has to be what the standard says it is (RFC 8555, section 8.3).
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if challenge.token.is_empty() || !challenge.token.bytes().all(plain) {
            return Err(AcmeError::Protocol("the authority's token is not one".to_owned()));
        }
        let authorization = self.session.authorization(&challenge.token);
        Ok(match kind {
            ChallengeKind::Http01 => self.challenges.post_http(self.name, &challenge.token, &authorization),
            ChallengeKind::TlsAlpn01 => {
                let certified = challenge_certificate(self.name, &authorization, self.provider)?;
                self.challenges.post_tls(self.name, Arc::new(certified))
            }
        })
    }

    async fn finalize(&self, url: &str, order: &OrderState, key: &KeyPair) -> Result<OrderState, AcmeError> {
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).map_err(|error| broken(&error))?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(key).map_err(|error| broken(&error))?;
        let payload = json!({ "csr": BASE64.encode(request.der()) });
        match self.session.post(&order.finalize, &payload).await {
            // The answer to an earlier request may have been lost on its way, and the authority be at work.
            Err(error) if error.problem().is_some_and(|problem| problem.is("orderNotReady")) => {}
            other => drop(other?),
        }
        self.wait(url, |order: &OrderState| matches!(order.status, Status::Processing | Status::Ready)).await
    }

    /// Reads something until it is no longer as `unsettled` says. The whole attempt has a deadline; this has none of its own.
    async fn wait<T: DeserializeOwned>(&self, url: &str, unsettled: impl Fn(&T) -> bool) -> Result<T, AcmeError> {
        let mut pause = Duration::from_millis(250);
        loop {
            let reply = self.session.read(url).await?;
            let state = reply.json::<T>()?;
            if !unsettled(&state) {
                return Ok(state);
            }
            tokio::time::sleep(asked_pause(&reply).unwrap_or(pause)).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

fn asked_pause(reply: &Reply) -> Option<Duration> {
    let until = reply.retry_after?.duration_since(Timestamp::now());
    Some(until.unsigned_abs().min(Duration::from_secs(30)))
}

fn is_about_replacing(error: &AcmeError) -> bool {
    let kind = error.problem().map(Problem::kind);
    matches!(kind, Some("alreadyReplaced" | "malformed" | "unauthorized" | "conflict" | "serverInternal"))
}

fn came_to_nothing(order: OrderState) -> AcmeError {
    match order.error {
        Some(problem) => AcmeError::inside(problem),
        None => AcmeError::Protocol(
            format!("the order has become {:?}, and the authority does not say why", order.status).to_lowercase(),
        ),
    }
}

fn broken(error: &dyn std::fmt::Display) -> AcmeError {
    AcmeError::Protocol(format!("no key or request can be made: {error}"))
}

/// A certificate that answers TLS-ALPN-01 (RFC 8737, section 3).
pub(crate) fn challenge_certificate(
    name: &str,
    authorization: &str,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, AcmeError> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(|error| broken(&error))?;
    params.distinguished_name = DistinguishedName::new();
    let digest = digest(&SHA256, authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate().map_err(|error| broken(&error))?;
    let certificate = params.self_signed(&key).map_err(|error| broken(&error))?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = provider.key_provider.load_private_key(key.into()).map_err(|error| broken(&error))?;
    // Not checked against each other, as is done elsewhere: the library refuses to look at a certificate with a critical extension
    // that it does not know, and this one has to have such a one.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}
