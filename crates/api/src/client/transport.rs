//! One request, one connection, one answer.

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::task::AbortOnDropHandle;

use super::decode::Decode;
use super::endpoint::{Connection, Endpoint};
use super::error::ClientError;
use super::source::Source;
use crate::problem::{Problem, ProblemKind};
use crate::{KEEP_ALIVE, SSE_MEDIA_TYPE};

/// Larger answers to plain questions are taken for a fault.
const LONGEST_ANSWER: usize = 32 << 20;

/// A stream that is silent for so long is taken for dead: several keep-alives must have been missed.
const SILENCE: Duration = KEEP_ALIVE.saturating_mul(4);

/// A request to be sent.
pub(super) struct Request {
    method: Method,
    path: String,
    payload: Payload,
}

/// What a request carries.
pub(super) enum Payload {
    /// Nothing.
    None,
    /// A JSON document.
    Json(Vec<u8>),
    /// A source tree and its media type.
    Source(Source, &'static str),
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl Request {
    pub(super) fn new(method: Method, path: String) -> Self {
        Self { method, path, payload: Payload::None }
    }

    pub(super) fn payload(self, payload: Payload) -> Self {
        Self { payload, ..self }
    }

    pub(super) fn json(self, value: &impl Serialize) -> Result<Self, ClientError> {
        Ok(self.payload(Payload::Json(serde_json::to_vec(value)?)))
    }

    fn into_http(self, endpoint: &Endpoint) -> Result<http::Request<Body>, ClientError> {
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(HOST, endpoint.authority()?)
            .header(ACCEPT, "application/json, application/problem+json, application/x-ndjson, text/event-stream");
        if let Some(token) = endpoint.token() {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| ClientError::Endpoint("the token contains characters that no token has".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let whole = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
        let body = match self.payload {
            Payload::None => whole(Vec::new()),
            Payload::Json(bytes) => {
                request = request.header(CONTENT_TYPE, "application/json");
                whole(bytes)
            }
            Payload::Source(source, media_type) => {
                request = request.header(CONTENT_TYPE, media_type);
                if let Some(length) = source.length {
                    request = request.header(CONTENT_LENGTH, length);
                }
                StreamBody::new(source.pieces.map_ok(Frame::data)).boxed_unsync()
            }
        };
        request.body(body).map_err(|error| ClientError::Endpoint(error.to_string()))
    }
}

impl Endpoint {
    /// Sends a request and waits for the head of its answer; a problem becomes an error.
    pub(super) async fn call(&self, request: Request, deadline: Duration) -> Result<Answer, ClientError> {
        let request = request.into_http(self)?;
        let connection = self.connect().await?;
        let calling = async {
            match connection {
                Connection::Unix(io) => converse(io, request).await,
                Connection::Tcp(io) => converse(io, request).await,
                Connection::Tls(io) => converse(*io, request).await,
                Connection::Ssh(io) => converse(*io, request).await,
            }
        };
        let answer = tokio::time::timeout(deadline, calling).await.map_err(|_| ClientError::TimedOut(deadline))??;
        if answer.response.status().is_success() { Ok(answer) } else { Err(answer.into_problem().await) }
    }
}

async fn converse<I>(io: I, request: http::Request<Body>) -> Result<Answer, ClientError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await.map_err(|error| broken(&error))?;
    // The task ends when the answer (or this call) is dropped, and closes the connection with it.
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        // What breaks the connection is told to whoever waits for the answer.
        let _ended: Result<(), hyper::Error> = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    Ok(Answer { response, task })
}

/// The head of an answer; its body is still to be read.
pub(super) struct Answer {
    response: http::Response<Incoming>,
    task: AbortOnDropHandle<()>,
}

impl Answer {
    pub(super) fn is_event_stream(&self) -> bool {
        self.media_type().is_some_and(|media_type| media_type.starts_with(SSE_MEDIA_TYPE))
    }

    fn media_type(&self) -> Option<&str> {
        self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok())
    }

    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.bytes().await?)
            .map_err(|error| ClientError::Broken(format!("not the expected answer: {error}")))
    }

    pub(super) async fn empty(self) -> Result<(), ClientError> {
        self.bytes().await.map(drop)
    }

    pub(super) fn stream<D: Decode, T: DeserializeOwned>(self) -> JsonStream<D, T> {
        JsonStream { body: self.response.into_body(), decoder: D::default(), ended: false, _task: self.task, _item: PhantomData }
    }

    pub(super) fn download(self) -> Download {
        Download { body: self.response.into_body(), _task: self.task }
    }

    async fn bytes(self) -> Result<Bytes, ClientError> {
        let reading = Limited::new(self.response.into_body(), LONGEST_ANSWER).collect();
        let whole = tokio::time::timeout(SILENCE, reading).await.map_err(|_| ClientError::TimedOut(SILENCE))?;
        whole.map(http_body_util::Collected::to_bytes).map_err(|error| ClientError::Broken(error.to_string()))
    }

    async fn into_problem(self) -> ClientError {
        let status = self.response.status();
        match self.bytes().await.map(|bytes| serde_json::from_slice::<Problem>(&bytes)) {
            Ok(Ok(problem)) => problem.into(),
            // Something in between answered, or the connection broke after the status.
            Ok(Err(_)) | Err(_) => strange_status(status),
        }
    }
}

fn strange_status(status: StatusCode) -> ClientError {
    let problem = Problem::new(ProblemKind::Other, format!("the server answered {status}"));
    Problem { status: status.as_u16(), ..problem }
        .hint("is there really a Coracle server at this address? `coracle doctor` tells")
        .into()
}

fn broken(error: &hyper::Error) -> ClientError {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
    if error.is_user() { ClientError::Source(cause) } else { ClientError::Broken(cause) }
}

/// The bytes of a file. Dropping it closes the connection.
pub struct Download {
    body: Incoming,
    _task: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for Download {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Download").finish_non_exhaustive()
    }
}

impl Download {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, ClientError>> {
        loop {
            let frame = match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(frame) => frame?,
                Err(_) => return Some(Err(ClientError::TimedOut(SILENCE))),
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(piece)) => return Some(Ok(piece)),
                // Trailers say nothing here.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(ClientError::Broken(error.to_string()))),
            }
        }
    }
}

/// A stream of JSON documents. Dropping it closes the connection.
pub struct JsonStream<D, T> {
    body: Incoming,
    decoder: D,
    ended: bool,
    _task: AbortOnDropHandle<()>,
    _item: PhantomData<fn() -> T>,
}

impl<D, T> std::fmt::Debug for JsonStream<D, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<D: Decode, T: DeserializeOwned> JsonStream<D, T> {
    /// The next document; `None` at the end. May be called again after being dropped midway: nothing is lost.
    pub async fn next(&mut self) -> Option<Result<T, ClientError>> {
        loop {
            if let Some(document) = self.decoder.next() {
                let parsed = serde_json::from_str(&document);
                return Some(parsed.map_err(|error| ClientError::Broken(format!("not the expected line: {error}"))));
            }
            if self.ended {
                return None;
            }
            let frame = match tokio::time::timeout(SILENCE, self.body.frame()).await {
                Ok(frame) => frame,
                Err(_) => {
                    self.ended = true;
                    return Some(Err(ClientError::TimedOut(SILENCE)));
                }
            };
            match frame {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    if let Err(error) = self.decoder.feed(&data) {
                        self.ended = true;
                        return Some(Err(ClientError::Broken(error.to_string())));
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(broken(&error)));
                }
                None => {
                    self.ended = true;
                    self.decoder.finish();
                }
            }
        }
    }

    /// As a stream.
    pub fn into_stream(self) -> impl futures::Stream<Item = Result<T, ClientError>> + Send
    where
        D: Send,
    {
        futures::stream::unfold(self, |mut this| async move { this.next().await.map(|item| (item, this)) }).fuse()
    }
}
