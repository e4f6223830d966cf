//! The control plane's side.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use coracle_certs::CertificateStatus;
use coracle_proxy_table::{Table, TargetId};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{ControlError, DrainRequest, Drained, Figures, Problem, RouteStatus, Status, TargetStatus};

/// For everything but drains, which take as long as they are told to.
const CALL: Duration = Duration::from_secs(10);
/// How a proxy tells the one before it how long it waits.
pub(super) const GRACE_MS: &str = "grace_ms=";
/// Between two tries while one proxy takes over from another.
const AGAIN: Duration = Duration::from_millis(20);

/// Calls a proxy by its control socket. Cheap; opens a connection per call, so it survives the proxy's replacement.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Connects when first called.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Replaces the whole table. When it returns, every request that arrives from now on is answered by this table.
    pub async fn publish(&self, table: &Table) -> Result<(), ControlError> {
        self.call::<_, serde_json::Value>(Method::PUT, "/v1/table", Some(table), CALL).await.map(drop)
    }

    /// The table that is served by.
    pub async fn table(&self) -> Result<Table, ControlError> {
        self.call(Method::GET, "/v1/table", None::<&()>, CALL).await
    }

    /// How the proxy stands.
    pub async fn status(&self) -> Result<Status, ControlError> {
        self.call(Method::GET, "/v1/status", None::<&()>, CALL).await
    }

    /// Waits until the targets have no request in flight, at most for `deadline`; then whatever is left on them is ended. What a
    /// later table sends there again is not touched.
    pub async fn drain(&self, targets: &[TargetId], deadline: Duration) -> Result<Drained, ControlError> {
        self.ask_to_drain("/v1/drain", targets, deadline).await
    }

    /// The same of a predecessor, whose own ones may take so much longer.
    pub(crate) async fn drain_within(
        &self,
        targets: &[TargetId],
        deadline: Duration,
        grace: Duration,
    ) -> Result<Drained, ControlError> {
        let path = format!("/v1/drain?{GRACE_MS}{}", grace.as_millis());
        self.ask_to_drain(&path, targets, deadline).await
    }

    async fn ask_to_drain(&self, path: &str, targets: &[TargetId], deadline: Duration) -> Result<Drained, ControlError> {
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let request = DrainRequest { targets: targets.to_vec(), deadline_ms };
        self.call(Method::POST, path, Some(&request), deadline.saturating_add(CALL)).await
    }

    /// The routes that are served by, in the order in which they are asked.
    pub async fn routes(&self) -> Result<Vec<RouteStatus>, ControlError> {
        self.call(Method::GET, "/v1/routes", None::<&()>, CALL).await
    }

    /// Targets in the table and those that still have something in flight.
    pub async fn targets(&self) -> Result<Vec<TargetStatus>, ControlError> {
        self.call(Method::GET, "/v1/targets", None::<&()>, CALL).await
    }

    /// What was counted on the routes that lead to a service, or to those below it.
    pub async fn figures(&self, service: &str) -> Result<Figures, ControlError> {
        self.call(Method::GET, &format!("/v1/figures?service={service}"), None::<&()>, CALL).await
    }

    /// How each certificate stands; none where no listener speaks TLS.
    pub async fn certificates(&self) -> Result<Vec<CertificateStatus>, ControlError> {
        self.call(Method::GET, "/v1/certificates", None::<&()>, CALL).await
    }

    /// Tries at once to get a certificate for a name, however long the next attempt was to wait.
    pub async fn renew(&self, name: &str) -> Result<(), ControlError> {
        let path = format!("/v1/certificates/renew?name={name}");
        self.call::<(), serde_json::Value>(Method::POST, &path, None, CALL).await.map(drop)
    }

    /// The local authority's certificate, as PEM: whoever trusts it trusts the certificates for `localhost`.
    pub async fn local_authority(&self) -> Result<String, ControlError> {
        self.text("/v1/certificates/authority").await
    }

    /// What is counted, as Prometheus reads it.
    pub async fn metrics(&self) -> Result<String, ControlError> {
        self.text("/metrics").await
    }

    async fn text(&self, path: &str) -> Result<String, ControlError> {
        let answered = tokio::time::timeout(CALL, self.exchange(Method::GET, path, Bytes::new())).await;
        let (status, answer) = answered.unwrap_or(Err(ControlError::Timeout(CALL)))?;
        if !status.is_success() {
            return Err(refusal(status, &answer));
        }
        String::from_utf8(answer.into()).map_err(|error| ControlError::Protocol(error.to_string()))
    }

    /// Tells the proxy to stop accepting, to drain and to exit; returns at once.
    pub async fn stop(&self) -> Result<(), ControlError> {
        self.call::<(), serde_json::Value>(Method::POST, "/v1/stop", None, CALL).await.map(drop)
    }

    /// Tells a predecessor the table by which the requests on its last connections go. Its own ones may take so long to follow.
    pub(crate) async fn follow(&self, table: &Table, grace: Duration) -> Result<(), ControlError> {
        let path = format!("/v1/follow?{GRACE_MS}{}", grace.as_millis());
        self.call::<_, serde_json::Value>(Method::PUT, &path, Some(table), CALL).await.map(drop)
    }

    async fn call<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        deadline: Duration,
    ) -> Result<A, ControlError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| ControlError::Protocol(error.to_string()))?,
            None => Vec::new(),
        };
        let body = Bytes::from(body);
        let until_taken = async {
            loop {
                let (status, answer) = self.exchange(method.clone(), path, body.clone()).await?;
                // The one that was asked has just been replaced; its successor has the socket by now.
                if status == StatusCode::MISDIRECTED_REQUEST {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                return understand(status, &answer);
            }
        };
        tokio::time::timeout(deadline, until_taken).await.unwrap_or(Err(ControlError::Timeout(deadline)))
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), ControlError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|source| ControlError::Unreachable { socket: self.socket.clone(), source })?;
        let broken = |error: hyper::Error| ControlError::Protocol(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let request = Request::builder().method(method).uri(path).header(http::header::HOST, "proxy").body(Full::new(body));
        let request = request.map_err(|error| ControlError::Protocol(error.to_string()))?;
        let talk = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            Ok((status, response.into_body().collect().await.map_err(broken)?.to_bytes()))
        };
        // The connection is driven here and ends with this call, however it ends.
        let (mut talk, mut connection) = (std::pin::pin!(talk), std::pin::pin!(connection));
        tokio::select! {
            biased;
            answer = &mut talk => answer,
            _ended = &mut connection => talk.await,
        }
    }
}

fn understand<A: DeserializeOwned>(status: StatusCode, answer: &[u8]) -> Result<A, ControlError> {
    if status.is_success() {
        return serde_json::from_slice(answer).map_err(|error| ControlError::Protocol(error.to_string()));
    }
    Err(refusal(status, answer))
}

fn refusal(status: StatusCode, answer: &[u8]) -> ControlError {
    let message = serde_json::from_slice(answer)
        .map_or_else(|_not_ours| String::from_utf8_lossy(answer).into_owned(), |problem: Problem| problem.error);
    ControlError::Refused { status: status.as_u16(), message }
}
