//! The order in chains, and what is kept from one table to the next.

use coracle_proxy_middleware::State;

use crate::{answered, back, chain, field, reaches, response, status, try_chain};

#[tokio::test]
async fn requests_pass_in_order_and_answers_in_reverse() {
    let strip = r#"{"strip-prefix":{"prefixes":["/a"]}}"#;
    let add = r#"{"add-prefix":{"prefix":"/b"}}"#;
    for (middlewares, wanted) in [([strip, add], "/b/x"), ([add, strip], "/b/a/x")] {
        let (head, _) = reaches(&chain(&middlewares), "GET http://h.test/a/x", &[]).await;
        assert_eq!(head.path(), wanted);
    }
    let set = |value: &str| format!(r#"{{"headers":{{"custom_response_headers":{{"X-Last":"{value}"}}}}}}"#);
    let (head, _) = back(&chain(&[&set("outer"), &set("inner")]), "GET http://h.test/", &[], response(200, &[])).await;
    assert_eq!(field(&head.fields, "x-last"), Some("outer"));
}

#[tokio::test]
async fn an_answer_passes_those_before_it_and_not_those_behind() {
    let set = |name: &str| format!(r#"{{"headers":{{"custom_response_headers":{{"{name}":"1"}}}}}}"#);
    let chain = chain(&[&set("X-Before"), r#"{"error-pages":{}}"#, r#"{"maintenance":{"message":"Away."}}"#, &set("X-Behind")]);
    let answer = answered(&chain, "GET http://h.test/", &[("Accept", "text/html")]).await;
    assert_eq!(answer.head.status, 503);
    assert!(answer.head.fields.contains("x-before") && !answer.head.fields.contains("x-behind"));
    assert!(answer.head.fields.contains("retry-after"));
    assert_eq!(answer.head.fields.count("content-length"), 1);
}

#[tokio::test]
async fn cors_is_told_even_when_a_password_is_missing() {
    let cors = r#"{"headers":{"access_control_allow_origin_list":["https://x.test"]}}"#;
    let auth = r#"{"basic-auth":{"users":["a:b"]}}"#;
    let answer = answered(&chain(&[cors, auth]), "GET http://h.test/", &[("Origin", "https://x.test")]).await;
    assert_eq!(answer.head.status, 401);
    assert_eq!(field(&answer.head.fields, "access-control-allow-origin"), Some("https://x.test"));
}

#[tokio::test]
async fn counts_stay_as_long_as_the_settings_are_equal() {
    let state = State::new();
    let limit = r#"{"rate-limit":{"average":1,"period_ms":3600000}}"#;
    let first = try_chain(&[limit], &state).unwrap();
    assert_eq!(status(&first, "GET http://h.test/", &[]).await, 200);
    let second = try_chain(&[limit], &state).unwrap();
    assert_eq!(status(&second, "GET http://h.test/", &[]).await, 429);
    drop(first);
    let third = try_chain(&[limit], &state).unwrap();
    assert_eq!(status(&third, "GET http://h.test/", &[]).await, 429);
    let changed = try_chain(&[r#"{"rate-limit":{"average":2,"period_ms":3600000}}"#], &state).unwrap();
    assert_eq!(status(&changed, "GET http://h.test/", &[]).await, 200);
    // Nobody has it any more: it is forgotten.
    drop((second, third, changed));
    let again = try_chain(&[limit], &state).unwrap();
    assert_eq!(status(&again, "GET http://h.test/", &[]).await, 200);
}

#[tokio::test]
async fn an_empty_chain_does_nothing() {
    let empty = chain(&[]);
    assert!(empty.is_empty());
    let (head, after) = back(&empty, "GET http://h.test/", &[], response(500, &[("X", "y")])).await;
    assert!(after.encoder.is_none() && after.replace.is_none());
    assert_eq!((head.status.as_u16(), head.fields.len()), (500, 1));
}
