//! Dockerfiles for trees that have none.

use coracle_model::BuildPlan;

/// The port generated images listen on unless `$PORT` says otherwise.
pub const DEFAULT_PORT: u16 = 8080;

/// A Dockerfile for the docker engine; `None` for recipes that have their own or need none.
pub fn generate(_plan: &BuildPlan) -> Option<String> {
    unimplemented!()
}
