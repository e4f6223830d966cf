//! Who gets which certificate, and who gets none.

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_proxy::table::Admission;
use coracle_proxy::{Limits, ListenerOptions, Trust};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{AlertDescription, Error, HandshakeKind, version};

use super::clients::{Prefixed, connect, connect_over, look, looker, serial, speaking, truster};
use super::{Given, https, local, local_root, publish, with_tls};
use crate::backend::Backend;
use crate::env::{Env, Wire, soon, table, until};

#[track_caller]
fn alert(error: &std::io::Error) -> AlertDescription {
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn names_under_localhost_are_served_at_once_with_a_certificate_of_our_own_authority() {
    let app = Backend::answering(|seen| seen.header("x-forwarded-proto").unwrap_or_default().to_owned()).await;
    let mut env = Env::with(with_tls).await;
    publish(&mut env, local(&["shop.localhost", "*.shop.localhost"], app.address)).await;
    let root = local_root(&env);
    for versions in [&[&version::TLS13], &[&version::TLS12]] {
        for name in ["shop.localhost", "deep.shop.localhost"] {
            let mut wire = connect(speaking(&root, versions), https(&env), name).await.unwrap();
            for _ in 0..3 {
                wire.send(&format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
                soon(wire.answer()).await.is(200, "https");
            }
        }
    }
    env.get("shop.localhost", "/").await.is(200, "http");
}

#[tokio::test]
async fn each_name_gets_its_own_certificate_and_unknown_ones_get_none() {
    let app = Backend::saying("hello").await;
    let directory = tempfile::tempdir().unwrap();
    let given = Given::new(directory.path(), &["*.given.example", "given.example"], false);
    let mut env = Env::with(|options| {
        with_tls(options);
        options.certificates.given = vec![given.files.clone()];
    })
    .await;
    publish(&mut env, local(&["a.localhost", "b.localhost"], app.address)).await;
    let https = https(&env);
    let serials = [look(https, "a.localhost").await.unwrap(), look(https, "b.localhost").await.unwrap()];
    assert_ne!(serials[0], serials[1]);
    connect(truster(&given.root), https, "www.given.example").await.unwrap();
    connect(truster(&given.root), https, "GIVEN.example").await.unwrap();
    for unknown in ["c.localhost", "a.b.given.example", "127.0.0.1"] {
        let error = connect(looker(&[]), https, unknown).await.err().unwrap();
        assert_eq!(alert(&error), AlertDescription::UnrecognisedName, "{unknown}");
    }
    let error = connect(looker(&[b"acme-tls/1"]), https, "a.localhost").await.err().unwrap();
    assert_eq!(alert(&error), AlertDescription::AccessDenied);
    let error = connect(looker(&[b"spdy/1"]), https, "a.localhost").await.err().unwrap();
    assert_eq!(alert(&error), AlertDescription::NoApplicationProtocol);
}

#[tokio::test]
async fn a_default_is_for_everybody_else_and_requests_go_by_their_host() {
    let app = Backend::answering(|seen| seen.header("host").unwrap_or_default().to_owned()).await;
    let directory = tempfile::tempdir().unwrap();
    let given = Given::new(directory.path(), &["given.example"], true);
    let mut env = Env::with(|options| {
        with_tls(options);
        options.certificates.given = vec![given.files.clone()];
    })
    .await;
    env.publish(table(&[("other.example", "/", "app")], &[("app", Admission::Open, &[("t", app.address)])])).await;
    let given = look(https(&env), "given.example").await.unwrap();
    for name in ["127.0.0.1", "other.example"] {
        let mut wire = connect(looker(&[b"http/1.1"]), https(&env), name).await.unwrap();
        assert_eq!(serial(&wire.stream), given);
        wire.send("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
        soon(wire.answer()).await.is(200, "other.example");
    }
}

#[tokio::test]
async fn a_client_that_takes_its_time_is_cut_off() {
    let mut env = Env::with(|options| {
        with_tls(options);
        options.limits = Limits { header_read: Duration::from_millis(100), ..Limits::default() };
    })
    .await;
    publish(&mut env, local(&["a.localhost"], "127.0.0.1:9".parse().unwrap())).await;
    let mut silent = Wire::to(https(&env)).await;
    let mut stuck = Wire::to(https(&env)).await;
    // The beginning of a ClientHello of 512 bytes.
    tokio::io::AsyncWriteExt::write_all(&mut stuck.stream, &[22, 3, 1, 2, 0, 1, 0, 1, 252]).await.unwrap();
    assert!(silent.is_closed().await && stuck.is_closed().await);
    // Whoever has shaken hands has time to think before the first request.
    let mut wire = connect(looker(&[]), https(&env), "a.localhost").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), wire.is_closed()).await.is_err());
}

#[tokio::test]
async fn what_is_no_tls_is_told_so() {
    let env = Env::with(with_tls).await;
    let mut wire = Wire::to(https(&env)).await;
    wire.send("GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    let answer = soon(wire.answer()).await;
    answer.is(400, "This port is for https.\n");
    let mut wire = Wire::to(https(&env)).await;
    wire.send("\0\0\0\0\0\0\0\0").await;
    drop(wire.read_any().await);
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn a_client_that_comes_back_needs_no_second_handshake() {
    let mut env = Env::with(with_tls).await;
    publish(&mut env, local(&["a.localhost"], "127.0.0.1:9".parse().unwrap())).await;
    for versions in [&[&version::TLS13], &[&version::TLS12]] {
        let config = speaking(&local_root(&env), versions);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut wire = connect(config.clone(), https(&env), "a.localhost").await.unwrap();
            kinds.push(wire.stream.get_ref().1.handshake_kind().unwrap());
            // The ticket comes before the answer.
            wire.send("GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
            assert_eq!(soon(wire.answer()).await.status, 502);
        }
        assert_eq!(kinds[1], HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn the_proxy_header_stands_before_the_handshake() {
    let app = Backend::answering(|seen| seen.header("x-forwarded-for").unwrap_or_default().to_owned()).await;
    let mut env = Env::with(|options| {
        with_tls(options);
        options.listeners[1].proxy_protocol = Some(Trust::parse(["127.0.0.0/8"]).unwrap());
        options.listeners.push(ListenerOptions::https("127.0.0.2:0".parse().unwrap()));
    })
    .await;
    env.publish(local(&["a.localhost"], app.address)).await;
    let open = env.proxy.as_ref().unwrap().addresses()[2];
    until("a certificate", async || look(open, "a.localhost").await.is_ok()).await;
    let stream = TcpStream::connect(https(&env)).await.unwrap();
    let stream = Prefixed { stream, prefix: b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec() };
    let mut wire = connect_over(truster(&local_root(&env)), stream, "a.localhost").await.unwrap();
    wire.send("GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    soon(wire.answer()).await.is(200, "192.0.2.7");
    assert_eq!(look(https(&env), "a.localhost").await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn another_certificate_in_the_files_is_served_without_anybody_doing_anything() {
    let app = Backend::saying("hello").await;
    let directory = tempfile::tempdir().unwrap();
    let given = Given::new(directory.path(), &["given.example"], false);
    let mut env = Env::with(|options| {
        with_tls(options);
        options.certificates.given = vec![given.files.clone()];
    })
    .await;
    env.serve(&[("t", app.address)]).await;
    let mut kept = connect(truster(&given.root), https(&env), "given.example").await.unwrap();
    let first = serial(&kept.stream);
    given.renew(&["given.example"]);
    until("the other certificate", async || look(https(&env), "given.example").await.unwrap() != first).await;
    connect(truster(&given.root), https(&env), "given.example").await.unwrap();
    kept.send("GET / HTTP/1.1\r\nHost: given.example\r\n\r\n").await;
    soon(kept.answer()).await.is(200, "hello");
}

/// Programs that others have written, where they are installed.
#[tokio::test]
async fn curl_and_openssl_agree() {
    let app = Backend::saying("hello").await;
    let mut env = Env::with(with_tls).await;
    publish(&mut env, local(&["shop.localhost"], app.address)).await;
    let (port, root) = (https(&env).port(), env.directory.path().join("root.pem"));
    std::fs::write(&root, local_root(&env)).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "15", "--http1.1", "--cacert"]).arg(&root);
    curl.args(["--resolve", &format!("shop.localhost:{port}:127.0.0.1")]).arg(format!("https://shop.localhost:{port}/"));
    if let Some(said) = output(curl).await {
        assert_eq!(said, "hello");
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-verify_return_error", "-servername", "shop.localhost", "-verify_hostname", "shop.localhost"]);
    openssl.args(["-alpn", "http/1.1", "-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(&root);
    if let Some(said) = output(openssl).await {
        assert!(said.contains("Verify return code: 0 (ok)") && said.contains("ALPN protocol: http/1.1"), "{said}");
    }
}

/// What a program says; nothing if it is not installed.
async fn output(mut command: Command) -> Option<String> {
    command.stdin(Stdio::null());
    match tokio::task::spawn_blocking(move || command.output()).await.unwrap() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            Some(said)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}
