//! What is discovered.

use axum::Json as Answered;
use axum::extract::State;
use coracle_api::{Discovery, LabelProblem, Problem};

use super::Shared;

/// Containers that others started: what their labels come to, and what not.
#[utoipa::path(get, path = "/discovery", tag = "machine", operation_id = "show_discovery", responses(
    (status = 200, body = Discovery),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(context): State<Shared>) -> Answered<Discovery> {
    let discovered = context.discovery.as_ref().map(|discovery| discovery.discovered()).unwrap_or_default();
    let problem = |problem: &coracle_labels::Problem| LabelProblem {
        kind: problem.kind.as_str().to_owned(),
        containers: problem.containers.clone(),
        about: problem.about.clone(),
        message: problem.message.clone(),
    };
    Answered(Discovery {
        on: context.discovery.is_some(),
        containers: discovered.containers.map(|count| count as u64),
        failure: discovered.failure.clone(),
        configuration: discovered.configuration.to_json(),
        problems: discovered.problems.iter().map(problem).collect(),
    })
}
