//! The HTTP API: routes, their handlers, and the document that describes them.
//!
//! Handlers parse, call the orchestrator or the store, and put the answer into the words of the wire; they decide nothing.

mod answer;
mod apps;
mod config;
mod deployments;
mod discovery;
mod extract;
mod forge;
pub(crate) mod git;
pub(crate) mod hooks;
mod machine;
mod output;
mod people;
mod pipeline;
mod previews;
mod projects;
mod promotions;
mod registries;
mod traffic;

use std::sync::Arc;

use axum::Router;
use coracle_api::{PREFIX, Problem, ProblemKind};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use answer::ApiError;
pub(crate) use extract::deployment_id;

use crate::access::{self, Guard};
use crate::context::Context;

/// What handlers are given.
type Shared = Arc<Context>;

/// What handlers answer.
type Answer<T> = Result<T, ApiError>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Coracle",
        description = "The control plane of one server: apps, deployments, releases, configuration, logs. Errors are problem \
                       details (RFC 9457). Times are RFC 3339 in UTC; quantities name their unit.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "apps", description = "What runs here"),
        (name = "deployments", description = "Making a release the active one"),
        (name = "branches", description = "The branch that is deployed, and previews of others"),
        (name = "configuration", description = "Environment variables and secrets"),
        (name = "output", description = "Logs, one-off processes"),
        (name = "traffic", description = "Who is reached where: routes, domains, certificates"),
        (name = "forges", description = "Repositories elsewhere that apps are deployed from"),
        (name = "registries", description = "Who the server and its apps are to registries of images"),
        (name = "people", description = "Who may use the server, and what they may do"),
        (name = "machine", description = "The server and the machine it is on")
    )
)]
struct Description;

fn described() -> OpenApiRouter<Shared> {
    let paths = OpenApiRouter::new()
        .routes(routes!(machine::version))
        .routes(routes!(machine::doctor))
        .routes(routes!(discovery::show))
        .routes(routes!(projects::list))
        .routes(routes!(traffic::routes))
        .routes(routes!(traffic::domains))
        .routes(routes!(traffic::certificates))
        .routes(routes!(traffic::renew))
        .routes(routes!(traffic::authority))
        .routes(routes!(apps::list))
        .routes(routes!(apps::show, apps::destroy))
        .routes(routes!(apps::releases))
        .routes(routes!(apps::scale))
        .routes(routes!(deployments::list, deployments::deploy))
        .routes(routes!(deployments::plan))
        .routes(routes!(deployments::show))
        .routes(routes!(deployments::events))
        .routes(routes!(deployments::cancel))
        .routes(routes!(deployments::approve))
        .routes(routes!(deployments::reject))
        .routes(routes!(pipeline::list))
        .routes(routes!(pipeline::show))
        .routes(routes!(pipeline::log))
        .routes(routes!(pipeline::artifacts))
        .routes(routes!(deployments::rollback))
        .routes(routes!(deployments::restart))
        .routes(routes!(promotions::promote))
        .routes(routes!(promotions::plan))
        .routes(routes!(config::list, config::change))
        .routes(routes!(previews::list, previews::remove))
        .routes(routes!(previews::extend))
        .routes(routes!(previews::branch, previews::set_branch))
        .routes(routes!(output::logs))
        .routes(routes!(output::run))
        .routes(routes!(output::exec))
        .routes(routes!(forge::show, forge::connect, forge::disconnect))
        .routes(routes!(forge::deploy))
        .routes(routes!(registries::list, registries::login))
        .routes(routes!(registries::logout))
        .routes(routes!(registries::list_of_app, registries::login_for_app))
        .routes(routes!(registries::logout_for_app))
        .routes(routes!(people::list, people::add))
        .routes(routes!(people::show, people::remove))
        .routes(routes!(people::change_role))
        .routes(routes!(people::add_key))
        .routes(routes!(people::create_token))
        .routes(routes!(people::revoke));
    OpenApiRouter::with_openapi(Description::openapi()).nest(PREFIX, paths)
}

/// The OpenAPI document, as it is committed in `docs/openapi.json`.
pub fn openapi_json() -> String {
    let mut text = described().into_openapi().to_pretty_json().unwrap_or_else(|_| unreachable!("the document is plain data"));
    text.push('\n');
    text
}

/// Everything under [`PREFIX`].
pub(crate) fn router(context: Shared) -> Router {
    let (router, _) = described().split_for_parts();
    let guard = Guard { store: context.store.clone(), deployments: context.deployments.clone() };
    router
        .route(&format!("{PREFIX}/openapi.json"), axum::routing::get(openapi))
        .merge(git::router())
        // Before every route that there is by now; what is nowhere needs none.
        .route_layer(axum::middleware::from_fn_with_state(guard, access::guard))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(context)
}

/// What git's hooks ask, on the Unix socket alone.
pub(crate) fn of_hooks(context: Shared) -> Router {
    Router::new()
        .route(&format!("{PREFIX}/apps/{{app}}/pushes"), axum::routing::post(deployments::push))
        .route(&format!("{PREFIX}/apps/{{app}}/pushes/branches"), axum::routing::post(deployments::push_branch))
        .with_state(context)
}

/// Written anew for each of its rare readers, rather than kept in memory for all the others.
async fn openapi() -> impl axum::response::IntoResponse {
    ([(http::header::CONTENT_TYPE, "application/json")], openapi_json())
}

async fn no_such_path(uri: http::Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError(
        Problem::new(ProblemKind::NotFound, format!("there is nothing at {path}"))
            .hint(format!("GET {PREFIX}/openapi.json tells what there is")),
    )
}

async fn no_such_method(method: http::Method, uri: http::Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError(
        Problem::new(ProblemKind::MethodNotAllowed, format!("{path} does not take {method}"))
            .hint(format!("GET {PREFIX}/openapi.json tells what it takes")),
    )
}
