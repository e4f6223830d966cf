//! Releases.

use coracle_model::{AppName, EngineKind, Origin, ReleaseNumber};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The releases of an app that are kept, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseList {
    /// The releases.
    pub releases: Vec<Release>,
}

/// An immutable release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Release {
    /// The app.
    #[schema(value_type = String, example = "shop")]
    pub app: AppName,
    /// Its number; people write it `v3`.
    #[schema(value_type = u32, example = 3)]
    pub number: ReleaseNumber,
    /// Whether it is the active one.
    pub active: bool,
    /// What it came from.
    pub origin: OriginKind,
    /// Where it came from, in words: `deploy 3f2a91c`, `config LOG_LEVEL`, `rollback to v2`.
    #[schema(example = "rollback to v2")]
    pub description: String,
    /// The git commit of its source, if the client told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The engine that built it and runs it.
    #[schema(value_type = String, example = "docker")]
    pub engine: EngineKind,
    /// What was built: an image id, a slug's name.
    pub artifact: String,
    /// Where a registry has it, by its digest: it is fetched from there if this machine has it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "registry.example.com/shop@sha256:0123…")]
    pub image: Option<String>,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// What a release came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OriginKind {
    /// A source tree was deployed.
    Deploy,
    /// An image of a registry was deployed.
    Image,
    /// What another app runs was taken over.
    Promotion,
    /// The configuration changed.
    Config,
    /// An earlier release was taken up again.
    Rollback,
    /// The same release with fresh instances.
    Restart,
}

impl Release {
    /// A release on the wire.
    pub fn new(release: coracle_model::Release, active: Option<ReleaseNumber>) -> Self {
        let description = release.origin.to_string();
        let (origin, commit) = match release.origin {
            Origin::Deploy { commit } => (OriginKind::Deploy, commit),
            Origin::Image { .. } => (OriginKind::Image, None),
            Origin::Promotion { .. } => (OriginKind::Promotion, None),
            Origin::Config { .. } => (OriginKind::Config, None),
            Origin::Rollback { .. } => (OriginKind::Rollback, None),
            Origin::Restart { .. } => (OriginKind::Restart, None),
        };
        Self {
            active: active == Some(release.number),
            app: release.app,
            number: release.number,
            origin,
            description,
            commit,
            engine: release.artifact.engine,
            artifact: release.artifact.id.to_string(),
            image: release.artifact.registry.as_ref().map(ToString::to_string),
            created_at: release.created_at,
        }
    }
}

/// Which release to take up again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Its number; absent: the one before the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, example = 2)]
    pub to: Option<ReleaseNumber>,
    /// The services that keep data and that go back as well, separated by commas; `*` is all. Otherwise they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recreate_services: Option<String>,
}

/// What is to be taken over from another app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromotionRequest {
    /// That app.
    #[schema(value_type = String, example = "shop-staging")]
    pub from: AppName,
    /// Which release of it; absent: the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, example = 12)]
    pub release: Option<ReleaseNumber>,
    /// The services that keep data and may be changed, separated by commas; `*` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recreate_services: Option<String>,
}
