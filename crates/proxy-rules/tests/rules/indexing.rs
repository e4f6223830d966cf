//! Routers with more rules than one.

use coracle_proxy_rules::{Dialect, Router, Rule};

use crate::request::get;

fn router(rules: &[(&str, i64)]) -> Router<usize> {
    let parsed = rules.iter().enumerate().map(|(at, (text, priority))| (Rule::parse(text, Dialect::V3).unwrap(), *priority, at));
    Router::new(parsed)
}

#[test]
fn priority_counts_before_order_and_order_before_nothing() {
    let router = router(&[
        ("Path(`/`)", 1),
        ("Host(`a`)", 5),
        ("Host(`a`) && Path(`/x`)", 5),
        ("Host(`*.b`)", 9),
        ("PathPrefix(`/x`)", 7),
        ("HostRegexp(`^c\\.b$`)", 10),
    ]);
    assert_eq!(router.find(&get("a/")), Some(&1));
    assert_eq!(router.find(&get("a/x")), Some(&4));
    assert_eq!(router.find(&get("z/")), Some(&0));
    assert_eq!(router.find(&get("c.b/x")), Some(&5));
    assert_eq!(router.find(&get("d.b./x")), Some(&3));
    assert_eq!(router.find(&get("z/y")), None);
    assert_eq!(router.find_where(&get("a/x"), |at| *at != 4), Some(&1));
    assert_eq!(router.find_where(&get("a/x"), |_| false), None);
    let order: Vec<usize> = router.iter().map(|(_, at)| *at).collect();
    assert_eq!(order, [5, 3, 4, 1, 2, 0]);
    assert_eq!((router.len(), router.is_empty()), (6, false));
}

#[test]
fn many_paths_of_one_host() {
    let mut routes = Vec::new();
    for n in 0..500 {
        for text in [
            format!("Host(`a`) && Path(`/p{n}`)"),
            format!("Host(`a`) && (Path(`/q{n}`) || PathPrefix(`/q{n}/`))"),
            format!("Host(`a`) && PathRegexp(`^/r{n}/[0-9]+$`)"),
        ] {
            routes.push((Rule::parse(&text, Dialect::V3).unwrap(), 0, text));
        }
    }
    routes.push((Rule::parse("PathPrefix(`/`)", Dialect::V3).unwrap(), -1, "rest".to_owned()));
    let router = Router::new(routes);
    let found = |url: &str| router.find(&get(url)).map(String::as_str);
    assert_eq!(found("a/p499"), Some("Host(`a`) && Path(`/p499`)"));
    assert_eq!(found("a/p49"), Some("Host(`a`) && Path(`/p49`)"));
    assert_eq!(found("a/q7/x"), Some("Host(`a`) && (Path(`/q7`) || PathPrefix(`/q7/`))"));
    assert_eq!(found("a/q7x"), Some("rest"));
    assert_eq!(found("a/r77/5"), Some("Host(`a`) && PathRegexp(`^/r77/[0-9]+$`)"));
    assert_eq!(found("b/p1"), Some("rest"));
}

#[test]
fn a_host_too_long_to_be_one_is_none() {
    let router = router(&[("HostRegexp(`^.+$`)", 0), ("Path(`/`)", 0)]);
    assert_eq!(router.find(&get(&format!("{}a/", "a.".repeat(100)))), Some(&0));
    assert_eq!(router.find(&get(&format!("{}a/", "a.".repeat(10_000)))), Some(&1));
}

#[test]
fn an_empty_router_finds_nothing() {
    assert_eq!(router(&[]).find(&get("a")), None);
    assert!(router(&[]).is_empty());
}

/// How many rules are looked at for one request, told by how often the router asks whether one is acceptable.
fn looked_at(router: &Router<usize>, url: &str) -> usize {
    let count = std::cell::Cell::new(0);
    let found = router.find_where(&get(url), |_| {
        count.set(count.get() + 1);
        true
    });
    assert!(found.is_some(), "{url}");
    count.get()
}

#[test]
fn of_ten_thousand_rules_a_request_meets_a_few() {
    let texts = (0..10_000).map(|n| match n % 5 {
        0 => format!("Host(`h{n}.example`)"),
        1 => format!("Host(`h{n}.example`) && (Path(`/api`) || PathPrefix(`/api/`))"),
        2 => format!("HostRegexp(`^[^.]+\\.h{n}\\.example$`)"),
        3 => format!("Host(`h{n}.example`) || Host(`www.h{n}.example`) && !Method(`PUT`)"),
        _ => format!("Host(`one.example`) && PathPrefix(`/p{n}/`)"),
    });
    let router = Router::new(texts.enumerate().map(|(at, text)| (Rule::parse(&text, Dialect::V3).unwrap(), 0, at)));
    for url in ["h5000.example/", "h5001.example/api/x", "a.h5002.example/", "www.h5003.example/", "one.example/p5004/x"] {
        assert_eq!(looked_at(&router, url), 1, "{url}");
    }
}

#[test]
fn rules_of_v2_with_templates_are_filed_too() {
    let texts = (0..1000).map(|n| format!("HostRegexp(`{{sub:[a-z]+}}.h{n}.example`) && PathPrefix(`/x/{{id}}`)"));
    let router = Router::new(texts.enumerate().map(|(at, text)| (Rule::parse(&text, Dialect::V2).unwrap(), 0, at)));
    assert_eq!(looked_at(&router, "a.h77.example/x/1"), 1);
}
