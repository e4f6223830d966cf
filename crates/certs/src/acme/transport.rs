//! HTTPS to an authority, with deadlines and limits.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use rustls::ClientConfig;

use super::problem::AcmeError;
use crate::{server, trust};

/// Largest answer that is read; directories, orders and chains have a few kilobytes.
const LARGEST: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));

/// Connections to an authority.
#[derive(Debug)]
pub(crate) struct Transport(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Transport {
    /// Trusts the system's roots, and those in `ca_file`.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, AcmeError> {
        let roots = trust::roots(true, ca_file)?;
        let config = ClientConfig::builder_with_provider(server::provider())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|error| AcmeError::Protocol(error.to_string()))?
            .with_root_certificates(Arc::new(roots))
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(DEADLINE / 3));
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(tcp);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(Duration::from_secs(20)).pool_timer(hyper_util::rt::TokioTimer::new());
        Ok(Self(builder.build(connector)))
    }

    /// One request and its answer, whatever its status.
    pub(crate) async fn ask(&self, method: Method, url: &str, body: Option<Vec<u8>>) -> Result<Answer, AcmeError> {
        let mut request = Request::builder().method(method).uri(url).header(header::USER_AGENT, AGENT);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/jose+json");
        }
        let request = request
            .body(Full::from(body.unwrap_or_default()))
            .map_err(|_| AcmeError::Protocol(format!("{url:?} is not a URL")))?;
        let unreachable = |reason: &dyn std::fmt::Display| AcmeError::Unreachable(format!("{url} does not answer: {reason}"));
        let exchange = async {
            let answer = self.0.request(request).await.map_err(|error| unreachable(&chain_of(&error)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await.map_err(|error| unreachable(&error))?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable(&format!("nothing within {} s", DEADLINE.as_secs()))),
        }
    }
}

/// An error with its causes: hyper's outermost says nothing.
fn chain_of(error: &dyn std::error::Error) -> String {
    let mut causes: Vec<String> =
        std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string).collect();
    causes.dedup();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Retry-After` (RFC 9110, section 10.2.3): seconds or a date.
    pub(crate) fn retry_after(&self) -> Option<Timestamp> {
        let value = self.header("retry-after")?.trim();
        match value.parse::<u32>() {
            Ok(seconds) => Timestamp::now().saturating_add(Duration::from_secs(seconds.into())).ok(),
            Err(_) => Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok(),
        }
    }
}
