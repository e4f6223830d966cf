//! Orders that go well, with a real authority.

use std::{fs, time::Duration};

use coracle_certs::{AcmeOptions, CertificateStatus, Certificates, ChallengeKind, Source, State, Wanted};
use coracle_lab::clients::{looker, truster};
use coracle_lab::pebble::{Lab, Manners, is_missing};

use crate::{
    local::nothing_is_open_to_others,
    support::{
        clients::{meet, meet_with},
        edge::{Edge, Manned as _},
        eventually,
        front::Front,
    },
};

pub fn wanted(names: &[&str]) -> Vec<Wanted> {
    names.iter().map(|name| Wanted { name: (*name).to_owned(), source: Source::Acme }).collect()
}

/// Waits until a name's status is as it should be.
pub async fn status_of(
    certificates: &Certificates,
    name: &str,
    what: &str,
    is: impl Fn(&CertificateStatus) -> bool,
) -> CertificateStatus {
    let find = || certificates.status().into_iter().find(|status| status.name == name);
    let what = format!("{name}: {what}, but {:?}", find());
    eventually(&what, || async { find().filter(&is) }).await
}

pub async fn active(certificates: &Certificates, name: &str) -> CertificateStatus {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let status = certificates.status().into_iter().find(|status| status.name == name);
        match status {
            Some(status) if matches!(status.state, State::Active { .. }) => return status,
            status => assert!(std::time::Instant::now() < deadline, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn reason(status: &CertificateStatus) -> &str {
    match &status.state {
        State::Failing { reason, .. } => reason,
        _ => "",
    }
}

async fn serial(edge: &Edge, name: &str) -> String {
    meet(edge.https, name).await.unwrap().serial
}

#[tokio::test]
async fn certificates_are_ordered_over_http_served_at_once_and_kept() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let names = ["shop.example", "www.shop.example", "blog.example", "a.example", "b.example", "c.example"];
    let mut serials = Vec::new();
    for _ in 0..2 {
        let certificates = lab.certificates(AcmeOptions { challenges: vec![ChallengeKind::Http01], ..lab.options() });
        let edge = lab.edge(&certificates).await;
        certificates.set_wanted(wanted(&names));
        for name in names {
            let status = active(&certificates, name).await;
            let facts = status.certificate.unwrap();
            assert_eq!(facts.names, [name]);
            assert!(facts.issuer.contains("Pebble Intermediate"), "{}", facts.issuer);
            let State::Active { renewal: Some(renewal) } = status.state else { panic!("no renewal") };
            let days = (facts.not_after.as_second() - renewal.as_second()) / 86400;
            assert!((30..=33).contains(&days), "{days} days before its end");
            let trusting = meet_with(truster(&lab.root().await, &[]), edge.https, name).await.unwrap();
            assert_eq!(trusting.serial, facts.serial);
        }
        serials.push(serial(&edge, "shop.example").await);
        let told = serde_json::to_string(&certificates.status()).unwrap();
        assert!(!told.contains("PRIVATE"));
        certificates.shutdown().await;
    }
    assert_eq!(serials[0], serials[1]);
    assert_eq!((lab.orders(), lab.accounts()), (names.len(), 1), "the restart ordered nothing");
    nothing_is_open_to_others(&lab.state());
}

#[tokio::test]
async fn certificates_are_ordered_by_tls_alpn_where_port_80_is_closed() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let certificates = lab.certificates(lab.options());
    let edge = lab.edge_without_http(&certificates).await;
    certificates.set_wanted(wanted(&["shop.example"]));
    active(&certificates, "shop.example").await;
    assert_eq!(meet(edge.https, "shop.example").await.unwrap().names, ["shop.example"]);
    let config = looker(rustls::ALL_VERSIONS, &[b"acme-tls/1"]);
    assert!(meet_with(config, edge.https, "shop.example").await.is_err(), "the challenge's certificate is gone");
    assert_eq!(lab.orders(), 1);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_anybody_doing_anything() {
    if is_missing() {
        return;
    }
    // Valid for 20 s, renewed after 13.
    let lab = Lab::start(Manners { validity: 20, reuse: 100, ..Manners::default() }).await;
    let certificates = lab.certificates(lab.options());
    let edge = lab.edge(&certificates).await;
    certificates.set_wanted(wanted(&["shop.example"]));
    active(&certificates, "shop.example").await;
    let first = serial(&edge, "shop.example").await;
    eventually("another certificate", || async {
        // There is never a moment without one.
        Some(serial(&edge, "shop.example").await).filter(|serial| *serial != first)
    })
    .await;
    assert_eq!(lab.orders(), 2);
}

#[tokio::test]
async fn renewals_follow_what_the_authority_suggests() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let front = Front::start(&lab).await;
    // This pebble does not know RFC 9773 yet; the one in front of it does.
    let directory = front.directory_url.clone();
    let service = directory.replace("/dir", "/renewal");
    front.replace("\"newNonce\"", &format!("\"renewalInfo\": \"{service}\", \"newNonce\""));
    let far = r#"{"suggestedWindow": {"start": "2096-01-01T00:00:00Z", "end": "2096-01-02T00:00:00Z"}}"#;
    front.answer("/renewal/", "200 OK", "Retry-After: 1\r\n", far);
    let certificates = lab.certificates(AcmeOptions { directory_url: directory, ..lab.options() });
    let edge = lab.edge(&certificates).await;
    certificates.set_wanted(wanted(&["shop.example"]));
    let status = status_of(&certificates, "shop.example", "renewed late", |status| match (&status.state, &status.certificate) {
        // As late as can be suggested: a twentieth of the certificate's life before its end.
        (State::Active { renewal: Some(renewal) }, Some(facts)) => facts.not_after.as_second() - renewal.as_second() < 86400 * 5,
        _ => false,
    })
    .await;
    let first = status.certificate.unwrap().serial;
    assert!(front.seen("GET /renewal/") > 0);

    let past = r#"{"suggestedWindow": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}}"#;
    front.answer("/renewal/", "200 OK", "Retry-After: 1\r\n", past);
    eventually("the renewal", || async { Some(serial(&edge, "shop.example").await).filter(|serial| *serial != first) }).await;
}

#[tokio::test]
async fn every_second_nonce_may_be_bad() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners { bad_nonces: 50, ..Manners::default() }).await;
    let certificates = lab.certificates(lab.options());
    let _edge = lab.edge(&certificates).await;
    let names = ["shop.example", "blog.example", "a.example", "b.example"];
    certificates.set_wanted(wanted(&names));
    for name in names {
        active(&certificates, name).await;
    }
    // What is asked for once for each name where no nonce is refused.
    let once = ["POST /order-plz", "POST /chalZ", "POST /finalize-order", "POST /certZ"];
    let asked: usize = once.iter().map(|path| lab.asked(path)).sum();
    assert!(asked > names.len() * once.len(), "{asked}: none was refused");
}

#[tokio::test]
async fn of_two_processes_one_orders_and_both_serve() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let first = lab.certificates(lab.options());
    let edge = lab.edge(&first).await;
    first.set_wanted(wanted(&["shop.example"]));
    active(&first, "shop.example").await;

    let second = lab.certificates(lab.options());
    let other = Edge::start(&second).await;
    second.set_wanted(wanted(&["shop.example", "blog.example"]));
    first.set_wanted(wanted(&["shop.example", "blog.example"]));
    active(&second, "blog.example").await;
    assert_eq!(meet(other.https, "blog.example").await.unwrap().names, ["blog.example"]);
    assert_eq!((lab.orders(), lab.accounts()), (2, 1));

    // The second goes on when the first has ended; challenges still arrive at the first's listeners.
    fs::remove_file(lab.state().join("acme").read_dir().unwrap().next().unwrap().unwrap().path().join("blog.example.pem"))
        .unwrap();
    // With its last owner its work ends.
    drop((edge, first));
    let _edge = lab.edge(&second).await;
    eventually("the second's order", || async { (lab.orders() == 3).then_some(()) }).await;
    active(&second, "blog.example").await;
}
