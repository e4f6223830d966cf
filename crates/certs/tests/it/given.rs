//! Certificates of one's own.

use std::{fs, io::ErrorKind, net::Ipv4Addr, path::Path, time::Duration};

use coracle_certs::{CertOptions, Certificates, GivenFiles, Source, State, UNRECOGNIZED_NAME_ALERT, Wanted, check_given};
use coracle_lab::clients::looker;
use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{
    clients::{meet, meet_with},
    edge::Edge,
    eventually,
};

fn write(directory: &Path, file: &str, names: &[&str]) -> GivenFiles {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let files =
        GivenFiles { cert: directory.join(format!("{file}.crt")), key: directory.join(format!("{file}.key")), default: false };
    fs::write(&files.cert, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn options(home: &Path, given: Vec<GivenFiles>) -> CertOptions {
    CertOptions { given, poll: Duration::from_millis(50), ..CertOptions::new(home.join("state")) }
}

async fn serial(edge: &Edge, name: &str) -> Option<String> {
    meet(edge.https, name).await.ok().map(|met| met.serial)
}

#[tokio::test]
async fn the_exact_name_goes_before_the_wildcard_and_unknown_names_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let exact = write(home.path(), "exact", &["shop.one.example"]);
    let wide = write(home.path(), "wide", &["*.one.example", "one.example"]);
    let certificates = Certificates::start(options(home.path(), vec![exact, wide])).unwrap();
    let edge = Edge::start(&certificates).await;

    for (name, expected) in [
        ("shop.one.example", "shop.one.example"),
        ("SHOP.One.Example", "shop.one.example"),
        ("blog.one.example", "*.one.example"),
        ("one.example", "*.one.example"),
    ] {
        assert_eq!(meet(edge.https, name).await.unwrap().names[0], expected, "{name}");
    }
    for unknown in ["a.b.one.example", "two.example", "example"] {
        let error = meet(edge.https, unknown).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{unknown}: {error}");
        assert!(!certificates.serves(Some(unknown)));
    }
    assert!(!certificates.serves(None));
}

#[tokio::test]
async fn an_engine_can_say_that_it_does_not_know_a_name() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let refuse = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 4096];
        assert!(stream.read(&mut hello).await.unwrap() > 0);
        stream.write_all(&UNRECOGNIZED_NAME_ALERT).await.unwrap();
        stream
    };
    let (_stream, met) = tokio::join!(refuse, meet(address, "one.example"));
    let error = met.err().unwrap().into_inner().unwrap();
    let error = error.downcast_ref::<rustls::Error>().unwrap();
    assert_eq!(*error, rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName));
}

#[tokio::test]
async fn unknown_names_get_the_default_where_there_is_one() {
    let home = tempfile::tempdir().unwrap();
    let given = GivenFiles { default: true, ..write(home.path(), "one", &["one.example"]) };
    let certificates = Certificates::start(options(home.path(), vec![given])).unwrap();
    let edge = Edge::start(&certificates).await;
    assert_eq!(meet(edge.https, "two.example").await.unwrap().names, ["one.example"]);
}

#[tokio::test]
async fn both_versions_are_spoken_and_protocols_agreed_upon() {
    let home = tempfile::tempdir().unwrap();
    let certificates = Certificates::start(options(home.path(), vec![write(home.path(), "one", &["one.example"])])).unwrap();
    let edge = Edge::start(&certificates).await;
    for (version, alpn, expected) in [
        (&rustls::version::TLS12, &[b"http/1.1".as_slice()][..], Some(b"http/1.1".as_slice())),
        (&rustls::version::TLS13, &[b"http/1.1", b"h2"], Some(b"h2")),
        (&rustls::version::TLS13, &[], None),
    ] {
        let met = meet_with(looker(&[version], alpn), edge.https, "one.example").await.unwrap();
        assert_eq!(met.alpn.as_deref(), expected);
        assert_eq!(met.stream.get_ref().1.protocol_version(), Some(version.version));
    }
    let config = looker(rustls::ALL_VERSIONS, &[b"acme-tls/1"]);
    assert!(meet_with(config, edge.https, "one.example").await.is_err(), "there is no challenge to answer");
}

#[tokio::test]
async fn sessions_are_resumed_by_tickets() {
    let home = tempfile::tempdir().unwrap();
    let certificates = Certificates::start(options(home.path(), vec![write(home.path(), "one", &["one.example"])])).unwrap();
    let edge = Edge::start(&certificates).await;
    for version in rustls::ALL_VERSIONS {
        let config = looker(&[version], &[]);
        for expected in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
            let mut met = meet_with(config.clone(), edge.https, "one.example").await.unwrap();
            // The echoed byte comes after the ticket.
            met.stream.write_all(b"x").await.unwrap();
            met.stream.read_u8().await.unwrap();
            assert_eq!(met.stream.get_ref().1.handshake_kind(), Some(expected), "{:?}", version.version);
        }
    }
}

#[tokio::test]
async fn changed_files_are_served_and_bad_ones_refused_while_the_last_good_ones_stay() {
    let home = tempfile::tempdir().unwrap();
    let given = write(home.path(), "one", &["one.example"]);
    let certificates = Certificates::start(options(home.path(), vec![given.clone()])).unwrap();
    let edge = Edge::start(&certificates).await;
    let first = serial(&edge, "one.example").await.unwrap();

    write(home.path(), "one", &["one.example"]);
    let second =
        eventually("the new certificate", || async { serial(&edge, "one.example").await.filter(|serial| *serial != first) })
            .await;

    fs::write(&given.cert, "-----BEGIN NONSENSE-----").unwrap();
    // It may be looked at while it is being written, and is refused for something else then.
    let reason = eventually("the refusal", || async {
        match &certificates.status()[0].state {
            State::Failing { reason, .. } if reason.contains("not a PEM certificate") => Some(reason.clone()),
            _ => None,
        }
    })
    .await;
    assert!(reason.contains("one.crt"), "{reason}");
    assert_eq!(serial(&edge, "one.example").await.unwrap(), second);

    let other = write(home.path(), "other", &["one.example"]);
    fs::copy(&other.cert, &given.cert).unwrap();
    let reason = eventually("the other refusal", || async {
        match &certificates.status()[0].state {
            State::Failing { reason, .. } if reason.contains("one.key") => Some(reason.clone()),
            _ => None,
        }
    })
    .await;
    assert!(reason.contains("another certificate"), "{reason}");
    assert!(check_given(&given).is_err() && check_given(&other).is_ok());

    fs::copy(&other.key, &given.key).unwrap();
    eventually("the repaired certificate", || async { serial(&edge, "one.example").await.filter(|serial| *serial != second) })
        .await;
    assert!(matches!(certificates.status()[0].state, State::Active { .. }));
}

#[tokio::test]
async fn a_name_that_a_given_certificate_covers_needs_no_other() {
    let home = tempfile::tempdir().unwrap();
    let wide = write(home.path(), "wide", &["*.one.example"]);
    let certificates = Certificates::start(options(home.path(), vec![wide])).unwrap();
    let wanted = |name: &str, source| Wanted { name: name.to_owned(), source };
    certificates.set_wanted(vec![
        wanted("a.one.example", Source::Acme),
        wanted("b.one.example", Source::Local),
        wanted("c.one.example", Source::Given),
        wanted("two.example", Source::Given),
        wanted("10.0.0.1", Source::Acme),
        wanted("*.two.example", Source::Acme),
    ]);
    certificates.settled().await;
    let edge = Edge::start(&certificates).await;
    for name in ["a.one.example", "b.one.example", "c.one.example"] {
        assert_eq!(meet(edge.https, name).await.unwrap().names, ["*.one.example"], "{name}");
    }
    let told = certificates.status();
    let reason = |name: &str| match &told.iter().find(|status| status.name == name).unwrap().state {
        State::Failing { reason, next_attempt: None, .. } => reason.clone(),
        state => panic!("{name}: {state:?}"),
    };
    assert!(reason("two.example").contains("no given certificate"));
    assert!(reason("10.0.0.1").contains("address"));
    assert!(reason("*.two.example").contains("wildcard"));
    assert!(!told.iter().any(|status| status.name == "a.one.example"));
}
