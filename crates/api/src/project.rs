//! Compose projects that run on the machine and are no app yet.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All that there are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ComposeProjectList {
    /// By name.
    pub projects: Vec<ComposeProject>,
}

/// A compose project, as its containers' labels tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ComposeProject {
    /// Its name.
    pub name: String,
    /// The folder that it was started in, on the server's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The files that describe it, in their order.
    pub config_files: Vec<String>,
    /// The files of variables that it was started with.
    pub environment_files: Vec<String>,
    /// Its services.
    pub services: Vec<ComposeService>,
}

/// A service of a compose project.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ComposeService {
    /// Its name.
    pub name: String,
    /// How many containers it has.
    pub containers: u32,
    /// How many of them run.
    pub running: u32,
    /// The ports of the machine that lead to it.
    pub ports: Vec<u16>,
}
