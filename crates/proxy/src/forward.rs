//! One request: where it goes, how it is sent, and what is done when that fails.
//!
//! A request is sent a second time only if nothing of it can have had an effect: it never left, or it has no body, means
//! the same when repeated, and no byte of an answer has come.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HOST, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use crate::access_log::Record;
use crate::body::{Body, RequestBody};
use crate::connection::Link;
use crate::hold::Turn;
use crate::hop;
use crate::plane::{Decision, Plane};
use crate::pool::Sender;
use crate::refusal::Refusal;
use crate::target::{InFlight, Target};
use crate::{forwarded, upgrade};

/// Answers one request.
pub(crate) async fn answer(plane: Arc<Plane>, link: Arc<Link>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    link.work();
    let (parts, body) = request.into_parts();
    let mut record = plane.log.record(link.peer, &parts);
    let expects = parts.headers.contains_key(EXPECT);
    let mut exchange = Exchange { plane: &plane, link: &link, record: &mut record, body: Some(body), turn: None };
    let mut response = match exchange.run(parts).await {
        Ok(response) => response,
        Err(refusal) => {
            let mut response = refusal.into_response();
            if let Some(body) = exchange.body.take()
                && !(body.is_end_stream() || !expects && discard(body).await)
            {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    };
    if plane.is_closing() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(record) = &mut record {
        record.status = response.status().as_u16();
    }
    link.answered();
    response.body_mut().attach(link, record);
    Ok(response)
}

/// Reads what the client still sends, so that it gets to read the refusal: closing a connection with unread bytes resets
/// it. Whether the end was reached within reason.
async fn discard(mut body: Incoming) -> bool {
    let read_all = async {
        let mut left: usize = 1024 * 1024;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
            if left == 0 {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(Duration::from_secs(1), read_all).await.unwrap_or(false)
}

/// A request on its way.
struct Exchange<'r> {
    plane: &'r Arc<Plane>,
    link: &'r Arc<Link>,
    record: &'r mut Option<Box<Record>>,
    /// Until it has been handed to a connection.
    body: Option<Incoming>,
    /// If it was held: the right to go before those behind it.
    turn: Option<Turn>,
}

/// What the route is found by, as it was before the request was changed. Cheap to clone.
struct Address {
    host: Option<HeaderValue>,
    path: PathAndQuery,
}

/// Why there was no answer to a request that was sent.
enum Failure {
    /// Not a byte of it left; it comes back.
    Unsent(Box<Request<RequestBody>>),
    /// It may have arrived.
    Lost,
    /// The deadline passed.
    Late,
}

/// How often a request that never left is tried again.
const MOST_UNSENT: usize = 3;

impl Exchange<'_> {
    async fn run(&mut self, mut parts: Parts) -> Result<Response<Body>, Refusal> {
        self.link.with_head(|head| hop::check_framing(&parts.headers, head))?;
        if parts.method == Method::CONNECT {
            return Err(Refusal::Connect);
        }
        settle_host(&mut parts)?;
        let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        let address = Address { host: parts.headers.get(HOST).cloned(), path };
        let asked = hop::strip_request(&mut parts.headers, parts.version);
        let client_upgrade = parts.extensions.remove::<OnUpgrade>().filter(|_| asked.upgrade.is_some());
        let id = self.plane.ids.ensure(&mut parts.headers);
        if let Some(record) = self.record {
            record.request_id = String::from_utf8_lossy(id.as_bytes()).into_owned();
        }
        let (in_flight, stripped) = self.find_target(&address, &[]).await?;
        forwarded::replace(&mut parts.headers, &self.link.forwarded_for, &address.path.path()[..stripped]);
        if address.host.is_none() {
            // HTTP/1.0 may do without, HTTP/1.1 may not.
            let host = HeaderValue::try_from(in_flight.target().address.to_string());
            parts.headers.insert(HOST, host.map_err(|_never| Refusal::BadGateway)?);
        }
        parts.uri = target_uri(parts.uri, &address.path, stripped)?;
        parts.version = Version::HTTP_11;
        self.send(&address, parts, in_flight, client_upgrade).await
    }

    /// Waits until the service admits the request, and counts it in flight on a target that has not been tried.
    async fn find_target(&mut self, address: &Address, tried: &[Arc<Target>]) -> Result<(InFlight, usize), Refusal> {
        let arrived = tokio::time::Instant::now();
        let host = address.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        loop {
            match self.plane.decide(host, address.path.path(), tried, self.turn.is_some()) {
                Decision::Go { in_flight, stripped } => return Ok((in_flight, stripped)),
                Decision::Wait { place, at_most } => {
                    self.turn = None;
                    let turn = place.turn(arrived + at_most).await;
                    self.turn = Some(turn.ok_or(Refusal::HeldTooLong)?);
                }
                Decision::Refuse(Refusal::NoTarget) if !tried.is_empty() => return Err(Refusal::BadGateway),
                Decision::Refuse(refusal) => return Err(refusal),
            }
        }
    }

    async fn send(
        &mut self,
        address: &Address,
        parts: Parts,
        mut in_flight: InFlight,
        client_upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Body>, Refusal> {
        let bodiless = self.body.as_ref().is_none_or(hyper::body::Body::is_end_stream);
        let repeatable = bodiless && client_upgrade.is_none() && parts.method.is_idempotent();
        let safe = repeatable && parts.method.is_safe();
        let mut head = Some(parts);
        let mut unsent = None;
        let mut unsent_count = 0;
        let mut tried = Vec::new();
        let mut may_reuse = repeatable;
        loop {
            let target = Arc::clone(in_flight.target());
            self.note_attempt(&target);
            let kept = if may_reuse { target.pool.take() } else { None };
            let reused = kept.is_some();
            let connected = match kept {
                Some(sender) => Ok(sender),
                None => target.pool.connect(client_upgrade.is_some()).await,
            };
            let Ok(mut sender) = connected else {
                tried.push(target);
                (in_flight, _) = self.find_target(address, &tried).await?;
                continue;
            };
            let keeps_copy = reused || (safe && tried.is_empty());
            let request = match unsent.take() {
                Some(request) => request,
                None => self.make_request(&mut head, keeps_copy)?,
            };
            match self.exchange(&mut sender, request).await {
                Ok(response) => return self.pass_on(response, in_flight, sender, client_upgrade),
                Err(Failure::Late) => return Err(Refusal::Timeout),
                Err(_) if target.pool.is_cut() => return Err(Refusal::CutOff),
                Err(Failure::Unsent(request)) if unsent_count < MOST_UNSENT => {
                    unsent = Some(*request);
                    unsent_count += 1;
                }
                Err(Failure::Lost) if keeps_copy => (),
                Err(_) => return Err(Refusal::BadGateway),
            }
            may_reuse = false;
            if !reused {
                tried.push(target);
                (in_flight, _) = self.find_target(address, &tried).await?;
            }
        }
    }

    fn note_attempt(&mut self, target: &Target) {
        if let Some(record) = self.record {
            record.attempts += 1;
            record.target = Some(target.id.0.clone());
        }
    }

    /// The request as the target gets it; with `copy`, it can be made once more.
    fn make_request(&mut self, head: &mut Option<Parts>, copy: bool) -> Result<Request<RequestBody>, Refusal> {
        let parts = if copy { head.clone() } else { head.take() };
        let body = match self.body.take_if(|body| !body.is_end_stream()) {
            Some(body) => RequestBody::streamed(body, Arc::clone(self.link)),
            None => RequestBody::nothing(),
        };
        Ok(Request::from_parts(parts.ok_or(Refusal::BadGateway)?, body))
    }

    async fn exchange(&mut self, sender: &mut Sender, request: Request<RequestBody>) -> Result<Response<Incoming>, Failure> {
        self.link.await_answer();
        let mut answer = pin!(sender.try_send_request(request));
        if let Some(turn) = &mut self.turn {
            turn.sent();
        }
        let link = self.link;
        let answer = std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if link.is_late() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        match answer.await {
            Some(Ok(response)) => Ok(response),
            Some(Err(mut error)) => Err(error.take_message().map_or(Failure::Lost, |request| Failure::Unsent(Box::new(request)))),
            None => Err(Failure::Late),
        }
    }

    fn pass_on(
        &self,
        response: Response<Incoming>,
        in_flight: InFlight,
        sender: Sender,
        client_upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Body>, Refusal> {
        let (mut parts, body) = response.into_parts();
        // What the target speaks is its own affair.
        parts.version = Version::HTTP_11;
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        hop::strip_response(&mut parts.headers, switches);
        if !switches {
            return Ok(Response::from_parts(parts, Body::streamed(body, in_flight, sender)));
        }
        let server_upgrade = parts.extensions.remove::<OnUpgrade>();
        let (Some(client), Some(server)) = (client_upgrade, server_upgrade) else { return Err(Refusal::BadGateway) };
        self.link.change();
        upgrade::join(self.plane, in_flight.target(), client, server, sender);
        Ok(Response::from_parts(parts, Body::nothing()))
    }
}

/// Makes `Host` the one truth about the host: an absolute request line wins over the header (RFC 9112, section 3.2.2).
fn settle_host(parts: &mut Parts) -> Result<(), Refusal> {
    if let Some(authority) = parts.uri.authority() {
        let host = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host);
        let host = HeaderValue::try_from(host).map_err(|_never| Refusal::Malformed("bad host"))?;
        parts.headers.insert(HOST, host);
        return Ok(());
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if parts.version == Version::HTTP_10 => Ok(()),
        (None, _) => Err(Refusal::Malformed("no Host")),
        (Some(_), Some(_)) => Err(Refusal::Malformed("more than one Host")),
        (Some(host), None) if host.is_empty() || is_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err(Refusal::Malformed("bad Host")),
    }
}

/// Whether these bytes can be a host with or without a port (RFC 3986, section 3.2.2). Strict, because what reads them
/// next may not be.
fn is_host(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(b))
}

/// The request target in origin form, without the first `stripped` bytes; every other byte as the client sent it.
fn target_uri(uri: Uri, path: &PathAndQuery, stripped: usize) -> Result<Uri, Refusal> {
    if uri.authority().is_none() && stripped == 0 {
        return Ok(uri);
    }
    let rest = &path.as_str()[stripped..];
    let path = if rest.starts_with('/') || rest == "*" {
        PathAndQuery::try_from(rest)
    } else {
        PathAndQuery::try_from(format!("/{rest}"))
    };
    Ok(Uri::from(path.map_err(|_invalid| Refusal::Malformed("bad path"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(uri: &str, stripped: usize, expected: &str) {
        let uri: Uri = uri.parse().unwrap();
        let path = uri.path_and_query().cloned().unwrap();
        assert_eq!(target_uri(uri, &path, stripped).unwrap().to_string(), expected);
    }

    #[test]
    fn paths_keep_their_bytes() {
        check("/test?p1=a;b;c&p2=%x&p3=ok", 0, "/test?p1=a;b;c&p2=%x&p3=ok");
        check("http://h/a%2Fb//c/../d?q", 0, "/a%2Fb//c/../d?q");
        check("/app/show", 4, "/show");
        check("/app", 4, "/");
        check("/app?a=b", 4, "/?a=b");
        check("http://h/app", 4, "/");
        check("*", 0, "*");
    }
}
