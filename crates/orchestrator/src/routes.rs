//! The routes that lead to a release, as its manifest asks for them: hosts, path prefix, TLS, redirects.

use coracle_labels::Precedence;
use coracle_model::{HttpSpec, Redirect, TlsMode};
use coracle_proxy_table::{
    CanonicalHost, CertificateSource, Middleware, MiddlewareId, RedirectRegex, Route, ServiceId, StripPrefix, Table,
    host_and_prefix,
};

/// What this machine offers to those who come over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TlsOffer {
    /// The port at which clients reach it, if it listens for TLS at all.
    pub port: Option<u16>,
    /// Whether certificates can be ordered by ACME.
    pub acme: bool,
}

/// Adds a route for each host that leads to the service.
pub(crate) fn add(table: &mut Table, http: &HttpSpec, service: &ServiceId, offer: TlsOffer) {
    for host in &http.hosts {
        let host = host.as_str();
        let mut route = Route::new(format!("{}@{host}", service.0), host_and_prefix(host, &http.path_prefix), service.clone());
        route.priority = Some(precedence(host, &http.path_prefix));
        route.certificate = certificate(http, host, offer);
        if http.tls == TlsMode::Off {
            route.tls = Some(false);
        }
        for (suffix, middleware) in on_the_way(http, host, offer) {
            let id = MiddlewareId(format!("{}{suffix}", service.0));
            route.middlewares.push(id.clone());
            table.middlewares.insert(id, middleware);
        }
        table.routes.push(route);
    }
}

/// How far the steps of precedence lie apart: more than any path prefix or rule is long, and more than labels can say.
const STEP: i64 = 1 << 33;

/// An exact host goes before `*.host`, that before any host; then the longer path prefix.
fn precedence(host: &str, path_prefix: &str) -> i64 {
    let host = match host {
        "*" => 0,
        _ if host.starts_with("*.") => STEP,
        _ => 3 * STEP,
    };
    host + path_prefix.len() as i64
}

/// Puts a route of labels in its place among those of manifests. An exact host goes before every pattern there too, whosever it
/// is, and behind the same host in a manifest. What labels say of priority is kept among labels; patterns without it go last.
pub(crate) fn place_among_manifests(route: &mut Route) {
    route.priority = match coracle_labels::precedence_of(route) {
        Precedence::Given(priority) | Precedence::Exact(priority) => Some(2 * STEP + priority),
        Precedence::Open => None,
    };
}

fn certificate(http: &HttpSpec, host: &str, offer: TlsOffer) -> CertificateSource {
    let is_local = host == "localhost" || host.ends_with(".localhost");
    // A certificate for `*.host` takes a proof that only whoever runs the name's DNS can give.
    let can_order = offer.acme && !is_local && !host.contains('*');
    match http.tls {
        _ if offer.port.is_none() => CertificateSource::Given,
        TlsMode::Off => CertificateSource::Given,
        TlsMode::Acme if can_order => CertificateSource::Acme,
        TlsMode::Local => CertificateSource::Local,
        TlsMode::Auto if is_local && !host.contains('*') => CertificateSource::Local,
        TlsMode::Auto if can_order => CertificateSource::Acme,
        TlsMode::Acme | TlsMode::Auto => CertificateSource::Given,
    }
}

/// The middlewares of one host, each with the end of its name. Whoever is sent elsewhere is sent once.
fn on_the_way(http: &HttpSpec, host: &str, offer: TlsOffer) -> Vec<(String, Middleware)> {
    let mut middlewares = Vec::new();
    let wants_https = match http.redirect {
        Some(Redirect::Https) => true,
        Some(Redirect::Off) => false,
        None => certificate(http, host, offer) == CertificateSource::Acme,
    };
    let https = offer.port.filter(|_| wants_https && http.tls != TlsMode::Off);
    let elsewhere = http.canonical_host.as_ref().map(|canonical| canonical.as_str()).filter(|canonical| *canonical != host);
    match (elsewhere, https) {
        (Some(canonical), Some(port)) => {
            let redirect = RedirectRegex {
                regex: "^https?://[^/]+(.*)$".to_owned(),
                replacement: format!("https://{canonical}{}${{1}}", suffix(port)),
                permanent: true,
            };
            middlewares.push((".canonical".to_owned(), Middleware::RedirectRegex(redirect)));
        }
        (Some(canonical), None) => {
            let redirect = CanonicalHost { host: canonical.to_owned(), permanent: true };
            middlewares.push((".canonical".to_owned(), Middleware::CanonicalHost(redirect)));
        }
        (None, Some(port)) => {
            // Who came over TLS is where they should be, whichever port they know: it may be another one from outside.
            let redirect = RedirectRegex {
                regex: r"^http://(\[[^\]/]*\]|[^/:]*)(?::[0-9]*)?(.*)$".to_owned(),
                replacement: format!("https://${{1}}{}${{2}}", suffix(port)),
                permanent: true,
            };
            middlewares.push((".https".to_owned(), Middleware::RedirectRegex(redirect)));
        }
        (None, None) => {}
    }
    // With a slash, so that none of them can be taken for one of the others.
    middlewares.extend(http.middlewares.iter().map(|own| (format!("/{}", own.name), own.middleware.clone())));
    if http.strip_prefix && http.path_prefix != "/" {
        let strip = StripPrefix { prefixes: vec![http.path_prefix.clone()] };
        middlewares.push((".strip".to_owned(), Middleware::StripPrefix(strip)));
    }
    middlewares
}

/// The port as it stands in a URL of https.
fn suffix(port: u16) -> String {
    if port == 443 { String::new() } else { format!(":{port}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use coracle_model::AppName;

    use super::*;

    const ALL: TlsOffer = TlsOffer { port: Some(443), acme: true };

    fn http(change: impl FnOnce(&mut HttpSpec)) -> HttpSpec {
        let mut http = HttpSpec::default_for(&"shop".parse::<AppName>().unwrap());
        change(&mut http);
        http
    }

    fn kinds(http: &HttpSpec, host: &str, offer: TlsOffer) -> Vec<&'static str> {
        on_the_way(http, host, offer).iter().map(|(_, middleware)| middleware.kind()).collect()
    }

    #[test]
    fn certificates_come_from_where_the_manifest_and_the_machine_allow() {
        let auto = http(|_| ());
        assert_eq!(certificate(&auto, "shop.example", ALL), CertificateSource::Acme);
        assert_eq!(certificate(&auto, "shop.localhost", ALL), CertificateSource::Local);
        assert_eq!(certificate(&auto, "*.shop.example", ALL), CertificateSource::Given);
        assert_eq!(certificate(&auto, "shop.example", TlsOffer { acme: false, ..ALL }), CertificateSource::Given);
        assert_eq!(certificate(&auto, "shop.example", TlsOffer { port: None, ..ALL }), CertificateSource::Given);
        assert_eq!(certificate(&http(|http| http.tls = TlsMode::Off), "shop.example", ALL), CertificateSource::Given);
        assert_eq!(certificate(&http(|http| http.tls = TlsMode::Local), "shop.example", ALL), CertificateSource::Local);
    }

    #[test]
    fn clients_are_sent_elsewhere_at_most_once() {
        let both = http(|http| {
            http.canonical_host = Some("shop.example".parse().unwrap());
            (http.strip_prefix, http.path_prefix) = (true, "/api".to_owned());
        });
        assert_eq!(kinds(&both, "www.shop.example", ALL), ["redirect-regex", "strip-prefix"]);
        assert_eq!(kinds(&both, "shop.example", ALL), ["redirect-regex", "strip-prefix"]);
        assert_eq!(kinds(&both, "www.shop.example", TlsOffer::default()), ["canonical-host", "strip-prefix"]);
        let plain = http(|http| http.redirect = Some(Redirect::Off));
        assert!(kinds(&plain, "shop.example", ALL).is_empty());
        // Nobody's browser trusts the local authority unasked.
        assert!(kinds(&http(|_| ()), "shop.localhost", ALL).is_empty());
        assert_eq!(kinds(&http(|http| http.redirect = Some(Redirect::Https)), "shop.localhost", ALL), ["redirect-regex"]);
    }

    #[test]
    fn what_the_manifest_names_comes_after_redirects_and_before_the_prefix_is_taken_off() {
        let middleware = Middleware::Compress(coracle_proxy_table::Compress::default());
        let compress = coracle_model::NamedMiddleware { name: "https".to_owned(), middleware };
        let http = http(|http| {
            (http.strip_prefix, http.path_prefix) = (true, "/api".to_owned());
            http.middlewares = vec![compress];
        });
        assert_eq!(kinds(&http, "shop.example", ALL), ["redirect-regex", "compress", "strip-prefix"]);
        let names: Vec<_> = on_the_way(&http, "shop.example", ALL).into_iter().map(|(suffix, _)| suffix).collect();
        assert_eq!(names, [".https", "/https", ".strip"]);
    }

    #[test]
    fn exact_hosts_go_before_patterns_and_longer_prefixes_before_shorter() {
        let long = "/x".repeat(500);
        let order = [("a.b", "/api"), ("a.b", "/"), ("*.b", long.as_str()), ("*.b", "/"), ("*", long.as_str()), ("*", "/")];
        assert!(order.is_sorted_by_key(|(host, prefix)| std::cmp::Reverse(precedence(host, prefix))));
    }

    #[test]
    fn an_exact_host_goes_before_any_pattern_whether_labels_or_a_manifest_name_it() {
        let placed = |rule: &str, priority: Option<i64>| {
            let mut route = Route::new("r", rule, ServiceId(String::new()));
            route.priority = priority;
            place_among_manifests(&mut route);
            route.priority.unwrap_or(rule.len() as i64)
        };
        let long = "/x".repeat(500);
        let most = i64::from(u32::MAX);
        let order = [
            precedence("a.b", "/"),
            placed("Host(`a.b`)", Some(most)),
            placed("Host(`a.b`) && PathPrefix(`/api`)", None),
            placed("Host(`a.b`)", None),
            placed("HostRegexp(`.+`)", Some(1)),
            placed("Host(`a.b`)", Some(-most)),
            precedence("*.b", &long),
            placed("HostRegexp(`^(a|very-long-other-name)[.]b$`)", None),
            placed("Host(`*.b`)", None),
            precedence("*", "/"),
        ];
        assert!(order.is_sorted_by(|one, other| one > other), "{order:?}");
    }
}
