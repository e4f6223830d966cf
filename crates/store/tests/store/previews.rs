use coracle_model::{AppName, HostPattern, Lifetime};
use coracle_store::{PreviewAdmission, PreviewRecord, Store, WantedPreview};
use jiff::{SignedDuration, Timestamp};

use crate::harness::{Home, shop};

fn names(names: &[&str]) -> Vec<(AppName, HostPattern)> {
    names.iter().map(|name| (name.parse().unwrap(), format!("{name}.localhost").parse().unwrap())).collect()
}

async fn admit(store: &Store, branch: &str, called: &[&str]) -> PreviewAdmission {
    let (parent, names) = (shop(), names(called));
    let ttl: Lifetime = "1h".parse().unwrap();
    let wanted = WantedPreview { parent: &parent, branch, names: &names, ttl, max: 2, config: &[] };
    store.admit_preview(&wanted).await.unwrap()
}

fn made(admission: PreviewAdmission) -> PreviewRecord {
    match admission {
        PreviewAdmission::Made(record) => record,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_preview_is_an_app_of_a_name_that_is_nobodys() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.ensure_app(&"shop-a".parse().unwrap()).await.unwrap();
    let grant = coracle_model::Grant { app: Some("shop-b".parse().unwrap()), role: coracle_model::Role::Owner };
    store.add_person(&"ana".parse().unwrap(), &[grant], &[]).await.unwrap();
    assert_eq!(admit(&store, "a", &["shop-a", "shop-b", "shop"]).await, PreviewAdmission::Taken);
    let one = made(admit(&store, "a", &["shop-a", "shop-a1"]).await);
    assert_eq!((one.app.as_str(), one.host.as_str()), ("shop-a1", "shop-a1.localhost"));
    // The branch keeps it, and the next has another.
    assert!(matches!(admit(&store, "a", &["shop-a", "shop-a1"]).await, PreviewAdmission::Renewed(same) if same.app == one.app));
    made(admit(&store, "c", &["shop-a1", "shop-c"]).await);
    assert_eq!(admit(&store, "d", &["shop-d"]).await, PreviewAdmission::Full(vec!["a".to_owned(), "c".to_owned()]));
    assert_eq!(store.previews(Some(&shop())).await.unwrap().len(), 2);
    store.delete_app(&one.app).await.unwrap();
    assert_eq!(store.preview(&one.app).await.unwrap(), None);
    made(admit(&store, "d", &["shop-d"]).await);
}

#[tokio::test]
async fn a_preview_is_due_when_its_time_is_over_or_its_app_is_gone() {
    let home = Home::new();
    let store = home.with_shop().await;
    assert_eq!(store.next_preview_expiry().await.unwrap(), None);
    let a = made(admit(&store, "a", &["shop-a"]).await);
    let now = Timestamp::now();
    // It is kept to the microsecond.
    let next = store.next_preview_expiry().await.unwrap().unwrap();
    assert_eq!(next.as_microsecond(), a.expires_at.as_microsecond());
    assert_eq!(store.due_previews(now).await.unwrap(), [] as [AppName; 0]);
    let later = now + SignedDuration::from_hours(2);
    assert_eq!(store.due_previews(later).await.unwrap(), std::slice::from_ref(&a.app));
    store.preview_deployed(&a.app, "c0ffee").await.unwrap();
    assert!(store.extend_preview(&a.app).await.unwrap().unwrap() >= a.expires_at);
    // Told to end, it is not extended, but a push brings it back.
    store.end_preview(&a.app).await.unwrap();
    assert!(store.is_preview_due(&a.app, now).await.unwrap());
    assert_eq!(store.extend_preview(&a.app).await.unwrap(), None);
    let PreviewAdmission::Renewed(back) = admit(&store, "a", &["shop-a"]).await else { panic!("it was there") };
    assert_eq!(back.commit.as_deref(), Some("c0ffee"));
    assert!(!store.is_preview_due(&a.app, now).await.unwrap());
    store.delete_app(&shop()).await.unwrap();
    assert!(store.is_preview_due(&a.app, now).await.unwrap());
}
