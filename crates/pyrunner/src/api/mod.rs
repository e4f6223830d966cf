//! The HTTP API: routes, their handlers, and the document that describes them. One module for each group of paths, with a
//! function `routes` that says which they are.

mod about;
mod answers;
mod batch;
mod execute;
mod executions;
mod foreign;
mod gate;
mod idempotent;
mod jobs;
mod piston;
mod query;
mod snekbox;
mod socket;
mod stream;

use std::sync::Arc;

use axum::Router;
use coracle_pyrunner_store::Id;
use coracle_sandbox::{Execution, Limits};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::context::Context;
use crate::problem::{Problem, ProblemKind};
use crate::program::{ProgramBody, read_json};
use crate::{site, web};

pub(crate) use gate::Peer;
pub(crate) use jobs::job_json;

/// What handlers are given.
type Shared = Arc<Context>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "PyRunner",
        description = "Executes untrusted Python, each program in a sandbox of its own that is used once. A program that fails \
                       is an answer (200 with `status: error`); what goes wrong with a request is a problem (RFC 9457).",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "execution", description = "Running programs"),
        (name = "jobs", description = "Running programs when there is room"),
        (name = "history", description = "What was executed"),
        (name = "compatibility", description = "Piston's and snekbox's endpoints, in their shapes"),
        (name = "server", description = "What the server offers and how it is")
    )
)]
struct Description;

/// Everything there is: calls that execute, calls that read, and what is open to everybody.
fn described(context: &Shared) -> OpenApiRouter<Shared> {
    let executing = axum::middleware::from_fn_with_state(Arc::clone(context), gate::executing);
    let reading = axum::middleware::from_fn_with_state(Arc::clone(context), gate::reading);
    let execute = OpenApiRouter::new()
        .merge(execute::routes())
        .merge(batch::routes())
        .merge(jobs::submitting())
        .merge(socket::routes())
        .layer(executing);
    let read = OpenApiRouter::new().merge(jobs::reading()).merge(executions::routes()).layer(reading);
    let open = about::routes().merge(snekbox::describing()).merge(web::routes());
    OpenApiRouter::with_openapi(Description::openapi()).merge(execute).merge(foreign(context)).merge(read).merge(open)
}

/// Ways to execute that tell problems in other words than ours.
fn foreign(context: &Shared) -> OpenApiRouter<Shared> {
    let executing = axum::middleware::from_fn_with_state(Arc::clone(context), gate::executing);
    let piston = piston::executing().layer(executing.clone()).merge(piston::describing());
    let snekbox = snekbox::executing().layer(executing.clone());
    let form = axum::middleware::from_fn_with_state(Arc::clone(context), web::form::read);
    OpenApiRouter::new()
        .merge(piston.layer(axum::middleware::from_fn(piston::in_its_words)))
        .merge(snekbox.layer(axum::middleware::from_fn(snekbox::in_its_words)))
        .merge(web::form::routes().layer(executing).layer(form))
}

/// The OpenAPI document of exactly these routes.
fn document(context: &Shared) -> utoipa::openapi::OpenApi {
    described(context).into_openapi()
}

/// The whole API.
pub(crate) fn router(context: &Shared) -> Router {
    let (router, _) = described(context).split_for_parts();
    let admit = axum::middleware::from_fn_with_state(context.sites.clone(), site::admit);
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method).layer(admit).with_state(Arc::clone(context))
}

/// What each endpoint that takes a program would execute out of a body, or why it refuses it. Nothing is executed: this is
/// for tests that send anything.
#[doc(hidden)]
pub fn understood(body: &[u8], highest: &Limits) -> [(&'static str, Result<Execution, Problem>); 3] {
    let ours = read_json::<ProgramBody>(body).and_then(|program| program.into_execution(highest, "default"));
    [("/execute", ours), ("/api/v2/execute", piston::taken(body, highest)), ("/eval", snekbox::taken(body, highest))]
}

/// The name in a path.
fn id(text: &str) -> Result<Id, Problem> {
    text.parse().map_err(|error| Problem::new(ProblemKind::NotFound, format!("{:?}: {error}", crate::program::cut(text, 100))))
}

async fn no_such_path(uri: http::Uri) -> Problem {
    let path = crate::program::cut(uri.path(), 200);
    Problem::new(ProblemKind::NotFound, format!("there is nothing at {path}")).hint("GET /openapi.json tells what there is")
}

async fn no_such_method(method: http::Method, uri: http::Uri) -> Problem {
    let path = crate::program::cut(uri.path(), 200);
    Problem::new(ProblemKind::MethodNotAllowed, format!("{path} does not take {method}"))
        .hint("GET /openapi.json tells what it takes")
}
