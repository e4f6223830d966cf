//! Routers and services in the table's words.

use coracle_labels::{Entrance, Kind, Part};
use serde_json::{Value, json};

use crate::sketch::{OPEN, assert_told, container, json, tabled, told_of};

fn routed(labels: &[(&str, &str)], entrance: Entrance) -> Part {
    let named: Vec<(String, &str)> = labels
        .iter()
        .map(|(label, value)| match label.strip_prefix("lb.") {
            Some(label) => (format!("traefik.http.services.s.loadbalancer.{label}"), *value),
            None => (format!("traefik.http.routers.r.{label}"), *value),
        })
        .collect();
    let all: Vec<(&str, &str)> = named.iter().map(|(label, value)| (label.as_str(), *value)).collect();
    tabled(&[container("c", &all)], entrance)
}

fn route(part: &Part) -> Value {
    json(part)["routes"][0].clone()
}

#[test]
fn a_router_becomes_a_route_and_its_container_a_target() {
    let part = routed(&[("rule", "Host(`a.example`)")], Entrance::default());
    assert_eq!(
        json(&part),
        json!({
            "generation": 0,
            "routes": [{ "id": "r@docker", "rule": "Host(`a.example`)", "tls": false, "service": "c@docker" }],
            "middlewares": {},
            "services": { "c@docker": {
                "admission": { "kind": "open" },
                "targets": [{ "id": "c.c-0123456789:80@docker", "address": "10.0.0.99:80" }],
            } },
        })
    );
    assert_eq!(part.sources.values().next().unwrap(), &["c"]);
}

#[test]
fn entry_points_and_tls_say_how_requests_come() {
    for (labels, tls) in [
        (&[][..], Some(false)),
        (&[("entrypoints", "web")], Some(false)),
        (&[("entrypoints", "websecure")], Some(true)),
        (&[("tls", "true")], Some(true)),
        (&[("tls", "")], Some(true)),
        (&[("tls.certresolver", "le"), ("tls", "false")], Some(false)),
        (&[("entrypoints", "web,websecure")], Some(false)),
        (&[("entrypoints", "web,websecure"), ("tls", "true")], Some(true)),
        (&[("entrypoints", "metrics,web")], Some(false)),
        (&[("entrypoints", "metrics")], None),
        (&[("entrypoints", "web"), ("tls", "true")], None),
    ] {
        let part = routed(&[&[("rule", "PathPrefix(`/`)")][..], labels].concat(), OPEN);
        assert_eq!(part.table.routes.first().map(|route| route.tls), tls.map(Some), "{labels:?}");
    }
    let told = told_of(&routed(&[("rule", "Path(`/`)"), ("entrypoints", "metrics,web")], OPEN));
    assert_told(&told, Kind::Unsupported, &["router r", "metrics"]);
    let told = told_of(&routed(&[("rule", "Path(`/`)"), ("tls", "true")], Entrance::default()));
    assert_told(&told, Kind::Unsupported, &["router r", "does not listen for TLS"]);
}

#[test]
fn certificates_come_from_where_labels_say_so_far_as_they_can() {
    let of = |labels: &[(&str, &str)], entrance| route(&routed(labels, entrance))["certificate"].clone();
    let host = ("rule", "Host(`a.example`)");
    assert_eq!(of(&[host, ("tls.certresolver", "le")], OPEN), "acme");
    assert_eq!(of(&[host, ("entrypoints", "websecure")], OPEN), "acme");
    assert_eq!(of(&[host, ("tls", "true")], OPEN), Value::Null);
    assert_eq!(of(&[host], OPEN), Value::Null);
    assert_eq!(of(&[("rule", "Host(`a.localhost`)"), ("tls.certresolver", "le")], OPEN), "local");
    let without = Entrance { acme: false, ..OPEN };
    let part = routed(&[host, ("tls.certresolver", "le"), ("tls.domains[0].main", "b.example"), ("tls.options", "o")], without);
    assert_eq!(route(&part)["certificate"], Value::Null);
    for words in [["tls.certresolver=le", "--acme"], ["b.example", "tls.domains"], ["tls.options=o", "no effect"]] {
        assert_told(&told_of(&part), Kind::Unsupported, &words);
    }
}

#[test]
fn those_who_come_without_tls_are_sent_where_there_is_some() {
    let secure = [("traefik.http.routers.r.rule", "Host(`a.example`) && Path(`/x`)"), ("traefik.http.routers.r.tls", "true")];
    let part = tabled(&[container("c", &secure)], OPEN);
    let ids: Vec<&str> = part.table.routes.iter().map(|route| route.id.0.as_str()).collect();
    assert_eq!(ids, ["r@docker", "r-to-tls@docker"]);
    let redirect = &json(&part)["routes"][1];
    assert_eq!((&redirect["rule"], &redirect["tls"]), (&json!("Host(`a.example`)"), &json!(false)));
    let to = json!({ "redirect-scheme": { "scheme": "https", "port": 443, "permanent": true } });
    assert_eq!(json(&part)["middlewares"]["to-tls@docker"], to);
    part.table.check().unwrap();
    // Not where somebody serves the host without TLS, and not if nobody wants it.
    for plain in ["Host(`a.example`)", "PathPrefix(`/`)"] {
        let both = [&secure[..], &[("traefik.http.routers.plain.rule", plain)]].concat();
        assert_eq!(tabled(&[container("c", &both)], OPEN).table.routes.len(), 2, "{plain}");
    }
    assert_eq!(tabled(&[container("c", &secure)], Entrance { redirect: false, ..OPEN }).table.routes.len(), 1);
}

#[test]
fn rules_are_read_in_the_dialect_they_are_in() {
    let dialect = |labels: &[(&str, &str)]| route(&routed(labels, OPEN))["dialect"].clone();
    assert_eq!(dialect(&[("rule", "Host(`a`)")]), Value::Null);
    assert_eq!(dialect(&[("rule", "Host(`a`)"), ("rulesyntax", "v2")]), "v2");
    assert_eq!(dialect(&[("rule", r"hostregexp(`{host:(www\.)?.+}`)")]), "v2");
    assert_eq!(dialect(&[("rule", "Host(`a`, `b`)")]), "v2");
    assert_eq!(dialect(&[("rule", "PathPrefix(`/a/{id}/b`)")]), "v2");
    assert_eq!(dialect(&[("rule", r"HostRegexp(`^[a-z]{2,3}\p{Greek}\.a$`)")]), Value::Null);
    for (labels, words) in [
        (&[("rule", "Host(`a`, `b`)"), ("rulesyntax", "v3")][..], ["router r", "cannot be read"]),
        (&[("rule", "Hots(`a`)")], ["router r", "cannot be read"]),
        (&[("rule", "Host(`a`)"), ("rulesyntax", "v4")], ["router r", "\"v4\""]),
    ] {
        assert_told(&told_of(&routed(labels, OPEN)), Kind::Refused, &words);
    }
}

#[test]
fn priorities_stay_below_those_of_apps() {
    let priority = |text: &str| route(&routed(&[("rule", "Path(`/`)"), ("priority", text)], OPEN))["priority"].clone();
    assert_eq!(priority("0"), Value::Null);
    assert_eq!(priority("42"), 42);
    assert_eq!(priority("-3"), -3);
    assert_eq!(priority("9223372036854775807"), json!(u32::MAX));
}

#[test]
fn routers_that_lead_nowhere_are_refused() {
    for (service, word) in [("nobody", "nobody"), ("api@internal", "Traefik itself"), ("app@file", "app@file")] {
        let part = routed(&[("rule", "Path(`/`)"), ("service", service)], OPEN);
        assert!(part.table.routes.is_empty());
        assert_told(&told_of(&part), Kind::Refused, &["router r", word]);
    }
    // One whose middlewares answer needs no service.
    assert_eq!(route(&routed(&[("rule", "Path(`/`)"), ("service", "noop@internal")], OPEN))["service"], Value::Null);
}

#[test]
fn services_keep_their_settings() {
    let part = routed(
        &[
            ("rule", "Path(`/`)"),
            ("lb.server.port", "5000"),
            ("lb.server.weight", "3"),
            ("lb.strategy", "p2c"),
            ("lb.healthcheck.path", "/up"),
            ("lb.healthcheck.interval", "4s"),
            ("lb.healthcheck.timeout", "3s"),
            ("lb.sticky.cookie.name", "sid"),
            ("lb.sticky.cookie.httponly", "true"),
            ("lb.sticky.cookie.samesite", "Lax"),
            ("lb.passivehealthcheck.maxfailedattempts", "3"),
        ],
        OPEN,
    );
    assert_eq!(
        json(&part)["services"]["s@docker"],
        json!({
            "admission": { "kind": "open" },
            "targets": [{ "id": "c.c-0123456789:5000@docker", "address": "10.0.0.99:5000", "weight": 3 }],
            "balance": "least-loaded",
            "sticky": { "cookie": "sid", "secure": false, "http_only": true, "same_site": "lax" },
            "health": { "path": "/up", "interval_ms": 4000, "timeout_ms": 3000 },
            "ejection": { "failures": 3, "for_ms": 10000 },
        })
    );
    assert_eq!(told_of(&part), []);
    let h2c = routed(&[("rule", "Path(`/`)"), ("lb.server.scheme", "h2c"), ("lb.sticky.cookie", "")], OPEN);
    assert_eq!(json(&h2c)["services"]["s@docker"]["protocol"], "h2c");
    assert!(json(&h2c)["services"]["s@docker"]["sticky"]["cookie"].as_str().unwrap().starts_with('_'));
}

#[test]
fn what_services_cannot_do_is_named() {
    for (labels, words) in [
        (&[("lb.server.scheme", "https")][..], &["service s", "without TLS only"][..]),
        (&[("lb.server.url", "http://name.example:80")], &["service s", "names are not looked up"]),
        (&[("lb.server.url", "http://192.0.2.1:80/path")], &["service s", "the path"]),
        (&[("lb.passhostheader", "false")], &["service s", "passHostHeader"]),
        (&[("lb.serverstransport", "t@file")], &["service s", "serversTransport", "t@file"]),
        (&[("lb.responseforwarding.flushinterval", "1s")], &["service s", "responseForwarding"]),
        (&[("lb.strategy", "hrw")], &["service s", "hrw"]),
        (&[("lb.sticky.cookie.domain", "example")], &["service s", "domain"]),
        (&[("lb.healthcheck.interval", "1s")], &["service s", "healthcheck.path"]),
        (&[("lb.healthcheck.path", "/"), ("lb.healthcheck.port", "1")], &["service s", "healthcheck.port"]),
        (&[("lb.healthcheck.path", "/"), ("lb.healthcheck.mode", "grpc")], &["service s", "grpc"]),
    ] {
        let part = routed(&[&[("rule", "Path(`/`)")][..], labels].concat(), OPEN);
        assert_eq!(part.table.routes.len(), 1, "{labels:?}");
        assert_told(&told_of(&part), Kind::Unsupported, words);
        part.table.check().unwrap();
    }
}

#[test]
fn hosts_of_a_rule_are_read_in_every_dialect() {
    for (rule, named, and_others) in [
        ("Host(\"A.example\") && PathPrefix(\"/api\")", &["a.example"][..], false),
        ("Host(`a.example`, `b.example`)", &["a.example", "b.example"], false),
        ("Host(`*.a.example`) || Host(`**.b.example`)", &["**.b.example", "*.a.example"], false),
        ("Host(`a.example`) || PathPrefix(`/`)", &["a.example"], true),
        ("PathRegexp(`^/(host()|)|^/`)", &[], true),
        ("HostRegexp(`{name:.+}.example`)", &[], true),
    ] {
        let hosts = coracle_labels::hosts_of_rule(rule).unwrap();
        let read: Vec<&str> = hosts.named.iter().map(String::as_str).collect();
        assert_eq!((read.as_slice(), hosts.and_others), (named, and_others), "{rule}");
    }
    assert!(coracle_labels::hosts_of_rule("Host(`a.example`").unwrap_err().contains("byte"));
}
