//! Registries: who the server and its apps are to them. Passwords go in and never come out.

use coracle_model::{AppName, PrivateText, RegistryHost};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Logins, by address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistryList {
    /// The logins.
    pub logins: Vec<RegistryLogin>,
}

/// A login that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegistryLogin {
    /// The registry.
    #[schema(value_type = String, example = "registry.example.com:5000")]
    pub host: RegistryHost,
    /// The app that it holds for; absent: every app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "shop")]
    pub app: Option<AppName>,
    /// The user's name.
    #[schema(example = "ana")]
    pub username: String,
    /// When it was given.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// A login to be kept, if the registry takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRegistryLogin {
    /// The registry.
    #[schema(value_type = String, example = "registry.example.com:5000")]
    pub host: RegistryHost,
    /// The user's name.
    #[schema(example = "ana")]
    pub username: String,
    /// The password, or a token that stands for it.
    #[schema(value_type = String, format = Password)]
    pub password: PrivateText,
}
