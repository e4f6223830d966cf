//! Apps: what runs, and how much of it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json as Answered;
use axum::extract::State;
use coracle_api::{self as api, AppState, Problem, ReleaseList, ScaleRequest};
use coracle_engine::Instance;
use coracle_model::{AppName, Release};
use coracle_store::{AppRecord, ServiceRecord};
use http::StatusCode;

use super::extract::{App, Json};
use super::{Answer, Shared};
use crate::access::Caller;
use crate::{farewell, wire};

/// How long a list waits for an engine to say what runs.
const LIST_LIMIT: Duration = Duration::from_secs(5);

/// All apps that are any of the caller's business, by name.
#[utoipa::path(get, path = "/apps", tag = "apps", operation_id = "list_apps", responses(
    (status = 200, body = api::AppList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(context): State<Shared>, caller: Caller) -> Answer<Answered<api::AppList>> {
    let mut instances: BTreeMap<AppName, Vec<Instance>> = BTreeMap::new();
    let lists = context
        .engines
        .iter()
        .map(|engine| async { (engine.kind, tokio::time::timeout(LIST_LIMIT, engine.runtime.list()).await) });
    for (engine, list) in futures::future::join_all(lists).await {
        match list {
            Ok(Ok(all)) => all.into_iter().for_each(|it| instances.entry(it.id.app.clone()).or_default().push(it)),
            // The other engines' apps are still worth showing, and what is known of these.
            Ok(Err(error)) => tracing::warn!(%engine, %error, "cannot list instances"),
            Err(_late) => tracing::warn!(%engine, "does not say within {LIST_LIMIT:?} what runs"),
        }
    }
    let mut apps = Vec::new();
    let on_record = context.store.apps_with_releases().await?;
    for (record, release) in on_record.into_iter().filter(|(record, _)| caller.sees(&record.name)) {
        let own = instances.remove(&record.name).unwrap_or_default();
        let services = context.store.services(&record.name).await?;
        apps.push(summary(record, release.as_ref(), &services, &own));
    }
    Ok(Answered(api::AppList { apps }))
}

fn summary(record: AppRecord, release: Option<&Release>, services: &[ServiceRecord], instances: &[Instance]) -> api::AppSummary {
    let (mut wanted, mut running) = (0, 0);
    for (name, process) in release.map(Release::processes).unwrap_or_default() {
        let want = u32::from(record.scale.get(&name).copied().unwrap_or(process.replicas));
        let of_it = |it: &&Instance| it.is_running() && Some(it.id.release) == record.active && it.id.process == name;
        wanted += want;
        running += u32::try_from(instances.iter().filter(of_it).count()).unwrap_or(u32::MAX).min(want);
    }
    for service in services {
        let is_it = |it: &&Instance| it.is_running() && it.id.release == service.release && it.id.process == service.name;
        wanted += 1;
        running += u32::from(instances.iter().any(|it| is_it(&it)));
    }
    api::AppSummary {
        name: record.name,
        state: AppState::of(record.active, wanted, running),
        release: record.active,
        engine: release.map(|release| release.artifact.engine),
        hosts: wire::hosts(release),
        wanted,
        running,
        created_at: record.created_at,
    }
}

/// One app in full.
#[utoipa::path(get, path = "/apps/{app}", tag = "apps", operation_id = "show_app", params(("app" = String, Path)), responses(
    (status = 200, body = api::AppStatus),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(context): State<Shared>, App(app): App) -> Answer<Answered<api::AppStatus>> {
    let status = context.orchestrator.status(&app).await?;
    Ok(Answered(wire::app_status(status, &context.http)))
}

/// Stops and forgets an app: instances, volumes, artifacts, releases, configuration, and its previews.
#[utoipa::path(delete, path = "/apps/{app}", tag = "apps", operation_id = "destroy_app", params(("app" = String, Path)), responses(
    (status = 204, description = "It is gone"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn destroy(State(context): State<Shared>, App(app): App) -> Answer<StatusCode> {
    let turn = context.deployments.try_turn(&app)?;
    let (orchestrator, store, successions) =
        (context.orchestrator.clone(), context.store.clone(), context.sources.successions.clone());
    let (door, deployments, previews) = (context.door.clone(), context.deployments.clone(), context.previews.clone());
    // Half an app helps nobody: it goes on even if whoever asked for it goes away.
    let destroying = context.tasks.spawn(async move {
        deployments.waiting().clear(&app).await;
        let done = farewell::destroy(&orchestrator, &store, &door, &app).await;
        successions.settle_entrances().await;
        drop(turn);
        if done.is_ok()
            && let Err(problem) = previews.end_those_of(&app).await
        {
            tracing::warn!(%app, detail = problem.detail, "previews of a destroyed app end later");
        }
        done
    });
    destroying.await??;
    Ok(StatusCode::NO_CONTENT)
}

/// The releases of an app that are kept, oldest first.
#[utoipa::path(get, path = "/apps/{app}/releases", tag = "apps", operation_id = "list_releases", params(("app" = String, Path)), responses(
    (status = 200, body = ReleaseList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn releases(State(context): State<Shared>, App(app): App) -> Answer<Answered<ReleaseList>> {
    let active = context.store.app(&app).await?.active;
    let releases = context.store.releases(&app).await?;
    Ok(Answered(ReleaseList { releases: releases.into_iter().map(|release| api::Release::new(release, active)).collect() }))
}

/// Changes how many instances should run, and answers when they do.
#[utoipa::path(put, path = "/apps/{app}/scale", tag = "apps", operation_id = "scale_app", params(("app" = String, Path)), request_body = ScaleRequest, responses(
    (status = 200, body = api::AppStatus),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn scale(
    State(context): State<Shared>,
    App(app): App,
    Json(request): Json<ScaleRequest>,
) -> Answer<Answered<api::AppStatus>> {
    let status = context.orchestrator.scale(&app, request.processes.into_iter().collect()).await?;
    Ok(Answered(wire::app_status(status, &context.http)))
}
