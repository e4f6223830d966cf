//! The HTTP API of a forge, asked by us: few small requests, each with a deadline, repeated a few times, never redirected.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::forge::{Forge, shown};
use crate::report::{Call, Report, Target, deployment, deployment_status, status};
use crate::url::RepositoryUrl;

/// Bytes of an answer that are read.
const LARGEST: usize = 256 << 10;
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long is waited before each further attempt.
const AGAIN: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
const AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));

/// The address of a forge's API, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiUrl(String);

/// It is not the address of an API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the address of an API: use https://HOST/PATH, without a user, a query or a fragment")]
pub struct ApiUrlError(String);

impl ApiUrl {
    /// Where the API of a repository's forge usually is.
    pub fn of(forge: Forge, repository: &RepositoryUrl) -> Self {
        let (web, host) = (repository.web(), repository.host());
        Self(match (forge, host) {
            (Forge::GitHub, "github.com" | "ssh.github.com") => "https://api.github.com".to_owned(),
            (Forge::GitHub, _) => format!("{web}/api/v3"),
            (Forge::GitLab, _) => format!("{web}/api/v4"),
            (Forge::Forgejo, _) => format!("{web}/api/v1"),
            (Forge::Bitbucket, _) => "https://api.bitbucket.org/2.0".to_owned(),
        })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nobody on the way reads what is said.
    pub fn is_private(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The host, without brackets, and the port.
    pub fn place(&self) -> Option<(String, u16)> {
        let uri: http::Uri = self.0.parse().ok()?;
        let port = uri.port_u16().unwrap_or(if self.is_private() { 443 } else { 80 });
        Some((uri.host()?.trim_matches(['[', ']']).to_owned(), port))
    }
}

impl FromStr for ApiUrl {
    type Err = ApiUrlError;

    fn from_str(text: &str) -> Result<Self, ApiUrlError> {
        let wrong = || ApiUrlError(shown(text));
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        let web = matches!(uri.scheme_str(), Some("https" | "http"));
        let authority = uri.authority().ok_or_else(wrong)?.as_str();
        match web && !authority.contains('@') && uri.query().is_none() && !text.contains('#') && text.len() <= 500 {
            true => Ok(Self(text.trim_end_matches('/').to_owned())),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a report was not taken. It holds neither the token nor what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The forge does not answer.
    #[error("{api} does not answer: {cause}")]
    Unreachable {
        /// Who.
        api: String,
        /// Why.
        cause: String,
    },
    /// The forge says no.
    #[error("{api} answers {status}{}", hint_of(*status))]
    Refused {
        /// Who.
        api: String,
        /// With what.
        status: u16,
    },
}

fn hint_of(status: u16) -> &'static str {
    match status {
        401 => ": the token is not taken; it may have expired",
        403 | 404 => ": the token does not allow it, or the repository is called otherwise",
        _ => "",
    }
}

impl ApiError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
        }
    }
}

type Https = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Talks to forges. Cheap to clone; certificates are read when it first talks.
#[derive(Clone, Default)]
pub struct Api {
    client: Arc<OnceLock<Option<Https>>>,
}

#[derive(Deserialize)]
struct Made {
    id: u64,
}

impl Api {
    /// Sets the status of a commit.
    pub async fn status(&self, target: &Target, report: &Report) -> Result<(), ApiError> {
        self.ask_patiently(target, &status(target, report)).await.map(drop)
    }

    /// Makes a deployment where the forge knows such; its number.
    pub async fn deployment(&self, target: &Target, report: &Report) -> Result<Option<u64>, ApiError> {
        let Some(call) = deployment(target, report) else { return Ok(None) };
        let answer = self.ask_patiently(target, &call).await?;
        Ok(serde_json::from_slice::<Made>(&answer).ok().map(|made| made.id))
    }

    /// Says how a deployment stands.
    pub async fn deployment_status(&self, target: &Target, number: u64, report: &Report) -> Result<(), ApiError> {
        self.ask_patiently(target, &deployment_status(target, number, report)).await.map(drop)
    }

    async fn ask_patiently(&self, target: &Target, call: &Call) -> Result<Bytes, ApiError> {
        for pause in AGAIN {
            match self.ask(target, call).await {
                Err(error) if error.may_pass() => tokio::time::sleep(pause).await,
                decided => return decided,
            }
        }
        self.ask(target, call).await
    }

    async fn ask(&self, target: &Target, call: &Call) -> Result<Bytes, ApiError> {
        let api = target.api.to_string();
        let unreachable = |cause: String| ApiError::Unreachable { api: api.clone(), cause };
        let client = self.client.get_or_init(client).as_ref();
        let client = client.ok_or_else(|| unreachable("TLS cannot be set up".to_owned()))?;
        let exchange = async {
            let answer = client.request(request(target, call).ok_or_else(|| unreachable("it cannot be asked".to_owned()))?).await;
            let (head, body) = answer.map_err(|error| unreachable(chain_of(&error)))?.into_parts();
            let refused = |status: StatusCode| ApiError::Refused { api: api.clone(), status: status.as_u16() };
            if !head.status.is_success() {
                return Err(refused(head.status));
            }
            let body = Limited::new(body, LARGEST).collect().await.map_err(|error| unreachable(error.to_string()))?;
            Ok(body.to_bytes())
        };
        let late = |_| unreachable(format!("nothing within {} s", DEADLINE.as_secs()));
        tokio::time::timeout(DEADLINE, exchange).await.map_err(late)?
    }
}

fn client() -> Option<Https> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_protocol_versions(rustls::ALL_VERSIONS).ok()?.with_root_certificates(roots).with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(DEADLINE / 2));
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
    // Reports are rare: no connection is kept for the next.
    Some(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector))
}

fn request(target: &Target, call: &Call) -> Option<Request<Full<Bytes>>> {
    let token = target.token.expose();
    let (name, value) = match target.forge {
        Forge::GitHub | Forge::Bitbucket => (AUTHORIZATION, format!("Bearer {token}")),
        Forge::Forgejo => (AUTHORIZATION, format!("token {token}")),
        Forge::GitLab => (http::HeaderName::from_static("private-token"), token.to_owned()),
    };
    let mut shown = HeaderValue::from_str(&value).ok()?;
    shown.set_sensitive(true);
    let mut request = Request::builder().method(Method::POST).uri(format!("{}{}", target.api, call.path));
    request = request.header(USER_AGENT, AGENT).header(CONTENT_TYPE, "application/json").header(name, shown);
    request = match target.forge {
        Forge::GitHub => request.header(ACCEPT, "application/vnd.github+json").header("x-github-api-version", "2022-11-28"),
        _ => request.header(ACCEPT, "application/json"),
    };
    request.body(Full::from(call.body.to_string())).ok()
}

/// An error with its causes: hyper's outermost says nothing.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut causes: Vec<String> =
        std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string).collect();
    causes.dedup();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_api_is_where_each_forge_has_it() {
        let of = |forge, url: &str| ApiUrl::of(forge, &url.parse().unwrap()).to_string();
        assert_eq!(of(Forge::GitHub, "git@github.com:a/b.git"), "https://api.github.com");
        assert_eq!(of(Forge::GitHub, "https://ghe.example.com/a/b"), "https://ghe.example.com/api/v3");
        assert_eq!(of(Forge::GitLab, "ssh://git@gitlab.example.com:2222/a/b.git"), "https://gitlab.example.com/api/v4");
        assert_eq!(of(Forge::Forgejo, "http://127.0.0.1:3000/a/b.git"), "http://127.0.0.1:3000/api/v1");
        for bad in ["", "api.github.com", "ftp://x/", "https://u:p@x/", "https://x/?a", "https://x/#a", "file:///x"] {
            assert!(bad.parse::<ApiUrl>().is_err(), "{bad}");
        }
        let api: ApiUrl = "http://[::1]:8/api/".parse().unwrap();
        assert_eq!((api.as_str(), api.place()), ("http://[::1]:8/api", Some(("::1".to_owned(), 8))));
    }

    #[test]
    fn tokens_do_not_show() {
        let target = Target {
            forge: Forge::GitHub,
            api: "https://x".parse().unwrap(),
            repository: "a/b".to_owned(),
            token: "hunter2".into(),
        };
        let call = Call { path: "/y".to_owned(), body: serde_json::json!({}) };
        let request = request(&target, &call).unwrap();
        assert!(!format!("{target:?}{:?}", request.headers()).contains("hunter2"));
    }
}
