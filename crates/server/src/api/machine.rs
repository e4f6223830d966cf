//! The server and the machine it is on.

use axum::Extension;
use axum::Json as Answered;
use axum::extract::State;
use coracle_api::{Doctor, Problem, Version, Visitor};

use super::{Answer, Shared};
use crate::access::Caller;
use crate::doctor as examination;

/// Who answers.
#[utoipa::path(get, path = "/version", tag = "machine", operation_id = "show_version", responses(
    (status = 200, body = Version),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn version(State(context): State<Shared>, Extension(caller): Extension<Caller>) -> Answered<Version> {
    let proxy = match &context.proxy {
        Some(proxy) => proxy.version().await,
        None => None,
    };
    Answered(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: coracle_api::PREFIX.trim_start_matches('/').to_owned(),
        proxy,
        engines: context.engines.iter().map(|engine| engine.kind).collect(),
        default_engine: context.default_engine,
        http: context.http.iter().map(ToString::to_string).collect(),
        api_tcp: context.api_tcp.map(|address| address.to_string()),
        hooks: context.hooks.map(|address| address.to_string()),
        api_url: context.api_url.clone(),
        ssh: context.ssh.clone(),
        you: Some(caller.person().map_or(Visitor::Administrator, |name| Visitor::Person(name.clone()))),
    })
}

/// What works on this machine, and why not.
#[utoipa::path(get, path = "/doctor", tag = "machine", operation_id = "examine_machine", responses(
    (status = 200, body = Doctor),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn doctor(State(context): State<Shared>) -> Answer<Answered<Doctor>> {
    Ok(Answered(examination::examine(&context).await))
}
