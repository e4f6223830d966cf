//! Another service that is asked.

use std::sync::Mutex;

use bytes::Bytes;
use coracle_proxy_http::{Fields, RequestHead};
use coracle_proxy_middleware::{Answer, Chain, Fetch, FetchError, Fetched, FetchedResponse, Passage};
use coracle_proxy_table::{AuthTls, ServiceId};
use http::{Method, StatusCode};

use crate::{chain, field, request, response, text};

/// A service that gives one answer, and remembers what it was asked.
struct Gate {
    answer: Option<FetchedResponse>,
    asked: Mutex<Vec<(String, Method, Fields)>>,
}

impl Gate {
    fn new(status: u16, fields: &[(&str, &str)], body: &'static str) -> Self {
        let answer = response(status, fields);
        let answer = FetchedResponse { status: answer.status, fields: answer.fields, body: Bytes::from_static(body.as_bytes()) };
        Self { answer: Some(answer), asked: Mutex::default() }
    }

    async fn pass(&self, chain: &Chain, line: &str, fields: &[(&str, &str)]) -> Result<(RequestHead, Passage), Answer> {
        let (client, mut head) = request(line, fields);
        let passage = chain.request(&client, &mut head, self).await?;
        Ok((head, passage))
    }

    fn asked(&self) -> (String, Method, Fields) {
        self.asked.lock().unwrap().pop().unwrap()
    }
}

impl Fetch for Gate {
    fn page<'f>(&'f self, _: &'f ServiceId, _: RequestHead) -> Fetched<'f> {
        Box::pin(async { Err(FetchError("it makes no pages".to_owned())) })
    }

    fn fetch<'f>(&'f self, url: &'f str, method: &'f Method, fields: &'f Fields, _: &'f AuthTls) -> Fetched<'f> {
        self.asked.lock().unwrap().push((url.to_owned(), method.clone(), fields.clone()));
        let answer = self.answer.clone();
        Box::pin(async move {
            match answer {
                Some(answer) => Ok(answer),
                None => std::future::pending().await,
            }
        })
    }
}

#[tokio::test]
async fn the_service_sees_the_request_and_where_it_came_from() {
    let gate = Gate::new(200, &[], "");
    let asked = [
        ("Cookie", "a=b"),
        ("Connection", "X-Hop, keep-alive"),
        ("X-Hop", "1"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("X-Forwarded-Uri", "/lie"),
        ("X-Forwarded-For", "203.0.113.9"),
    ];
    let plain = chain(&[r#"{"forward-auth":{"address":"http://gate.test/check"}}"#]);
    gate.pass(&plain, "POST https://a.test/x?y", &asked).await.unwrap();
    let (url, method, fields) = gate.asked();
    assert_eq!((url.as_str(), method), ("http://gate.test/check", Method::GET));
    for (name, value) in [
        ("cookie", Some("a=b")),
        ("x-forwarded-method", Some("POST")),
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", Some("a.test")),
        ("x-forwarded-uri", Some("/x?y")),
        ("x-forwarded-for", Some("192.0.2.1")),
        ("x-hop", None),
        ("connection", None),
        ("content-length", None),
        ("transfer-encoding", None),
        ("host", None),
    ] {
        assert_eq!(field(&fields, name), value, "{name}");
    }
    let trusting = chain(&[r#"{"forward-auth":{"address":"http://gate.test/","trust_forward_header":true,
        "auth_request_headers":["cookie"],"preserve_request_method":true}}"#]);
    gate.pass(&trusting, "POST https://a.test/x", &[&asked[..], &[("X-Other", "1")]].concat()).await.unwrap();
    let (_, method, fields) = gate.asked();
    assert_eq!(method, Method::POST);
    assert_eq!(field(&fields, "x-forwarded-uri"), Some("/lie"));
    assert_eq!(field(&fields, "x-forwarded-for"), Some("203.0.113.9, 192.0.2.1"));
    assert_eq!([field(&fields, "cookie"), field(&fields, "x-other")], [Some("a=b"), None]);
}

#[tokio::test]
async fn its_fields_and_cookies_are_passed_on() {
    let gate = Gate::new(
        204,
        &[("X-User", "ann"), ("X-Group", "a"), ("X-Group", "b"), ("Set-Cookie", "sid=1; Path=/"), ("Set-Cookie", "other=2")],
        "",
    );
    let chain = chain(&[r#"{"forward-auth":{"address":"http://gate.test/","auth_response_headers":["X-User","X-Absent"],
        "auth_response_headers_regex":"^x-g","add_auth_cookies_to_response":["sid"]}}"#]);
    let asked = [("X-User", "root"), ("x-absent", "forged"), ("X-Ghost", "forged")];
    let (head, mut passage) = gate.pass(&chain, "GET http://a.test/", &asked).await.unwrap();
    assert_eq!(head.fields.get_all("x-user").collect::<Vec<_>>(), [b"ann"]);
    assert_eq!(head.fields.get_all("x-group").collect::<Vec<_>>(), [b"a", b"b"]);
    assert!(!head.fields.contains("x-absent") && !head.fields.contains("x-ghost"));
    let mut answer = response(200, &[("Set-Cookie", "sid=old"), ("Set-Cookie", "kept=1")]);
    chain.response(&mut passage, &mut answer);
    assert_eq!(answer.fields.get_all("set-cookie").collect::<Vec<_>>(), [&b"kept=1"[..], b"sid=1; Path=/"]);
}

#[tokio::test]
async fn its_refusal_is_the_clients_answer() {
    let gate = Gate::new(
        302,
        &[("Location", "/login?a"), ("Set-Cookie", "x=y"), ("Connection", "close"), ("Content-Type", "text/css")],
        "go",
    );
    let plain = chain(&[r#"{"forward-auth":{"address":"http://gate.test/check"}}"#]);
    let answer = gate.pass(&plain, "GET http://a.test/", &[]).await.unwrap_err();
    assert_eq!((answer.head.status, text(&answer).as_str()), (StatusCode::FOUND, "go"));
    let fields = &answer.head.fields;
    assert_eq!(field(fields, "location"), Some("http://gate.test/login?a"));
    assert_eq!([field(fields, "set-cookie"), field(fields, "content-type")], [Some("x=y"), Some("text/css")]);
    assert_eq!(field(fields, "connection"), None);
    let kept = chain(&[r#"{"forward-auth":{"address":"http://gate.test/check","preserve_location_header":true}}"#]);
    let answer = gate.pass(&kept, "GET http://a.test/", &[]).await.unwrap_err();
    assert_eq!(field(&answer.head.fields, "location"), Some("/login?a"));
}

#[tokio::test]
async fn without_its_answer_nobody_passes() {
    let text = r#"{"forward-auth":{"address":"http://gate.test/","timeout_ms":20}}"#;
    let silent = Gate { answer: None, asked: Mutex::default() };
    let answer = silent.pass(&chain(&[text]), "GET http://a.test/", &[]).await.unwrap_err();
    assert_eq!(answer.head.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(crate::status(&chain(&[text]), "GET http://a.test/", &[]).await, 502);
}
