use coracle_model::deployment::Recovery;
use coracle_model::{DeploymentId, DeploymentKind, Outcome, Phase};
use coracle_store::{HISTORY, StoreError};

use crate::harness::{Home, begun, deployed, shop, v};

#[tokio::test]
async fn a_deployment_begins_with_the_next_number_and_what_is_active() {
    let home = Home::new();
    let store = home.with_shop().await;
    let first = store.begin_deployment(&shop(), DeploymentKind::Deploy).await.unwrap();
    assert_eq!((first.to, first.from, first.phase), (v(1), None, Phase::Validate));
    assert_eq!((first.outcome.clone(), first.finished_at), (None, None));
    assert_eq!(store.deployment(first.id).await.unwrap(), Some(first));
    assert_eq!(store.deployment(DeploymentId(99)).await.unwrap(), None);
    let nowhere = store.begin_deployment(&"other".parse().unwrap(), DeploymentKind::Deploy).await;
    assert!(matches!(nowhere, Err(StoreError::NoSuchApp(_))));
}

#[tokio::test]
async fn the_second_deployment_of_an_app_is_told_of_the_first() {
    let home = Home::new();
    let store = home.with_shop().await;
    store.ensure_app(&"other".parse().unwrap()).await.unwrap();
    let first = store.begin_deployment(&shop(), DeploymentKind::Rollback).await.unwrap();
    match store.begin_deployment(&shop(), DeploymentKind::Deploy).await {
        Err(StoreError::Busy(holder)) => assert_eq!(*holder, first),
        other => panic!("{other:?}"),
    }
    let elsewhere = store.begin_deployment(&"other".parse().unwrap(), DeploymentKind::Deploy).await.unwrap();
    assert_eq!(store.unfinished_deployments().await.unwrap(), [first.clone(), elsewhere]);
    store.finish_deployment(first.id, &Outcome::Cancelled { phase: Phase::Build }).await.unwrap();
    assert_eq!(store.begin_deployment(&shop(), DeploymentKind::Restart).await.unwrap().to, v(2), "a refusal takes no number");
}

#[tokio::test]
async fn phases_and_outcomes_survive_a_restart() {
    let home = Home::new();
    let store = home.with_shop().await;
    let deployment = begun(&store, &shop()).await;
    for phase in [Phase::Build, Phase::Release, Phase::Start, Phase::Start, Phase::Probe] {
        store.enter_phase(deployment.id, phase).await.unwrap();
    }
    store.close().await;
    drop(store);
    let store = home.open().await;
    let [found] = store.unfinished_deployments().await.unwrap().try_into().unwrap();
    assert_eq!((found.id, found.phase), (deployment.id, Phase::Probe));
    let outcome = Outcome::Failed { phase: Phase::Probe, cause: "it exited".to_owned(), evidence: vec!["Traceback".to_owned()] };
    store.finish_deployment(deployment.id, &outcome).await.unwrap();
    store.close().await;
    drop(store);
    let found = home.open().await.deployment(deployment.id).await.unwrap().unwrap();
    assert_eq!((found.outcome, found.phase), (Some(outcome), Phase::Probe));
    assert!(found.finished_at.unwrap() >= found.started_at);
}

/// For every pair of phases: entering goes on or stays, and never passes the switch on its own.
#[tokio::test]
async fn a_phase_is_entered_only_in_order_and_never_across_the_switch() {
    let home = Home::new();
    let store = home.with_shop().await;
    for from in Phase::ALL {
        for to in Phase::ALL {
            let deployment = begun(&store, &shop()).await;
            if from.recovery() == Recovery::Complete {
                store.activate(deployment.id, &[]).await.unwrap();
            }
            store.enter_phase(deployment.id, from).await.unwrap();
            let entered = store.enter_phase(deployment.id, to).await;
            let allowed = from <= to && from.recovery() == to.recovery();
            assert_eq!(entered.is_ok(), allowed, "{from} to {to}: {entered:?}");
            let stands = store.deployment(deployment.id).await.unwrap().unwrap().phase;
            assert_eq!(stands, if allowed { to } else { from });
            store.finish_deployment(deployment.id, &Outcome::Succeeded).await.unwrap();
        }
    }
}

#[tokio::test]
async fn activation_is_one_step_and_needs_the_release() {
    let home = Home::new();
    let store = home.with_shop().await;
    let deployment = store.begin_deployment(&shop(), DeploymentKind::Deploy).await.unwrap();
    assert!(matches!(store.activate(deployment.id, &[]).await, Err(StoreError::NoSuchRelease(..))));
    assert_eq!(store.deployment(deployment.id).await.unwrap().unwrap().phase, Phase::Validate, "a refusal changes nothing");
    store.create_release(crate::harness::new_release(&shop(), deployment.to, &[])).await.unwrap();
    store.activate(deployment.id, &[]).await.unwrap();
    assert_eq!(store.app(&shop()).await.unwrap().active, Some(deployment.to));
    assert_eq!(store.deployment(deployment.id).await.unwrap().unwrap().phase, Phase::Switch);
    let again = store.activate(deployment.id, &[]).await;
    assert!(matches!(again, Err(StoreError::OutOfOrder { from: Phase::Switch, .. })), "{again:?}");
}

#[tokio::test]
async fn a_reverted_activation_brings_the_former_release_back() {
    let home = Home::new();
    let store = home.with_shop().await;
    let first = deployed(&store, &shop()).await;
    let second = begun(&store, &shop()).await;
    assert!(matches!(store.revert(second.id, &[]).await, Err(StoreError::OutOfOrder { from: Phase::Validate, .. })));
    store.activate(second.id, &[]).await.unwrap();
    store.enter_phase(second.id, Phase::Drain).await.unwrap();
    store.revert(second.id, &[]).await.unwrap();
    assert_eq!(store.app(&shop()).await.unwrap().active, Some(first.to));
    assert_eq!(store.deployment(second.id).await.unwrap().unwrap().phase, Phase::Start);
    store.delete_release(&shop(), second.to).await.unwrap();
    let outcome = Outcome::Failed { phase: Phase::Drain, cause: "500".to_owned(), evidence: Vec::new() };
    store.finish_deployment(second.id, &outcome).await.unwrap();
}

#[tokio::test]
async fn the_first_activation_is_reverted_to_nothing() {
    let home = Home::new();
    let store = home.with_shop().await;
    let first = begun(&store, &shop()).await;
    store.activate(first.id, &[]).await.unwrap();
    store.revert(first.id, &[]).await.unwrap();
    assert_eq!(store.app(&shop()).await.unwrap().active, None);
}

#[tokio::test]
async fn what_has_ended_stays_as_it_is() {
    let home = Home::new();
    let store = home.with_shop().await;
    let deployment = deployed(&store, &shop()).await;
    let id = deployment.id;
    let before = store.deployment(id).await.unwrap();
    let cancelled = Outcome::Cancelled { phase: Phase::Build };
    assert!(matches!(store.enter_phase(id, Phase::Record).await, Err(StoreError::Ended(_))));
    assert!(matches!(store.activate(id, &[]).await, Err(StoreError::Ended(_))));
    assert!(matches!(store.revert(id, &[]).await, Err(StoreError::Ended(_))));
    assert!(matches!(store.finish_deployment(id, &cancelled).await, Err(StoreError::Ended(_))));
    assert_eq!(store.deployment(id).await.unwrap(), before);
    let nobody = DeploymentId(99);
    assert!(matches!(store.enter_phase(nobody, Phase::Build).await, Err(StoreError::NoSuchDeployment(_))));
    assert!(matches!(store.finish_deployment(nobody, &cancelled).await, Err(StoreError::NoSuchDeployment(_))));
}

#[tokio::test]
async fn the_history_is_bounded_per_app_and_newest_first() {
    let home = Home::new();
    let store = home.with_shop().await;
    let quiet = "quiet".parse().unwrap();
    store.ensure_app(&quiet).await.unwrap();
    let kept = deployed(&store, &quiet).await;
    for _ in 0..HISTORY + 3 {
        let deployment = store.begin_deployment(&shop(), DeploymentKind::Deploy).await.unwrap();
        store.finish_deployment(deployment.id, &Outcome::Cancelled { phase: Phase::Validate }).await.unwrap();
    }
    let all = store.deployments(&shop(), 1000).await.unwrap();
    assert_eq!(all.len(), HISTORY as usize);
    assert!(all.is_sorted_by(|newer, older| newer.id > older.id));
    assert_eq!(all[0].to, v(HISTORY + 3));
    assert_eq!(store.deployments(&shop(), 2).await.unwrap(), all[..2]);
    assert_eq!(store.deployments(&quiet, 5).await.unwrap()[0].id, kept.id, "an app that is quiet keeps its own");
}
