//! Repositories at forges that apps are deployed from. Secrets go in; one goes out once, when it is made: what webhooks are signed
//! with.

use std::fmt;

use coracle_model::{AppName, Secret};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::people::shown_once;

/// A repository to deploy an app from.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgeRequest {
    /// Its address: `https://HOST/PATH`, `ssh://USER@HOST/PATH` or `USER@HOST:PATH`.
    #[schema(example = "git@github.com:ana/shop.git")]
    pub url: String,
    /// What kind of forge it is: `github`, `gitlab`, `forgejo`, `gitea` or `bitbucket`; absent: as the host tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The branch that is deployed; absent: as before, or `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// What the forge lets in by and takes reports with; absent: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The address of the forge's API; absent: where such a forge has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Whether addresses may begin with `http://`: everybody on the way reads and writes what is said.
    #[serde(default)]
    pub plain_http: bool,
    /// Whether webhooks are signed with a new secret from now on, where the repository is the same as before.
    #[serde(default)]
    pub new_secret: bool,
}

impl fmt::Debug for ForgeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForgeRequest").field("url", &self.url).field("branch", &self.branch).finish_non_exhaustive()
    }
}

/// How an app is connected with a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgeConnection {
    /// The app.
    #[schema(value_type = String, example = "shop")]
    pub app: AppName,
    /// What kind of forge it is.
    #[schema(example = "github")]
    pub kind: String,
    /// The address of the repository.
    pub url: String,
    /// The branch that is deployed.
    #[schema(example = "main")]
    pub branch: String,
    /// The address of the forge's API.
    pub api: String,
    /// Where webhooks are taken: a path on the API's address.
    #[schema(example = "/hooks/shop-9f86d081884c7d659a2feaa0c55ad015")]
    pub hook_path: String,
    /// The address of the same, as far as the server knows how it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_url: Option<String>,
    /// The public half of the key that the forge has to let in, where git gets there over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_key: Option<String>,
    /// Fingerprints of the keys that the host showed when it was connected; no others are believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_keys: Vec<String>,
    /// Whether there is a token, and so whether the forge is told what comes of a commit.
    pub has_token: bool,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// What came of the last event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ForgeEvent>,
}

/// What came of an event at a forge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgeEvent {
    /// When that was known.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// About which commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// In a sentence.
    pub word: String,
    /// Whether that is nothing good.
    pub failed: bool,
}

/// A connection that was just made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ForgeConnected {
    /// The connection.
    pub connection: ForgeConnection,
    /// What webhooks have to be signed with, if it is new. It is never shown again.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    #[schema(value_type = Option<String>)]
    pub secret: Option<Secret>,
}

mod optional {
    use super::{Secret, shown_once};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => shown_once::serialize(secret, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        Option::<String>::deserialize(deserializer).map(|text| text.map(Secret::new))
    }
}
