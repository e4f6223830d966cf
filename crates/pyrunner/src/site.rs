//! Which site a request is meant for, and which site's page has sent it. Browsers carry out what any page asks of any
//! address, this machine's own included; they tell the page's origin, and the name that the page called.
//!
//! Whoever is no browser can write what it likes into these fields and gains nothing by it: this is no authentication.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, ORIGIN, VARY,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use crate::problem::{Problem, ProblemKind};
use crate::program::cut;

/// What pages of other sites that are let in may send and read, beside what every page may.
const SENT: &str = "authorization, content-type, idempotency-key, x-api-key";
const READ: &str = "location, retry-after, ratelimit-limit, ratelimit-remaining, ratelimit-reset, idempotent-replayed";

/// What is answered to, and to whom.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sites {
    /// The address that is listened on, if only this machine reaches it and nobody has to prove who they are: a page whose
    /// name leads here must not be taken for a page of ours (DNS rebinding). `None`: any name will do.
    closed: Option<IpAddr>,
    /// Names that it is called by.
    names: Vec<String>,
    /// Origins of pages that may call, beside our own.
    origins: Vec<String>,
}

impl Sites {
    pub(crate) fn new(listen: SocketAddr, anonymous: bool, names: &[String], origins: &[String]) -> Self {
        let closed = anonymous && listen.ip().to_canonical().is_loopback() && !names.iter().any(|name| name == "*");
        Self { closed: closed.then(|| listen.ip()), names: names.to_vec(), origins: origins.to_vec() }
    }

    /// Refuses requests for a name that is not ours (RFC 9110 section 15.5.20). Who names nothing is no browser.
    fn check_name(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(own) = self.closed else { return Ok(()) };
        let asked = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        match asked.chain(uri.authority().map(Authority::as_str)).find(|name| !self.is_ours(name, own)) {
            None => Ok(()),
            Some(name) => Err(Problem::new(
                ProblemKind::Misdirected,
                format!("this server listens on {own} and is not called {:?}", cut(name, 100)),
            )
            .hint("call it localhost, or let its operator name what it is called with --hosts")),
        }
    }

    fn is_ours(&self, authority: &str, own: IpAddr) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host();
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return address.to_canonical().is_loopback() || address == own;
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        // Names below localhost are nobody else's (RFC 6761 section 6.3).
        host == "localhost" || host.ends_with(".localhost") || self.names.iter().any(|name| name.eq_ignore_ascii_case(&host))
    }

    /// Refuses what a page of another site has sent (Fetch Metadata Request Headers, section 2.3; RFC 6454 section 7), unless
    /// that site is let in. Who is no browser tells no site.
    pub(crate) fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let origin = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        if origin.is_some_and(|origin| self.lets_in(origin)) {
            return Ok(());
        }
        let own = match (headers.get("sec-fetch-site"), origin) {
            // A proxy may have changed the name that was called, but not this.
            (Some(site), _) => site == "same-origin" || site == "none",
            (None, Some(origin)) => {
                let authority = origin.split_once("://").map(|(_, authority)| authority);
                authority.is_some() && authority == headers.get(HOST).and_then(|host| host.to_str().ok())
            }
            (None, None) => true,
        };
        if own {
            return Ok(());
        }
        let detail = match origin {
            Some(origin) => format!("pages of {:?} may not call this server", cut(origin, 100)),
            None => "pages of another site may not call this server".to_owned(),
        };
        Err(Problem::new(ProblemKind::Forbidden, detail).hint("the server's operator can let a site in with --origins"))
    }

    fn lets_in(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| allowed == origin)
    }

    /// The origin of a page of another site that is let in.
    fn guest(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        self.lets_in(origin.to_str().ok()?).then(|| origin.clone())
    }
}

/// Stands before everything: turns those away who mean another server, and lets pages of sites that are let in read what
/// they are answered (Fetch Standard, section 3.2).
pub(crate) async fn admit(State(sites): State<Sites>, request: Request, next: Next) -> Response {
    if let Err(problem) = sites.check_name(request.uri(), request.headers()) {
        return problem.into_response();
    }
    let Some(guest) = sites.guest(request.headers()) else { return next.run(request).await };
    let asks_first = request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks_first { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let told: &[(HeaderName, &'static str)] = if asks_first {
        &[
            (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
            (ACCESS_CONTROL_ALLOW_HEADERS, SENT),
            (ACCESS_CONTROL_MAX_AGE, "600"),
        ]
    } else {
        &[(ACCESS_CONTROL_EXPOSE_HEADERS, READ)]
    };
    let fields = response.headers_mut();
    for (name, value) in told {
        fields.insert(name.clone(), HeaderValue::from_static(value));
    }
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, guest);
    fields.append(VARY, HeaderValue::from_static("origin"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn sites(listen: &str, anonymous: bool, names: &[&str]) -> Sites {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Sites::new(listen.parse().unwrap(), anonymous, &names, &["https://friend.example".to_owned()])
    }

    #[test]
    fn pages_of_other_sites_are_told_apart() {
        let sites = sites("127.0.0.1:8000", true, &[]);
        let accepted = |fields: &[(&'static str, &'static str)]| sites.check_origin(&headers(fields)).is_ok();
        assert!(accepted(&[]));
        assert!(accepted(&[("sec-fetch-site", "same-origin"), ("origin", "null")]));
        assert!(accepted(&[("sec-fetch-site", "none")]));
        assert!(accepted(&[("origin", "https://run.example.test:8000"), ("host", "run.example.test:8000")]));
        assert!(accepted(&[("origin", "https://friend.example"), ("sec-fetch-site", "cross-site"), ("host", "x")]));
        assert!(!accepted(&[("sec-fetch-site", "cross-site")]));
        assert!(!accepted(&[("sec-fetch-site", "same-site")]));
        assert!(!accepted(&[("origin", "https://evil.example.test"), ("host", "run.example.test")]));
        assert!(!accepted(&[("origin", "http://localhost:3000"), ("host", "localhost:8000")]));
        assert!(!accepted(&[("origin", "null"), ("host", "run.example.test")]));
        assert!(!accepted(&[("origin", "https://friend.example.evil.test"), ("host", "x")]));
    }

    #[test]
    fn whoever_only_this_machine_reaches_is_called_by_its_names_alone() {
        let asked =
            |sites: &Sites, host: &'static str| sites.check_name(&Uri::from_static("/"), &headers(&[("host", host)])).is_ok();
        let own = sites("127.0.0.1:8000", true, &["run.example"]);
        for host in
            ["localhost", "LOCALHOST:8000", "localhost.", "app.localhost:80", "127.0.0.1:8000", "[::1]:8000", "run.Example:1"]
        {
            assert!(asked(&own, host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "a b",
            "notlocalhost",
            "x@localhost.evil",
        ] {
            assert!(!asked(&own, host), "{host}");
        }
        assert!(own.check_name(&Uri::from_static("/"), &headers(&[])).is_ok());
        assert!(own.check_name(&Uri::from_static("http://evil.example/"), &headers(&[("host", "localhost")])).is_err());
        // Whoever is open to others, or wants a key of everybody, is called as others like.
        for open in [sites("0.0.0.0:8000", true, &[]), sites("127.0.0.1:8000", false, &[]), sites("[::1]:8000", true, &["*"])] {
            assert!(asked(&open, "evil.example"));
        }
    }
}
