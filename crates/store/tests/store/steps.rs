use coracle_model::ArtifactId;
use coracle_store::{PassedStep, STEPS_KEPT};

use crate::harness::{Home, shop, v};

fn passed(key: &str, release: u32, images: &[&str]) -> PassedStep {
    let images = images.iter().map(|image| ArtifactId::new(*image)).collect();
    PassedStep { key: key.to_owned(), step: "test".to_owned(), release: v(release), images }
}

#[tokio::test]
async fn a_step_that_passed_is_known_by_its_key_and_keeps_its_images() {
    let home = Home::new();
    let store = home.with_shop().await;
    let other = "other".parse().unwrap();
    store.ensure_app(&other).await.unwrap();
    store.record_step(&shop(), &passed("a", 1, &["sha256:1", "sha256:2"])).await.unwrap();
    store.record_step(&shop(), &passed("b", 1, &["sha256:1"])).await.unwrap();
    store.record_step(&shop(), &passed("a", 2, &["sha256:3"])).await.unwrap();
    assert_eq!(store.passed_step(&shop(), "a").await.unwrap(), Some(v(2)));
    assert_eq!(store.passed_step(&shop(), "c").await.unwrap(), None);
    assert_eq!(store.passed_step(&other, "a").await.unwrap(), None, "apps have nothing in common");
    assert_eq!(store.step_images(&shop()).await.unwrap(), ["sha256:1", "sha256:3"].map(ArtifactId::new));
    store.delete_app(&shop()).await.unwrap();
    store.ensure_app(&shop()).await.unwrap();
    assert_eq!(store.passed_step(&shop(), "a").await.unwrap(), None);
}

#[tokio::test]
async fn what_was_not_used_for_longest_is_forgotten() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.record_step(&shop(), &passed("used", 1, &[])).await.unwrap();
    store.record_step(&shop(), &passed("unused", 1, &[])).await.unwrap();
    store.passed_step(&shop(), "used").await.unwrap();
    for n in 0..STEPS_KEPT - 1 {
        store.record_step(&shop(), &passed(&format!("new{n}"), 2, &[])).await.unwrap();
    }
    assert_eq!(store.passed_step(&shop(), "used").await.unwrap(), Some(v(1)));
    assert_eq!(store.passed_step(&shop(), "unused").await.unwrap(), None);
}
