//! Names and passwords.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_proxy_middleware::State;

use crate::{answered, chain, field, reaches, status};

/// Of "open sesame".
const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy";
const APR1: &str = "$apr1$Zq3xT0aB$gd6F3ErCOV2BKbUHks00c.";
const SHA: &str = "{SHA}W8r/fyL/UzygmbNAjq2HbA67qac=";

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

#[tokio::test]
async fn those_who_know_their_password_pass() {
    let users = format!(r#"{{"basic-auth":{{"users":["ann:{BCRYPT}","bob:{APR1}","cid:{SHA}","dan:open sesame"]}}}}"#);
    let chain = chain(&[&users]);
    for (name, password, wanted) in [
        ("ann", "open sesame", 200),
        ("bob", "open sesame", 200),
        ("cid", "open sesame", 200),
        ("ann", "open sesame", 200),
        ("ann", "wrong", 401),
        ("bob", "", 401),
        ("dan", "open sesame", 401),
        ("eve", "open sesame", 401),
        ("", "open sesame", 401),
        ("ANN", "open sesame", 401),
    ] {
        let asked = basic(name, password);
        assert_eq!(status(&chain, "GET http://a.test/", &[("Authorization", &asked)]).await, wanted, "{name} {password}");
    }
    let bearer = basic("ann", "open sesame").replace("Basic", "Bearer");
    for asked in ["", "Basic", "Basic !!!", "Basic YW5u", bearer.as_str()] {
        assert_eq!(status(&chain, "GET http://a.test/", &[("Authorization", asked)]).await, 401, "{asked}");
    }
}

#[tokio::test]
async fn the_challenge_names_the_realm_and_targets_are_told_who_it_is() {
    let users = format!(
        r#"{{"basic-auth":{{"users":["ann:{SHA}"],"realm":"the \"yard\"","header_field":"X-User","remove_header":true}}}}"#
    );
    let chain = chain(&[&users]);
    let answer = answered(&chain, "GET http://a.test/", &[]).await;
    assert_eq!(field(&answer.head.fields, "www-authenticate"), Some(r#"Basic realm="the \"yard\"""#));
    let asked = basic("ann", "open sesame");
    let (head, _) = reaches(&chain, "GET http://a.test/", &[("Authorization", &asked), ("X-User", "root")]).await;
    assert_eq!([field(&head.fields, "x-user"), field(&head.fields, "authorization")], [Some("ann"), None]);
    assert_eq!(head.fields.count("x-user"), 1);

    let users = format!(r#"{{"basic-auth":{{"users":["ann:{SHA}"]}}}}"#);
    let plain = crate::chain(&[&users]);
    let (head, _) = reaches(&plain, "GET http://a.test/", &[("Authorization", &asked)]).await;
    assert!(head.fields.contains("authorization"));
    let answer = answered(&plain, "GET http://a.test/", &[]).await;
    assert_eq!(field(&answer.head.fields, "www-authenticate"), Some(r#"Basic realm="coracle""#));
}

#[tokio::test]
async fn a_users_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let write = |text: &str| {
        let mut file = tempfile::NamedTempFile::new_in(dir.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.persist(&path).unwrap();
    };
    write(&format!("# who may come in\n\nann:{SHA}\n"));
    let text = format!(r#"{{"basic-auth":{{"users_file":"{}","users":["bob:{APR1}"]}}}}"#, path.display());
    let state = State::new();
    let chain = crate::try_chain(&[&text], &state).unwrap();
    let of = async |name: &str| status(&chain, "GET http://a.test/", &[("Authorization", &basic(name, "open sesame"))]).await;
    assert_eq!([of("ann").await, of("bob").await, of("cid").await], [200, 200, 401]);
    write(&format!("cid:{SHA}"));
    assert_eq!([of("ann").await, of("cid").await], [200, 401], "a request reads no file");
    state.look_again();
    assert_eq!([of("ann").await, of("bob").await, of("cid").await], [401, 200, 200]);
    // One that is just being written, or away, changes nothing.
    for broken in ["", "cid"] {
        write(broken);
        state.look_again();
        assert_eq!(of("cid").await, 200);
    }
    std::fs::remove_file(&path).unwrap();
    state.look_again();
    assert_eq!(of("cid").await, 200);
    write(&format!("dan:{SHA}"));
    state.look_again();
    assert_eq!([of("cid").await, of("dan").await], [401, 200]);
}
