//! API keys.

use coracle_pyrunner_store::{KeyError, KeyLimits, NewKey, Role, Store};
use jiff::{SignedDuration, Timestamp};

use crate::home::{Home, on_both};

on_both!(
    a_key_opens_with_its_token_alone,
    a_revoked_or_expired_key_opens_nothing_and_says_why,
    keys_are_listed_with_their_limits_and_last_use,
    no_token_is_in_the_database,
);

fn user(name: &str) -> NewKey {
    NewKey { name: name.to_owned(), role: Role::User, limits: KeyLimits::default(), expires_at: None }
}

async fn verdict(store: &Store, token: &str) -> &'static str {
    match store.key_of(token).await {
        Ok(_) => "open",
        Err(KeyError::Unknown) => "unknown",
        Err(KeyError::Revoked) => "revoked",
        Err(KeyError::Expired) => "expired",
        Err(KeyError::Store(error)) => panic!("{error}"),
    }
}

async fn a_key_opens_with_its_token_alone(home: Home) {
    let store = home.open().await;
    let (key, token) = store.add_key(user("ci")).await.unwrap();
    let (other, _) = store.add_key(user("ci")).await.unwrap();
    assert_ne!(key.id, other.id);
    let token = token.expose();
    assert_eq!(store.key_of(token).await.unwrap(), key);
    let secret = token.rsplit('_').next().unwrap();
    assert_eq!(secret.len(), 64, "256 bits");
    let mut wrong = token.to_owned();
    let last = if wrong.pop() == Some('0') { '1' } else { '0' };
    wrong.push(last);
    let others = format!("pyr_{}_{secret}", other.id);
    let upper = token.to_uppercase();
    let longer = format!("{token}0");
    let nul = format!("pyr_{}_\0", key.id);
    for false_token in ["", "pyr", "pyr__", "pyr_x_y", &wrong, &others, &upper, &longer, &nul, "pyr_0\u{0}0000000000_x", secret] {
        assert_eq!(verdict(&store, false_token).await, "unknown", "{false_token:?}");
    }
}

async fn a_revoked_or_expired_key_opens_nothing_and_says_why(home: Home) {
    let store = home.open().await;
    let (key, token) = store.add_key(user("old")).await.unwrap();
    assert!(store.revoke_key(&key.id).await.unwrap());
    assert!(!store.revoke_key(&key.id).await.unwrap(), "only once");
    assert!(!store.revoke_key("000000000000").await.unwrap());
    assert_eq!(verdict(&store, token.expose()).await, "revoked");
    let hour = SignedDuration::from_hours(1);
    for (end, expected) in [(Timestamp::now() - hour, "expired"), (Timestamp::now() + hour, "open")] {
        let (_, token) = store.add_key(NewKey { expires_at: Some(end), ..user("brief") }).await.unwrap();
        assert_eq!(verdict(&store, token.expose()).await, expected);
    }
}

async fn keys_are_listed_with_their_limits_and_last_use(home: Home) {
    let store = home.open().await;
    let execution = serde_json::json!({"wall_ms": 60_000, "memory_bytes": 1u64 << 40});
    let limits = KeyLimits { calls_per_hour: Some(5), concurrent: Some(2), execution: execution.as_object().unwrap().clone() };
    let (first, _) = store.add_key(NewKey { role: Role::Admin, limits, ..user("Åsa's laptop") }).await.unwrap();
    let (second, _) = store.add_key(user("ci")).await.unwrap();
    let used = Timestamp::from_second(1_700_000_000).unwrap();
    store.touch_key(&second.id, used).await.unwrap();
    // Within a minute: not worth a write.
    store.touch_key(&second.id, used + SignedDuration::from_secs(59)).await.unwrap();
    let second = coracle_pyrunner_store::ApiKey { last_used_at: Some(used), ..second };
    store.close().await;
    let store = home.open().await;
    assert_eq!(store.keys().await.unwrap(), [first, second.clone()]);
    let later = used + SignedDuration::from_secs(61);
    store.touch_key(&second.id, later).await.unwrap();
    assert_eq!(store.keys().await.unwrap()[1].last_used_at, Some(later));
}

async fn no_token_is_in_the_database(home: Home) {
    let store = home.open().await;
    let (_, token) = store.add_key(user("ci")).await.unwrap();
    assert_eq!(format!("{token:?}"), "Token(…)");
    store.close().await;
    let secret = token.expose().rsplit('_').next().unwrap().as_bytes().to_vec();
    let files = match &home {
        Home::Sqlite(_) => vec![home.file("pyrunner.db")],
        Home::Postgres(_) => files_below(&home.file("data")),
    };
    let holds = |bytes: &[u8], part: &[u8]| memchr::memmem::find(bytes, part).is_some();
    let mut names = 0;
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!holds(&bytes, &secret), "{}", file.display());
        names += usize::from(holds(&bytes, b"pyrunner_keys"));
    }
    assert!(names > 0, "the search looks into the right files");
}

fn files_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: std::path::PathBuf| match path {
        dir if dir.is_dir() => files_below(&dir),
        file if file.is_file() => vec![file],
        _ => Vec::new(),
    };
    entries.flat_map(below).collect()
}
