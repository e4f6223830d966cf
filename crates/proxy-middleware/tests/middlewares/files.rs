//! Files of a directory.

use std::path::Path;

use coracle_proxy_middleware::{AnswerBody, Chain};
use tempfile::TempDir;

use crate::{answered, body, chain, field, reaches, status};

fn site(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join("root").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

fn serving(dir: &TempDir, settings: &str) -> Chain {
    let root = dir.path().join("root");
    chain(&[&format!(r#"{{"static-files":{{"root":"{}"{settings}}}}}"#, root.display())])
}

/// Status, body.
async fn get(chain: &Chain, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let answer = answered(chain, &format!("GET http://a.test{path}"), fields).await;
    (answer.head.status.as_u16(), String::from_utf8(body(&answer)).unwrap())
}

#[tokio::test]
async fn files_and_directories_are_served() {
    let dir = site(&[
        ("index.html", "home"),
        ("a b/ü.txt", "umlaut"),
        ("docs/index.html", "docs"),
        ("empty/x.css", "x{}"),
        ("zero", ""),
    ]);
    let files = serving(&dir, "");
    for (path, wanted) in
        [("/", "home"), ("/index.html?x=y", "home"), ("/a%20b/%C3%BC.txt", "umlaut"), ("//docs//", "docs"), ("/zero", "")]
    {
        assert_eq!(get(&files, path, &[]).await, (200, wanted.to_owned()), "{path}");
    }
    for (path, wanted) in [("/nothing", 404), ("/index.html/", 404), ("/empty/", 404), ("/zero/x", 404), ("/a%2520b/", 404)] {
        assert_eq!(get(&files, path, &[]).await.0, wanted, "{path}");
    }
    let answer = answered(&files, "GET http://a.test/empty/x.css", &[]).await;
    assert_eq!(field(&answer.head.fields, "content-type"), Some("text/css; charset=utf-8"));
    for (path, location) in [("/docs?x=y", "/docs/?x=y"), ("//docs", "/docs/"), ("/a%20b", "/a%20b/")] {
        let answer = answered(&files, &format!("GET http://a.test{path}"), &[]).await;
        assert_eq!((answer.head.status.as_u16(), field(&answer.head.fields, "location")), (301, Some(location)));
    }
}

#[tokio::test]
async fn nothing_hidden_or_outside_is_served() {
    let dir =
        site(&[("index.html", "home"), (".env", "secret"), (".git/config", "secret"), ("a/.hidden", "secret"), ("a/x", "x")]);
    std::fs::write(dir.path().join("outside"), "secret").unwrap();
    let root = dir.path().join("root");
    std::os::unix::fs::symlink(dir.path().join("outside"), root.join("link")).unwrap();
    std::os::unix::fs::symlink("../..", root.join("a/up")).unwrap();
    std::os::unix::fs::symlink("a/x", root.join("inner")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), rustix::fs::Mode::from_bits_truncate(0o600)).unwrap();
    let files = serving(&dir, "");
    for path in [
        "/.env",
        "/.git/config",
        "/a/.hidden",
        "/%2eenv",
        "/link",
        "/a/up/outside",
        "/../outside",
        "/a/../../outside",
        "/..%2foutside",
        "/%2e%2e/outside",
        "/a%2fx",
        "/a%00/x",
        "/pipe",
        "/.",
        "/..",
    ] {
        assert_eq!(get(&files, path, &[]).await.0, 404, "{path}");
    }
    assert_eq!(get(&files, "/inner", &[]).await, (200, "x".to_owned()));
    std::fs::create_dir(root.join(".well-known")).unwrap();
    std::fs::write(root.join(".well-known/security.txt"), "mail us").unwrap();
    assert_eq!(get(&files, "/.well-known/security.txt", &[]).await, (200, "mail us".to_owned()));
}

#[tokio::test]
async fn parts_and_versions_are_told_apart() {
    let dir = site(&[("f.txt", "0123456789")]);
    let files = serving(&dir, r#","cache_control":"max-age=60","precompressed":false"#);
    let whole = answered(&files, "GET http://a.test/f.txt", &[]).await;
    let fields = &whole.head.fields;
    assert_eq!([field(fields, "accept-ranges"), field(fields, "cache-control")], [Some("bytes"), Some("max-age=60")]);
    let (tag, date) = (field(fields, "etag").unwrap(), field(fields, "last-modified").unwrap());
    assert!(tag.starts_with('"') && field(fields, "vary").is_none());

    for (fields, status, range, wanted) in [
        (&[("Range", "bytes=2-4")][..], 206, Some("bytes 2-4/10"), "234"),
        (&[("Range", "bytes=-2")], 206, Some("bytes 8-9/10"), "89"),
        (&[("Range", "bytes=7-")], 206, Some("bytes 7-9/10"), "789"),
        (&[("Range", "bytes=2-4"), ("If-Range", tag)], 206, Some("bytes 2-4/10"), "234"),
        (&[("Range", "bytes=2-4"), ("If-Range", "\"old\"")], 200, None, "0123456789"),
        (&[("Range", "bytes=0-1,4-5")], 200, None, "0123456789"),
        (&[("If-None-Match", tag)], 304, None, ""),
        (&[("If-Modified-Since", date)], 304, None, ""),
        (&[("If-None-Match", "\"old\""), ("If-Modified-Since", date)], 200, None, "0123456789"),
    ] {
        let answer = answered(&files, "GET http://a.test/f.txt", fields).await;
        assert_eq!(answer.head.status, status, "{fields:?}");
        assert_eq!(field(&answer.head.fields, "content-range"), range);
        assert_eq!(field(&answer.head.fields, "etag"), Some(tag));
        assert_eq!(String::from_utf8(body(&answer)).unwrap(), wanted, "{fields:?}");
    }
    let answer = answered(&files, "GET http://a.test/f.txt", &[("Range", "bytes=10-")]).await;
    assert_eq!((answer.head.status.as_u16(), field(&answer.head.fields, "content-range")), (416, Some("bytes */10")));
    assert_eq!(status(&files, "GET http://a.test/f.txt", &[("If-Match", "\"old\"")]).await, 412);

    std::fs::write(dir.path().join("root/f.txt"), "other content").unwrap();
    let changed = answered(&files, "GET http://a.test/f.txt", &[("If-None-Match", tag)]).await;
    assert_eq!(changed.head.status, 200);
}

#[tokio::test]
async fn head_has_no_body_and_other_methods_are_refused() {
    let dir = site(&[("f.txt", "0123456789")]);
    let files = serving(&dir, "");
    let answer = answered(&files, "HEAD http://a.test/f.txt", &[("Range", "bytes=0-1")]).await;
    assert_eq!((answer.head.status.as_u16(), field(&answer.head.fields, "content-length")), (200, Some("10")));
    assert!(matches!(&answer.body, AnswerBody::Bytes(bytes) if bytes.is_empty()));
    for method in ["POST", "PUT", "OPTIONS", "DELETE"] {
        let answer = answered(&files, &format!("{method} http://a.test/f.txt"), &[]).await;
        assert_eq!((answer.head.status.as_u16(), field(&answer.head.fields, "allow")), (405, Some("GET, HEAD")));
    }
}

#[tokio::test]
async fn compressed_files_beside_a_file_are_taken() {
    let dir = site(&[
        ("app.js", "plain"),
        ("app.js.br", "brotli"),
        ("app.js.gz", "gzip"),
        ("only.js", "plain"),
        ("only.js.zst", "zstd"),
    ]);
    let files = serving(&dir, "");
    let mut tags = std::collections::BTreeSet::new();
    for (path, accept, encoding, wanted) in [
        ("/app.js", "", None, "plain"),
        ("/app.js", "gzip, br, zstd", Some("br"), "brotli"),
        ("/app.js", "gzip, br;q=0.5", Some("gzip"), "gzip"),
        ("/app.js", "zstd", None, "plain"),
        ("/only.js", "gzip, br, zstd", Some("zstd"), "zstd"),
    ] {
        let answer = answered(&files, &format!("GET http://a.test{path}"), &[("Accept-Encoding", accept)]).await;
        assert_eq!(String::from_utf8(body(&answer)).unwrap(), wanted, "{path} {accept}");
        assert_eq!(field(&answer.head.fields, "content-encoding"), encoding);
        assert_eq!(field(&answer.head.fields, "vary"), Some("Accept-Encoding"));
        assert_eq!(field(&answer.head.fields, "content-type"), Some("text/javascript; charset=utf-8"));
        tags.insert(field(&answer.head.fields, "etag").unwrap().to_owned());
    }
    assert_eq!(tags.len(), 4);
    let plain = serving(&dir, r#","precompressed":false"#);
    assert_eq!(get(&plain, "/app.js", &[("Accept-Encoding", "br")]).await.1, "plain");
}

#[tokio::test]
async fn single_page_applications_answer_for_every_page_but_not_for_files() {
    let dir = site(&[("index.html", "app"), ("x.js", "js")]);
    let app = serving(&dir, r#","spa_fallback":"/index.html""#);
    for (path, wanted) in [("/", 200), ("/orders/7", 200), ("/orders/", 200), ("/x.js", 200), ("/gone.js", 404), ("/.env", 404)] {
        assert_eq!(get(&app, path, &[]).await.0, wanted, "{path}");
    }
    assert_eq!(get(&app, "/orders/7", &[]).await.1, "app");
}

#[tokio::test]
async fn what_is_missing_can_go_on_to_the_service() {
    let dir = site(&[("x.js", "js")]);
    let files = serving(&dir, r#","pass_missing":true"#);
    assert_eq!(get(&files, "/x.js", &[]).await.0, 200);
    reaches(&files, "GET http://a.test/api", &[]).await;
    reaches(&files, "POST http://a.test/x.js", &[]).await;
    reaches(&files, "GET http://a.test/.env", &[]).await;
}

#[tokio::test]
async fn a_directory_may_come_later_and_be_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("v1")).unwrap();
    std::fs::create_dir(dir.path().join("v2")).unwrap();
    std::fs::write(dir.path().join("v1/f"), "one").unwrap();
    std::fs::write(dir.path().join("v2/f"), "two").unwrap();
    let root = dir.path().join("root");
    let files = serving(&dir, "");
    assert_eq!(get(&files, "/f", &[]).await.0, 404);
    let link = |to: &str| {
        let new = dir.path().join("new");
        std::os::unix::fs::symlink(Path::new(to), &new).unwrap();
        std::fs::rename(&new, &root).unwrap();
    };
    link("v1");
    assert_eq!(get(&files, "/f", &[]).await.1, "one");
    link("v2");
    assert_eq!(get(&files, "/f", &[]).await.1, "two");
}
