//! Addresses, rates, numbers, sizes.

use coracle_proxy_middleware::State;

use crate::{Nobody, answered, back, chain, client, field, pass, reaches, request, response, status, try_chain};

/// The status for a client with this address and `X-Forwarded-For`.
async fn from(chain: &coracle_proxy_middleware::Chain, ip: &str, forwarded: &[&str]) -> u16 {
    let fields: Vec<_> = forwarded.iter().map(|value| ("X-Forwarded-For", *value)).collect();
    let (_, mut head) = request("GET http://a.test/", &fields);
    chain.request(&client(ip, false), &mut head, &Nobody).await.err().map_or(200, |answer| answer.head.status.as_u16())
}

#[tokio::test]
async fn only_listed_addresses_come_in() {
    let list = chain(&[r#"{"ip-allow-list":{"source_range":["192.0.2.7","10.1.2.3/8","2001:db8::/32"]}}"#]);
    for (ip, wanted) in [
        ("192.0.2.7", 200),
        ("192.0.2.8", 403),
        ("10.200.0.1", 200),
        ("11.0.0.1", 403),
        ("2001:db8:1::1", 200),
        ("2001:db9::1", 403),
        ("::ffff:10.0.0.1", 200),
        ("::ffff:11.0.0.1", 403),
    ] {
        assert_eq!(from(&list, ip, &[]).await, wanted, "{ip}");
    }
    assert_eq!(from(&list, "192.0.2.8", &["192.0.2.7"]).await, 403, "what clients say does not count");
    let hidden = chain(&[r#"{"ip-allow-list":{"source_range":["192.0.2.7"],"reject_status_code":404}}"#]);
    assert_eq!(from(&hidden, "192.0.2.8", &[]).await, 404);
}

#[tokio::test]
async fn addresses_behind_other_proxies_are_found() {
    let list = |strategy: &str| {
        chain(&[&format!(r#"{{"ip-allow-list":{{"source_range":["192.0.2.7","::/0"],"ip_strategy":{strategy}}}}}"#)])
    };
    for (strategy, forwarded, wanted) in [
        (r#"{"depth":1}"#, &["203.0.113.1, 192.0.2.7"][..], 200),
        (r#"{"depth":2}"#, &["192.0.2.7, 203.0.113.1"], 200),
        (r#"{"depth":2}"#, &["192.0.2.7", "203.0.113.1"], 200),
        (r#"{"depth":3}"#, &["192.0.2.7, 203.0.113.1"], 403),
        (r#"{"depth":1}"#, &[], 403),
        (r#"{"depth":1}"#, &["192.0.2.7, "], 403),
        (r#"{"depth":1}"#, &["192.0.2.7:4711"], 200),
        (r#"{"depth":1}"#, &["[2001:db8::1]:4711"], 200),
        (r#"{"depth":1}"#, &["unknown"], 403),
        (r#"{"excluded_ips":["10.0.0.0/8"]}"#, &["192.0.2.7, 10.0.0.1, 10.0.0.2"], 200),
        (r#"{"excluded_ips":["10.0.0.0/8"]}"#, &["192.0.2.7, 203.0.113.1, 10.0.0.2"], 403),
        (r#"{"excluded_ips":["10.0.0.0/8"]}"#, &["10.0.0.1, 10.0.0.2"], 403),
        (r#"{"excluded_ips":["10.0.0.0/8"]}"#, &["192.0.2.7, nonsense"], 403),
        (r#"{"depth":1,"excluded_ips":["192.0.2.7"]}"#, &["192.0.2.7"], 200),
        ("{}", &["203.0.113.1"], 200),
    ] {
        assert_eq!(from(&list(strategy), "192.0.2.7", forwarded).await, wanted, "{strategy} {forwarded:?}");
    }
}

#[tokio::test]
async fn rates_are_limited_for_each_source() {
    let slow = r#""average":1,"period_ms":3600000,"burst":2"#;
    let by_ip = chain(&[&format!(r#"{{"rate-limit":{{{slow}}}}}"#)]);
    for (ip, wanted) in
        [("192.0.2.1", 200), ("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200), ("::ffff:192.0.2.1", 429)]
    {
        assert_eq!(from(&by_ip, ip, &[]).await, wanted, "{ip}");
    }
    let answer = answered(&by_ip, "GET http://a.test/", &[]).await;
    let wait: u64 = field(&answer.head.fields, "retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");

    let by_header = chain(&[&format!(r#"{{"rate-limit":{{{slow},"source_criterion":{{"request_header_name":"X-Key"}}}}}}"#)]);
    for (key, wanted) in [("a", 200), ("a", 200), ("a", 429), ("b", 200)] {
        assert_eq!(status(&by_header, "GET http://a.test/", &[("X-Key", key)]).await, wanted, "{key}");
    }
    let by_host = chain(&[&format!(r#"{{"rate-limit":{{{slow},"source_criterion":{{"request_host":true}}}}}}"#)]);
    for (host, wanted) in [("a.test", 200), ("A.test:80", 200), ("a.test", 429), ("b.test", 200)] {
        assert_eq!(status(&by_host, &format!("GET http://{host}/"), &[]).await, wanted, "{host}");
    }
    let by_network =
        chain(&[&format!(r#"{{"rate-limit":{{{slow},"source_criterion":{{"ip_strategy":{{"ipv6_subnet":64}}}}}}}}"#)]);
    for (ip, wanted) in [("2001:db8::1", 200), ("2001:db8::2", 200), ("2001:db8::3", 429), ("2001:db8:0:1::1", 200)] {
        assert_eq!(from(&by_network, ip, &[]).await, wanted, "{ip}");
    }
    let none = chain(&[r#"{"rate-limit":{"average":0}}"#]);
    for _ in 0..100 {
        assert_eq!(from(&none, "192.0.2.1", &[]).await, 200);
    }
}

#[tokio::test]
async fn numbers_of_requests_at_once_are_limited_until_they_end() {
    let limit = chain(&[r#"{"in-flight-limit":{"amount":2}}"#]);
    let (_, first) = reaches(&limit, "GET http://a.test/", &[]).await;
    let (_, mut second) = reaches(&limit, "GET http://a.test/", &[]).await;
    assert_eq!(status(&limit, "GET http://a.test/", &[]).await, 429);
    assert_eq!(status(&limit, "GET http://b.test/", &[]).await, 200);
    // The answer's head is not its end.
    limit.response(&mut second, &mut response(200, &[]));
    assert_eq!(status(&limit, "GET http://a.test/", &[]).await, 429);
    drop(second);
    assert_eq!(status(&limit, "GET http://a.test/", &[]).await, 200);
    drop(first);

    // An answer of a middleware behind it counts as long as it is being sent.
    let limit = chain(&[r#"{"in-flight-limit":{"amount":1}}"#, r#"{"maintenance":{}}"#]);
    let answer = answered(&limit, "GET http://a.test/", &[]).await;
    assert_eq!(status(&limit, "GET http://a.test/", &[]).await, 429);
    drop(answer);
    assert_eq!(status(&limit, "GET http://a.test/", &[]).await, 503);
}

#[tokio::test]
async fn large_bodies_are_refused_at_once_or_told_to_the_engine() {
    let limits = chain(&[r#"{"body-limit":{"max_bytes":100}}"#, r#"{"body-limit":{"max_bytes":10}}"#]);
    assert_eq!(limits.body_limit(), Some(10));
    for (length, wanted) in [("10", 200), ("11", 413), ("1000", 413)] {
        assert_eq!(status(&limits, "POST http://a.test/", &[("Content-Length", length)]).await, wanted, "{length}");
    }
    assert!(pass(&limits, "POST http://a.test/", &[("Transfer-Encoding", "chunked")]).await.is_ok());
    assert_eq!(chain(&[]).body_limit(), None);
}

#[tokio::test]
async fn retries_are_told_to_the_engine() {
    let retry = chain(&[r#"{"retry":{"attempts":3,"initial_interval_ms":100}}"#]).retry().unwrap();
    assert_eq!((retry.attempts, retry.initial_interval.as_millis()), (3, 100));
    assert_eq!(chain(&[]).retry(), None);
    assert!(try_chain(&[r#"{"retry":{"attempts":0}}"#], &State::new()).unwrap_err().contains("attempts"));
}

#[tokio::test]
async fn a_circuit_breaker_answers_for_a_service_that_fails() {
    let breaker =
        chain(&[r#"{"circuit-breaker":{"expression":"NetworkErrorRatio() > 0.5","check_period_ms":0,"response_code":504}}"#]);
    back(&breaker, "GET http://a.test/", &[], response(200, &[])).await;
    back(&breaker, "GET http://a.test/", &[], response(502, &[])).await;
    assert_eq!(status(&breaker, "GET http://a.test/", &[]).await, 200);
    back(&breaker, "GET http://a.test/", &[], response(504, &[])).await;
    let answer = answered(&breaker, "GET http://a.test/", &[]).await;
    assert_eq!(answer.head.status, 504);
    assert!(field(&answer.head.fields, "retry-after").is_some());
}
