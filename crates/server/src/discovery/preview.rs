//! What labels would do, without anybody doing it.

use coracle_labels::{Entrance, InspectError, Options, Problem, configure, containers_of_inspect, part};
use coracle_proxy_table::Table;
use serde_json::Value;

use super::vetting::vetted;

/// What labels would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// In Traefik's words: `routers`, `services`, `middlewares`.
    pub configuration: Value,
    /// The proxy's table of it.
    pub table: Table,
    /// What would not have the effect that labels ask for.
    pub problems: Vec<Problem>,
}

/// Tells what the labels of these containers would do; `inspected` is what `docker inspect` prints.
///
/// # Errors
/// [`InspectError`] if it prints something else.
pub fn preview(inspected: &str, options: &Options, entrance: Entrance) -> Result<Preview, InspectError> {
    let containers = containers_of_inspect(inspected)?;
    let configuration = configure(&containers, options);
    let part = vetted(part(&configuration, options, entrance));
    Ok(Preview { configuration: configuration.to_json(), table: part.table, problems: part.problems })
}
