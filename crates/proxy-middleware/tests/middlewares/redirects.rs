//! Clients that are sent elsewhere.

use crate::{answered, chain, field, reaches, status};

/// Status and `Location`.
async fn redirected(middleware: &str, line: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let answer = answered(&chain(&[middleware]), line, fields).await;
    (answer.head.status.as_u16(), field(&answer.head.fields, "location").unwrap().to_owned())
}

async fn is_redirected(middleware: &str, line: &str, fields: &[(&str, &str)], status: u16, location: &str) {
    assert_eq!(redirected(middleware, line, fields).await, (status, location.to_owned()), "{middleware} {line} {fields:?}");
}

#[tokio::test]
async fn the_method_and_permanence_choose_the_status() {
    for (permanent, method, status) in [
        (false, "GET", 302),
        (true, "GET", 301),
        (false, "POST", 307),
        (true, "POST", 308),
        (true, "DELETE", 308),
        (false, "HEAD", 307),
    ] {
        let middleware = format!(r#"{{"redirect-scheme":{{"scheme":"https","permanent":{permanent}}}}}"#);
        is_redirected(&middleware, &format!("{method} http://a.test/x"), &[], status, "https://a.test/x").await;
    }
}

#[tokio::test]
async fn expressions_see_the_whole_url_and_groups_are_put_in() {
    let www = r#"{"redirect-regex":{"regex":"^(https?)://www\\.([^/]+)/(.*)","replacement":"${1}://$2/$3"}}"#;
    is_redirected(www, "GET http://www.shop.test:8080/a?b=c", &[], 302, "http://shop.test:8080/a?b=c").await;
    is_redirected(www, "GET https://www.shop.test/", &[], 302, "https://shop.test/").await;
    assert_eq!(status(&chain(&[www]), "GET http://shop.test/", &[]).await, 200);
    // `$1x` is a group called "1x", of which there is none; `$$` is a dollar.
    let odd = r#"{"redirect-regex":{"regex":"^http://([a-z]+)\\.test/","replacement":"http://z.test/$1x-${1}x-$$/"}}"#;
    is_redirected(odd, "GET http://a.test/", &[], 302, "http://z.test/-ax-$/").await;
    // Every match is replaced.
    let all = r#"{"redirect-regex":{"regex":"/old","replacement":"/new"}}"#;
    is_redirected(all, "GET http://a.test/old/old?x=/old", &[], 302, "http://a.test/new/new?x=/new").await;
    // What stays the same is no redirect.
    let same = r#"{"redirect-regex":{"regex":"^(.*)$","replacement":"$1"}}"#;
    assert_eq!(status(&chain(&[same]), "GET http://a.test/", &[]).await, 200);
}

#[tokio::test]
async fn a_replacement_that_is_no_url_is_a_bad_gateway() {
    for replacement in ["http://10.0.0.%31/", "http://a b/", "http://[::1/", "http://a:port/", "%zz", "1:2"] {
        let middleware = format!(r#"{{"redirect-regex":{{"regex":"^.*$","replacement":"{replacement}"}}}}"#);
        assert_eq!(status(&chain(&[&middleware]), "GET http://a.test/", &[]).await, 502, "{replacement}");
    }
    for replacement in ["http://[::1]:80/", "/relative", "//other.test/", "https://b.test", "?x", "http://u:p@a.test/"] {
        let middleware = format!(r#"{{"redirect-regex":{{"regex":"^.*$","replacement":"{replacement}"}}}}"#);
        is_redirected(&middleware, "GET http://a.test/", &[], 302, replacement).await;
    }
    // Nothing that a client writes can end the header field, or begin another one.
    let spaces = r#"{"redirect-regex":{"regex":"^http://a.test/(.*)$","replacement":"https://b.test/x y/$1"}}"#;
    is_redirected(spaces, "GET http://a.test/%0d%0aset-cookie:x", &[], 302, "https://b.test/x%20y/%0d%0aset-cookie:x").await;
}

#[tokio::test]
async fn the_scheme_is_that_of_the_connection_or_of_a_trusted_proxy() {
    let https = r#"{"redirect-scheme":{"scheme":"https"}}"#;
    for (proto, redirects) in [("http", true), ("ws", true), ("HTTPS", false), ("wss", false), ("gopher", true), ("", true)] {
        let passes = status(&chain(&[https]), "GET http://a.test/", &[("X-Forwarded-Proto", proto)]).await == 200;
        assert_eq!(passes, !redirects, "{proto}");
    }
    is_redirected(https, "GET https://a.test/", &[("X-Forwarded-Proto", "http")], 302, "https://a.test/").await;
    assert_eq!(status(&chain(&[https]), "GET https://a.test/", &[]).await, 200);
}

#[tokio::test]
async fn ports_are_put_in_only_where_they_are_needed() {
    let with = |scheme: &str, port: u16| format!(r#"{{"redirect-scheme":{{"scheme":"{scheme}","port":{port}}}}}"#);
    is_redirected(&with("https", 8443), "GET http://a.test:8080/x", &[], 302, "https://a.test:8443/x").await;
    is_redirected(&with("https", 443), "GET http://a.test:80/x", &[], 302, "https://a.test/x").await;
    is_redirected(&with("https", 80), "GET http://a.test/", &[], 302, "https://a.test:80/").await;
    is_redirected(&with("http", 80), "GET https://a.test/", &[], 302, "http://a.test/").await;
    is_redirected(&with("https", 8443), "GET https://a.test/", &[], 302, "https://a.test:8443/").await;
    is_redirected(&with("https", 8443), "GET http://[2001:db8::1]:80/", &[], 302, "https://[2001:db8::1]:8443/").await;
    is_redirected(&with("wss", 9443), "GET http://a.test/", &[], 302, "wss://a.test:9443/").await;
    for (middleware, url) in [(with("https", 8443), "https://a.test:8443/"), (with("https", 443), "https://a.test:443/")] {
        assert_eq!(status(&chain(&[&middleware]), &format!("GET {url}"), &[]).await, 200, "{url}");
    }
}

#[tokio::test]
async fn other_names_of_a_host_lead_to_the_one_that_is_meant() {
    let apex = r#"{"canonical-host":{"host":"shop.test"}}"#;
    is_redirected(apex, "GET https://www.shop.test/a?b", &[], 301, "https://shop.test/a?b").await;
    is_redirected(apex, "POST http://www.shop.test:8080/a", &[], 308, "http://shop.test:8080/a").await;
    is_redirected(apex, "GET http://www.shop.test/", &[("X-Forwarded-Proto", "https")], 301, "https://shop.test/").await;
    let for_now = r#"{"canonical-host":{"host":"www.shop.test","permanent":false}}"#;
    is_redirected(for_now, "GET http://shop.test//evil.test", &[], 302, "http://www.shop.test//evil.test").await;
    for url in ["http://shop.test/", "http://SHOP.test:8080/", "https://shop.test./"] {
        reaches(&chain(&[apex]), &format!("GET {url}"), &[]).await;
    }
}
