//! A session with BuildKit: the connection over which it asks for a build's secrets.
//!
//! The engine is asked for `POST /session` and the connection is turned round: from then on the engine is the client of
//! HTTP/2, and what it calls is gRPC (`moby.buildkit.secrets.v1.Secrets/GetSecret`, `grpc.health.v1.Health/Check`; BuildKit's
//! `session/secrets` and `session/grpc.go`). Two messages of one field each need no code generator and no gRPC library.
//!
//! Secrets exist here and in BuildKit's memory while the step runs that mounts them; they are in no file, no argument, no
//! layer and no cache key. Every other call is refused as unimplemented, which BuildKit takes as "this client has none of
//! that": images are fetched as nobody, as without a session.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use coracle_engine::BuildError;
use coracle_model::PrivateText;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::fields::{Fields, Value};
use crate::client::unavailable;
use crate::socket::Socket;
use crate::wire;

/// The largest secret that BuildKit takes (`secrets.MaxSecretSize`).
pub(super) const LARGEST_SECRET: usize = 500 * 1024;

/// What a call may say: an id and annotations.
const LONGEST_CALL: usize = 64 * 1024;

const GET_SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// gRPC's codes (`google.golang.org/grpc/codes`).
const INVALID_ARGUMENT: u8 = 3;
const NOT_FOUND: u8 = 5;
const UNIMPLEMENTED: u8 = 12;

/// An open session. Dropping it ends it.
pub(super) struct Session {
    /// By what a build names it.
    pub(super) id: String,
    _serving: AbortOnDropHandle<()>,
}

/// Refuses what BuildKit would refuse in the middle of a build.
pub(super) fn check(secrets: &BTreeMap<String, PrivateText>) -> Result<(), BuildError> {
    for (id, value) in secrets {
        if value.expose().len() > LARGEST_SECRET {
            let length = value.expose().len();
            let cause = format!("the build secret {id} has {length} bytes; BuildKit takes up to {LARGEST_SECRET}");
            return Err(BuildError::CannotBuild(cause));
        }
    }
    Ok(())
}

impl Session {
    /// Opens one that knows these secrets.
    pub(super) async fn open(
        socket: &Socket,
        api_version: &str,
        secrets: &BTreeMap<String, PrivateText>,
    ) -> Result<Self, BuildError> {
        let id = random_id().map_err(|error| unavailable(error.to_string()))?;
        let request = Request::post(format!("/v{api_version}/session"))
            .header("Host", "docker")
            .header("Connection", "Upgrade")
            .header("Upgrade", "h2c")
            .header("X-Docker-Expose-Session-Uuid", &id)
            .header("X-Docker-Expose-Session-Name", "coracle")
            .header("X-Docker-Expose-Session-Grpc-Method", GET_SECRET)
            .header("X-Docker-Expose-Session-Grpc-Method", HEALTH)
            .body(wire::empty())
            .map_err(|error| BuildError::CannotBuild(error.to_string()))?;
        let stream = wire::upgrade(socket, request).await.map_err(|error| unavailable(format!("session: {error}")))?;
        let secrets = Arc::new(secrets.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = serve(TokioIo::new(stream), secrets).await {
                tracing::debug!(%error, "a session with the builder ended");
            }
        });
        Ok(Self { id, _serving: AbortOnDropHandle::new(serving) })
    }
}

fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    secrets: Arc<BTreeMap<String, PrivateText>>,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    // Dropped, and its calls with it, when the session is.
    let mut calls = JoinSet::new();
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        let secrets = secrets.clone();
        calls.spawn(async move {
            if let Err(error) = answer(request, respond, &secrets).await {
                tracing::debug!(%error, "a call of the builder was not answered");
            }
        });
        while calls.try_join_next().is_some() {}
    }
    Ok(())
}

/// What a call comes to: a message, or a code and a sentence.
type Answer = Result<Vec<u8>, (u8, &'static str)>;

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    secrets: &BTreeMap<String, PrivateText>,
) -> Result<(), h2::Error> {
    let (head, body) = request.into_parts();
    let answer = match head.uri.path() {
        HEALTH => Ok(vec![0x08, 0x01]),
        GET_SECRET => get_secret(&message(body).await?, secrets),
        _ => Err((UNIMPLEMENTED, "not offered here")),
    };
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(response, false)?;
    if let Ok(message) = &answer {
        stream.send_data(framed(message), false)?;
    }
    let (code, told) = answer.err().unwrap_or((0, ""));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    trailers.insert("grpc-message", HeaderValue::from_static(told));
    stream.send_trailers(trailers)
}

/// The message of a call, without its five bytes of frame.
async fn message(mut body: h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
        if bytes.len() > LONGEST_CALL {
            return Err(h2::Reason::ENHANCE_YOUR_CALM.into());
        }
    }
    Ok(bytes.get(5..).unwrap_or_default().to_vec())
}

/// `GetSecretRequest { string ID = 1; … }` to `GetSecretResponse { bytes data = 1; }`.
fn get_secret(message: &[u8], secrets: &BTreeMap<String, PrivateText>) -> Answer {
    let id = Fields(message).find_map(|(number, value)| match (number, value) {
        (1, Value::Bytes(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    });
    let id = id.ok_or((INVALID_ARGUMENT, "no id"))?;
    // BuildKit says itself which one is missing.
    let value = secrets.get(&id).ok_or((NOT_FOUND, "not found"))?.expose().as_bytes();
    let mut answer = vec![0x0a];
    write_length(&mut answer, value.len());
    answer.extend_from_slice(value);
    Ok(answer)
}

/// A length as protocol buffers write it: seven bits a byte, the lowest first.
fn write_length(into: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        into.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
}

/// gRPC's frame: not compressed, and how long.
fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn secrets(id: &str, value: &str) -> BTreeMap<String, PrivateText> {
        BTreeMap::from([(id.to_owned(), PrivateText::new(value))])
    }

    #[test]
    fn a_secret_is_found_by_its_id_and_another_is_not() {
        let known = secrets("token", &"x".repeat(300));
        let answer = get_secret(b"\x0a\x05token", &known).unwrap();
        // 300 is 0b10_0101100.
        assert_eq!(answer[..3], [0x0a, 0xac, 0x02]);
        assert_eq!(answer.len(), 303);
        assert_eq!(get_secret(b"\x0a\x05other", &known), Err((NOT_FOUND, "not found")));
        assert_eq!(get_secret(b"\xff\xff", &known), Err((INVALID_ARGUMENT, "no id")));
    }

    #[test]
    fn what_is_too_large_is_refused_before_anything_is_sent() {
        assert!(check(&secrets("a", &"x".repeat(LARGEST_SECRET))).is_ok());
        let Err(BuildError::CannotBuild(cause)) = check(&secrets("a", &"x".repeat(LARGEST_SECRET + 1))) else {
            panic!("taken");
        };
        assert!(cause.contains("secret a") && cause.contains("512000") && !cause.contains("xx"), "{cause}");
    }

    #[tokio::test]
    async fn calls_are_answered_as_grpc_has_it() {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let large = "s".repeat(200_000);
        let server = tokio::spawn(serve(ours, Arc::new(secrets("token", &large))));
        let (mut client, connection) = h2::client::handshake(theirs).await.unwrap();
        let driving = tokio::spawn(connection);
        let mut calls = Vec::new();
        for (path, message) in [(GET_SECRET, &b"\x0a\x05token"[..]), (GET_SECRET, b"\x0a\x01x"), (HEALTH, b""), ("/a.B/C", b"")] {
            client = client.ready().await.unwrap();
            let request = Request::post(format!("http://x{path}")).body(()).unwrap();
            let (answer, mut body) = client.send_request(request, false).unwrap();
            body.send_data(framed(message), true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            let mut length = 0;
            while let Some(piece) = body.data().await {
                let piece = piece.unwrap();
                body.flow_control().release_capacity(piece.len()).unwrap();
                length += piece.len();
            }
            let trailers = body.trailers().await.unwrap().unwrap();
            calls.push((length, trailers["grpc-status"].to_str().unwrap().to_owned()));
        }
        let expected = [(200_009, "0"), (0, "5"), (7, "0"), (0, "12")];
        assert_eq!(calls, expected.map(|(length, status)| (length, status.to_owned())));
        server.abort();
        driving.abort();
    }
}
