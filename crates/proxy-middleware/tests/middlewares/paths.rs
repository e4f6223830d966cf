//! Paths that targets see.

use coracle_proxy_http::RequestHead;
use http::Method;
use proptest::prelude::*;

use crate::{Nobody, chain, client, field, pass, reaches, status};

/// What becomes of a path, and what the named field tells the target.
async fn becomes(middleware: &str, path: &str, told: &str) -> (String, Option<String>) {
    let (head, _) = reaches(&chain(&[middleware]), &format!("GET http://a.test{path}"), &[]).await;
    (head.target().to_owned(), field(&head.fields, told).map(str::to_owned))
}

async fn check(middleware: &str, told: &str, cases: &[(&str, &str, Option<&str>)]) {
    for (path, wanted, wanted_told) in cases {
        let got = becomes(middleware, path, told).await;
        assert_eq!((got.0.as_str(), got.1.as_deref()), (*wanted, *wanted_told), "{middleware} {path}");
    }
}

#[tokio::test]
async fn the_first_prefix_that_fits_is_stripped() {
    check(
        r#"{"strip-prefix":{"prefixes":["/api/","/api","/b c"]}}"#,
        "X-Forwarded-Prefix",
        &[
            ("/api", "/", Some("/api")),
            ("/api?x=1", "/?x=1", Some("/api")),
            ("/api/", "/", Some("/api/")),
            ("/api/x/y?z=/api/", "/x/y?z=/api/", Some("/api/")),
            ("/apix", "/x", Some("/api")),
            ("/other/api", "/other/api", None),
            ("/b%20c/x", "/x", Some("/b c")),
            ("/%61pi/x%2Fy", "/x%2Fy", Some("/api/")),
            ("/api/100%", "/100%", Some("/api/")),
        ],
    )
    .await;
}

#[tokio::test]
async fn expressions_strip_what_they_match_at_the_start() {
    check(
        r#"{"strip-prefix-regex":{"regex":["^/v[0-9]+/"," /shop/([a-z]+) ","/a b"]}}"#,
        "X-Forwarded-Prefix",
        &[
            ("/v12/x?y", "/x?y", Some("/v12/")),
            ("/shop/pots/1", "/1", Some("/shop/pots")),
            ("/in/shop/pots", "/in/shop/pots", None),
            ("/a%20b/c%2Fd", "/c%2Fd", Some("/a b")),
            ("/vx/", "/vx/", None),
        ],
    )
    .await;
}

#[tokio::test]
async fn prefixes_are_told_besides_those_before() {
    let strip = chain(&[r#"{"strip-prefix":{"prefixes":["/b"]}}"#]);
    let (head, _) = reaches(&strip, "GET http://a.test/b/c", &[("X-Forwarded-Prefix", "/a")]).await;
    let told: Vec<_> = head.fields.get_all("x-forwarded-prefix").collect();
    assert_eq!(told, [b"/a", b"/b"]);
}

#[tokio::test]
async fn no_path_leads_above_its_root() {
    let strip = r#"{"strip-prefix":{"prefixes":["/api"]}}"#;
    let strip_regex = r#"{"strip-prefix-regex":{"regex":["^/api"]}}"#;
    let add = r#"{"add-prefix":{"prefix":"/in"}}"#;
    let replace = r#"{"replace-path-regex":{"regex":"^/api(.*)$","replacement":"/$1"}}"#;
    for middleware in [strip, strip_regex, replace] {
        for path in ["/api../x", "/api/../x", "/api/%2e%2e/x", "/api/a/../../x", "/api%2e%2e%2fx", "/api/..%2f..%5cx"] {
            assert_eq!(status(&chain(&[middleware]), &format!("GET http://a.test{path}"), &[]).await, 400, "{middleware} {path}");
        }
        for path in ["/api/a/../x", "/api/..a/x", "/api/a../x", "/api/a/./x", "/api/...", "/api?x=/../.."] {
            assert_eq!(status(&chain(&[middleware]), &format!("GET http://a.test{path}"), &[]).await, 200, "{middleware} {path}");
        }
    }
    assert_eq!(status(&chain(&[add]), "GET http://a.test/../x", &[]).await, 400);
    assert_eq!(status(&chain(&[add]), "GET http://a.test/x/..", &[]).await, 200);
}

#[tokio::test]
async fn a_prefix_that_is_no_field_value_is_refused() {
    let strip = chain(&[r#"{"strip-prefix-regex":{"regex":["(?s)^/.+/"]}}"#]);
    let answer = pass(&strip, "GET http://a.test/x%0d%0aEvil:%20y/z", &[]).await.err().unwrap();
    assert_eq!(answer.head.status, 400);
}

#[tokio::test]
async fn what_is_no_path_is_left_alone() {
    let both = chain(&[r#"{"add-prefix":{"prefix":"/in"}}"#, r#"{"replace-path":{"path":"/x"}}"#]);
    let mut head = RequestHead::new(Method::OPTIONS, "*", "a.test").unwrap();
    both.request(&client("192.0.2.1", false), &mut head, &Nobody).await.unwrap();
    assert_eq!(head.target(), "*");
}

proptest! {
    #[test]
    fn whatever_is_stripped_the_rest_is_a_path_within_its_root(
        parts in prop::collection::vec(prop::sample::select(vec!["/", "..", ".", "a", "%2e", "%2F", "%5C", "api", "%", "?", "%61"]), 0..10),
    ) {
        let target = format!("/{}", parts.concat());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let strip = chain(&[r#"{"strip-prefix":{"prefixes":["/api","/a"]}}"#]);
        let passed = runtime.block_on(pass(&strip, &format!("GET http://a.test{target}"), &[]));
        if let Some((head, _)) = passed.ok().filter(|(head, _)| head.target() != target) {
            let decoded = head.path().replace("%2e", ".").replace("%2F", "/").replace("%5C", "/");
            let depths = decoded.split('/').filter(|part| !part.is_empty() && *part != ".").scan(0, |depth, part| {
                *depth += if part == ".." { -1 } else { 1 };
                Some(*depth)
            });
            prop_assert!(depths.min().unwrap_or(0) >= 0, "{target} became {}", head.target());
            prop_assert!(head.path().starts_with('/'));
        }
    }
}

#[tokio::test]
async fn prefixes_are_added() {
    check(r#"{"add-prefix":{"prefix":"/in"}}"#, "X-None", &[("/", "/in/", None), ("/a%2Fb?c", "/in/a%2Fb?c", None)]).await;
    check(r#"{"add-prefix":{"prefix":"in y"}}"#, "X-None", &[("/a", "/in%20y/a", None)]).await;
}

#[tokio::test]
async fn paths_are_replaced_and_the_query_stays() {
    check(
        r#"{"replace-path":{"path":"/new%2Fpath?no query"}}"#,
        "X-Replaced-Path",
        &[("/old/%20x?a=b", "/new%2Fpath%3Fno%20query?a=b", Some("/old/%20x"))],
    )
    .await;
    check(
        r#"{"replace-path-regex":{"regex":"^/u/([^/]+)/(.*)","replacement":" /users/${1}/$2 "}}"#,
        "X-Replaced-Path",
        &[("/u/ann/a%2Fb?q", "/users/ann/a%2Fb?q", Some("/u/ann/a%2Fb")), ("/v/ann/x", "/v/ann/x", None)],
    )
    .await;
    check(
        r#"{"replace-path-regex":{"regex":"/internal","replacement":""}}"#,
        "X-Replaced-Path",
        &[("/internal/a/internal", "/a", Some("/internal/a/internal")), ("/internal", "/", Some("/internal"))],
    )
    .await;
    let broken = r#"{"replace-path-regex":{"regex":"^/x","replacement":"/%"}}"#;
    assert_eq!(status(&chain(&[broken]), "GET http://a.test/x", &[]).await, 500);
}
