//! Configuration. The value of a secret goes in and never comes out.

use std::fmt;

use coracle_model::EnvName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The configuration of an app, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigList {
    /// The entries.
    pub entries: Vec<ConfigEntry>,
}

/// One configuration entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigEntry {
    /// Its name.
    #[schema(value_type = String, example = "LOG_LEVEL")]
    pub name: EnvName,
    /// Its value; always absent for a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether it is a secret.
    pub secret: bool,
    /// When it was set.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// Changes of configuration: all of them happen, or none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigPatch {
    /// The changes.
    pub changes: Vec<ConfigChange>,
    /// Only store them: the next release will run with them.
    #[serde(default)]
    pub no_deploy: bool,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigChange {
    /// Which name.
    #[schema(value_type = String, example = "LOG_LEVEL")]
    pub name: EnvName,
    /// The new value; `null` unsets it.
    pub value: Option<String>,
    /// Whether it is a secret, and so is never shown again.
    #[serde(default)]
    pub secret: bool,
}

impl fmt::Debug for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be a secret, and even a plain one has no business in a log.
        let value = if self.value.is_some() { "set" } else { "unset" };
        f.debug_struct("ConfigChange").field("name", &self.name).field("value", &value).field("secret", &self.secret).finish()
    }
}
