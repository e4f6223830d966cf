//! Configuration: values go in; those of secrets do not come out.

use axum::Json as Answered;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_api::{ChangeOptions, ConfigList, ConfigPatch, DeploymentEvent, Problem, ProblemKind};
use coracle_model::{AppName, Secret};
use coracle_store::ConfigChange;

use super::deployments::told;
use super::extract::{App, Json, Options};
use super::{Answer, ApiError, Shared};
use crate::access::Caller;
use crate::deployments::Work;
use crate::wire;

/// The configuration of an app, by name; secrets without their values.
#[utoipa::path(get, path = "/apps/{app}/config", tag = "configuration", operation_id = "list_config", params(("app" = String, Path)), responses(
    (status = 200, body = ConfigList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(context): State<Shared>, App(app): App) -> Answer<Answered<ConfigList>> {
    Ok(Answered(current(&context, &app).await?))
}

async fn current(context: &Shared, app: &AppName) -> Answer<ConfigList> {
    context.store.app(app).await?;
    let entries = context.store.config(app).await?;
    Ok(ConfigList { entries: entries.into_iter().map(wire::config_entry).collect() })
}

/// Changes configuration. If the app has an active release, a release with the new configuration is deployed.
#[utoipa::path(patch, path = "/apps/{app}/config", tag = "configuration", operation_id = "change_config", params(("app" = String, Path), ChangeOptions),
    request_body = ConfigPatch, responses(
    (status = 200, description = "JSON: it is stored, and nothing is deployed. Events: a release with it is being deployed", content(
        (ConfigList = "application/json"),
        (DeploymentEvent = "text/event-stream"),
    )),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn change(
    State(context): State<Shared>,
    caller: Caller,
    App(app): App,
    Options(options): Options<ChangeOptions>,
    Json(patch): Json<ConfigPatch>,
) -> Answer<Response> {
    if patch.changes.is_empty() {
        let problem = Problem::new(ProblemKind::BadRequest, "no change is named");
        return Err(problem.hint("`coracle config set NAME=value`").into());
    }
    let changes: Vec<ConfigChange> = patch.changes.into_iter().map(checked).collect::<Result<_, ApiError>>()?;
    if patch.no_deploy {
        context.orchestrator.keep_config(&app, &changes).await?;
        return Ok(Answered(current(&context, &app).await?).into_response());
    }
    // Where there are people beside the administrator, it was perhaps they who wrote the files that name what is set here.
    let trusted = caller.is_administrator() && context.store.people().await?.is_empty();
    let journal = context.deployments.begin_for(&caller, app.clone(), Work::Config { changes, trusted }, options);
    match told(&journal, options.detach).await? {
        Some(response) => Ok(response),
        None => Ok(Answered(current(&context, &app).await?).into_response()),
    }
}

fn checked(change: coracle_api::ConfigChange) -> Answer<ConfigChange> {
    // It would be kept and shown, and no instance would ever see it. One that is there already may still be unset.
    if change.name.as_str() == "PORT" && change.value.is_some() {
        let problem = Problem::new(ProblemKind::BadRequest, "PORT is set by Coracle itself");
        return Err(problem.hint("the port inside a container is `port` under [http] in coracle.toml").into());
    }
    // Neither the kernel's environment nor Docker's can hold one.
    if change.value.as_ref().is_some_and(|value| value.contains('\0')) {
        return Err(Problem::new(ProblemKind::BadRequest, format!("the value of {} contains a NUL byte", change.name)).into());
    }
    Ok(ConfigChange { name: change.name, value: change.value.map(Secret::new), secret: change.secret })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn change(name: &str, value: Option<&str>) -> coracle_api::ConfigChange {
        coracle_api::ConfigChange { name: name.parse().unwrap(), value: value.map(str::to_owned), secret: false }
    }

    #[test]
    fn what_no_instance_could_see_is_refused() {
        assert!(checked(change("PORT", Some("1"))).is_err());
        assert!(checked(change("A", Some("b\0c"))).is_err());
        assert_eq!(checked(change("PORT", None)).unwrap().name.as_str(), "PORT");
        assert_eq!(checked(change("PORT_OF_CALL", Some("x"))).unwrap().value.unwrap().expose(), "x");
    }
}
