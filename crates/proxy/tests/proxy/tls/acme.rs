//! Certificates by ACME, from a route in a table to a client that trusts the authority.

use coracle_lab::pebble::{HTTP_PORT, Lab, Manners, TLS_PORT, is_missing};
use coracle_proxy::certs::{AcmeOptions, ChallengeKind, State};
use coracle_proxy::table::{Admission, CertificateSource, Table};
use coracle_proxy::{ListenerOptions, Proxy};

use super::clients::{connect, look, looker, truster};
use crate::backend::Backend;
use crate::env::{Env, soon, table, until};

/// Some good nonces are refused, and certificates are valid for so many seconds.
fn manners(validity: u32) -> Manners {
    Manners { bad_nonces: 5, validity, ..Manners::default() }
}

async fn env(lab: &Lab, challenge: ChallengeKind) -> Env {
    Env::with(|options| {
        options.listeners = match challenge {
            ChallengeKind::Http01 => vec![ListenerOptions::http((lab.address, HTTP_PORT).into())],
            ChallengeKind::TlsAlpn01 => vec![ListenerOptions::http("127.0.0.1:0".parse().unwrap())],
        };
        options.listeners.push(ListenerOptions::https((lab.address, TLS_PORT).into()));
        options.certificates.acme = Some(AcmeOptions { challenges: vec![challenge], ..lab.options() });
        options.certificates.poll = std::time::Duration::from_millis(100);
    })
    .await
}

fn ordered(hosts: &[&str], target: std::net::SocketAddr) -> Table {
    let routes: Vec<_> = hosts.iter().map(|host| (*host, "/", "app")).collect();
    let mut table = table(&routes, &[("app", Admission::Open, &[("t", target)])]);
    table.routes.iter_mut().for_each(|route| route.certificate = CertificateSource::Acme);
    table
}

async fn active(env: &Env, name: &str) {
    until(&format!("a certificate for {name}"), async || {
        let certificates = env.client().certificates().await.unwrap();
        certificates.iter().any(|it| it.name == name && matches!(it.state, State::Active { .. }))
    })
    .await;
}

#[tokio::test]
async fn a_route_gets_its_certificate_over_http_and_a_successor_serves_it() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(manners(90 * 86_400)).await;
    let app = Backend::saying("hello").await;
    let mut env = env(&lab, ChallengeKind::Http01).await;
    // What asks for the challenge is not led to the app.
    let mut published = ordered(&["shop.example", "www.shop.example"], app.address);
    published.routes[0].certificate = CertificateSource::Given;
    published.routes[1].certificate = CertificateSource::Given;
    env.publish(published.clone()).await;
    env.get("shop.example", "/.well-known/acme-challenge/nothing").await.is(200, "hello");
    published.routes.iter_mut().for_each(|route| route.certificate = CertificateSource::Acme);
    env.publish(published).await;
    let https = (lab.address, TLS_PORT).into();
    for name in ["shop.example", "www.shop.example"] {
        active(&env, name).await;
        let mut wire = connect(truster(&lab.root().await), https, name).await.unwrap();
        wire.send(&format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        soon(wire.answer()).await.is(200, "hello");
    }
    let serial = look(https, "shop.example").await.unwrap();
    let mut old = env.proxy.replace(Proxy::start(env.options.clone()).await.unwrap()).unwrap();
    assert_eq!(look(https, "shop.example").await.unwrap(), serial);
    soon(old.ended()).await;
    assert_eq!(lab.orders(), 2, "the successor ordered nothing");
    // It is the one that orders now.
    env.publish(ordered(&["shop.example", "new.example"], app.address)).await;
    active(&env, "new.example").await;
    assert_eq!(lab.orders(), 3);
    assert!(look(https, "www.shop.example").await.is_err(), "no route asks for it any more");
}

#[tokio::test]
async fn a_route_gets_its_certificate_by_a_handshake_and_renewals_are_served_at_once() {
    if is_missing() {
        return;
    }
    // Renewed after two thirds of its life.
    let lab = Lab::start(manners(15)).await;
    let app = Backend::saying("hello").await;
    let mut env = env(&lab, ChallengeKind::TlsAlpn01).await;
    env.publish(ordered(&["shop.example"], app.address)).await;
    active(&env, "shop.example").await;
    let https = (lab.address, TLS_PORT).into();
    let mut kept = connect(truster(&lab.root().await), https, "shop.example").await.unwrap();
    let first = look(https, "shop.example").await.unwrap();
    assert!(connect(looker(&[b"acme-tls/1"]), https, "shop.example").await.is_err(), "the challenge's certificate is gone");
    // There is never a moment without one.
    until("another certificate", async || look(https, "shop.example").await.unwrap() != first).await;
    kept.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
    soon(kept.answer()).await.is(200, "hello");
}

#[tokio::test]
async fn what_keeps_a_certificate_from_being_ordered_is_said() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(manners(90 * 86_400)).await;
    let mut env = env(&lab, ChallengeKind::Http01).await;
    env.publish(ordered(&["printer.local"], "127.0.0.1:9".parse().unwrap())).await;
    let reason = async || {
        let certificates = env.client().certificates().await.unwrap();
        certificates.into_iter().find_map(|it| match it.state {
            State::Failing { reason, .. } => Some(reason),
            _ => None,
        })
    };
    until("a reason", async || reason().await.is_some()).await;
    assert!(reason().await.unwrap().contains("no public authority"), "{:?}", reason().await);
    assert_eq!(lab.orders(), 0);
    env.client().renew("printer.local").await.unwrap();
    let error = env.client().renew("other.example").await.unwrap_err();
    assert!(error.to_string().contains("no route asks"), "{error}");
}
