//! Asking a service on a middleware's behalf: by a URL, over a connection of its own, or one of the table's.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use coracle_proxy_http::{BodyLength, Fields, HeadLimits, Known, RequestHead, ResponseHead, strip_response};
use coracle_proxy_middleware::{Fetch, FetchError, Fetched, FetchedResponse};
use coracle_proxy_table::{Admission, AuthTls, Protocol, ServiceId};
use http::Method;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::balance::{Asker, says_failed};
use crate::dial::dial;
use crate::h2::{self, H2Upstream};
use crate::https::is_https;
use crate::pool;
use crate::service::Service;
use crate::side::{Broken, Next, Source, Upstream};
use crate::target::{Count, InFlight, Target};
use crate::upstream::H1Upstream;
use crate::wire::head_limits;
use crate::worker::Seat;

/// The longest body of an answer, in bytes.
const LONGEST: usize = 1024 * 1024;
/// How many targets of a service are asked for the same.
const MOST_TARGETS: usize = 2;

/// Asks with the proxy's limits for heads and connecting. Whoever calls sets the deadline for the whole.
pub(crate) struct Fetcher<'s> {
    seat: &'s Seat,
    limits: HeadLimits,
}

impl<'s> Fetcher<'s> {
    /// On this worker.
    pub(crate) fn new(seat: &'s Seat) -> Self {
        Self { seat, limits: head_limits(&seat.plane.limits) }
    }

    async fn ask(&self, url: &str, method: &Method, fields: &Fields, tls: &AuthTls) -> Result<FetchedResponse, FetchError> {
        let (authority, target) = split(url).ok_or_else(|| failed("its address is no http:// or https:// URL"))?;
        let mut head = RequestHead::new(method.clone(), &target, authority).map_err(failed)?;
        head.fields.extend_from(fields);
        head.fields.set_known(Known::Connection, "close").map_err(failed)?;
        let (host, port) = host_and_port(authority, if is_https(url) { 443 } else { 80 });
        let stream = self.in_time(connect(host, port)).await?;
        if !is_https(url) {
            return Ok(exchange(&mut H1Upstream::new(stream, self.limits), &head).await?);
        }
        let config = self.seat.plane.middlewares.trusts.config(tls);
        let config = config.ok_or_else(|| failed("the table that says whom to trust is not served by any more"))?;
        let name = ServerName::try_from(host.to_owned()).map_err(failed)?;
        let stream = self.in_time(TlsConnector::from(config).connect(name, stream)).await?;
        Ok(exchange(&mut H1Upstream::new(stream, self.limits), &head).await?)
    }

    async fn ask_service(&self, service: &ServiceId, mut head: RequestHead) -> Result<FetchedResponse, FetchError> {
        let mut tried = Vec::new();
        let mut failure = failed("it has no target that takes requests");
        while tried.len() < MOST_TARGETS
            && let Some((service, in_flight)) = self.target_of(service, &tried, &head.fields)
        {
            let target = in_flight.target();
            if head.host().is_empty() {
                head.set_host(&target.address.to_string()).map_err(failed)?;
            }
            let mut asked = std::pin::pin!(self.ask_target(target, &head));
            // Whoever cuts a target has all connections polled.
            let asked = poll_fn(|cx| match target.is_cut() {
                true => Poll::Ready(Err(Failure::Broken(failed("its target is taken away")))),
                false => asked.as_mut().poll(cx),
            });
            match asked.await {
                // As on a request's own way.
                Ok(answer) if says_failed(answer.status) => failure = failed(format_args!("it answered {}", answer.status)),
                Ok(mut answer) => {
                    service.balancer.succeeded(target, Instant::now());
                    strip_response(&mut answer.fields, false);
                    return Ok(answer);
                }
                // It answers well; who configured it has to be told, and another one would say the same.
                Err(too_long @ Failure::TooLong) => {
                    service.balancer.succeeded(target, Instant::now());
                    return Err(too_long.into());
                }
                Err(Failure::Broken(error)) => failure = error,
            }
            service.balancer.failed(target, Instant::now());
            tried.push(Arc::clone(target));
        }
        Err(failure)
    }

    /// A target of a service, counted in flight there before the table can be replaced; `None` if the service takes no requests, or
    /// all have been tried.
    fn target_of(&self, service: &ServiceId, tried: &[Arc<Target>], fields: &Fields) -> Option<(Arc<Service>, InFlight)> {
        let worker = self.seat.index;
        let snapshot = self.seat.worker().snapshot();
        let service = snapshot.service(service).filter(|service| service.admission == Admission::Open)?;
        let target = service.balancer.pick(Asker { worker, tried, fields, clock: Instant::now })?;
        Some((Arc::clone(service), InFlight::begin(target, worker, Count::Plain)))
    }

    async fn ask_target(&self, target: &Arc<Target>, head: &RequestHead) -> Result<FetchedResponse, Failure> {
        let Seat { plane, index } = self.seat;
        if target.protocol == Protocol::H2c {
            let opened = async { h2::open(target, *index, &plane.limits).await.ok_or("it cannot be reached") };
            return exchange(&mut H2Upstream::new(self.in_time(opened).await?, self.limits), head).await;
        }
        // One that was kept may just be closing: then there is a fresh one.
        if let Some(stream) = target.pool(*index).take(Instant::now(), plane.pool_limits()) {
            let mut up = H1Upstream::new(stream, self.limits);
            match exchange(&mut up, head).await {
                Ok(answer) => {
                    self.keep(up, target);
                    return Ok(answer);
                }
                Err(Failure::TooLong) => return Err(Failure::TooLong),
                Err(Failure::Broken(_)) => {}
            }
        }
        let stream = self.in_time(dial(target.address)).await?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut up = H1Upstream::new(stream, self.limits);
        let answer = exchange(&mut up, head).await?;
        self.keep(up, target);
        Ok(answer)
    }

    fn keep(&self, up: H1Upstream, target: &Arc<Target>) {
        if let Some(stream) = up.into_kept() {
            pool::keep(target, self.seat.index, stream, Instant::now(), self.seat.plane.pool_limits());
        }
    }

    /// What comes of connecting, if that does not take too long.
    async fn in_time<T, E: std::fmt::Display>(&self, connecting: impl Future<Output = Result<T, E>>) -> Result<T, FetchError> {
        let connected = tokio::time::timeout(self.seat.plane.limits.connect, connecting).await;
        connected.map_err(|_late| failed("no connection in time"))?.map_err(failed)
    }
}

impl Fetch for Fetcher<'_> {
    fn fetch<'f>(&'f self, url: &'f str, method: &'f Method, fields: &'f Fields, tls: &'f AuthTls) -> Fetched<'f> {
        Box::pin(self.ask(url, method, fields, tls))
    }

    fn page<'f>(&'f self, service: &'f ServiceId, request: RequestHead) -> Fetched<'f> {
        Box::pin(self.ask_service(service, request))
    }
}

/// Why there is no answer.
enum Failure {
    /// There is one, of more than [`LONGEST`] bytes.
    TooLong,
    /// Whoever was asked does not answer as it should.
    Broken(FetchError),
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self::Broken(error)
    }
}

impl From<Failure> for FetchError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TooLong => failed(format_args!("its answer is longer than {LONGEST} bytes")),
            Failure::Broken(error) => error,
        }
    }
}

/// One request without a body, and its whole answer.
async fn exchange(up: &mut impl Upstream, head: &RequestHead) -> Result<FetchedResponse, Failure> {
    up.send(head, BodyLength::None);
    let mut answer = ResponseHead::default();
    poll_fn(|cx| {
        if up.poll_flush(cx)?.is_pending() {
            return Poll::Pending;
        }
        loop {
            match up.poll_answer(cx, head, &mut answer) {
                Poll::Ready(Ok(_)) if answer.status.is_informational() => (),
                other => return other.map(|result| result.map(|_| ()).map_err(|_none| Broken::Malformed)),
            }
        }
    })
    .await
    .map_err(|_broken| failed("it gave no proper answer"))?;
    let body = read(up).await?;
    Ok(FetchedResponse { status: answer.status, fields: answer.fields, body: body.into() })
}

/// The authority of a URL, and what is asked there.
fn split(url: &str) -> Option<(&str, String)> {
    let scheme = if is_https(url) { 8 } else { 7 };
    if scheme == 7 && !url.get(..7)?.eq_ignore_ascii_case("http://") {
        return None;
    }
    let rest = url[scheme..].split('#').next().unwrap_or_default();
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let slash = if target.starts_with('/') { "" } else { "/" };
    (!authority.is_empty()).then(|| (authority, format!("{slash}{target}")))
}

/// An IPv6 address loses its brackets.
fn host_and_port(authority: &str, usual: u16) -> (&str, u16) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(usual)),
        _ => (authority, usual),
    };
    (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
}

async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut result = Err(std::io::Error::other("the name has no address"));
    for address in tokio::net::lookup_host((host, port)).await? {
        result = dial(address).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

async fn read(up: &mut impl Source) -> Result<Vec<u8>, Failure> {
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
                Poll::Ready(Ok(Next::Content)) => return Poll::Ready(Err(Failure::TooLong)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(failed("its answer broke off").into())),
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
            ("https://auth?q", "auth", "/?q"),
            ("http://[::1]:80?q", "[::1]:80", "/?q"),
        ] {
            assert_eq!(split(url), Some((authority, target.to_owned())));
        }
        assert_eq!((split("ftp://auth/"), split("http:///x"), split("h")), (None, None, None));
        assert_eq!(host_and_port("[::1]:8443", 443), ("::1", 8443));
        assert_eq!(host_and_port("auth", 443), ("auth", 443));
    }
}
