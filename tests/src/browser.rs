//! One request at a time, over a connection of its own, the way a person looks at a page.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; invalid UTF-8 replaced.
    pub body: String,
}

impl Answer {
    /// Panics unless the answer is a 2xx that contains `text`.
    #[track_caller]
    pub fn says(&self, text: &str) {
        assert!(
            self.status.is_success() && self.body.contains(text),
            "expected an answer that says {text:?}, got {}: {}",
            self.status,
            self.body
        );
    }

    /// Panics unless the status is this one.
    #[track_caller]
    pub fn has_status(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
    }
}

/// Asks `address` for `path` of `host`. Fails if there is no whole answer within half a minute.
pub async fn ask(address: SocketAddr, host: &str, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
    // What a browser sends along with a form; an app that takes none does not mind.
    send(address, host, method, path, ("application/x-www-form-urlencoded", body.into())).await
}

/// The same with a body of this type.
pub async fn send(address: SocketAddr, host: &str, method: Method, path: &str, (kind, body): (&str, Bytes)) -> Result<Answer> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, host).header(header::CONTENT_TYPE, kind);
    let request = request.header(header::CONNECTION, "close").body(Full::new(body))?;
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection, which this request closes.
        tokio::spawn(async move { drop(driver.await) });
        read(sender.send_request(request).await?).await
    };
    timeout(Duration::from_secs(30), exchange).await.context("no answer within 30 s")?.with_context(|| format!("{host}{path}"))
}

/// An answer that has no end yet, read as it comes.
#[derive(Debug)]
pub struct Following {
    body: hyper::body::Incoming,
}

impl Following {
    /// The next piece; fails if the connection breaks off, or nothing comes within 20 seconds. `None` at the end.
    pub async fn next_piece(&mut self) -> Result<Option<String>> {
        loop {
            let frame = timeout(Duration::from_secs(20), self.body.frame()).await.context("nothing comes any more")?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(String::from_utf8_lossy(&data).into_owned()));
            }
        }
    }
}

/// Asks for something that goes on, such as server-sent events.
pub async fn follow(address: SocketAddr, host: &str, path: &str) -> Result<Following> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection, which ends with the answer.
    tokio::spawn(async move { drop(driver.await) });
    let request = Request::builder().uri(path).header(header::HOST, host).body(Full::new(Bytes::new()))?;
    let answer = timeout(Duration::from_secs(30), sender.send_request(request)).await.context("no answer within 30 s")??;
    ensure!(answer.status().is_success(), "{}", answer.status());
    Ok(Following { body: answer.into_body() })
}

/// Asks the API on a Unix socket, in any words.
pub async fn ask_socket(socket: &Path, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
    let request = Request::builder().method(method).uri(path).header(header::HOST, "api").body(Full::new(body.into()))?;
    let exchange = async {
        let stream = UnixStream::connect(socket).await?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { drop(driver.await) });
        read(sender.send_request(request).await?).await
    };
    timeout(Duration::from_secs(60), exchange).await.context("no answer within 60 s")?
}

async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<Answer> {
    let (parts, body) = answer.into_parts();
    let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// Asks with GET.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    ask(address, host, Method::GET, path, Bytes::new()).await
}
