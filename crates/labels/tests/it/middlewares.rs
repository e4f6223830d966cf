//! Middlewares: Traefik's settings in the table's words.

use coracle_labels::{Kind, Part};
use serde_json::json;

use crate::sketch::{OPEN, assert_told, container, json, tabled, told_of};

/// A router that goes through the middleware `m`, whose labels are these.
fn through(labels: &[(&str, &str)]) -> Part {
    let named: Vec<(String, &str)> =
        labels.iter().map(|(label, value)| (format!("traefik.http.middlewares.m.{label}"), *value)).collect();
    let mut all: Vec<(&str, &str)> = named.iter().map(|(label, value)| (label.as_str(), *value)).collect();
    all.extend([("traefik.http.routers.r.rule", "Host(`a`)"), ("traefik.http.routers.r.middlewares", "m@docker")]);
    tabled(&[container("c", &all)], OPEN)
}

#[test]
fn every_kind_that_the_table_has_is_made() {
    for (labels, expected) in [
        (&[("addprefix.prefix", "/a")][..], json!({ "add-prefix": { "prefix": "/a" } })),
        (&[("StripPrefix.Prefixes", "/a, /b")], json!({ "strip-prefix": { "prefixes": ["/a", "/b"] } })),
        (&[("stripprefixregex.regex", "/a")], json!({ "strip-prefix-regex": { "regex": ["/a"] } })),
        (&[("replacepath.path", "/a")], json!({ "replace-path": { "path": "/a" } })),
        (
            &[("replacepathregex.regex", "^/(.*)"), ("replacepathregex.replacement", "/x/$1")],
            json!({ "replace-path-regex": { "regex": "^/(.*)", "replacement": "/x/$1" } }),
        ),
        (
            &[("ipallowlist.sourcerange", "10.0.0.0/8,127.0.0.1"), ("ipallowlist.ipstrategy.depth", "2")],
            json!({ "ip-allow-list": { "source_range": ["10.0.0.0/8", "127.0.0.1"], "ip_strategy": { "depth": 2 } } }),
        ),
        (&[("ipwhitelist.sourcerange", "::1")], json!({ "ip-allow-list": { "source_range": ["::1"] } })),
        (
            &[("headers.customrequestheaders.X-Script-Name", "t"), ("headers.stsseconds", "10"), ("headers.framedeny", "true")],
            json!({ "headers": { "custom_request_headers": { "X-Script-Name": "t" }, "sts_seconds": 10, "frame_deny": true } }),
        ),
        (
            &[("ratelimit.average", "100"), ("ratelimit.period", "1m"), ("ratelimit.burst", "50")],
            json!({ "rate-limit": { "average": 100, "period_ms": 60000, "burst": 50 } }),
        ),
        (
            &[("redirectregex.regex", "^a"), ("redirectregex.replacement", "b"), ("redirectregex.permanent", "true")],
            json!({ "redirect-regex": { "regex": "^a", "replacement": "b", "permanent": true } }),
        ),
        (
            &[("redirectscheme.scheme", "https"), ("redirectscheme.port", "8443")],
            json!({ "redirect-scheme": { "scheme": "https", "port": 8443, "permanent": false } }),
        ),
        (
            &[("basicauth.users", "ann:$apr1$a$b,bob:$2y$05$c"), ("basicauth.removeheader", "true")],
            json!({ "basic-auth": { "users": ["ann:$apr1$a$b", "bob:$2y$05$c"], "remove_header": true } }),
        ),
        (
            &[("forwardauth.address", "http://auth/"), ("forwardauth.authresponseheaders", "X-User")],
            json!({ "forward-auth": { "address": "http://auth/", "auth_response_headers": ["X-User"] } }),
        ),
        (
            &[("forwardauth.address", "https://auth/"), ("forwardauth.tls.insecureSkipVerify", "true")],
            json!({ "forward-auth": { "address": "https://auth/", "tls": { "insecure_skip_verify": true } } }),
        ),
        (
            &[("errors.status", "404,500-599"), ("errors.service", "c"), ("errors.query", "/{status}.html")],
            json!({ "error-pages": { "status": ["404", "500-599"], "service": "c@docker", "query": "/{status}.html" } }),
        ),
        (
            &[("errors.status", "418"), ("errors.service", "c"), ("errors.statusRewrites.418", "404")],
            json!({ "error-pages": { "status": ["418"], "service": "c@docker", "status_rewrites": { "418": 404 } } }),
        ),
        (
            &[("inflightreq.amount", "7"), ("inflightreq.sourcecriterion.requesthost", "true")],
            json!({ "in-flight-limit": { "amount": 7, "source_criterion": { "request_host": true } } }),
        ),
        (&[("buffering.maxrequestbodybytes", "2000")], json!({ "body-limit": { "max_bytes": 2000 } })),
        (
            &[("circuitbreaker.expression", "NetworkErrorRatio() > 0.5"), ("circuitbreaker.checkperiod", "1s")],
            json!({ "circuit-breaker": {
                "expression": "NetworkErrorRatio() > 0.5", "check_period_ms": 1000, "fallback_duration_ms": 10000,
                "recovery_duration_ms": 10000, "response_code": 503,
            } }),
        ),
        (
            &[("compress", "true")],
            json!({ "compress": { "min_response_body_bytes": 1024, "encodings": ["zstd", "br", "gzip"] } }),
        ),
        (
            &[("retry.attempts", "4"), ("retry.initialinterval", "100ms")],
            json!({ "retry": { "attempts": 4, "initial_interval_ms": 100 } }),
        ),
    ] {
        let part = through(labels);
        assert_eq!(json(&part)["middlewares"]["m@docker"], expected, "{labels:?}: {:?}", told_of(&part));
        assert_eq!(json(&part)["routes"][0]["middlewares"], json!(["m@docker"]));
        assert_eq!(told_of(&part), [], "{labels:?}");
        part.table.check().unwrap();
    }
}

#[test]
fn chains_are_unfolded_in_their_order() {
    let labels = [
        ("traefik.http.routers.r.rule", "Host(`a`)"),
        ("traefik.http.routers.r.middlewares", "outer,last"),
        ("traefik.http.middlewares.outer.chain.middlewares", "first, inner@docker"),
        ("traefik.http.middlewares.inner.chain.middlewares", "second"),
        ("traefik.http.middlewares.first.addprefix.prefix", "/1"),
        ("traefik.http.middlewares.second.addprefix.prefix", "/2"),
        ("traefik.http.middlewares.last.addprefix.prefix", "/3"),
    ];
    let part = tabled(&[container("c", &labels)], OPEN);
    assert_eq!(json(&part)["routes"][0]["middlewares"], json!(["first@docker", "second@docker", "last@docker"]));
    part.table.check().unwrap();
}

#[test]
fn a_router_whose_middleware_is_not_there_is_not_opened_without_it() {
    for (labels, words) in [
        (&[("chain.middlewares", "m")][..], &["router r", "leads to itself"][..]),
        (&[("chain.middlewares", "nobody")], &["router r", "no middleware \"nobody\""]),
        (&[("chain.middlewares", "auth@file")], &["router r", "auth@file"]),
        (&[("digestauth.users", "a:b:c")], &["middleware m", "digestAuth"]),
        (&[("plugin.any.deep.er", "x")], &["middleware m", "plugin"]),
        (&[("basicauth.usersfile", "/users")], &["middleware m", "usersFile"]),
        (&[("forwardauth.address", "https://a"), ("forwardauth.tls.ca", "x")], &["middleware m", "forwardAuth.tls.ca"]),
        (&[("errors.status", "500"), ("errors.service", "pages@file")], &["middleware m", "pages@file"]),
        (&[("redirectscheme.port", "web")], &["middleware m", "\"web\" is no port"]),
        (&[("addprefix.prefix", "/a"), ("replacepath.path", "/b")], &["middleware m", "several kinds"]),
        (&[("compress", "false")], &["middleware m", "no kind"]),
    ] {
        let part = through(labels);
        assert_eq!(json(&part)["routes"], json!([]), "{labels:?}");
        assert_told(&told_of(&part), Kind::Refused, words);
    }
}

#[test]
fn settings_without_a_counterpart_are_named_and_the_rest_is_done() {
    for (labels, word) in [
        (&[("headers.sslredirect", "true"), ("headers.framedeny", "true")][..], "headers.sslRedirect"),
        (&[("stripprefix.prefixes", "/a"), ("stripprefix.forceslash", "false")], "forceSlash"),
        (&[("buffering.maxrequestbodybytes", "1"), ("buffering.retryexpression", "x")], "retryExpression"),
        (&[("retry.attempts", "2"), ("retry.timeout", "1s")], "retry.timeout"),
        (&[("forwardauth.address", "http://a"), ("forwardauth.forwardbody", "true")], "forwardBody"),
        (&[("compress.encodings", "gzip,deflate")], "deflate"),
        (&[("contenttype.autodetect", "true")], "contentType"),
        (&[("errors.status", "500-599,404"), ("errors.service", "nobody"), ("errors.query", "/x")], "no service \"nobody\""),
    ] {
        let part = through(labels);
        assert_eq!(part.table.routes.len(), 1, "{labels:?}");
        assert_told(&told_of(&part), Kind::Unsupported, &["middleware m", word]);
    }
}

#[test]
fn hashes_are_not_shown() {
    let labels = [("traefik.http.middlewares.m.basicauth.users", "ann:$apr1$salt$secret")];
    let configuration = crate::sketch::configured(&[container("c", &labels)]);
    let json = configuration.to_json().to_string();
    assert!(json.contains("ann:") && !json.contains("secret"), "{json}");
    assert!(!format!("{:?}", configuration.middlewares).contains("secret"));
}
