use coracle_model::{Approval, ApprovalRule, Bringer, Decision, Deployment, DeploymentKind, Outcome, Phase, Span};
use coracle_store::{Store, StoreError};
use jiff::Timestamp;

use crate::harness::{Home, begun, deployed, shop, v};

fn approval() -> Approval {
    let now = Timestamp::from_second(1_000).unwrap();
    let brought_by = Bringer::Person("ana".parse().unwrap());
    Approval { rule: ApprovalRule::default(), brought_by, asked_at: now, until: now, decision: None }
}

fn said(approved: bool) -> Decision {
    Decision { approved, by: None, at: Timestamp::from_second(2_000).unwrap(), reason: Some("why".to_owned()) }
}

async fn waiting(store: &Store) -> Deployment {
    let deployment = begun(store, &shop()).await;
    store.park_deployment(deployment.id, &approval()).await.unwrap();
    store.deployment(deployment.id).await.unwrap().unwrap()
}

#[tokio::test]
async fn what_waits_leaves_the_app_to_others_and_goes_on_on_top_of_them() {
    let home = Home::new();
    let store = home.with_shop().await;
    let first = waiting(&store).await;
    assert_eq!((first.phase, first.approval.clone()), (Phase::Approval, Some(approval())));
    assert_eq!(store.parked_deployment(&shop()).await.unwrap(), Some(first.clone()));
    assert!(matches!(store.unpark_deployment(first.id).await, Err(StoreError::NotWaiting(_))), "nobody has allowed it");
    let other = deployed(&store, &shop()).await.to;

    let decided = store.decide_deployment(first.id, &said(true)).await.unwrap();
    assert_eq!(decided.approval.unwrap().decision, Some(said(true)));
    assert!(
        matches!(store.decide_deployment(first.id, &said(false)).await, Err(StoreError::NotWaiting(_))),
        "the first word counts"
    );
    let busy = store.begin_deployment(&shop(), DeploymentKind::Restart).await.unwrap();
    assert!(matches!(store.unpark_deployment(first.id).await, Err(StoreError::Busy(holder)) if holder.id == busy.id));
    store.finish_deployment(busy.id, &Outcome::Cancelled { phase: Phase::Validate }).await.unwrap();
    let on = store.unpark_deployment(first.id).await.unwrap();
    assert_eq!((on.to, on.from), (first.to, Some(other)));
    assert!(matches!(store.begin_deployment(&shop(), DeploymentKind::Restart).await, Err(StoreError::Busy(_))));
    assert_eq!(store.parked_deployment(&shop()).await.unwrap(), None);
    store.enter_phase(first.id, Phase::Start).await.unwrap();
}

#[tokio::test]
async fn a_wait_survives_a_restart_and_ends_once() {
    let home = Home::new();
    let store = home.with_shop().await;
    let first = waiting(&store).await;
    store.close().await;
    drop(store);
    let store = home.open().await;
    assert_eq!(store.unfinished_deployments().await.unwrap(), std::slice::from_ref(&first));
    store.finish_deployment(first.id, &Outcome::Cancelled { phase: Phase::Approval }).await.unwrap();
    assert!(matches!(store.decide_deployment(first.id, &said(true)).await, Err(StoreError::NotWaiting(_))));
    let running = begun(&store, &shop()).await;
    store.enter_phase(running.id, Phase::Start).await.unwrap();
    assert!(matches!(store.park_deployment(running.id, &approval()).await, Err(StoreError::OutOfOrder { .. })));
}

#[tokio::test]
async fn what_an_app_demands_comes_and_goes_with_its_active_source() {
    let home = Home::new();
    let store = home.with_shop().await;
    let rule = ApprovalRule { timeout: Span::seconds(60), by_another: true };
    assert_eq!(store.approval_rule(&shop()).await.unwrap(), None);
    let bring = async |rule| {
        let deployment = begun(&store, &shop()).await;
        store.bring_approval_rule(deployment.id, rule).await.unwrap();
        store.activate(deployment.id, &[]).await.unwrap();
        deployment
    };
    let demanding = bring(Some(rule)).await;
    assert_eq!(store.approval_rule(&shop()).await.unwrap(), Some(rule));
    store.finish_deployment(demanding.id, &Outcome::Succeeded).await.unwrap();

    // A switch that is taken back takes that back, too.
    let lax = bring(None).await;
    assert_eq!(store.approval_rule(&shop()).await.unwrap(), None);
    store.revert(lax.id, &[]).await.unwrap();
    assert_eq!(store.approval_rule(&shop()).await.unwrap(), Some(rule));
    store.finish_deployment(lax.id, &Outcome::Cancelled { phase: Phase::Start }).await.unwrap();

    // What brings nothing changes nothing: a rollback goes around nobody.
    deployed(&store, &shop()).await;
    assert_eq!(store.approval_rule(&shop()).await.unwrap(), Some(rule));
}

#[tokio::test]
async fn the_configuration_of_what_has_not_run_can_be_renewed() {
    let home = Home::new();
    let store = home.with_shop().await;
    let active = deployed(&store, &shop()).await.to;
    let first = waiting(&store).await;
    let env = [("LAMP".parse().unwrap(), coracle_model::Secret::new("bright"))];
    assert!(matches!(store.renew_release_env(&shop(), active, &env).await, Err(StoreError::Active(..))));
    store.renew_release_env(&shop(), first.to, &env).await.unwrap();
    assert_eq!(store.release_env(&shop(), first.to).await.unwrap(), env);
    assert!(matches!(store.renew_release_env(&shop(), v(99), &env).await, Err(StoreError::NoSuchRelease(..))));
}
