//! What a proxy says about itself.

use coracle_proxy::table::{Admission, Middleware, MiddlewareId, Route, ServiceId, StripPrefix, Table};
use coracle_proxy::{ApplyError, Changes, ListenerOptions, Proxy, Trust};

use crate::backend::Backend;
use crate::env::{Env, Wire, soon, table, until};
use crate::tls::{self, local, with_tls};

#[tokio::test]
async fn routes_are_told_in_the_order_in_which_they_are_asked() {
    let app = Backend::talking(|mut conn| async move {
        conn.request().await;
        conn.request().await;
    })
    .await;
    let mut env = Env::new().await;
    let mut table =
        table(&[("a.example", "/", "app"), ("a.example", "/api", "app")], &[("app", Admission::Open, &[("t", app.address)])]);
    let mut first = Route::new("first", "PathPrefix(`/`)", ServiceId("app".into()));
    (first.priority, first.tls) = (Some(1000), Some(true));
    table.routes.push(first);
    table
        .middlewares
        .insert(MiddlewareId("strip".into()), Middleware::StripPrefix(StripPrefix { prefixes: vec!["/api".into()] }));
    table.routes[1].middlewares = vec![MiddlewareId("strip".into())];
    env.publish(table).await;
    let mut wire = env.connect().await;
    wire.send("GET /api HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    until("it is in flight", async || env.in_flight().await == 1).await;
    let routes = env.client().routes().await.unwrap();
    let order: Vec<_> = routes.iter().map(|route| route.id.0.as_str()).collect();
    assert_eq!(order, ["first", "r1", "r0"]);
    assert_eq!((routes[0].priority, routes[0].tls), (1000, Some(true)));
    assert_eq!(routes[1].priority, i64::try_from(routes[1].rule.chars().count()).unwrap());
    assert_eq!((routes[1].middlewares[0].id.0.as_str(), routes[1].middlewares[0].kind.as_str()), ("strip", "strip-prefix"));
    let target = &routes[2].service.as_ref().unwrap().targets[0];
    assert_eq!((target.address, target.in_flight, target.upgraded), (app.address, 1, 0));
    let targets = env.client().targets().await.unwrap();
    assert_eq!((targets.len(), targets[0].in_flight), (1, 1));
}

#[tokio::test]
async fn listeners_and_settings_are_told() {
    let mut env = Env::with(with_tls).await;
    let status = env.client().status().await.unwrap();
    let told: Vec<_> = status.listeners.iter().map(|it| (it.name.as_str(), it.address, it.tls)).collect();
    assert_eq!(told, [("http", env.http(), false), ("https", tls::https(&env), true)]);
    assert_eq!(status.settings, env.options.digest());
    env.options.listeners[0].address = env.http();
    assert_eq!(status.settings, env.options.digest(), "where it listens is told anyway");
    env.options.listeners.push(ListenerOptions::http("127.0.0.1:0".parse().unwrap()));
    assert_ne!(status.settings, env.options.digest());
}

#[tokio::test]
async fn certificates_and_their_authority_are_told() {
    let mut env = Env::with(with_tls).await;
    assert_eq!(env.client().certificates().await.unwrap(), []);
    tls::publish(&mut env, local(&["a.localhost"], "127.0.0.1:9".parse().unwrap())).await;
    until("it is told", async || !env.client().certificates().await.unwrap().is_empty()).await;
    let told = env.client().certificates().await.unwrap();
    assert_eq!(told[0].certificate.as_ref().unwrap().names, ["a.localhost"]);
    let authority = env.client().local_authority().await.unwrap();
    assert_eq!(authority, tls::local_root(&env));
    assert!(!authority.contains("PRIVATE"));
    let plain = Env::new().await;
    assert_eq!(plain.client().certificates().await.unwrap(), []);
    assert!(plain.client().local_authority().await.is_err());
}

#[tokio::test]
async fn what_was_counted_for_a_service_and_those_below_it_is_told() {
    let app = Backend::saying("hello").await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut env = Env::new().await;
    env.publish(table(
        &[("a.example", "/", "app"), ("b.example", "/", "app.api"), ("c.example", "/", "apple")],
        &[
            ("app", Admission::Open, &[("t", app.address)]),
            ("app.api", Admission::Open, &[("u", gone)]),
            ("apple", Admission::Open, &[("v", app.address)]),
        ],
    ))
    .await;
    env.get("a.example", "/").await.is(200, "hello");
    assert_eq!(env.get("b.example", "/").await.status, 502);
    env.get("c.example", "/").await.is(200, "hello");
    let figures = async |service: &str| env.client().figures(service).await.unwrap();
    // A request is counted when its answer has been sent, which its client may have read before.
    until("they are counted", async || figures("app").await.answered == 2 && figures("apple").await.answered == 1).await;
    let told = figures("app").await;
    assert_eq!((told.errors, told.others, told.in_flight), (1, 0, 0));
    assert_eq!(told.durations.iter().map(|(_, count)| count).sum::<u64>(), 2);
    assert_eq!(told.durations.last().unwrap().0, u64::MAX);
    assert_eq!((figures("apple").await.errors, figures("nobody").await.answered), (0, 0));
}

#[tokio::test]
async fn metrics_are_told_to_both_doors_and_through_a_hand_over() {
    let app = Backend::saying("hello").await;
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut env = Env::with(|options| {
        with_tls(options);
        options.metrics = Some(address);
    })
    .await;
    tls::publish(&mut env, local(&["a.localhost"], app.address)).await;
    env.get("a.localhost", "/").await.is(200, "hello");
    let scrape = async || {
        let mut wire = Wire::to(address).await;
        wire.send("GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").await;
        let answer = soon(wire.answer()).await;
        assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
        answer.body
    };
    // A request is counted when its answer has been sent, which its client may have read before.
    let counted = "coracle_proxy_requests_total{route=\"r0\",class=\"2xx\"} 1";
    until("it is counted", async || env.client().metrics().await.unwrap().contains(counted)).await;
    for text in [scrape().await, env.client().metrics().await.unwrap()] {
        for line in [
            "coracle_proxy_requests_total{route=\"r0\",class=\"2xx\"} 1",
            "coracle_proxy_upstream_errors_total{route=\"r0\"} 0",
            "coracle_proxy_target_up{target=\"t\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
        let shaken = text.lines().find(|line| line.starts_with("coracle_proxy_tls_handshakes_total{result=\"full\"}")).unwrap();
        assert!(!shaken.ends_with(" 0"), "{shaken}");
        assert!(text.contains("coracle_proxy_certificate_end_seconds{name=\"a.localhost\"} "));
    }
    let mut wire = Wire::to(address).await;
    wire.send("GET /other HTTP/1.1\r\nHost: m\r\n\r\n").await;
    assert_eq!(soon(wire.answer()).await.status, 404);
    drop(wire);
    env.options.listeners[0].address = env.http();
    let mut old = env.proxy.replace(Proxy::start(env.options.clone()).await.unwrap()).unwrap();
    soon(old.ended()).await;
    assert!(scrape().await.contains("{route=\"r0\",class=\"2xx\"} 0"));
}

#[tokio::test]
async fn a_table_that_cannot_be_served_by_changes_nothing() {
    let app = Backend::saying("hello").await;
    let env = Env::with(|options| {
        options.table =
            Some(table(&[("*", "/", "app")], &[("app", Admission::Closed { message: "not yet".into(), retry_after_s: 1 }, &[])]));
    })
    .await;
    let answer = env.get("h", "/").await;
    assert!(answer.status == 503 && answer.body.contains("not yet"), "{answer:?}");
    let proxy = env.proxy.as_ref().unwrap();
    let open = table(&[("*", "/", "app")], &[("app", Admission::Open, &[("t", app.address)])]);
    let changes = |table: &Table| Changes { table: table.clone(), given: Vec::new(), trust: Trust::nobody() };
    proxy.apply(changes(&open)).await.unwrap();
    env.get("h", "/").await.is(200, "hello");
    let generation = env.client().status().await.unwrap().generation;
    let mut bad = open;
    bad.routes[0].rule = "Host(".into();
    let error = proxy.apply(changes(&bad)).await.unwrap_err();
    assert!(matches!(&error, ApplyError::Table(table) if table.at_fault() == ["routes.r0"]), "{error}");
    env.get("h", "/").await.is(200, "hello");
    assert_eq!(env.client().status().await.unwrap().generation, generation);
    let error = Proxy::start(coracle_proxy::ProxyOptions {
        table: Some(bad),
        ..coracle_proxy::ProxyOptions::new(
            vec!["127.0.0.1:0".parse().unwrap()],
            env.directory.path().join("other"),
            env.directory.path().join("other-state"),
        )
    })
    .await
    .unwrap_err();
    assert!(matches!(error, coracle_proxy::StartError::FirstTable(_)), "{error}");
}

#[tokio::test]
async fn who_is_believed_may_change_while_it_runs() {
    let app = Backend::answering(|seen| seen.header("x-forwarded-for").unwrap_or_default().to_owned()).await;
    let mut env = Env::new().await;
    env.serve(&[("t", app.address)]).await;
    let ask = async || {
        let mut wire = env.connect().await;
        wire.send("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n").await;
        soon(wire.answer()).await.body
    };
    assert_eq!(ask().await, "127.0.0.1");
    let table = env.client().table().await.unwrap();
    let trust = Trust::parse(["127.0.0.0/8"]).unwrap();
    env.proxy.as_ref().unwrap().apply(Changes { table, given: Vec::new(), trust }).await.unwrap();
    assert_eq!(ask().await, "192.0.2.1, 127.0.0.1");
}
