//! One request at a time, over a connection of its own, the way a person looks at a page.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
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
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .body(Full::new(body.into()))?;
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the connection, which this request closes.
        tokio::spawn(async move { drop(driver.await) });
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    timeout(Duration::from_secs(30), exchange).await.context("no answer within 30 s")?.with_context(|| format!("{host}{path}"))
}

/// Asks with GET.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer> {
    ask(address, host, Method::GET, path, Bytes::new()).await
}
