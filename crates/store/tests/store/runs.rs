//! Runs of pipelines.

use coracle_model::{DeploymentKind, Outcome, StepRun, StepState};
use coracle_store::{RunSource, StoreError};

use crate::harness::{Home, shop};

#[tokio::test]
async fn a_run_is_what_became_of_its_steps_and_goes_with_its_app() {
    let home = Home::new();
    let (store, app) = (home.with_shop().await, shop());
    assert!(matches!(store.runs(&"other".parse().unwrap(), 10).await, Err(StoreError::NoSuchApp(_))));
    let first = store.begin_deployment(&app, DeploymentKind::Deploy).await.unwrap();
    let source = RunSource { commit: Some("abc".into()), reference: Some("main".into()), person: None };
    store.begin_run(first.id, &app, &source).await.unwrap();
    let steps = vec![
        StepRun { attempts: 2, exit_code: Some(1), why: Some("no".into()), ..StepRun::new("test[A=1]", StepState::Failed) },
        StepRun::new("deploy", StepState::NotRun),
    ];
    store.set_run_steps(first.id, &steps).await.unwrap();
    store.finish_deployment(first.id, &Outcome::Succeeded).await.unwrap();
    let second = store.begin_deployment(&app, DeploymentKind::Deploy).await.unwrap();
    store.begin_run(second.id, &app, &RunSource::default()).await.unwrap();
    let runs = store.runs(&app, 10).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.deployment.id).collect::<Vec<_>>(), [second.id, first.id]);
    let run = store.run(first.id).await.unwrap().unwrap();
    assert_eq!((run.source, run.steps, run.deployment.outcome), (source, steps, Some(Outcome::Succeeded)));
    assert_eq!(store.runs(&app, 1).await.unwrap().len(), 1);
    store.delete_app(&app).await.unwrap();
    assert_eq!(store.run(first.id).await.unwrap(), None);
}
