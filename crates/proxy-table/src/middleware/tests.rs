//! Middlewares as they are written in tables.

#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

fn read(text: &str) -> Middleware {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_kind_is_read_by_its_name_and_written_as_it_was() {
    for text in [
        r#"{"redirect-regex":{"regex":"^a","replacement":"b"}}"#,
        r#"{"redirect-scheme":{"scheme":"https"}}"#,
        r#"{"canonical-host":{"host":"shop.example"}}"#,
        r#"{"basic-auth":{"users":["a:b"]}}"#,
        r#"{"forward-auth":{"address":"http://127.0.0.1:1/"}}"#,
        r#"{"strip-prefix":{"prefixes":["/a"]}}"#,
        r#"{"strip-prefix-regex":{"regex":["/a"]}}"#,
        r#"{"add-prefix":{"prefix":"/a"}}"#,
        r#"{"replace-path":{"path":"/a"}}"#,
        r#"{"replace-path-regex":{"regex":"a","replacement":"b"}}"#,
        r#"{"headers":{"frame_deny":true}}"#,
        r#"{"ip-allow-list":{"source_range":["10.0.0.0/8"]}}"#,
        r#"{"rate-limit":{"average":10}}"#,
        r#"{"in-flight-limit":{"amount":10}}"#,
        r#"{"body-limit":{"max_bytes":10}}"#,
        r#"{"retry":{"attempts":2}}"#,
        r#"{"circuit-breaker":{"expression":"NetworkErrorRatio() > 0.5"}}"#,
        r#"{"compress":{}}"#,
        r#"{"error-pages":{}}"#,
        r#"{"error-pages":{"status":["500-599"],"service":"s","query":"/{status}","status_rewrites":{"500-502":503}}}"#,
        r#"{"forward-auth":{"address":"https://a/","tls":{"ca_file":"a.pem","insecure_skip_verify":true}}}"#,
        r#"{"maintenance":{}}"#,
        r#"{"static-files":{"root":"/srv"}}"#,
    ] {
        let middleware = read(text);
        assert!(text.starts_with(&format!("{{\"{}\"", middleware.kind())), "{text}: {}", middleware.kind());
        let again = serde_json::to_string(&middleware).unwrap();
        assert_eq!(read(&again), middleware);
    }
}

#[test]
fn unknown_kinds_and_settings_are_refused_by_name() {
    for (text, named) in [
        (r#"{"strip":{}}"#, "strip"),
        (r#"{"compress":{"level":9}}"#, "level"),
        (r#"{"forward-auth":{"address":"http://a/","adress":1}}"#, "adress"),
        (r#"{"forward-auth":{"address":"http://a/","tls":{"ca":"a.pem"}}}"#, "ca_file"),
        (r#"{"rate-limit":{"period":1}}"#, "period"),
        (r#"{"headers":{"ssl_redirect":true}}"#, "ssl_redirect"),
        (r#"{"redirect-scheme":{"scheme":"https","port":70000}}"#, "70000"),
    ] {
        let error = serde_json::from_str::<Middleware>(text).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn hashes_are_not_in_debug_output() {
    let shown = format!("{:?}", read(r#"{"basic-auth":{"users":["ann:$apr1$salt$secret","nothing-but-a-secret"]}}"#));
    assert!(shown.contains("ann") && !shown.contains("secret"), "{shown}");
}
