use coracle_model::{DeploymentKind, Origin, Outcome, ProcessName};
use coracle_store::{ConfigChange, StoreError};

use crate::harness::{Home, begun, deployed, name, new_release, shop, v};

#[tokio::test]
async fn an_app_is_created_once() {
    let home = Home::new();
    let store = home.open().await;
    assert!(matches!(store.app(&shop()).await, Err(StoreError::NoSuchApp(_))));
    let made = store.ensure_app(&shop()).await.unwrap();
    assert_eq!((made.active, made.scale.len()), (None, 0));
    assert_eq!(store.ensure_app(&shop()).await.unwrap(), made);
    store.ensure_app(&"alpha".parse().unwrap()).await.unwrap();
    let names: Vec<_> = store.apps().await.unwrap().into_iter().map(|app| app.name.to_string()).collect();
    assert_eq!(names, ["alpha", "shop"]);
}

#[tokio::test]
async fn a_scale_is_merged_and_survives_a_restart() {
    let home = Home::new();
    let store = home.with_shop().await;
    let worker: ProcessName = "worker".parse().unwrap();
    store.set_scale(&shop(), &[(ProcessName::web(), 3), (worker.clone(), 1)]).await.unwrap();
    store.set_scale(&shop(), &[(worker.clone(), 0)]).await.unwrap();
    store.close().await;
    drop(store);
    let scale = home.open().await.app(&shop()).await.unwrap().scale;
    assert_eq!(scale, [(ProcessName::web(), 3), (worker, 0)].into());
}

#[tokio::test]
async fn scaling_an_app_that_is_not_there_is_refused() {
    let home = Home::new();
    let result = home.open().await.set_scale(&shop(), &[(ProcessName::web(), 1)]).await;
    assert!(matches!(result, Err(StoreError::NoSuchApp(_))), "{result:?}");
}

#[tokio::test]
async fn a_release_is_read_back_as_it_was_written_also_after_a_restart() {
    let home = Home::new();
    let store = home.with_shop().await;
    let number = store.begin_deployment(&shop(), DeploymentKind::Deploy).await.unwrap().to;
    let env = [("B", "2"), ("A", "line\nbreak \u{1f980}"), ("EMPTY", "")];
    let written = store.create_release(new_release(&shop(), number, &env)).await.unwrap();
    assert_eq!(store.release(&shop(), number).await.unwrap(), written);
    store.close().await;
    drop(store);
    let store = home.open().await;
    assert_eq!(store.release(&shop(), number).await.unwrap(), written);
    assert_eq!(store.releases(&shop()).await.unwrap(), [written]);
    let read = store.release_env(&shop(), number).await.unwrap();
    let read: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(read, env);
}

#[tokio::test]
async fn every_origin_is_read_back() {
    let home = Home::new();
    let store = home.with_shop().await;
    let origins = [
        Origin::Deploy { commit: None },
        Origin::Config { changed: vec![name("A"), name("B")] },
        Origin::Rollback { to: v(1) },
        Origin::Restart { of: v(3) },
    ];
    for origin in origins {
        let deployment = store.begin_deployment(&shop(), DeploymentKind::Deploy).await.unwrap();
        let mut release = new_release(&shop(), deployment.to, &[]);
        release.origin = origin.clone();
        store.create_release(release).await.unwrap();
        assert_eq!(store.release(&shop(), deployment.to).await.unwrap().origin, origin);
        store.finish_deployment(deployment.id, &Outcome::Succeeded).await.unwrap();
    }
}

#[tokio::test]
async fn a_release_is_written_once_and_only_with_a_number_that_was_given() {
    let home = Home::new();
    let store = home.with_shop().await;
    assert!(store.create_release(new_release(&shop(), v(1), &[])).await.is_err(), "number 1 was given to nobody");
    let deployment = begun(&store, &shop()).await;
    let again = new_release(&shop(), deployment.to, &[("A", "other")]);
    assert!(store.create_release(again).await.is_err());
    assert!(store.release_env(&shop(), deployment.to).await.unwrap().is_empty(), "the first one stays");
    let nowhere = store.create_release(new_release(&"other".parse().unwrap(), v(1), &[])).await;
    assert!(matches!(nowhere, Err(StoreError::NoSuchApp(_))));
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let home = Home::new();
    let store = home.with_shop().await;
    let other = "other".parse().unwrap();
    assert!(matches!(store.release(&shop(), v(7)).await, Err(StoreError::NoSuchRelease(_, number)) if number == v(7)));
    assert!(matches!(store.release_env(&shop(), v(7)).await, Err(StoreError::NoSuchRelease(..))));
    assert!(matches!(store.release(&other, v(7)).await, Err(StoreError::NoSuchApp(_))));
    assert!(matches!(store.releases(&other).await, Err(StoreError::NoSuchApp(_))));
    assert!(store.releases(&shop()).await.unwrap().is_empty());
}

#[tokio::test]
async fn release_numbers_never_go_back() {
    let home = Home::new();
    let store = home.with_shop().await;
    let first = deployed(&store, &shop()).await;
    let failed = begun(&store, &shop()).await;
    store.delete_release(&shop(), failed.to).await.unwrap();
    store.finish_deployment(failed.id, &Outcome::Cancelled { phase: coracle_model::Phase::Build }).await.unwrap();
    store.close().await;
    drop(store);
    let store = home.open().await;
    let next = store.begin_deployment(&shop(), DeploymentKind::Config).await.unwrap();
    assert_eq!((first.to, failed.to, next.to), (v(1), v(2), v(3)));
    assert_eq!(next.from, Some(v(1)));
}

#[tokio::test]
async fn a_release_can_be_deleted_twice_but_not_while_it_is_active() {
    let home = Home::new();
    let store = home.with_shop().await;
    let first = deployed(&store, &shop()).await;
    assert!(matches!(store.delete_release(&shop(), first.to).await, Err(StoreError::Active(_, number)) if number == v(1)));
    deployed(&store, &shop()).await;
    store.delete_release(&shop(), first.to).await.unwrap();
    store.delete_release(&shop(), first.to).await.unwrap();
    store.delete_release(&"other".parse().unwrap(), v(1)).await.unwrap();
    let kept: Vec<_> = store.releases(&shop()).await.unwrap().into_iter().map(|release| release.number).collect();
    assert_eq!(kept, [v(2)]);
}

#[tokio::test]
async fn a_deleted_app_leaves_nothing_and_its_neighbour_everything() {
    let home = Home::new();
    let store = home.with_shop().await;
    let neighbour = "neighbour".parse().unwrap();
    store.ensure_app(&neighbour).await.unwrap();
    for app in [&shop(), &neighbour] {
        let change = ConfigChange { name: name("A"), value: Some("1".into()), secret: false };
        store.set_config(app, &[change]).await.unwrap();
        deployed(&store, app).await;
        begun(&store, app).await;
    }
    store.delete_app(&shop()).await.unwrap();
    store.delete_app(&shop()).await.unwrap();
    assert!(matches!(store.app(&shop()).await, Err(StoreError::NoSuchApp(_))));
    assert_eq!(store.unfinished_deployments().await.unwrap().len(), 1);
    assert_eq!(store.releases(&neighbour).await.unwrap().len(), 2);
    let anew = store.ensure_app(&shop()).await.unwrap();
    assert_eq!(anew.active, None);
    assert!(store.config(&shop()).await.unwrap().is_empty());
    assert!(store.releases(&shop()).await.unwrap().is_empty());
    assert!(store.deployments(&shop(), 10).await.unwrap().is_empty());
}
