//! What the server offers and how it is: never limited, never logged in.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Shared, answers};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(health))
}

/// That the server answers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Healthy {
    /// `healthy`.
    status: &'static str,
    version: &'static str,
}

/// Whether the server answers; never limited. Whether it can execute is told by `/ready`.
#[utoipa::path(get, path = "/health", tag = "server", operation_id = "health", responses((status = 200, body = Healthy)))]
async fn health() -> Response {
    answers::json(StatusCode::OK, &Healthy { status: "healthy", version: env!("CARGO_PKG_VERSION") })
}
