//! The page over plain HTTP: what a browser is let do with it, and the form without scripts.

use crate::host::{Answer, Host, possible};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn is_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let text = answer.text();
    assert!(!text.contains("<script>") && !text.contains(" style=") && !text.contains(" onclick="), "{text}");
}

#[test]
fn a_form_is_answered_with_the_page_and_the_result_in_it() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "0"]);
    is_page(&server.get("/"), 200);
    let code = "import+sys%0D%0Aprint(sys.stdin.read(),+%22%3Cb%3E%22)%0D%0Aprint(1,file=sys.stderr)%0D%0Asys.exit(7)";
    let answer = server.call("POST", "/", &[FORM], format!("code={code}&stdin=%3Ci%3E%0D%0A&key=").as_bytes());
    is_page(&answer, 200);
    for expected in [
        "<span class=\"stdout\">&lt;i&gt;\n &lt;b&gt;\n</span>",
        "<span class=\"stderr\">1\n</span>",
        "The program ended with exit code 7.",
        "import sys\nprint(sys.stdin.read(), &quot;&lt;b&gt;&quot;)",
        "<dl id=\"usage\">",
    ] {
        assert!(answer.text().contains(expected), "{expected} in {}", answer.text());
    }
    // A key is used and not shown again.
    let wrong = server.call("POST", "/", &[FORM], b"code=1&key=no-such-secret");
    is_page(&wrong, 401);
    assert!(wrong.text().contains("A valid API key is needed") && wrong.text().contains("<details id=\"access\" open>"));
    assert!(!wrong.text().contains("no-such-secret"), "{}", wrong.text());
    is_page(&server.call("POST", "/", &[FORM, ("origin", "https://elsewhere.example.test")], b"code=1"), 403);
    is_page(&server.call("POST", "/", &[("content-type", "text/plain")], b"code=1"), 415);
    assert_eq!(server.call("DELETE", "/", &[], b"").status, 405);
}

#[test]
fn a_form_is_counted_like_every_call() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--rate", "1"]);
    is_page(&server.call("POST", "/", &[FORM], b"code=print(1)"), 200);
    let late = server.call("POST", "/", &[FORM], b"code=print(%27mine%27)");
    is_page(&late, 429);
    assert!(late.header("retry-after").is_some() && late.text().contains("print(&#39;mine&#39;)"), "{late:?}");
    is_page(&server.get("/"), 200);
}

#[test]
fn its_files_are_sent_once() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    for (path, media_type) in [("/style.css", "text/css; charset=utf-8"), ("/page.js", "text/javascript; charset=utf-8")] {
        let file = server.get(path);
        assert_eq!((file.status, file.header("content-type")), (200, Some(media_type)));
        let again = server.call("GET", path, &[("if-none-match", file.header("etag").unwrap())], b"");
        assert_eq!((again.status, again.body.len()), (304, 0));
    }
}
