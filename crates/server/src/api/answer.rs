//! What handlers answer with: problems, events, lines.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use coracle_api::problem::PROBLEM_MEDIA_TYPE;
use coracle_api::{DeploymentEvent, KEEP_ALIVE, NDJSON_MEDIA_TYPE, Problem, ProblemKind};
use coracle_orchestrator::OrchestratorError;
use coracle_store::StoreError;
use futures::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::journal::{Asker, Reader};
use crate::problems;

/// A problem as an answer.
#[derive(Debug)]
pub(crate) struct ApiError(pub Problem);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(kind = self.0.kind.as_str(), detail = self.0.detail, "a request could not be answered");
        }
        (status, [(CONTENT_TYPE, PROBLEM_MEDIA_TYPE)], json_bytes(&self.0)).into_response()
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<OrchestratorError> for ApiError {
    fn from(error: OrchestratorError) -> Self {
        Self(problems::orchestrator(error))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self(problems::store(&error))
    }
}

/// A task of ours broke off.
impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self(Problem::new(ProblemKind::Internal, format!("a task broke off: {error}")).hint("the server's log has the details"))
    }
}

fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("wire types are plain data"))
}

/// The events of a deployment from its start to its end. `asker` is dropped when whoever reads them goes away before that;
/// when the server stops, the stream waits for the end that the deployment is brought to.
pub(crate) fn events(reader: Reader, asker: Option<Asker>) -> Response {
    let events = futures::stream::unfold((reader, asker), |(mut reader, asker)| async move {
        let (number, event) = reader.next().await?;
        Some((Ok::<_, Infallible>(server_sent(number, &event)), (reader, asker)))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn server_sent(number: u64, event: &Arc<DeploymentEvent>) -> Event {
    // JSON holds no line ends, so one `data` field is enough.
    let data = serde_json::to_string(&**event).unwrap_or_else(|_| unreachable!("wire types are plain data"));
    Event::default().id(number.to_string()).event(event.name()).data(data)
}

/// Lines of JSON, with an empty line now and then when there is nothing to say, until the end or until `stop` fires.
pub(crate) fn lines<T>(items: impl Stream<Item = T> + Send + 'static, stop: CancellationToken) -> Response
where
    T: Serialize + Send + 'static,
{
    let items = items.boxed();
    let body = futures::stream::unfold((items, stop), |(mut items, stop)| async move {
        let next = stop.run_until_cancelled(tokio::time::timeout(KEEP_ALIVE, items.next())).await?;
        let line = match next {
            Ok(Some(item)) => json_line(&item),
            Ok(None) => return None,
            Err(_silence) => Bytes::from_static(b"\n"),
        };
        Some((Ok::<_, Infallible>(line), (items, stop)))
    });
    let headers = [(CONTENT_TYPE, NDJSON_MEDIA_TYPE), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(body)).into_response()
}

fn json_line(item: &impl Serialize) -> Bytes {
    let mut line = json_bytes(item);
    line.push(b'\n');
    line.into()
}
