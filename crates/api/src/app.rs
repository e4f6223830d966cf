//! Apps and what runs of them.

use std::collections::BTreeMap;

use coracle_model::{AppName, EngineKind, InstanceId, ProcessName, ReleaseNumber};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::deployment::Deployment;
use crate::output::Exit;
use crate::release::Release;

/// All apps, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AppList {
    /// The apps.
    pub apps: Vec<AppSummary>,
}

/// An app in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AppSummary {
    /// Its name.
    #[schema(value_type = String, example = "shop")]
    pub name: AppName,
    /// How it stands as a whole.
    pub state: AppState,
    /// The number of the active release; absent before the first deployment has succeeded.
    #[schema(value_type = Option<u32>)]
    pub release: Option<ReleaseNumber>,
    /// The engine that runs the active release.
    #[schema(value_type = Option<String>, example = "docker")]
    pub engine: Option<EngineKind>,
    /// The hosts whose requests it gets.
    pub hosts: Vec<String>,
    /// How many instances should run.
    pub wanted: u32,
    /// How many instances of the active release run.
    pub running: u32,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// How an app stands as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AppState {
    /// No deployment has succeeded yet.
    NotDeployed,
    /// As many instances run as should.
    Running,
    /// Fewer instances run than should.
    Degraded,
    /// No instance runs, though some should.
    Down,
    /// No instance should run: it was scaled to nothing.
    Stopped,
}

impl AppState {
    /// The state that these numbers of instances amount to.
    pub fn of(release: Option<ReleaseNumber>, wanted: u32, running: u32) -> Self {
        match (release, wanted, running) {
            (None, ..) => Self::NotDeployed,
            (_, 0, _) => Self::Stopped,
            (_, _, 0) => Self::Down,
            (_, wanted, running) if running < wanted => Self::Degraded,
            _ => Self::Running,
        }
    }

    /// The word for it on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotDeployed => "not-deployed",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for AppState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// An app in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AppStatus {
    /// Its name.
    #[schema(value_type = String, example = "shop")]
    pub name: AppName,
    /// How it stands as a whole.
    pub state: AppState,
    /// The active release; absent before the first deployment has succeeded.
    pub release: Option<Release>,
    /// The hosts whose requests it gets.
    pub hosts: Vec<String>,
    /// Addresses a browser on this machine can open, for the hosts that are no patterns.
    pub urls: Vec<String>,
    /// What should run and how much of it does, by process.
    pub processes: Vec<ProcessStatus>,
    /// Stateful services that should run, by name.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// Every instance there is, of any release, by id.
    pub instances: Vec<InstanceStatus>,
    /// The deployment that runs now.
    pub deployment: Option<Deployment>,
    /// The deployment that waits for approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Deployment>,
    /// When the app was created.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A process of the active release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessStatus {
    /// Its name.
    #[schema(value_type = String, example = "web")]
    pub name: ProcessName,
    /// How many instances should run.
    pub wanted: u32,
    /// How many instances of the active release run.
    pub running: u32,
}

/// A stateful service: what keeps data, and stays while releases come and go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Its name.
    #[schema(value_type = String, example = "db")]
    pub name: ProcessName,
    /// The image it runs, or the folder that it is built from.
    #[schema(example = "postgres:16")]
    pub image: Option<String>,
    /// The release that describes it: the one in which it was created or changed last.
    #[schema(value_type = u32, example = 1)]
    pub release: ReleaseNumber,
    /// How its instance stands; absent if there is none.
    pub state: Option<InstanceState>,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceStatus {
    /// Its id.
    #[schema(value_type = String, example = "shop.v3.web.1")]
    pub id: InstanceId,
    /// The process it is a copy of.
    #[schema(value_type = String, example = "web")]
    pub process: ProcessName,
    /// The release it runs.
    #[schema(value_type = u32, example = 3)]
    pub release: ReleaseNumber,
    /// How it stands.
    pub state: InstanceState,
}

/// How an instance stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum InstanceState {
    /// Its program runs.
    Running {
        /// Whether it gets requests, or why not.
        health: Health,
        /// Since when.
        #[schema(value_type = String, format = DateTime)]
        since: Timestamp,
    },
    /// Its program has ended.
    Exited {
        /// How.
        exit: Exit,
    },
}

/// What the check of an instance says: the probe of `web`, or the image's own HEALTHCHECK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// There is no check.
    Unchecked,
    /// Not decided yet.
    Starting,
    /// It passed; an instance of `web` gets requests.
    Healthy,
    /// It failed as often as it may.
    Unhealthy,
}

/// How many instances should run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// The number by process; processes that are not named stay as they are.
    #[schema(value_type = BTreeMap<String, u16>, example = json!({"web": 2}))]
    pub processes: BTreeMap<ProcessName, u16>,
}
