//! TLS with clients: the handshake, and what comes of it.
//!
//! A client is told that a name is not served here before anything is computed for it. Requests go by the name that they ask for
//! (`Host`), whatever name the handshake was for: RFC 9110, section 15.5.20, lets a server refuse those that it is not
//! responsible for on this connection (421), but does not ask for it, and neither HAProxy nor Caddy does so over HTTP/1.1.
//! Clients of HTTP/1.1 choose a connection by the name; where name and certificate do not fit, that is theirs to judge. Clients
//! of HTTP/2 may use a connection for other names that its certificate covers (RFC 9113, section 9.1.1): one for a name that has
//! another certificate is refused by 421, after which they take a connection of its own.
//!
//! No certificate of a client is asked for, and nothing is kept here for sessions that come back: they bring their ticket.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use coracle_certs::{ACME_TLS_ALPN, CertError, CertOptions, Certificates, Source, UNRECOGNIZED_NAME_ALERT, Wanted};
use coracle_proxy_http::RequestHead;
use coracle_proxy_middleware::Answer;
use coracle_proxy_rules::{Dialect, Rule};
use coracle_proxy_table::{self as table, CertificateSource, Route, Table};
use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;
use tokio_rustls::rustls::server::{Accepted, Acceptor};
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::buffer::{Input, SMALL};
use crate::deadline::Deadline;
use crate::metrics::{Handshake, Handshakes};
use crate::stream::ClientStream;

/// HTTP/2 in ALPN (RFC 9113, section 3.2).
const HTTP_2: &[u8] = b"h2";
/// Where authorities ask (RFC 8555, section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// For clients that do not speak TLS where they should.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
                     Connection: close\r\n\r\nThis port is for https.\n";
/// How long certificates that are there may take to be ready when the proxy starts.
const READY: Duration = Duration::from_secs(2);
/// For a last word, where nobody has to hear it.
const GOODBYE: Duration = Duration::from_secs(1);

/// Certificates, and how handshakes are answered with them.
pub(crate) struct Tls {
    pub(crate) certificates: Arc<Certificates>,
    config: Arc<ServerConfig>,
}

/// A connection after its handshake.
pub(crate) struct Session {
    pub(crate) stream: ClientStream,
    pub(crate) protocol: Protocol,
    /// The name that the client has asked for.
    pub(crate) server_name: Option<String>,
}

/// What is spoken over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1: also what clients speak that say nothing.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why there is no session.
enum Failure {
    Ended,
    Late,
    Unknown(Option<String>),
    Plain,
    Broken(io::Error),
}

impl Tls {
    /// Starts to keep certificates.
    pub(crate) fn start(options: CertOptions) -> Result<Self, CertError> {
        let certificates = Certificates::start(options)?;
        let config = certificates.server_config();
        Ok(Self { certificates, config })
    }

    /// Waits until the certificates that are on disk are served, within reason.
    pub(crate) async fn ready(&self) {
        if tokio::time::timeout(READY, self.certificates.settled()).await.is_err() {
            tracing::warn!("not all certificates are ready yet");
        }
    }

    /// Sees to it that the names of a table's routes get the certificates that they ask for. Most tables ask for what the one
    /// before has asked for.
    pub(crate) fn want(&self, before: Option<&Table>, table: &Table) {
        if before.is_some_and(|before| asking(before).map(ask).eq(asking(table).map(ask))) {
            return;
        }
        self.certificates.set_wanted(wanted(table));
    }

    /// The answer to an authority that looks whether a name leads here.
    pub(crate) fn challenge(&self, head: &RequestHead) -> Option<Answer> {
        let asks = head.path().starts_with(CHALLENGES) && matches!(head.method, Method::GET | Method::HEAD);
        let authorization = asks.then(|| self.certificates.http_challenge(head.host(), head.path()))??;
        Some(Answer::new(StatusCode::OK, "application/octet-stream", authorization))
    }

    /// Whether requests for a host may come over a connection for that name.
    pub(crate) fn is_for(&self, server_name: Option<&str>, host: &str) -> bool {
        self.certificates.are_one(server_name, host)
    }

    /// Shakes hands with a client, of which some bytes may have been read; nothing if that fails, or if that was all. To be
    /// boxed: what a handshake needs is not to be carried by every connection.
    pub(crate) async fn accept(
        &self,
        mut stream: TcpStream,
        input: Input,
        deadline: &Deadline,
        (counts, worker): (&Handshakes, usize),
    ) -> Option<Session> {
        let hello = self.hello(&mut stream, input, deadline).await;
        let shaken = match hello {
            Ok(accepted) => self.shake(stream, accepted, deadline).await,
            Err(failure) => {
                failure.tell(&stream);
                Err(failure)
            }
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(failure) => {
                counts.count(worker, failure.log());
                return None;
            }
        };
        let session = stream.get_ref().1;
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        counts.count(worker, if resumed { Handshake::Resumed } else { Handshake::Full });
        if session.alpn_protocol() == Some(ACME_TLS_ALPN) {
            // The certificate was all that was asked for (RFC 8737, section 3).
            deadline.set(GOODBYE);
            let mut stream = stream;
            drop(in_time(stream.shutdown(), deadline).await);
            return None;
        }
        let protocol = if session.alpn_protocol() == Some(HTTP_2) { Protocol::Http2 } else { Protocol::Http1 };
        let server_name = session.server_name().map(str::to_owned);
        Some(Session { stream: ClientStream::Tls(Box::new(stream)), protocol, server_name })
    }

    /// Reads the first message of a client, and refuses names that are not served.
    async fn hello(&self, stream: &mut TcpStream, mut input: Input, deadline: &Deadline) -> Result<Accepted, Failure> {
        let mut acceptor = Acceptor::default();
        let accepted = poll_fn(|cx| {
            loop {
                if input.filled().first().is_some_and(u8::is_ascii_uppercase) {
                    return Poll::Ready(Err(Failure::Plain));
                }
                let filled = !input.is_empty();
                while !input.is_empty() {
                    let count = acceptor.read_tls(&mut input.filled()).map_err(Failure::Broken)?;
                    input.consume(count);
                }
                if filled {
                    match acceptor.accept() {
                        Ok(Some(accepted)) => return Poll::Ready(Ok(accepted)),
                        Ok(None) => (),
                        Err((error, mut alert)) => {
                            let mut bytes = Vec::new();
                            drop(alert.write_all(&mut bytes));
                            drop(stream.try_write(&bytes));
                            return Poll::Ready(Err(Failure::Broken(io::Error::other(error))));
                        }
                    }
                }
                match input.poll_fill(cx, stream, SMALL, SMALL) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failure::Ended)),
                    Poll::Ready(Ok(_)) => (),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Broken(error))),
                    Poll::Pending if deadline.has_passed() => return Poll::Ready(Err(Failure::Late)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let accepted: Accepted = accepted.await?;
        let hello = accepted.client_hello();
        let validates = hello.alpn().into_iter().flatten().any(|protocol| protocol == ACME_TLS_ALPN);
        if !validates && !self.certificates.serves(hello.server_name()) {
            return Err(Failure::Unknown(hello.server_name().map(str::to_owned)));
        }
        Ok(accepted)
    }

    async fn shake(&self, stream: TcpStream, accepted: Accepted, deadline: &Deadline) -> Result<TlsStream<TcpStream>, Failure> {
        let handshake = StartHandshake::from_parts(accepted, stream).into_stream(Arc::clone(&self.config));
        match in_time(handshake, deadline).await {
            None => Err(Failure::Late),
            Some(Ok(stream)) => Ok(stream),
            Some(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Failure::Ended),
            Some(Err(error)) => Err(Failure::Broken(error)),
        }
    }
}

/// The routes that want certificates.
fn asking(table: &Table) -> impl Iterator<Item = &Route> {
    table.routes.iter().filter(|route| route.certificate != CertificateSource::Given)
}

/// What a route's certificates depend on.
fn ask(route: &Route) -> (&str, table::Dialect, CertificateSource) {
    (&route.rule, route.dialect, route.certificate)
}

/// The names that they want them for, each once. Wildcards are only for the local authority: others would have to see the zone.
fn wanted(table: &Table) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for route in asking(table) {
        let dialect = match route.dialect {
            table::Dialect::V3 => Dialect::V3,
            table::Dialect::V2 => Dialect::V2,
        };
        // One that cannot be understood has been refused with its table.
        let Ok(rule) = Rule::parse(&route.rule, dialect) else { continue };
        let (source, names) = match route.certificate {
            CertificateSource::Given => continue,
            CertificateSource::Acme => (Source::Acme, rule.hosts()),
            CertificateSource::Local => (Source::Local, [rule.hosts(), rule.wildcards()].concat()),
        };
        wanted.extend(names.into_iter().map(|name| Wanted { name, source }));
    }
    // What one route orders is good enough for the others.
    wanted.sort();
    wanted.dedup_by(|later, first| later.name == first.name);
    wanted
}

/// What it comes to; nothing once the deadline has passed.
async fn in_time<F: Future>(work: F, deadline: &Deadline) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| match Pin::as_mut(&mut work).poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if deadline.has_passed() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

impl Failure {
    /// Says it to the client, where a word fits into what it expects. Its socket has taken nothing yet, so there is room.
    fn tell(&self, stream: &TcpStream) {
        let word: &[u8] = match self {
            Self::Unknown(_) => &UNRECOGNIZED_NAME_ALERT,
            Self::Plain => PLAIN.as_bytes(),
            Self::Ended | Self::Late | Self::Broken(_) => return,
        };
        drop(stream.try_write(word));
    }

    /// As what it is counted.
    fn log(&self) -> Handshake {
        match self {
            Self::Ended => Handshake::Broken,
            Self::Late => {
                tracing::debug!("a TLS handshake took too long");
                Handshake::Late
            }
            Self::Unknown(name) => {
                tracing::debug!(name, "no certificate for this name");
                Handshake::Unknown
            }
            Self::Plain => {
                tracing::debug!("a client spoke plain HTTP where TLS is spoken");
                Handshake::Broken
            }
            Self::Broken(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                Handshake::Broken
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_proxy_table::ServiceId;

    use super::*;

    #[test]
    fn certificates_are_wanted_for_the_names_that_rules_say() {
        let route = |number: usize, rule: &str, certificate| Route {
            certificate,
            ..Route::new(format!("r{number}"), rule, ServiceId("app".into()))
        };
        let rules = [
            ("Host(`given.example`)", CertificateSource::Given),
            ("Host(`b.example`) && PathPrefix(`/x`) || Host(`A.example`)", CertificateSource::Acme),
            ("Host(`*.c.example`) || Host(`c.example`)", CertificateSource::Acme),
            ("Host(`*.d.localhost`)", CertificateSource::Local),
            ("Host(`b.example`)", CertificateSource::Local),
            ("PathPrefix(`/everything`)", CertificateSource::Acme),
        ];
        let routes = rules.into_iter().enumerate().map(|(number, (rule, source))| route(number, rule, source)).collect();
        let names: Vec<_> = wanted(&Table { routes, ..Table::default() }).into_iter().map(|it| (it.name, it.source)).collect();
        let expected = [
            ("*.d.localhost", Source::Local),
            ("a.example", Source::Acme),
            ("b.example", Source::Acme),
            ("c.example", Source::Acme),
        ];
        assert_eq!(names, expected.map(|(name, source)| (name.to_owned(), source)));
    }
}
