//! Routes, services and middlewares in full.

use coracle_proxy_table::{
    Admission, Balance, CertificateSource, Dialect, Middleware, MiddlewareId, Protocol, SameSite, Service, ServiceId,
};

use crate::{kinds, middlewares, read, refused, route};

fn service(keys: &str) -> Service {
    read(&format!("[services.s]\n{keys}")).table.services[&ServiceId("s".to_owned())].clone()
}

fn middleware(text: &str) -> Middleware {
    read(&format!("[middlewares.m.{text}")).table.middlewares[&MiddlewareId("m".to_owned())].clone()
}

#[test]
fn targets_are_addresses() {
    let service = service(
        r#"targets = [3000, ":3001", "localhost:3002", "http://10.0.0.1:80/", "[::1]:3", { address = "10.0.0.2:80", weight = 0, id = "x" }]"#,
    );
    let targets: Vec<_> =
        service.targets.iter().map(|target| (target.id.0.as_str(), target.address.to_string(), target.weight)).collect();
    let same = |address: &'static str| (address, address.to_owned(), 1);
    let expected = [
        same("127.0.0.1:3000"),
        same("127.0.0.1:3001"),
        same("127.0.0.1:3002"),
        same("10.0.0.1:80"),
        same("[::1]:3"),
        ("x", "10.0.0.2:80".to_owned(), 0),
    ];
    assert_eq!(targets, expected);
    for wrong in [
        "\"backend:80\"",
        "\"10.0.0.1\"",
        "\"https://10.0.0.1:443\"",
        "\"http://10.0.0.1:80/x\"",
        "70000",
        "0",
        "\"0.0.0.0:80\"",
        "[1, 1]",
        "[\"h2c://10.0.0.1:1\", 2]",
        "{ weight = 1 }",
        "true",
        "\"\"",
        "\":x\"",
        "[{ address = 1, weight = -1 }]",
    ] {
        refused(&format!("[services.s]\ntargets = {wrong}"));
    }
    refused("[services.s]");
}

#[test]
fn services_in_full_and_in_short() {
    let full = service(
        r#"targets = "h2c://127.0.0.1:1"
        balance = "least-loaded"
        sticky = { cookie = "c", secure = true, http_only = false, same_site = "none", max_age = "1h" }
        health = { path = "/h?x", interval = "1s", timeout = "500ms", status = 204, host = "h" }
        ejection = { failures = 2, for = "3s" }
        slow_start = "4s"
        response_timeout = "5s""#,
    );
    assert_eq!(
        (full.balance, full.protocol, full.slow_start_ms, full.response_timeout_ms),
        (Balance::LeastLoaded, Protocol::H2c, 4000, Some(5000))
    );
    let sticky = full.sticky.unwrap();
    assert_eq!(
        (sticky.same_site, sticky.max_age_s, sticky.secure, sticky.http_only),
        (Some(SameSite::None), Some(3600), true, false)
    );
    let health = full.health.unwrap();
    assert_eq!((health.interval_ms, health.timeout_ms, health.status), (1000, 500, Some(204)));
    assert_eq!(full.ejection.map(|ejection| (ejection.failures, ejection.for_ms)), Some((2, 3000)));

    let short = service("targets = 1\nsticky = \"who\"\nhealth = \"/up\"\nejection = true\nprotocol = \"h2c\"");
    let sticky = short.sticky.unwrap();
    assert_eq!((sticky.cookie.as_str(), sticky.http_only), ("who", true));
    assert_eq!(short.health.map(|health| (health.path, health.interval_ms)), Some(("/up".to_owned(), 10_000)));
    assert!(short.ejection.is_some());
    assert_eq!(short.protocol, Protocol::H2c);

    assert_eq!(service("closed = \"soon\"").admission, Admission::Closed { message: "soon".to_owned(), retry_after_s: 60 });
    assert_eq!(
        service("targets = 1\nhold = { deadline = \"5s\" }").admission,
        Admission::Hold { deadline_ms: 5000, max_waiting: 1000 }
    );
    for wrong in [
        "balance = \"random\"",
        "sticky = \"a b\"",
        "sticky = { same_site = \"none\" }",
        "health = \"up\"",
        "health = {}",
        "health = { path = \"/\", interval = \"1ms\" }",
        "ejection = 3",
        "slow_start = 3",
        "closed = 1",
        "hold = true",
        "health = { path = \"/\", status = 99 }",
    ] {
        refused(&format!("[services.s]\ntargets = 1\n{wrong}"));
    }
}

#[test]
fn routes_in_full() {
    let config = read(
        r#"
        [tls]
        acme = true
        [routes.r]
        rule = 'Host(`a.example`, `b.example`)'
        dialect = "v2"
        priority = -5
        listeners = ["http", "https"]
        tls = true
        middlewares = ["m", "n"]
        service = "s"
        certificate = "acme"
        [services.s]
        targets = 1
        [middlewares.n.compress]
        [middlewares.m.strip-prefix]
        prefixes = ["/x"]
        "#,
    );
    let route = route(&config, "r");
    assert_eq!(
        (route.dialect, route.priority, route.tls, route.certificate),
        (Dialect::V2, Some(-5), Some(true), CertificateSource::Acme)
    );
    assert_eq!(route.listeners, ["http", "https"]);
    assert_eq!(kinds(&config, "r"), ["strip-prefix", "compress"]);
    assert_eq!(config.table.routes.len(), 1);
    assert_eq!(config.places["routes.r"].line, 4);
    assert_eq!(config.places["middlewares.m"].line, 16);
}

#[test]
fn routes_with_certificates_of_their_own_are_for_tls() {
    let text = "[routes.r]\nrule = \"Host(`a.localhost`)\"\nto = 1\ncertificate = \"local\"\n";
    let config = read(text);
    assert_eq!((route(&config, "r").tls, route(&config, "r#https").tls), (Some(true), Some(false)));
    assert_eq!(route(&read(&format!("{text}redirect = false")), "r").tls, None);
    assert_eq!(route(&read(&format!("{text}[tls]\nredirect = false")), "r").tls, None);
    assert_eq!(read("[routes.r]\nrule = \"Host(`*.localhost`)\"\nto = 1\ncertificate = \"local\"").table.routes.len(), 2);
    for wrong in [
        "rule = \"Path(`/`)\"\nto = 1\ncertificate = \"local\"",
        "rule = \"Host(`a.example`)\"\nto = 1\ncertificate = \"acme\"",
        "rule = \"Host(`a.localhost`)\"\nto = 1\ntls = true\nredirect = true",
        "rule = \"Host(`a.localhost`)\"",
        "to = 1",
        "rule = \"Path(`/`)\"\nservice = \"s\"",
        "rule = \"Path(`/`)\"\nmiddlewares = \"m\"",
        "rule = \"Path(`/`)\"\nto = 1\nservice = \"r\"",
        "rule = \"Path(`/`)\"\nto = 1\ndialect = \"v1\"",
    ] {
        refused(&format!("[routes.r]\n{wrong}"));
    }
}

#[test]
fn middlewares_are_those_of_the_table_with_units() {
    let Middleware::RateLimit(limit) = middleware("rate-limit]\naverage = 5\nperiod = \"1m\"") else { panic!() };
    assert_eq!((limit.average, limit.period_ms, limit.burst), (5, 60_000, 1));
    let Middleware::BodyLimit(limit) = middleware("body-limit]\nmax = \"1MB\"") else { panic!() };
    assert_eq!(limit.max_bytes, 1 << 20);
    let Middleware::Headers(headers) =
        middleware("headers]\nsts = \"2d\"\n[middlewares.m.headers.custom_request_headers]\nA = \"b\"")
    else {
        panic!()
    };
    assert_eq!((headers.sts_seconds, headers.custom_request_headers["A"].as_str()), (172_800, "b"));
    let Middleware::BasicAuth(auth) = middleware("basic-auth]\nusers_file = \"users\"") else { panic!() };
    assert_eq!(auth.users_file.as_deref(), Some("/etc/proxy/users"));
    let Middleware::RateLimit(limit) = middleware("rate-limit]\nperiod_ms = 7") else { panic!() };
    assert_eq!(limit.period_ms, 7);
    for wrong in [
        "]",
        "strip]",
        "strip-prefix]",
        "strip-prefix]\nprefixes = true",
        "strip-prefix]\nprefix = [\"/x\"]",
        "rate-limit]\nperiod = 5",
        "rate-limit]\nperiod = \"1s\"\nperiod_ms = 5",
        "body-limit]\nmax_bytes = -1",
        "rate-limit]\nsource_criterion = { request_hosts = true }",
        "error-pages]\nservice = \"s\"",
    ] {
        refused(&format!("[middlewares.m.{wrong}").replace("m.]", "m]"));
    }
    refused("[middlewares.m]\ncompress = {}\nretry = { attempts = 1 }");
    refused("[middlewares.m]\ncompress = true");
}

#[test]
fn one_value_needs_no_brackets_in_middlewares_either() {
    let text = "[middlewares.a.strip-prefix]\nprefixes = \"/a\"\n[middlewares.b.ip-allow-list]\nsource_range = \"10.0.0.0/8\"\n\
                [routes.r]\nrule = \"Path(`/`)\"\nmiddlewares = [\"a\", \"b\"]\nto = 1";
    let config = read(text);
    let [Middleware::StripPrefix(strip), Middleware::IpAllowList(list)] = middlewares(&config, "r")[..] else { panic!("others") };
    assert_eq!((&strip.prefixes[..], &list.source_range[..]), (&["/a".to_owned()][..], &["10.0.0.0/8".to_owned()][..]));
}
