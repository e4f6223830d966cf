//! Stateful services on record, and descriptions that are sealed.

use coracle_model::{DeploymentKind, Outcome, PrivateText, ProcessName, ProcessSpec};
use coracle_store::{ServiceRecord, StoreError};

use crate::harness::{Home, new_release, shop, v};

fn db() -> ProcessName {
    "db".parse().unwrap()
}

fn record(release: u32, previous: Option<u32>) -> Vec<ServiceRecord> {
    vec![ServiceRecord { name: db(), release: v(release), previous: previous.map(v) }]
}

#[tokio::test]
async fn a_service_goes_from_release_to_release_and_back() {
    let home = Home::new();
    let store = home.with_shop().await;
    assert!(matches!(store.set_service(&shop(), &db(), v(1)).await, Err(StoreError::NoSuchRelease(..))));
    for number in 1..=2 {
        let deployment = store.begin_deployment(&shop(), DeploymentKind::Deploy).await.unwrap();
        store.create_release(new_release(&shop(), v(number), &[])).await.unwrap();
        store.finish_deployment(deployment.id, &Outcome::Succeeded).await.unwrap();
    }
    store.set_service(&shop(), &db(), v(1)).await.unwrap();
    assert_eq!(store.services(&shop()).await.unwrap(), record(1, None));
    for _ in 0..2 {
        // Said twice, it is still known what was before.
        store.set_service(&shop(), &db(), v(2)).await.unwrap();
        assert_eq!(store.services(&shop()).await.unwrap(), record(2, Some(1)));
    }
    store.revert_services(&shop(), v(1)).await.unwrap();
    assert_eq!(store.services(&shop()).await.unwrap(), record(2, Some(1)), "another release's services are left alone");
    store.revert_services(&shop(), v(2)).await.unwrap();
    assert_eq!(store.services(&shop()).await.unwrap(), record(1, None));
    store.revert_services(&shop(), v(1)).await.unwrap();
    assert!(store.services(&shop()).await.unwrap().is_empty(), "what was never there before is forgotten");
    store.set_service(&shop(), &db(), v(2)).await.unwrap();
    store.delete_service(&shop(), &db()).await.unwrap();
    store.set_service(&shop(), &db(), v(2)).await.unwrap();
    store.delete_app(&shop()).await.unwrap();
    assert!(store.services(&shop()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_filled_into_a_description_cannot_be_read_in_the_database() {
    let home = Home::new();
    let store = home.with_shop().await;
    let number = store.begin_deployment(&shop(), DeploymentKind::Deploy).await.unwrap().to;
    let mut release = new_release(&shop(), number, &[]);
    let mut part = ProcessSpec::default();
    part.container.env.insert("POSTGRES_PASSWORD".to_owned(), PrivateText::new("hunter2-in-a-file"));
    release.spec.services.insert(db(), part);
    release.artifacts.insert(db(), release.artifact.clone());
    let written = store.create_release(release).await.unwrap();
    store.close().await;
    drop(store);
    assert!(!home.raw_bytes().windows(17).any(|bytes| bytes == b"hunter2-in-a-file"));
    let store = home.open().await;
    assert_eq!(store.release(&shop(), number).await.unwrap(), written);
    assert_eq!(store.releases(&shop()).await.unwrap(), [written]);
}
