//! Configuration goes in; secrets do not come out.

use coracle_api::{ConfigChange, ConfigPatch, ConfigSet, Outcome, ProblemKind};

use crate::harness::{Env, all, app, attached, outcome};

const SECRET: &str = "hunter2-do-not-tell";

fn set(name: &str, value: &str, secret: bool) -> ConfigChange {
    ConfigChange { name: name.parse().unwrap(), value: Some(value.to_owned()), secret }
}

fn patch(changes: Vec<ConfigChange>) -> ConfigPatch {
    ConfigPatch { changes, no_deploy: false }
}

#[tokio::test]
async fn configuration_before_the_first_release_is_stored_and_after_it_deployed() {
    let env = Env::start().await;
    let shop = app("shop");
    let first = patch(vec![set("LOG_LEVEL", "debug", false), set("SECRET_KEY", SECRET, true)]);
    let stored = env.client.set_config(&shop, &first, attached()).await.unwrap();
    let ConfigSet::Stored(entries) = stored else { panic!("{stored:?}") };
    assert_eq!(entries.len(), 2);

    env.deploy("shop").await;
    let changed = env.client.set_config(&shop, &patch(vec![set("LOG_LEVEL", "info", false)]), attached()).await.unwrap();
    let ConfigSet::Deploying(events) = changed else { panic!("{changed:?}") };
    assert_eq!(outcome(&all(events).await), Some(&Outcome::Succeeded));
    assert_eq!(env.client.app(&shop).await.unwrap().release.unwrap().number.get(), 2);

    let unset = ConfigChange { name: "LOG_LEVEL".parse().unwrap(), value: None, secret: false };
    let quiet = ConfigPatch { changes: vec![unset], no_deploy: true };
    let kept = env.client.set_config(&shop, &quiet, attached()).await.unwrap();
    assert!(matches!(kept, ConfigSet::Stored(entries) if entries.len() == 1));
    assert_eq!(env.client.app(&shop).await.unwrap().release.unwrap().number.get(), 2);
}

#[tokio::test]
async fn the_value_of_a_secret_is_in_no_answer() {
    let env = Env::start().await;
    let shop = app("shop");
    let changes = vec![set("SECRET_KEY", SECRET, true), set("PLAIN", "seen", false)];
    env.client.set_config(&shop, &patch(changes), attached()).await.unwrap();
    env.deploy("shop").await;
    let again = patch(vec![set("SECRET_KEY", &format!("{SECRET}-2"), true)]);
    let ConfigSet::Deploying(events) = env.client.set_config(&shop, &again, attached()).await.unwrap() else { panic!() };
    let told = format!("{:?}", all(events).await);
    assert!(!told.contains(SECRET), "{told}");
    let paths = ["/config", "", "/releases", "/deployments", "/logs"];
    for path in paths {
        let (status, answer) = env.raw("GET", &format!("/v1/apps/shop{path}"), &[], b"").await;
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(!answer.contains(SECRET), "{path}: {answer}");
    }
    let entries = env.client.config(&shop).await.unwrap();
    let values: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.value.as_deref(), entry.secret)).collect();
    assert_eq!(values, [("PLAIN", Some("seen"), false), ("SECRET_KEY", None, true)]);
    // A request that cannot be read is not read out either.
    let body = format!("{{\"changes\":[{{\"name\":\"bad name\",\"value\":\"{SECRET}\",\"secret\":true}}]}}");
    let (status, answer) = env.raw("PATCH", "/v1/apps/shop/config", &[], body.as_bytes()).await;
    assert_eq!(status, 400);
    assert!(!answer.contains(SECRET), "{answer}");
    let body = format!("{{\"changes\":[{{\"name\":\"A\",\"value\":\"x\",\"secret\":\"{SECRET}\"}}]}}");
    let (status, answer) = env.raw("PATCH", "/v1/apps/shop/config", &[], body.as_bytes()).await;
    assert_eq!(status, 400);
    assert!(!answer.contains(SECRET), "{answer}");
}

#[tokio::test]
async fn changes_that_cannot_be_are_refused() {
    let env = Env::start().await;
    let shop = app("shop");
    let nothing = env.client.set_config(&shop, &patch(Vec::new()), attached()).await.unwrap_err();
    assert_eq!(nothing.kind(), Some(ProblemKind::BadRequest));
    let nul = env.client.set_config(&shop, &patch(vec![set("A", "x\0y", false)]), attached()).await.unwrap_err();
    assert_eq!(nul.kind(), Some(ProblemKind::BadRequest));
    assert_eq!(env.client.config(&shop).await.unwrap_err().kind(), Some(ProblemKind::NotFound));
}
