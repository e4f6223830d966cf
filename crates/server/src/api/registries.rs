//! Logins of registries: tried, kept, listed without their passwords, forgotten. The server's are its administrator's, an app's
//! its owners'.

use axum::Json as Answered;
use axum::extract::{Path, State};
use coracle_api::{self as api, NewRegistryLogin, Problem, ProblemKind, RegistryList};
use coracle_engine::{BuildError, RegistryTrouble};
use coracle_model::{AppName, EngineKind, RegistryHost, RegistryLogin, Secret};
use coracle_store::LoginRecord;
use http::StatusCode;

use super::extract::{App, Json};
use super::{Answer, Shared};
use crate::problems;

/// Characters of a user's name.
const LONGEST_NAME: usize = 255;

/// Bytes of a password: tokens of clouds have a few thousand.
const LONGEST_PASSWORD: usize = 64 * 1024;

/// What every app of this server shows to registries.
#[utoipa::path(get, path = "/registries", tag = "registries", operation_id = "list_registries", responses(
    (status = 200, body = RegistryList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(context): State<Shared>) -> Answer<Answered<RegistryList>> {
    listed(&context, None).await
}

/// Logs in to a registry for every app: kept if the registry takes it.
#[utoipa::path(post, path = "/registries", tag = "registries", operation_id = "login_registry", request_body = NewRegistryLogin, responses(
    (status = 200, body = api::RegistryLogin),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn login(
    State(context): State<Shared>,
    Json(new): Json<NewRegistryLogin>,
) -> Answer<Answered<api::RegistryLogin>> {
    kept(&context, None, new).await
}

/// Forgets what every app shows to a registry.
#[utoipa::path(delete, path = "/registries/{host}", tag = "registries", operation_id = "logout_registry", params(("host" = String, Path)), responses(
    (status = 204, description = "Nothing is shown to it any more"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn logout(State(context): State<Shared>, Path(host): Path<String>) -> Answer<StatusCode> {
    forgotten(&context, None, &host).await
}

/// What an app alone shows to registries.
#[utoipa::path(get, path = "/apps/{app}/registries", tag = "registries", operation_id = "list_app_registries", params(("app" = String, Path)), responses(
    (status = 200, body = RegistryList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_of_app(State(context): State<Shared>, App(app): App) -> Answer<Answered<RegistryList>> {
    listed(&context, Some(&app)).await
}

/// Logs in to a registry for one app: kept if the registry takes it, and shown for that app alone.
#[utoipa::path(post, path = "/apps/{app}/registries", tag = "registries", operation_id = "login_app_registry", params(("app" = String, Path)),
    request_body = NewRegistryLogin, responses(
    (status = 200, body = api::RegistryLogin),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn login_for_app(
    State(context): State<Shared>,
    App(app): App,
    Json(new): Json<NewRegistryLogin>,
) -> Answer<Answered<api::RegistryLogin>> {
    kept(&context, Some(&app), new).await
}

/// Forgets what an app alone shows to a registry.
#[utoipa::path(delete, path = "/apps/{app}/registries/{host}", tag = "registries", operation_id = "logout_app_registry",
    params(("app" = String, Path), ("host" = String, Path)), responses(
    (status = 204, description = "It is shown what every app shows, if anything"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn logout_for_app(
    State(context): State<Shared>,
    Path((app, host)): Path<(String, String)>,
) -> Answer<StatusCode> {
    let app: AppName = app.parse().map_err(|error| problems::name(&error))?;
    forgotten(&context, Some(&app), &host).await
}

async fn listed(context: &Shared, app: Option<&AppName>) -> Answer<Answered<RegistryList>> {
    let logins = context.store.registry_logins(app).await?;
    Ok(Answered(RegistryList { logins: logins.into_iter().map(described).collect() }))
}

async fn kept(context: &Shared, app: Option<&AppName>, new: NewRegistryLogin) -> Answer<Answered<api::RegistryLogin>> {
    let NewRegistryLogin { host, username, password } = new;
    let wrong = |detail: &str| Problem::new(ProblemKind::BadRequest, detail);
    if username.is_empty() || username.chars().count() > LONGEST_NAME || username.chars().any(char::is_control) {
        return Err(wrong("a user's name is one line of up to 255 characters").into());
    }
    if password.expose().is_empty() || password.expose().len() > LONGEST_PASSWORD {
        return Err(wrong("a password has up to 64 KiB, and is not empty").into());
    }
    let login = RegistryLogin { username, password: Secret::new(password.expose()) };
    let engine = context.engines.iter().find(|engine| engine.kind == EngineKind::Docker);
    let engine = engine.ok_or_else(|| {
        Problem::new(ProblemKind::Unavailable, "this server has no container engine, and registries are of no use to it")
            .hint("`coracle doctor` tells what is missing")
    })?;
    engine.builder.check_login(&host, &login).await.map_err(refused)?;
    if let Some(app) = app {
        context.store.ensure_app(app).await?;
    }
    context.store.set_registry_login(app, &host, &login).await?;
    tracing::info!(%host, app = app.map(ToString::to_string), username = login.username, "logged in to a registry");
    let known = context.store.registry_logins(app).await?.into_iter().find(|known| known.host == host);
    let known =
        known.ok_or_else(|| Problem::new(ProblemKind::Conflict, format!("{host} was logged out of at the same moment")))?;
    Ok(Answered(described(known)))
}

async fn forgotten(context: &Shared, app: Option<&AppName>, host: &str) -> Answer<StatusCode> {
    let host: RegistryHost =
        host.parse().map_err(|error: coracle_model::HostError| Problem::new(ProblemKind::BadRequest, error.to_string()))?;
    if !context.store.remove_registry_login(app, &host).await? {
        let problem = Problem::new(ProblemKind::NotFound, format!("there is no login to {host}"));
        let hint = app.map_or_else(|| "coracle registry list".to_owned(), |app| format!("coracle registry list -a {app}"));
        return Err(problem.hint(hint).into());
    }
    tracing::info!(%host, app = app.map(ToString::to_string), "logged out of a registry");
    Ok(StatusCode::NO_CONTENT)
}

fn refused(error: BuildError) -> Problem {
    match error {
        BuildError::Engine(error) => problems::engine(&error),
        BuildError::Registry { what, trouble: RegistryTrouble::Denied, .. } => {
            Problem::new(ProblemKind::Invalid, format!("{what} does not take this name and password; nothing was kept"))
                .hint("see that both are right; many registries want a token in place of the password")
        }
        BuildError::Registry { ref trouble, .. } => {
            let hint = trouble.hint();
            Problem::new(ProblemKind::Invalid, format!("{error}; nothing was kept")).hint(hint)
        }
        other => Problem::new(ProblemKind::Invalid, format!("{other}; nothing was kept")),
    }
}

fn described(record: LoginRecord) -> api::RegistryLogin {
    let LoginRecord { host, app, username, updated_at } = record;
    api::RegistryLogin { host, app, username, updated_at }
}
