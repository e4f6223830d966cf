//! Pages for errors and for maintenance.

use coracle_proxy_middleware::{Answer, AnswerBody, State, pages};
use http::StatusCode;

use crate::{Nobody, answered, back, chain, client, field, request, response, text};

fn content_type(answer: &Answer) -> &str {
    field(&answer.head.fields, "content-type").unwrap()
}

#[test]
fn built_in_pages_are_written_as_the_client_likes_them() {
    let page = |accept| pages::page(StatusCode::BAD_GATEWAY, accept, "The <service> is \"away\".", Some("id-1"));
    let html = page(Some("text/html"));
    assert_eq!(content_type(&html), "text/html; charset=utf-8");
    let html = text(&html);
    assert!(html.starts_with("<!doctype html>") && html.contains("<title>502 Bad Gateway</title>"), "{html}");
    assert!(html.contains("The &lt;service&gt; is &quot;away&quot;.") && html.contains("<code>id-1</code>"), "{html}");
    assert!(html.contains("prefers-color-scheme:dark") && html.contains("lang=\"en\""));
    for outside in ["http://", "https://", "<script", "url(", "@import", "src="] {
        assert!(!html.contains(outside), "{outside}");
    }
    let json = page(Some("application/json"));
    assert_eq!(content_type(&json), "application/json");
    let json: serde_json::Value = serde_json::from_str(&text(&json)).unwrap();
    let wanted = serde_json::json!(
        {"status": 502, "error": "Bad Gateway", "message": "The <service> is \"away\".", "request_id": "id-1"}
    );
    assert_eq!(json, wanted);
    let plain = page(None);
    assert_eq!(content_type(&plain), "text/plain; charset=utf-8");
    assert_eq!(text(&plain), "502 Bad Gateway\n\nThe <service> is \"away\".\n\nRequest id-1\n");
    assert_eq!(field(&plain.head.fields, "cache-control"), Some("no-store"));
}

#[test]
fn every_status_has_a_page_and_no_message_breaks_it() {
    for status in (400..600).map(|status| StatusCode::from_u16(status).unwrap()) {
        for accept in [None, Some("text/html"), Some("application/json")] {
            let page = pages::page(status, accept, "", None);
            assert_eq!(page.head.status, status);
            assert!(text(&page).contains(status.as_str()));
        }
    }
    let odd = "{message} {id} \\ \u{7} \n \u{1F6A3}";
    let json = text(&pages::page(StatusCode::NOT_FOUND, Some("application/json"), odd, None));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["message"], odd);
    let html = text(&pages::page(StatusCode::NOT_FOUND, Some("text/html"), odd, Some("{title}")));
    assert!(html.contains("{message} {id} \\") && html.contains("<code>{title}</code>"), "{html}");
}

#[tokio::test]
async fn error_answers_are_replaced_by_pages() {
    let errors = chain(&[r#"{"error-pages":{"status":["404","500-503"]}}"#]);
    let asked = [("Accept", "text/html"), ("X-Request-Id", "id-2")];
    let theirs = [
        ("Content-Type", "text/x"),
        ("Content-Length", "9"),
        ("Content-Encoding", "br"),
        ("ETag", "\"x\""),
        ("Set-Cookie", "a=b"),
        ("Retry-After", "7"),
    ];
    let (_, after) = back(&errors, "GET http://a.test/", &asked, response(503, &theirs)).await;
    let page = after.replace.unwrap();
    assert_eq!(page.head.status, 503);
    assert!(text(&page).contains("id-2"));
    let fields = &page.head.fields;
    assert_eq!(content_type(&page), "text/html; charset=utf-8");
    assert_eq!([field(fields, "set-cookie"), field(fields, "retry-after")], [Some("a=b"), Some("7")]);
    assert_eq!([field(fields, "etag"), field(fields, "content-encoding")], [None, None]);
    assert_eq!(fields.count("content-length"), 1);
    for status in [200, 204, 302, 400, 403, 504] {
        let (head, after) = back(&errors, "GET http://a.test/", &asked, response(status, &theirs)).await;
        assert!(after.replace.is_none() && field(&head.fields, "etag").is_some(), "{status}");
    }
    let (_, after) = back(&errors, "HEAD http://a.test/", &asked, response(404, &theirs)).await;
    assert!(matches!(after.replace.unwrap().body, AnswerBody::Bytes(bytes) if bytes.is_empty()));
}

#[tokio::test]
async fn a_directory_has_pages_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in
        [("404.html", "lost"), ("50x.html", "fifty"), ("5xx.html", "five"), ("error.json", "{}"), ("4xx.txt", "four")]
    {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let errors = chain(&[&format!(r#"{{"error-pages":{{"directory":"{}"}}}}"#, dir.path().display())]);
    for (status, accept, wanted) in [
        (404, "text/html", "lost"),
        (502, "text/html", "fifty"),
        (511, "text/html", "five"),
        (404, "application/json", "{}"),
        (418, "text/plain", "four"),
    ] {
        let (_, after) = back(&errors, "GET http://a.test/", &[("Accept", accept)], response(status, &[])).await;
        assert_eq!(text(&after.replace.unwrap()), wanted, "{status} {accept}");
    }
    let (_, after) = back(&errors, "GET http://a.test/", &[("Accept", "text/html")], response(403, &[])).await;
    assert!(text(&after.replace.unwrap()).contains("<!doctype html>"));
}

/// Writes a file so that it is another version of it, whatever the clock says.
fn replace(path: &std::path::Path, content: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn pages_are_read_when_a_table_is_taken_and_when_they_are_looked_at_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    replace(&path("404.html"), "one");
    std::fs::write(path("500.html"), vec![b'x'; (1 << 20) + 1]).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("403.html"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let state = State::new();
    assert!(!state.has_files());
    let settings = format!(r#"{{"error-pages":{{"directory":"{}"}}}}"#, dir.path().display());
    let errors = crate::try_chain(&[&settings], &state).unwrap();
    assert!(state.has_files());
    let page = async |status| {
        let (_, after) = back(&errors, "GET http://a.test/", &[("Accept", "text/html")], response(status, &[])).await;
        text(&after.replace.unwrap())
    };
    assert_eq!(page(404).await, "one");
    // What is too large, or no file, is no page.
    assert!(page(500).await.contains("<!doctype html>") && page(403).await.contains("<!doctype html>"));
    // A request looks at no file, not even if all are gone.
    replace(&path("404.html"), "two");
    replace(&path("4xx.html"), "four");
    assert_eq!(page(404).await, "one");
    state.look_again();
    assert_eq!([page(404).await, page(403).await], ["two", "four"]);
    std::fs::remove_file(path("404.html")).unwrap();
    std::fs::remove_file(path("403.html")).unwrap();
    state.look_again();
    assert_eq!(page(404).await, "four");
    // A page that cannot be read any more, and a directory that is away, stay as they were.
    std::fs::remove_file(path("4xx.html")).unwrap();
    std::fs::create_dir(path("4xx.html")).unwrap();
    state.look_again();
    assert_eq!(page(404).await, "four");
    std::fs::remove_dir_all(dir.path()).unwrap();
    state.look_again();
    assert_eq!(page(404).await, "four");
    std::fs::create_dir(dir.path()).unwrap();
    replace(&path("404.html"), "three");
    state.look_again();
    assert_eq!(page(404).await, "three");
    drop(errors);
    state.look_again();
    assert!(!state.has_files(), "nobody needs the files any more");
}

#[tokio::test]
async fn pages_are_compressed_by_what_stands_before() {
    let both = chain(&[r#"{"compress":{"min_response_body_bytes":1}}"#, r#"{"error-pages":{}}"#]);
    let asked = [("Accept", "text/html"), ("Accept-Encoding", "gzip")];
    let (_, after) = back(&both, "GET http://a.test/", &asked, response(500, &[("Content-Type", "image/png")])).await;
    let page = after.replace.unwrap();
    assert_eq!(field(&page.head.fields, "content-encoding"), Some("gzip"));
    assert!(after.encoder.is_none());
    assert_eq!(&crate::body(&page)[..2], [0x1f, 0x8b]);
}

#[tokio::test]
async fn maintenance_is_for_all_but_a_few() {
    let away = chain(&[r#"{"maintenance":{"message":"Back at noon.","retry_after_s":60,"allowed_ips":["192.0.2.0/24"]}}"#]);
    let (_, mut head) = request("GET http://a.test/", &[]);
    let answer = away.request(&client("198.51.100.1", false), &mut head, &Nobody).await.unwrap_err();
    assert_eq!(answer.head.status, 503);
    assert_eq!(field(&answer.head.fields, "retry-after"), Some("60"));
    assert!(text(&answer).contains("Back at noon."));
    crate::reaches(&away, "GET http://a.test/", &[]).await;

    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("away.html");
    std::fs::write(&page, "<h1>Painting the walls</h1>").unwrap();
    let state = State::new();
    let away = crate::try_chain(&[&format!(r#"{{"maintenance":{{"page":"{}"}}}}"#, page.display())], &state).unwrap();
    let html = async || text(&answered(&away, "GET http://a.test/", &[("Accept", "text/html")]).await);
    assert_eq!(html().await, "<h1>Painting the walls</h1>");
    replace(&page, "<h1>Painting the doors</h1>");
    assert_eq!(html().await, "<h1>Painting the walls</h1>", "a request reads no file");
    state.look_again();
    assert_eq!(html().await, "<h1>Painting the doors</h1>");
    let answer = answered(&away, "GET http://a.test/", &[("Accept", "application/json")]).await;
    assert_eq!(content_type(&answer), "application/json");
}
