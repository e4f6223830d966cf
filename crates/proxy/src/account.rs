//! What a request comes to: counted on its route, and written to the access log, when it has ended, however it ends.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_proxy_http::{Known, RequestHead};
use http::Version;
use tokio::time::Instant;

use crate::access_log::Line;
use crate::buffer::Output;
use crate::plane::Plane;
use crate::route::Route;
use crate::target::Target;

/// The status of a request whose client went away before it was answered.
const CLIENT_GONE: u16 = 499;

/// One request. Dropping it writes it down.
pub(crate) struct Account<'p> {
    plane: &'p Plane,
    worker: usize,
    pub(crate) began: Instant,
    route: Option<Arc<Route>>,
    /// Of the answer; 499 as long as there is none.
    pub(crate) status: u16,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    /// The answer began but did not reach its end.
    pub(crate) truncated: bool,
    attempts: u32,
    log: Option<Texts>,
}

/// What only the log asks for.
struct Texts {
    /// The host, the method, the path and the request's id, one behind the other.
    text: Output,
    ends: [usize; 4],
    peer: SocketAddr,
    client: IpAddr,
    tls: bool,
    version: Version,
    target: Option<Arc<Target>>,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) peer: SocketAddr,
    pub(crate) client: IpAddr,
    pub(crate) tls: bool,
}

impl<'p> Account<'p> {
    /// A request has come.
    pub(crate) fn open(plane: &'p Plane, worker: usize, began: Instant, origin: Origin, head: &RequestHead) -> Self {
        let log = plane.log.is_on().then(|| {
            let mut text = Output::default();
            let mut ends = [0; 4];
            for (part, end) in [head.host(), head.method.as_str(), head.path()].into_iter().zip(&mut ends) {
                text.bytes().extend_from_slice(part.as_bytes());
                *end = text.len();
            }
            ends[3] = ends[2];
            let Origin { peer, client, tls } = origin;
            Texts { text, ends, peer, client, tls, version: head.version(), target: None }
        });
        let (status, received, sent, truncated, attempts) = (CLIENT_GONE, 0, 0, false, 0);
        Self { plane, worker, began, route: None, status, received, sent, truncated, attempts, log }
    }

    /// Its id is known.
    pub(crate) fn identified(&mut self, head: &RequestHead) {
        if let Some(texts) = &mut self.log
            && texts.ends[3] == texts.ends[2]
        {
            texts.text.bytes().extend_from_slice(head.fields.get_known(Known::XRequestId).unwrap_or_default());
            texts.ends[3] = texts.text.len();
        }
    }

    /// It goes by this route.
    pub(crate) fn routed(&mut self, route: &Arc<Route>) {
        // While it waits, another table may lead it elsewhere; it stays where it was counted first.
        if self.route.is_none() {
            route.metrics.begin(self.worker);
            self.route = Some(Arc::clone(route));
        }
    }

    /// Another target is tried.
    pub(crate) fn attempt(&mut self, target: &Arc<Target>) {
        self.attempts += 1;
        if let Some(texts) = &mut self.log {
            texts.target = Some(Arc::clone(target));
        }
    }

    /// Whether no target has been tried before the one that is being tried.
    pub(crate) fn is_first_attempt(&self) -> bool {
        self.attempts == 1
    }

    /// A target did not answer properly.
    pub(crate) fn upstream_failed(&self) {
        let metrics = self.route.as_ref().map_or(&self.plane.metrics.unrouted, |route| &route.metrics);
        metrics.upstream_error(self.worker);
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        let duration = self.began.elapsed();
        let metrics = match &self.route {
            Some(route) => &route.metrics,
            None => {
                self.plane.metrics.unrouted.begin(self.worker);
                &self.plane.metrics.unrouted
            }
        };
        metrics.end(self.worker, self.status, duration, self.received, self.sent);
        let Some(texts) = &self.log else { return };
        let part = |from: usize, to: usize| std::str::from_utf8(&texts.text.waiting()[from..to]).unwrap_or_default();
        let [host, method, path, id] = texts.ends;
        self.plane.log.write(&Line {
            request_id: part(path, id),
            peer: texts.peer,
            client: texts.client,
            tls: texts.tls,
            protocol: match texts.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            },
            host: part(0, host),
            method: part(host, method),
            path: part(method, path),
            status: self.status,
            bytes: self.sent,
            duration,
            route: self.route.as_ref().map(|route| route.id.0.as_str()),
            target: texts.target.as_ref().map(|target| target.id.0.as_str()),
            attempts: self.attempts,
            truncated: self.truncated,
        });
    }
}
