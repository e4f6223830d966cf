//! Header fields.

use crate::{answered, back, chain, field, reaches, response, status};

#[tokio::test]
async fn custom_fields_are_set_replaced_and_removed() {
    let custom = chain(&[r#"{"headers":{
        "custom_request_headers":{"X-New":"1","x-old":"2","X-Gone":"","Host":"inner.test:81"},
        "custom_response_headers":{"X-Powered-By":"","Server":"us","Cache-Control":"no-store"}}}"#]);
    let asked = [("X-Old", "a"), ("X-OLD", "b"), ("x-gone", "c"), ("Kept", "d")];
    let (head, _) = reaches(&custom, "GET http://a.test/", &asked).await;
    let all: Vec<_> = head.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    let wanted = [("host", "inner.test:81"), ("x-old", "2"), ("kept", "d"), ("x-new", "1")];
    assert_eq!(all, wanted.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));

    let answer = response(200, &[("X-Powered-By", "magic"), ("Server", "them"), ("ETag", "\"x\"")]);
    let (head, _) = back(&custom, "GET http://a.test/", &[], answer).await;
    assert_eq!(head.fields.len(), 3);
    assert_eq!([field(&head.fields, "server"), field(&head.fields, "cache-control")], [Some("us"), Some("no-store")]);
}

#[tokio::test]
async fn the_security_set_is_written_and_custom_fields_go_before_it() {
    let set = chain(&[r#"{"headers":{"frame_deny":true,"content_type_nosniff":true,"browser_xss_filter":true,
        "content_security_policy":"default-src 'self'","content_security_policy_report_only":"img-src *",
        "referrer_policy":"same-origin","permissions_policy":"camera=()","sts_seconds":60,
        "sts_include_subdomains":true,"sts_preload":true,"custom_response_headers":{"Referrer-Policy":"no-referrer"}}}"#]);
    let (head, _) = back(&set, "GET https://a.test/", &[], response(200, &[("X-Frame-Options", "ALLOWALL")])).await;
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("x-xss-protection", "1; mode=block"),
        ("content-security-policy", "default-src 'self'"),
        ("content-security-policy-report-only", "img-src *"),
        ("referrer-policy", "no-referrer"),
        ("permissions-policy", "camera=()"),
        ("strict-transport-security", "max-age=60; includeSubDomains; preload"),
    ] {
        assert_eq!(head.fields.count(name), 1, "{name}");
        assert_eq!(field(&head.fields, name), Some(value));
    }
    let own = chain(&[r#"{"headers":{"frame_deny":true,"custom_frame_options_value":"SAMEORIGIN"}}"#]);
    let (head, _) = back(&own, "GET http://a.test/", &[], response(200, &[])).await;
    assert_eq!(field(&head.fields, "x-frame-options"), Some("SAMEORIGIN"));
}

#[tokio::test]
async fn transport_security_is_for_clients_that_came_over_tls() {
    let plain = r#"{"headers":{"sts_seconds":60}}"#;
    let forced = r#"{"headers":{"sts_seconds":60,"force_sts_header":true}}"#;
    let proxied = r#"{"headers":{"sts_seconds":60,"ssl_proxy_headers":{"Front-End-Https":"on"}}}"#;
    let developing = r#"{"headers":{"sts_seconds":60,"is_development":true}}"#;
    for (middleware, line, asked, wanted) in [
        (plain, "GET https://a.test/", &[][..], true),
        (plain, "GET http://a.test/", &[], false),
        (plain, "GET http://a.test/", &[("X-Forwarded-Proto", "https")], true),
        (forced, "GET http://a.test/", &[], true),
        (proxied, "GET http://a.test/", &[("Front-End-Https", "on")], true),
        (proxied, "GET http://a.test/", &[("Front-End-Https", "off")], false),
        (developing, "GET https://a.test/", &[], false),
    ] {
        let (head, _) = back(&chain(&[middleware]), line, asked, response(200, &[])).await;
        assert_eq!(head.fields.contains("strict-transport-security"), wanted, "{middleware} {line} {asked:?}");
    }
}

const CORS: &str = r#"{"headers":{"access_control_allow_origin_list":["https://shop.test"],
    "access_control_allow_origin_list_regex":["^https://[a-z]+\\.shop\\.test$"],"access_control_allow_methods":["GET","PUT"],
    "access_control_allow_headers":["X-A","X-B"],"access_control_expose_headers":["X-C","X-D"],
    "access_control_allow_credentials":true,"access_control_max_age":600,"add_vary_header":true}}"#;

#[tokio::test]
async fn preflights_are_answered() {
    let cors = chain(&[CORS]);
    let preflight = |origin| [("Origin", origin), ("Access-Control-Request-Method", "PUT")];
    let answer = answered(&cors, "OPTIONS http://a.test/", &preflight("https://x.shop.test")).await;
    let fields = &answer.head.fields;
    assert_eq!(answer.head.status, 200);
    for (name, value) in [
        ("access-control-allow-origin", "https://x.shop.test"),
        ("access-control-allow-methods", "GET,PUT"),
        ("access-control-allow-headers", "X-A,X-B"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
        ("vary", "Origin"),
        ("content-length", "0"),
    ] {
        assert_eq!(field(fields, name), Some(value), "{name}");
    }
    let stranger = answered(&cors, "OPTIONS http://a.test/", &preflight("https://evil.test")).await;
    assert_eq!(field(&stranger.head.fields, "access-control-allow-origin"), None);
    // Neither of these is a preflight.
    reaches(&cors, "OPTIONS http://a.test/", &[("Origin", "https://shop.test")]).await;
    reaches(&cors, "GET http://a.test/", &preflight("https://shop.test")).await;
}

#[tokio::test]
async fn answers_say_who_may_read_them() {
    let cors = chain(&[CORS]);
    for (origin, allowed) in [
        (Some("https://shop.test"), Some("https://shop.test")),
        (Some("https://a.shop.test"), Some("https://a.shop.test")),
        (Some("https://a.shop.test.evil.test"), None),
        (Some("null"), None),
        (None, None),
    ] {
        let asked: Vec<_> = origin.map(|origin| ("Origin", origin)).into_iter().collect();
        let (head, _) = back(&cors, "GET http://a.test/", &asked, response(200, &[("Vary", "Accept")])).await;
        assert_eq!(field(&head.fields, "access-control-allow-origin"), allowed, "{origin:?}");
        assert_eq!(field(&head.fields, "access-control-expose-headers"), Some("X-C,X-D"));
        assert_eq!(field(&head.fields, "vary"), Some("Accept, Origin"));
    }
    for vary in ["origin", "Accept, ORIGIN", "*"] {
        let (head, _) = back(&cors, "GET http://a.test/", &[], response(200, &[("Vary", vary)])).await;
        assert_eq!(field(&head.fields, "vary"), Some(vary));
    }
    let any = chain(&[r#"{"headers":{"access_control_allow_origin_list":["*"]}}"#]);
    let (head, _) = back(&any, "GET http://a.test/", &[("Origin", "https://x.test")], response(200, &[])).await;
    assert_eq!(field(&head.fields, "access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn other_hosts_are_refused() {
    let hosts = chain(&[r#"{"headers":{"allowed_hosts":["a.test"],"hosts_proxy_headers":["X-Forwarded-Host"]}}"#]);
    for (line, asked, wanted) in [
        ("GET http://a.test/", &[][..], 200),
        ("GET http://A.TEST:8080/", &[], 200),
        ("GET http://b.test/", &[], 500),
        ("GET http://b.test/", &[("X-Forwarded-Host", "a.test")], 200),
        ("GET http://a.test/", &[("X-Forwarded-Host", "b.test")], 500),
    ] {
        assert_eq!(status(&hosts, line, asked).await, wanted, "{line} {asked:?}");
    }
}
