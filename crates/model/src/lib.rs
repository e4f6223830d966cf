//! The words of the domain as types: names, quantities, the application, its releases and deployments.
//!
//! Everything here is plain data that is checked once, on construction, and believed afterwards.
//! This crate does no I/O, knows no clock and no async; every other crate may use it.

pub mod adopted;
pub mod approval;
pub mod artifact;
pub mod command;
pub mod container;
pub mod deployment;
pub mod image;
pub mod manifest;
pub mod names;
pub mod pattern;
pub mod person;
pub mod plan;
pub mod policy;
pub mod preview;
pub mod quantity;
pub mod registry;
pub mod release;
pub mod run;
pub mod secret;
pub mod spec;
pub mod stack;
pub mod text;

pub use adopted::{Adopted, AdoptedMount, AdoptedPort};
pub use approval::{Approval, ApprovalRule, Bringer, Decision};
pub use artifact::{Artifact, ArtifactId};
pub use command::CommandLine;
pub use container::{ContainerSettings, PrivateText};
pub use deployment::{Deployment, DeploymentId, DeploymentKind, Outcome, Phase};
pub use image::{ImageReference, PinnedImage, ReferenceError, Repository};
pub use manifest::Manifest;
pub use names::{
    AppName, EnvName, HostPattern, InstanceId, NameError, OwnerId, PersonName, ProcessName, ReleaseNumber, VolumeName,
};
pub use pattern::Pattern;
pub use person::{Bearer, CredentialId, Grant, Role};
pub use plan::BuildPlan;
pub use policy::{Finding, ImageFacts};
pub use preview::{CopiedConfig, HostTemplate, Lifetime, PreviewPolicy};
pub use quantity::{ByteSize, Cpus, Span};
pub use registry::{HostError, Logins, RegistryHost, RegistryLogin, RegistrySpec};
pub use release::{Origin, Release};
pub use run::{Handover, StepRun, StepState};
pub use secret::Secret;
pub use spec::{
    AppSpec, BuildSpec, DeployPolicy, EngineKind, HttpSpec, Limits, NamedMiddleware, ProcessSpec, Redirect, Strategy, TlsMode,
    VolumeMount,
};
pub use stack::{COMPOSE_FILES, Condition, Dependency, Exposure, ProcessSource, StackError};
