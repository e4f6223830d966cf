//! People, their roles and credentials.

use coracle_model::{AppName, CredentialId, Grant, PersonName, Role};
use coracle_store::StoreError;

use crate::harness::{Home, shop};

fn ana() -> PersonName {
    "ana".parse().unwrap()
}

const KEY: &str = "ssh-ed25519 AAAA";

#[tokio::test]
async fn what_was_granted_is_there_after_a_restart_and_goes_with_the_person() {
    let home = Home::new();
    let store = home.open().await;
    let grants = vec![Grant { app: None, role: Role::Deployer }, Grant { app: Some(shop()), role: Role::Owner }];
    store.add_person(&ana(), &grants, &[]).await.unwrap();
    assert!(matches!(store.add_person(&ana(), &[], &[]).await, Err(StoreError::PersonExists(_))));
    let laptop = store.add_key(&ana(), "laptop", "SHA256:a", KEY).await.unwrap();
    let token = store.add_token(&ana(), "ci", |_| [7; 32]).await.unwrap();
    store.close().await;
    drop(store);

    let store = home.open().await;
    let person = store.person(&ana()).await.unwrap();
    assert_eq!(person.grants, grants);
    assert_eq!(person.credentials, [laptop.clone(), token.clone()]);
    assert_eq!(store.credential_by_key("SHA256:a").await.unwrap(), Some((ana(), laptop)));
    assert_eq!(store.credential_by_id(token.id).await.unwrap(), Some((ana(), token.clone())));
    assert_eq!(store.credential_by_key("SHA256:b").await.unwrap(), None);

    store.remove_person(&ana()).await.unwrap();
    assert_eq!(store.credential_by_key("SHA256:a").await.unwrap(), None);
    assert_eq!(store.credential_by_id(token.id).await.unwrap(), None);
    assert!(store.people().await.unwrap().is_empty());
    assert!(matches!(store.remove_person(&ana()).await, Err(StoreError::NoSuchPerson(_))));
    // Nobody gets the number of what was revoked.
    store.add_person(&ana(), &[], &[]).await.unwrap();
    let again = store.add_token(&ana(), "ci", |_| [7; 32]).await.unwrap();
    assert!(again.id > token.id);
}

#[tokio::test]
async fn a_key_is_one_persons_and_a_credential_is_removed_by_its_owners_name() {
    let home = Home::new();
    let store = home.open().await;
    let ben: PersonName = "ben".parse().unwrap();
    for name in [&ana(), &ben] {
        store.add_person(name, &[], &[]).await.unwrap();
    }
    let added = store.add_key(&ana(), "", "SHA256:a", KEY).await.unwrap();
    let taken = store.add_key(&ben, "", "SHA256:a", KEY).await;
    assert!(matches!(taken, Err(StoreError::KeyTaken { person, .. }) if person == ana()));
    assert!(matches!(store.remove_credential(&ben, added.id).await, Err(StoreError::NoSuchCredential(..))));
    assert!(matches!(store.remove_credential(&ana(), CredentialId(999)).await, Err(StoreError::NoSuchCredential(..))));
    store.remove_credential(&ana(), added.id).await.unwrap();
    store.add_key(&ben, "", "SHA256:a", KEY).await.unwrap();
    let nobody: PersonName = "nobody".parse().unwrap();
    assert!(matches!(store.add_key(&nobody, "", "SHA256:c", KEY).await, Err(StoreError::NoSuchPerson(_))));
}

#[tokio::test]
async fn roles_are_replaced_taken_and_end_with_their_app() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.add_person(&ana(), &[], &[]).await.unwrap();
    let blog: AppName = "blog".parse().unwrap();
    let grants = async || store.person(&ana()).await.unwrap().grants;
    store.set_role(&ana(), Some(&shop()), Some(Role::Deployer)).await.unwrap();
    store.set_role(&ana(), Some(&shop()), Some(Role::Owner)).await.unwrap();
    store.set_role(&ana(), Some(&blog), Some(Role::Deployer)).await.unwrap();
    store.set_role(&ana(), None, Some(Role::Deployer)).await.unwrap();
    assert_eq!(grants().await.len(), 3);
    store.set_role(&ana(), None, None).await.unwrap();
    assert_eq!(grants().await.iter().map(|grant| grant.role).collect::<Vec<_>>(), [Role::Deployer, Role::Owner]);
    // Whoever makes another app of that name later does not find old roles in it.
    store.delete_app(&shop()).await.unwrap();
    assert_eq!(grants().await, [Grant { app: Some(blog), role: Role::Deployer }]);
}

#[tokio::test]
async fn when_something_was_used_is_known_to_the_minute() {
    let home = Home::new();
    let store = home.open().await;
    store.add_person(&ana(), &[], &[]).await.unwrap();
    let added = store.add_key(&ana(), "", "SHA256:a", KEY).await.unwrap();
    store.credential_used(&added).await.unwrap();
    let (_, used) = store.credential_by_id(added.id).await.unwrap().unwrap();
    assert!(used.last_used_at.unwrap() >= added.created_at);
    store.credential_used(&used).await.unwrap();
    assert_eq!(store.credential_by_id(added.id).await.unwrap().unwrap().1, used);
}
