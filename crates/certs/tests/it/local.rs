//! The local authority.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};

use coracle_certs::{CertOptions, Certificates, Source, State, Wanted};
use coracle_lab::clients::truster;

use crate::support::{
    clients::{meet, meet_with},
    edge::Edge,
};

fn wanted(names: &[&str]) -> Vec<Wanted> {
    names.iter().map(|name| Wanted { name: (*name).to_owned(), source: Source::Local }).collect()
}

#[tokio::test]
async fn local_names_are_certified_at_once_by_an_authority_that_clients_can_be_told_to_trust() {
    let home = tempfile::tempdir().unwrap();
    let certificates = Certificates::start(CertOptions::new(home.path())).unwrap();
    let edge = Edge::start(&certificates).await;
    // Whoever asks for a public authority's certificate for localhost cannot mean it.
    certificates.set_wanted(vec![
        Wanted { name: "Shop.localhost".to_owned(), source: Source::Acme },
        Wanted { name: "*.localhost".to_owned(), source: Source::Local },
        Wanted { name: "intranet".to_owned(), source: Source::Local },
    ]);
    certificates.settled().await;
    let client = truster(&certificates.local_ca_pem().unwrap(), &[]);
    for (name, certified) in [("shop.localhost", "shop.localhost"), ("blog.localhost", "*.localhost"), ("intranet", "intranet")] {
        assert_eq!(meet(edge.https, name).await.unwrap().names, [certified]);
    }
    // A wildcard directly below a top-level name is not for strict clients; names of their own are.
    for name in ["shop.localhost", "intranet"] {
        meet_with(client.clone(), edge.https, name).await.unwrap();
    }
    for status in certificates.status() {
        assert_eq!(status.source, Source::Local);
        assert!(matches!(status.state, State::Active { renewal: Some(_) }), "{status:?}");
        assert!(status.certificate.unwrap().issuer.contains("Coracle local authority"));
    }
}

#[tokio::test]
async fn a_restart_changes_nothing_and_names_no_longer_wanted_are_not_served() {
    let home = tempfile::tempdir().unwrap();
    let mut seen = BTreeSet::new();
    let mut roots = BTreeSet::new();
    for _ in 0..2 {
        let certificates = Certificates::start(CertOptions::new(home.path())).unwrap();
        let edge = Edge::start(&certificates).await;
        certificates.set_wanted(wanted(&["a.localhost", "b.localhost"]));
        certificates.settled().await;
        seen.insert(meet(edge.https, "a.localhost").await.unwrap().serial);
        roots.insert(certificates.local_ca_pem().unwrap());
        certificates.set_wanted(wanted(&["b.localhost"]));
        certificates.settled().await;
        assert!(meet(edge.https, "a.localhost").await.is_err());
        assert!(meet(edge.https, "b.localhost").await.is_ok());
        certificates.shutdown().await;
        assert!(meet(edge.https, "b.localhost").await.is_ok(), "what is served stays served");
    }
    assert_eq!((seen.len(), roots.len()), (1, 1));
    nothing_is_open_to_others(home.path());
}

#[tokio::test]
async fn a_stored_certificate_that_cannot_be_used_is_put_aside_and_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("local/a.localhost.pem");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "half a certifi").unwrap();
    let certificates = Certificates::start(CertOptions::new(home.path())).unwrap();
    certificates.set_wanted(wanted(&["a.localhost"]));
    certificates.settled().await;
    let status = certificates.status().remove(0);
    assert!(status.certificate.is_some());
    assert!(status.remarks[0].contains("a.localhost.pem.aside-"), "{:?}", status.remarks);
    let told = format!("{certificates:?} {}", serde_json::to_string(&status).unwrap());
    assert!(!told.contains("PRIVATE"), "{told}");
}

pub fn nothing_is_open_to_others(directory: &Path) {
    let mut open = vec![directory.to_owned()];
    let mut files = 0;
    while let Some(path) = open.pop() {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files += 1;
        }
    }
    assert!(files > 0);
}
