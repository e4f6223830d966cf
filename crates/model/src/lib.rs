//! The words of the domain as types: names, quantities, the application, its releases and deployments.
//!
//! Everything here is plain data that is checked once, on construction, and believed afterwards.
//! This crate does no I/O, knows no clock and no async; every other crate may use it.

pub mod adopted;
pub mod artifact;
pub mod command;
pub mod container;
pub mod deployment;
pub mod manifest;
pub mod names;
pub mod person;
pub mod plan;
pub mod quantity;
pub mod release;
pub mod secret;
pub mod spec;
pub mod stack;

pub use adopted::{Adopted, AdoptedMount, AdoptedPort};
pub use artifact::{Artifact, ArtifactId};
pub use command::CommandLine;
pub use container::{ContainerSettings, PrivateText};
pub use deployment::{Deployment, DeploymentId, DeploymentKind, Outcome, Phase};
pub use manifest::Manifest;
pub use names::{
    AppName, EnvName, HostPattern, InstanceId, NameError, OwnerId, PersonName, ProcessName, ReleaseNumber, VolumeName,
};
pub use person::{CredentialId, Grant, Role};
pub use plan::BuildPlan;
pub use quantity::{ByteSize, Cpus, Span};
pub use release::{Origin, Release};
pub use secret::Secret;
pub use spec::{
    AppSpec, BuildSpec, DeployPolicy, EngineKind, HttpSpec, Limits, NamedMiddleware, ProcessSpec, Redirect, Strategy, TlsMode,
    VolumeMount,
};
pub use stack::{COMPOSE_FILES, Condition, Dependency, Exposure, ProcessSource, StackError};
