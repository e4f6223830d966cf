//! The HTTP API of the control plane, as both ends see it: wire types, and the client that the command line uses.
//!
//! - Every path begins with [`PREFIX`]; what is there is only added to, never changed, within one version.
//! - Times are RFC 3339 texts in UTC, and every quantity names its unit (`memory_bytes`, `elapsed_ms`).
//! - Errors are [`Problem`]s (RFC 9457).
//! - A deployment is told as server-sent events ([`DeploymentEvent`]); logs and output are lines of JSON.
//! - No type here can hold the value of a secret on its way out of the server. (A person's token and what webhooks are signed with go out once, when they are made.)
//!
//! This crate knows no orchestrator, no engine and no terminal.

pub mod app;
pub mod client;
pub mod config;
pub mod deployment;
pub mod dial;
pub mod discovery;
pub mod forge;
pub mod machine;
pub mod output;
pub mod people;
pub mod pipeline;
pub mod policy;
pub mod preview;
pub mod problem;
pub mod project;
pub mod registry;
pub mod release;
pub mod traffic;

pub use app::{
    AppList, AppState, AppStatus, AppSummary, Health, InstanceState, InstanceStatus, ProcessStatus, ScaleRequest, ServiceStatus,
};
pub use client::{
    BranchPushed, Client, ClientError, ConfigSet, Download, Endpoint, EventStream, LogStream, PipelineLogStream, RunStream,
    Source, Ssh, SshAddress, Tls,
};
pub use config::{ConfigChange, ConfigEntry, ConfigList, ConfigPatch};
pub use deployment::{
    Approval, ChangeOptions, Decision, DeployOptions, Deployment, DeploymentEvent, DeploymentKind, DeploymentList,
    DeploymentPlan, Outcome, Phase, PushRequest, RejectRequest,
};
pub use discovery::{Discovery, LabelProblem};
pub use forge::{ForgeConnected, ForgeConnection, ForgeEvent, ForgeRequest};
pub use machine::{Check, CheckStatus, Doctor, SshDoor, Version, Visitor};
pub use output::{ExecRequest, Exit, LogLine, LogOptions, OutputLine, RunLine, RunRequest, Stream};
pub use people::{Credential, CredentialKind, NewKey, NewPerson, NewToken, Person, PersonList, RoleChange, RoleIn, TokenRequest};
pub use pipeline::{
    PipelineArtifactOptions, PipelineArtifacts, PipelineLogLine, PipelineLogOptions, PipelineRun, PipelineRunList,
    PipelineRunState, PipelineStep, PipelineStepState,
};
pub use policy::{Finding, PolicyLevel};
pub use preview::{BranchAnswer, BranchChange, DeployBranch, Preview, PreviewBranch, PreviewList};
pub use problem::{Problem, ProblemKind};
pub use project::{ComposeProject, ComposeProjectList, ComposeService};
pub use registry::{NewRegistryLogin, RegistryList, RegistryLogin};
pub use release::{OriginKind, PromotionRequest, Release, ReleaseList, RollbackRequest};
pub use traffic::{
    Certificate, CertificateList, CertificateSource, CertificateState, Domain, DomainList, LocalAuthority, RenewalOptions, Route,
    RouteList, RouteTarget,
};

/// What every path of the API begins with.
pub const PREFIX: &str = "/v1";

/// The media type of a source tree on its way to the server: a gzip-compressed tar archive.
pub const SOURCE_MEDIA_TYPE: &str = "application/gzip";

/// The media type of streams of JSON lines.
pub const NDJSON_MEDIA_TYPE: &str = "application/x-ndjson";

/// The media type of server-sent events.
pub const SSE_MEDIA_TYPE: &str = "text/event-stream";

/// A stream is never silent for longer than this: the server sends an empty line or a comment.
pub const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(15);
