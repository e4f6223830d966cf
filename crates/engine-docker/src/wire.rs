//! The requests that the client library cannot express: a ping with its headers, a build with a memory cap beyond 2 GiB
//! and BuildKit's progress, and containers in states that Docker does not know. One connection each; dropping the answer closes it, and a closed
//! connection is how an engine is told to stop building.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use crate::socket::Socket;

/// The body of a request.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// How long an engine may take to accept a connection and to answer a ping.
const PING: Duration = Duration::from_secs(5);

/// The longest answer that is held in memory whole.
const LONGEST_ANSWER: usize = 16 << 20;

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Incoming,
    /// Drives the connection for as long as the answer is held.
    _connection: AbortOnDropHandle<()>,
}

impl Answer {
    /// The body as text, cut where it becomes unreasonable.
    pub(crate) async fn text(mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > LONGEST_ANSWER {
                break;
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What an engine says about itself in the headers of a ping.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ping {
    headers: HashMap<String, String>,
}

impl Ping {
    /// Asks the engine behind the socket.
    pub(crate) async fn send(socket: &Socket) -> io::Result<Self> {
        let ask = async {
            let request = Request::get("/_ping").header("Host", "docker").body(empty()).map_err(io::Error::other)?;
            let (status, headers) = send_for_head(socket, request).await?;
            if status.is_success() {
                Ok(Self { headers })
            } else {
                Err(io::Error::other(format!("the engine answered {status}")))
            }
        };
        tokio::time::timeout(PING, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// One header, if it is there and not empty.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

async fn send_for_head(socket: &Socket, request: Request<Body>) -> io::Result<(StatusCode, HashMap<String, String>)> {
    let (response, _connection) = exchange(socket, request).await?;
    let told = |(name, value): (&HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    Ok((response.status(), response.headers().iter().filter_map(told).collect()))
}

/// Sends a request over a connection of its own and waits for the head of the answer.
pub(crate) async fn send(socket: &Socket, request: Request<Body>) -> io::Result<Answer> {
    let (response, connection) = exchange(socket, request).await?;
    Ok(Answer { status: response.status(), body: response.into_body(), _connection: connection })
}

/// Asks for another protocol on a connection of its own, which lives on as the stream that is answered.
pub(crate) async fn upgrade(socket: &Socket, request: Request<Body>) -> io::Result<Upgraded> {
    let ask = async {
        let (response, connection) = exchange(socket, request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return hyper::upgrade::on(response).await.map_err(io::Error::other);
        }
        let status = response.status();
        let text = Answer { status, body: response.into_body(), _connection: connection }.text().await?;
        Err(io::Error::other(format!("the engine answered {status}: {}", refusal(&text))))
    };
    tokio::time::timeout(PING, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

type Exchange = (Response<Incoming>, AbortOnDropHandle<()>);

async fn exchange(socket: &Socket, request: Request<Body>) -> io::Result<Exchange> {
    match socket {
        Socket::Unix(path) => over(tokio::net::UnixStream::connect(path).await?, request).await,
        Socket::Tcp(address) => over(tokio::net::TcpStream::connect(address).await?, request).await,
    }
}

async fn over<S>(stream: S, request: Request<Body>) -> io::Result<Exchange>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "the engine closed a connection");
        }
    }));
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    Ok((response, connection))
}

/// A request body with nothing in it.
pub(crate) fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

/// What an engine said instead of doing it: `{"message": "…"}`.
pub(crate) fn refusal(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    serde_json::from_str(text).map_or_else(|_| text.trim().to_owned(), |refusal: Refusal| refusal.message)
}

/// A query string; every value is percent-encoded (RFC 3986, section 2.3: only unreserved characters stay).
pub(crate) fn query(pairs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
                _ => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_cannot_leave_their_parameter() {
        let text = query(&[("t", "a&b=c#d e".to_owned()), ("labels", r#"{"k":"ü"}"#.to_owned())]);
        assert_eq!(text, "?t=a%26b%3Dc%23d%20e&labels=%7B%22k%22%3A%22%C3%BC%22%7D");
    }
}
