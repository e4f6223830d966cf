//! Asking a service on a middleware's behalf, over a connection of its own.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use coracle_proxy_http::{BodyLength, Fields, HeadLimits, Known, RequestHead, ResponseHead};
use coracle_proxy_middleware::{Fetch, FetchError, FetchedResponse};
use http::Method;
use tokio::net::TcpStream;

use crate::options::Limits;
use crate::side::{Next, Sink, Source, Upstream};
use crate::upstream::H1Upstream;
use crate::wire::head_limits;

/// The longest body of an answer, in bytes.
const LONGEST: usize = 1024 * 1024;

/// Asks over HTTP/1.1. Whoever calls sets the deadline for the whole.
pub(crate) struct Fetcher {
    limits: HeadLimits,
    connect: Duration,
}

impl Fetcher {
    /// With the proxy's limits for heads and connecting.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: head_limits(limits), connect: limits.connect }
    }

    async fn ask(&self, url: &str, method: &Method, fields: &Fields) -> Result<FetchedResponse, FetchError> {
        let (authority, target) = split(url).ok_or_else(|| failed("its address is no http:// URL"))?;
        let mut head = RequestHead::new(method.clone(), &target, authority).map_err(failed)?;
        head.fields.extend_from(fields);
        head.fields.set_known(Known::Connection, "close").map_err(failed)?;
        let connecting = tokio::time::timeout(self.connect, connect(authority));
        let stream = connecting.await.map_err(|_late| failed("no connection in time"))?.map_err(failed)?;
        let mut up = H1Upstream::new(stream, self.limits);
        up.send(&head, BodyLength::None);
        let mut answer = ResponseHead::default();
        poll_fn(|cx| {
            if up.poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
            loop {
                match up.poll_answer(cx, &head, &mut answer) {
                    Poll::Ready(Ok(_)) if answer.status.is_informational() => (),
                    other => return other.map(|result| result.map(|_| ()).map_err(|_none| crate::side::Broken::Malformed)),
                }
            }
        })
        .await
        .map_err(|_broken| failed("it gave no proper answer"))?;
        let body = read(&mut up).await?;
        Ok(FetchedResponse { status: answer.status, fields: answer.fields, body: body.into() })
    }
}

impl Fetch for Fetcher {
    fn fetch<'f>(
        &'f self,
        url: &'f str,
        method: &'f Method,
        fields: &'f Fields,
    ) -> Pin<Box<dyn Future<Output = Result<FetchedResponse, FetchError>> + Send + 'f>> {
        Box::pin(self.ask(url, method, fields))
    }
}

/// The authority of a URL, and what is asked there.
fn split(url: &str) -> Option<(&str, String)> {
    let scheme = url.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"))?;
    let rest = url[scheme.len()..].split('#').next().unwrap_or_default();
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if target.starts_with('/') { "" } else { "/" };
    (!authority.is_empty()).then(|| (authority, format!("{slash}{target}")))
}

async fn connect(authority: &str) -> std::io::Result<TcpStream> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(80)),
        _ => (authority, 80),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut result = Err(std::io::Error::other("the name has no address"));
    for address in tokio::net::lookup_host((host, port)).await? {
        result = TcpStream::connect(address).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn read(up: &mut H1Upstream) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    poll_fn(|cx| {
        loop {
            match up.poll_next(cx) {
                Poll::Ready(Ok(Next::End)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(Next::Content)) if body.len() + up.content().len() <= LONGEST => {
                    let count = up.content().len();
                    body.extend_from_slice(up.content());
                    up.consume(count);
                }
                Poll::Ready(Ok(Next::Content)) => return Poll::Ready(Err(failed("its answer is too long"))),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(failed("its answer broke off"))),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    Ok(body)
}

fn failed(why: impl std::fmt::Display) -> FetchError {
    FetchError(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, authority, target) in [
            ("http://auth:9000/check?a=b#c", "auth:9000", "/check?a=b"),
            ("HTTP://auth", "auth", "/"),
            ("http://[::1]:80?q", "[::1]:80", "/?q"),
        ] {
            assert_eq!(split(url), Some((authority, target.to_owned())));
        }
        assert_eq!((split("https://auth/"), split("http:///x"), split("h")), (None, None, None));
    }
}
