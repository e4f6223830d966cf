//! What is discovered: containers that others started, and what their labels come to.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is discovered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Discovery {
    /// Whether containers are discovered at all.
    pub on: bool,
    /// How many containers were looked at; absent before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<u64>,
    /// Why the engine could not be asked the last time; what was discovered before stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What labels come to, in Traefik's words: `routers`, `services`, `middlewares`.
    #[schema(value_type = Object)]
    pub configuration: serde_json::Value,
    /// What does not have the effect that labels ask for.
    pub problems: Vec<LabelProblem>,
}

/// Something of labels that does not have the effect which they ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LabelProblem {
    /// `conflict`: several say different things, so nobody is taken at his word; `refused`: it is wrong and left out;
    /// `unsupported`: it cannot be done here, and the rest is done; `ignored`: the container is not to be routed.
    #[schema(example = "conflict")]
    pub kind: String,
    /// The names of the containers.
    pub containers: Vec<String>,
    /// What it is about; absent if it is about the container as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "router shop")]
    pub about: Option<String>,
    /// What happened, and what to do.
    pub message: String,
}
