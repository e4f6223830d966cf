//! Logins of registries, manifests of releases and images of steps.

use coracle_model::{Artifact, ArtifactId, RegistryHost, RegistryLogin, Secret};

use crate::harness::{Home, begun, new_release, shop, v};

fn login(name: &str, password: &str) -> RegistryLogin {
    RegistryLogin { username: name.to_owned(), password: Secret::new(password) }
}

fn host(text: &str) -> RegistryHost {
    text.parse().unwrap()
}

#[tokio::test]
async fn an_app_shows_its_own_login_before_the_servers_and_nobody_elses() {
    let home = Home::new();
    let store = home.with_shop().await;
    let other = "other".parse().unwrap();
    store.ensure_app(&other).await.unwrap();
    store.set_registry_login(None, &host("a.b"), &login("server", "sesame-server")).await.unwrap();
    store.set_registry_login(None, &host("c.d"), &login("server", "sesame-server")).await.unwrap();
    store.set_registry_login(Some(&shop()), &host("a.b"), &login("ana", "sesame-first")).await.unwrap();
    store.set_registry_login(Some(&shop()), &host("a.b"), &login("ana", "sesame-shop")).await.unwrap();
    let (of_shop, of_other) = (store.logins_of(&shop()).await.unwrap(), store.logins_of(&other).await.unwrap());
    assert_eq!(of_shop.of(&host("a.b")), Some(&login("ana", "sesame-shop")));
    assert_eq!(of_shop.of(&host("c.d")).unwrap().username, "server");
    assert_eq!(of_other.of(&host("a.b")).unwrap().username, "server");
    assert!(of_other.guards(&host("a.b")) && !of_other.guards(&host("c.d")));
    assert_eq!(store.registry_logins(Some(&other)).await.unwrap(), []);
    assert_eq!(store.registry_logins(None).await.unwrap().len(), 2);
    let bytes = home.raw_bytes();
    assert!(!bytes.windows(6).any(|piece| piece == b"sesame"), "a password is readable in the files");

    assert!(store.remove_registry_login(None, &host("a.b")).await.unwrap());
    assert!(!store.remove_registry_login(None, &host("a.b")).await.unwrap());
    assert!(store.logins_of(&other).await.unwrap().of(&host("a.b")).is_none());
    // An app that is made anew under the same name is not given what the old one had.
    store.delete_app(&shop()).await.unwrap();
    store.ensure_app(&shop()).await.unwrap();
    assert_eq!(store.registry_logins(Some(&shop())).await.unwrap(), []);
    let nobody = "nobody".parse().unwrap();
    assert!(store.set_registry_login(Some(&nobody), &host("a.b"), &login("a", "b")).await.is_err());
}

#[tokio::test]
async fn a_manifest_lives_as_long_as_its_release_and_is_sealed() {
    let home = Home::new();
    let store = home.with_shop().await;
    let first = begun(&store, &shop()).await;
    store.keep_manifest(&shop(), first.to, "app = \"shop-in-words\"").await.unwrap();
    assert_eq!(store.manifest(&shop(), first.to).await.unwrap().as_deref(), Some("app = \"shop-in-words\""));
    assert!(!home.raw_bytes().windows(13).any(|piece| piece == b"shop-in-words"));
    assert_eq!(store.manifest(&shop(), v(9)).await.unwrap(), None);
    store.delete_release(&shop(), first.to).await.unwrap();
    assert_eq!(store.manifest(&shop(), first.to).await.unwrap(), None);
}

#[tokio::test]
async fn images_of_steps_are_kept_until_they_were_not_used_for_long() {
    let home = Home::new();
    let store = home.with_shop().await;
    let artifact = |id: &str| Artifact { id: ArtifactId::new(id), ..new_release(&shop(), v(1), &[]).artifact };
    store.keep_step_image(&shop(), "python:3", &artifact("sha256:a"), v(1)).await.unwrap();
    store.keep_step_image(&shop(), "redis:7", &artifact("sha256:b"), v(1)).await.unwrap();
    store.keep_step_image(&shop(), "python:3", &artifact("sha256:c"), v(3)).await.unwrap();
    assert_eq!(store.kept_step_image(&shop(), "python:3").await.unwrap(), Some(artifact("sha256:c")));
    let ids = |images: Vec<ArtifactId>| images.into_iter().map(|id| id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(store.step_images(&shop()).await.unwrap()), ["sha256:b", "sha256:c"]);
    store.forget_step_images(&shop(), v(2)).await.unwrap();
    assert_eq!(ids(store.step_images(&shop()).await.unwrap()), ["sha256:c"]);
    assert_eq!(store.kept_step_image(&shop(), "redis:7").await.unwrap(), None);
}

#[tokio::test]
async fn where_a_registry_has_a_release_is_noted_until_it_is_active() {
    let home = Home::new();
    let store = home.with_shop().await;
    let deployment = begun(&store, &shop()).await;
    let reference: coracle_model::ImageReference = "a.b/shop:v1".parse().unwrap();
    let pinned = reference.pinned(&format!("sha256:{}", "0".repeat(64))).unwrap();
    store.note_pushed(&shop(), deployment.to, &pinned).await.unwrap();
    assert_eq!(store.release(&shop(), deployment.to).await.unwrap().artifact.registry, Some(pinned.clone()));
    store.activate(deployment.id, &[]).await.unwrap();
    assert!(store.note_pushed(&shop(), deployment.to, &pinned).await.is_err());
}
