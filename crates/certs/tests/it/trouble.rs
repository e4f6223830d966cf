//! Orders that go wrong, and authorities that are not there.

use std::{fs, path::PathBuf, time::Duration};

use coracle_certs::{AcmeOptions, Backoff, CertificateStatus, ChallengeKind, PreflightOptions, State};
use coracle_lab::pebble::{Lab, Manners, is_missing};

use crate::{
    acme::{active, reason, status_of, wanted},
    support::{clients::meet, edge::Manned as _, eventually, front::Front},
};

fn failing(status: &CertificateStatus) -> bool {
    matches!(status.state, State::Failing { .. })
}

/// The directory of the one authority.
fn folder(lab: &Lab) -> PathBuf {
    lab.state().join("acme").read_dir().unwrap().next().unwrap().unwrap().path()
}

/// Nothing is looked at before.
fn blind(lab: &Lab) -> AcmeOptions {
    let preflight = PreflightOptions { public_names: false, dns: false, caa: false, ..lab.options().preflight };
    AcmeOptions { challenges: vec![ChallengeKind::Http01], preflight, ..lab.options() }
}

/// Distances that are longer than a test.
fn patient() -> Backoff {
    let hour = Duration::from_secs(3600);
    Backoff { first: hour, longest: hour * 24, longest_without_order: hour }
}

#[tokio::test]
async fn a_failed_validation_is_told_in_the_authoritys_words_and_not_repeated_at_once_nor_after_a_restart() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    lab.point("shop.example", lab.elsewhere).await;
    let mut next = Vec::new();
    for _ in 0..2 {
        let certificates = lab.certificates(AcmeOptions { backoff: patient(), ..blind(&lab) });
        let _edge = lab.edge(&certificates).await;
        certificates.set_wanted(wanted(&["shop.example"]));
        let status = status_of(&certificates, "shop.example", "failed", failing).await;
        let State::Failing { reason, attempts: 1, next_attempt: Some(next_attempt) } = status.state else { panic!("{status:?}") };
        assert!(reason.contains("the authority says") && reason.contains(&lab.elsewhere.to_string()), "{reason}");
        next.push(next_attempt);
        certificates.shutdown().await;
    }
    assert_eq!(next[0], next[1]);
    assert_eq!(lab.orders(), 1);
}

#[tokio::test]
async fn after_a_failure_the_other_challenge_is_tried_and_the_distance_grows() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let challenges = vec![ChallengeKind::Http01, ChallengeKind::TlsAlpn01];
    let certificates = lab.certificates(AcmeOptions { challenges, ..blind(&lab) });
    let _edge = lab.edge_without_http(&certificates).await;
    certificates.set_wanted(wanted(&["shop.example", "blocked.example"]));
    active(&certificates, "shop.example").await;
    let again = |status: &CertificateStatus| matches!(status.state, State::Failing { attempts: 3.., .. });
    let status = status_of(&certificates, "blocked.example", "refused", again).await;
    assert!(reason(&status).contains("rejectedIdentifier") || reason(&status).contains("policy"), "{status:?}");
}

#[tokio::test]
async fn while_the_authority_is_down_what_is_there_is_served_and_the_rest_comes_when_it_is_back() {
    if is_missing() {
        return;
    }
    let mut lab = Lab::start(Manners { validity: 15, ..Manners::default() }).await;
    let certificates = lab.certificates(lab.options());
    let edge = lab.edge(&certificates).await;
    certificates.set_wanted(wanted(&["shop.example"]));
    active(&certificates, "shop.example").await;
    let first = meet(edge.https, "shop.example").await.unwrap().serial;

    lab.stop_pebble();
    certificates.set_wanted(wanted(&["shop.example", "blog.example"]));
    let tried = |status: &CertificateStatus| matches!(status.state, State::Failing { attempts: 3.., .. });
    let status = status_of(&certificates, "blog.example", "no authority", tried).await;
    assert!(reason(&status).contains("does not answer") && reason(&status).contains("refused"), "{status:?}");
    // Its time comes as well, and it fails as well, but is served on.
    status_of(&certificates, "shop.example", "not renewed", failing).await;
    assert_eq!(meet(edge.https, "shop.example").await.unwrap().serial, first);

    // It comes back without a memory, as if the account had been deleted.
    lab.start_pebble().await;
    active(&certificates, "blog.example").await;
    eventually("the renewal", || async {
        Some(meet(edge.https, "shop.example").await.unwrap().serial).filter(|serial| *serial != first)
    })
    .await;
    let aside = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("account.json.aside-");
    assert!(folder(&lab).read_dir().unwrap().any(|entry| aside(entry.unwrap())));
}

#[tokio::test]
async fn what_the_authority_asks_to_wait_for_is_waited_for_also_after_a_restart() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let front = Front::start(&lab).await;
    let limited = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many of them", "status": 429}"#;
    front.answer(
        "/order-plz",
        "429 Too Many Requests",
        "Content-Type: application/problem+json\r\nRetry-After: 7200\r\n",
        limited,
    );
    let options = || AcmeOptions { directory_url: front.directory_url.clone(), ..lab.options() };
    for _ in 0..2 {
        let certificates = lab.certificates(options());
        let _edge = lab.edge(&certificates).await;
        certificates.set_wanted(wanted(&["shop.example"]));
        let status = status_of(&certificates, "shop.example", "limited", failing).await;
        let State::Failing { reason, next_attempt: Some(next), .. } = status.state else { panic!("{status:?}") };
        assert!(reason.contains("too many of them (rateLimited)"), "{reason}");
        let seconds = next.as_second() - jiff::Timestamp::now().as_second();
        assert!((7100..=7210).contains(&seconds), "{seconds}");
        // Neither impatience nor a restart changes that.
        assert!(certificates.retry("shop.example"));
        certificates.settled().await;
        certificates.shutdown().await;
    }
    assert_eq!(front.seen("POST /order-plz"), 1);
}

#[tokio::test]
async fn an_authority_that_answers_nonsense_is_left_alone_for_a_while() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let front = Front::start(&lab).await;
    let certificates = lab.certificates(AcmeOptions { directory_url: front.directory_url.clone(), ..lab.options() });
    let _edge = lab.edge(&certificates).await;
    front.answer("/dir", "200 OK", "", "<html>under construction</html>");
    certificates.set_wanted(wanted(&["shop.example"]));
    let status = status_of(&certificates, "shop.example", "no directory", failing).await;
    assert!(reason(&status).contains("no ACME directory"), "{status:?}");
    front.relent();
    front.answer("/order-plz", "502 Bad Gateway", "", "<html>");
    let gateway = |status: &CertificateStatus| reason(status).contains("502");
    status_of(&certificates, "shop.example", "a bad gateway", gateway).await;
    front.relent();
    active(&certificates, "shop.example").await;
}

#[tokio::test]
async fn files_that_are_of_no_use_are_put_aside_named_and_made_anew() {
    if is_missing() {
        return;
    }
    let lab = Lab::start(Manners::default()).await;
    let certificates = lab.certificates(lab.options());
    let edge = lab.edge(&certificates).await;
    certificates.set_wanted(wanted(&["shop.example"]));
    active(&certificates, "shop.example").await;
    certificates.shutdown().await;
    drop((certificates, edge));

    let folder = folder(&lab);
    for file in ["account.json", "shop.example.pem", "shop.example.json"] {
        let content = fs::read_to_string(folder.join(file)).unwrap();
        fs::write(folder.join(file), &content[..content.len() / 2]).unwrap();
    }
    let certificates = lab.certificates(lab.options());
    let _edge = lab.edge(&certificates).await;
    certificates.set_wanted(wanted(&["shop.example"]));
    let status = active(&certificates, "shop.example").await;
    for file in ["account.json", "shop.example.pem", "shop.example.json"] {
        let named = |remark: &String| remark.contains(&format!("{file} is of no use")) && !remark.contains("PRIVATE");
        assert!(status.remarks.iter().any(named), "{file}: {:?}", status.remarks);
        let aside = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&format!("{file}.aside-"));
        assert!(folder.read_dir().unwrap().any(|entry| aside(entry.unwrap())), "{file}");
    }
    assert_eq!((lab.orders(), lab.accounts()), (2, 2));
}
