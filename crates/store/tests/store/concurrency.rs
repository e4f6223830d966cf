use coracle_model::{DeploymentKind, Outcome, ProcessName};
use coracle_store::{ConfigChange, StoreError};
use futures::future::join_all;

use crate::harness::{Home, deployed, name, shop, v};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_deployments_at_once_exactly_one_begins() {
    let home = Home::new();
    let store = home.with_shop().await;
    for round in 1..=5 {
        let tasks = (0..20).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.begin_deployment(&shop(), DeploymentKind::Deploy).await })
        });
        let results: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let [winner] = won.try_into().unwrap();
        let winner = winner.unwrap();
        assert_eq!(winner.to, v(round), "the others took no number");
        for loss in lost {
            assert!(matches!(loss, Err(StoreError::Busy(holder)) if holder.id == winner.id));
        }
        store.finish_deployment(winner.id, &Outcome::Succeeded).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_and_readers_of_one_app_do_not_lose_or_half_see_anything() {
    let home = Home::new();
    let store = home.with_shop().await;
    let writers = (0..10_u16).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let value =
                |name_of: &str| ConfigChange { name: name(name_of), value: Some(n.to_string().as_str().into()), secret: false };
            store.set_config(&shop(), &[value("LEFT"), value("RIGHT"), value(&format!("OWN_{n}"))]).await.unwrap();
            store.set_scale(&shop(), &[(format!("p{n}").parse::<ProcessName>().unwrap(), n)]).await.unwrap();
        })
    });
    let readers = (0..10).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                let entries = store.config(&shop()).await.unwrap();
                let value = |wanted: &str| entries.iter().find(|entry| entry.name.as_str() == wanted).map(|e| e.value.clone());
                assert!(value("LEFT") == value("RIGHT"), "a change was seen half");
            }
        })
    });
    let tasks: Vec<_> = writers.chain(readers).collect();
    for result in join_all(tasks).await {
        result.unwrap();
    }
    assert_eq!(store.config(&shop()).await.unwrap().len(), 12);
    assert_eq!(store.app(&shop()).await.unwrap().scale.len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_is_deleted_meanwhile_is_listed_whole_or_not_at_all() {
    let home = Home::new();
    let store = home.with_shop().await;
    deployed(&store, &shop()).await;
    let fleeting = {
        let store = store.clone();
        tokio::spawn(async move {
            let app = "fleeting".parse().unwrap();
            for _ in 0..20 {
                store.ensure_app(&app).await.unwrap();
                deployed(&store, &app).await;
                store.delete_app(&app).await.unwrap();
            }
        })
    };
    let mut seen = 0;
    while !fleeting.is_finished() {
        let apps = store.apps_with_releases().await.unwrap();
        for (app, release) in &apps {
            assert_eq!(app.active, release.as_ref().map(|release| release.number), "{}", app.name);
        }
        seen += usize::from(apps.len() > 1);
        let active = store.active_releases().await.unwrap();
        assert!(active.iter().any(|release| release.app == shop() && release.number == v(1)), "{active:?}");
    }
    fleeting.await.unwrap();
    assert!(seen > 0, "it was never there");
    let left: Vec<_> = store.apps_with_releases().await.unwrap().into_iter().map(|(app, _)| app.name).collect();
    assert_eq!(left, [shop()]);
}
