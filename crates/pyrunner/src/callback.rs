//! Calls back: tells an address that a job has ended. Such an address comes from whoever sent the job, so nobody inside the
//! operator's networks is called: names are resolved here, every address is checked, and exactly the checked one is called.
//! Redirections are not followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_pyrunner_store::{CallbackOutcome, Job};
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// How long one call may take in all.
const CALL: Duration = Duration::from_secs(10);

/// How long a call that is under way is this process's.
const LEASE: Duration = Duration::from_secs(30);

/// How often is looked for calls that are due.
const ROUND: Duration = Duration::from_secs(2);

/// The pauses between calls that nobody heard. After the last one it is given up.
const PAUSES: [Duration; 5] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600)];

const LONGEST_URL: usize = 2048;

/// Calls at the same time.
const AT_ONCE: u32 = 8;

/// Why an address is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallbackError {
    /// It is no URL that can be called.
    #[error("callback_url {0}")]
    Url(&'static str),
    /// It is somebody who is not called. Who it is, and whether there is such a name at all, are the operator's affair: whoever
    /// sends jobs could ask for the names of a network one by one.
    #[error("callback_url does not lead to a public address")]
    Private(IpAddr),
    /// Its name leads nowhere.
    #[error("callback_url does not lead to a public address")]
    Unresolved {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// It does not answer as it should.
    #[error("{0}")]
    Unheard(String),
}

/// A URL that can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    uri: Uri,
    host: String,
    port: u16,
    tls: bool,
}

impl Target {
    /// Reads `http://` and `https://` URLs without user names.
    pub(crate) fn read(url: &str) -> Result<Self, CallbackError> {
        if url.len() > LONGEST_URL {
            return Err(CallbackError::Url("is longer than 2048 bytes"));
        }
        let uri: Uri = url.parse().map_err(|_| CallbackError::Url("is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(CallbackError::Url("must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or(CallbackError::Url("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(CallbackError::Url("must not hold a user name or password"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(CallbackError::Url("names no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { host, port, tls, uri })
    }

    /// The address to call. All that the name leads to must be public, or in one of `allowed`.
    pub(crate) async fn resolve(&self, allowed: &[IpNet]) -> Result<SocketAddr, CallbackError> {
        let unresolved = |why: String| CallbackError::Unresolved { host: self.host.clone(), why };
        let looking = tokio::net::lookup_host((self.host.as_str(), self.port));
        let found = tokio::time::timeout(CALL, looking).await.map_err(|_| unresolved("no answer in time".to_owned()))?;
        let found: Vec<SocketAddr> = found.map_err(|error| unresolved(error.to_string()))?.collect();
        for address in &found {
            let address = address.ip().to_canonical();
            if !is_public(address) && !allowed.iter().any(|network| network.contains(&address)) {
                return Err(CallbackError::Private(address));
            }
        }
        found.first().copied().ok_or_else(|| unresolved("there is no address".to_owned()))
    }
}

/// Whether an address can be anybody's on the Internet: neither special (IANA's registries of RFC 6890) nor a way to name
/// another one in disguise.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3. In it: protocol assignments and Teredo, documentation, 6to4.
    (0x2000..0x4000).contains(&a)
        && !(a == 0x2001 && b < 0x0200)
        && !(a == 0x2001 && b == 0x0db8)
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

/// Calls back until `stop`.
pub(crate) async fn work(context: Arc<Context>, stop: CancellationToken) {
    let tls = match connector() {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(%error, "calls back over TLS cannot be made");
            None
        }
    };
    while !stop.is_cancelled() {
        match context.store.claim_callbacks(AT_ONCE, LEASE).await {
            Ok(jobs) if !jobs.is_empty() => {
                futures::future::join_all(jobs.into_iter().map(|job| settle(&context, tls.as_ref(), job))).await;
                continue;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "calls back cannot be looked for"),
        }
        let pause = tokio::time::timeout(ROUND, context.jobs.ended.notified());
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

async fn settle(context: &Context, tls: Option<&TlsConnector>, job: Job) {
    let Some(callback) = &job.callback else { return };
    let attempt = usize::try_from(callback.attempts).unwrap_or(usize::MAX);
    let outcome = match call(context, tls, &callback.url, &job).await {
        Ok(()) => CallbackOutcome::Delivered,
        // Asking again changes nothing about these.
        Err(CallbackError::Url(_) | CallbackError::Private(_)) => CallbackOutcome::GivenUp,
        Err(error) => {
            tracing::info!(id = %job.id, ?error, "a call back was not heard");
            // The attempt that was just made is counted already.
            PAUSES.get(attempt.saturating_sub(1)).map_or(CallbackOutcome::GivenUp, |pause| CallbackOutcome::Again(*pause))
        }
    };
    if let Err(error) = context.store.settle_callback(job.id, outcome).await {
        tracing::warn!(id = %job.id, %error, "what came of a call back is not written down");
    }
}

async fn call(context: &Context, tls: Option<&TlsConnector>, url: &str, job: &Job) -> Result<(), CallbackError> {
    let target = Target::read(url)?;
    let body = crate::api::job_json(job);
    let unheard = |why: String| CallbackError::Unheard(why);
    let calling = async {
        let address = target.resolve(&context.settings.callback_networks).await?;
        let stream = TcpStream::connect(address).await.map_err(|error| unheard(error.to_string()))?;
        let status = if target.tls {
            let tls = tls.ok_or_else(|| unheard("no certificates to trust are installed here".to_owned()))?;
            let name = ServerName::try_from(target.host.clone()).map_err(|error| unheard(error.to_string()))?;
            let stream = tls.connect(name, stream).await.map_err(|error| unheard(error.to_string()))?;
            post(stream, &target, body).await
        } else {
            post(stream, &target, body).await
        };
        let status = status.map_err(|error| unheard(error.to_string()))?;
        if status.is_success() { Ok(()) } else { Err(unheard(format!("it answers {status}"))) }
    };
    tokio::time::timeout(CALL, calling).await.unwrap_or_else(|_| Err(unheard("it takes too long".to_owned())))
}

async fn post<S>(stream: S, target: &Target, body: Bytes) -> hyper::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = target.uri.authority().map(ToString::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("pyrunner/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .unwrap_or_else(|_| unreachable!("the parts of a URL are parts of a request"));
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    // Nothing of the answer but its status is read, and the connection ends with this function.
    tokio::select! {
        answer = &mut answer => answer.map(|answer| answer.status()),
        ended = &mut connection => {
            ended?;
            answer.await.map(|answer| answer.status())
        }
    }
}

/// The machine's own trust; `None` if it has none.
fn connector() -> Result<Option<TlsConnector>, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Some(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_inside_are_told_from_those_outside() {
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.18.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:a00:1::1",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in
            ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "2001:4860::1"]
        {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn only_plain_urls_are_called() {
        for (url, told) in [
            ("ftp://example.org/", "http://"),
            ("file:///etc/passwd", ""),
            ("http://user:secret@example.org/", "user name"),
            ("/relative", "http://"),
            ("nonsense url", "no URL"),
            ("http://", ""),
        ] {
            let error = Target::read(url).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("secret"), "{url}: {error}");
        }
        let target = Target::read("https://[2606:4700::1]/a?b").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("2606:4700::1", 443, true));
    }

    #[tokio::test]
    async fn numbers_that_mean_loopback_are_refused_however_they_are_written() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://localhost/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            let found = Target::read(url).unwrap().resolve(&[]).await;
            assert!(matches!(found, Err(CallbackError::Private(_) | CallbackError::Unresolved { .. })), "{url}: {found:?}");
        }
        let allowed = ["127.0.0.0/8".parse().unwrap()];
        assert_eq!(Target::read("http://127.0.0.1:81/").unwrap().resolve(&allowed).await.unwrap().port(), 81);
    }
}
