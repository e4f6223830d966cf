//! People: who may use the server besides whoever administers it. A token goes out once, when it is made; nothing here can
//! hold one but [`NewToken`].

use coracle_model::{AppName, CredentialId, PersonName, Role, Secret};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Everybody, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PersonList {
    /// The people.
    pub people: Vec<Person>,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Person {
    /// The name.
    #[schema(value_type = String, example = "ana")]
    pub name: PersonName,
    /// What the person may do.
    pub roles: Vec<RoleIn>,
    /// What the person proves to be that person by.
    pub credentials: Vec<Credential>,
    /// When the person was added.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// A role, and where it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleIn {
    /// The app; absent: every app that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "shop")]
    pub app: Option<AppName>,
    /// The role: `deployer` or `owner`.
    #[schema(value_type = String, example = "deployer")]
    pub role: Role,
}

/// What a person proves to be that person by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Credential {
    /// Its number; people write it `c7`.
    #[schema(value_type = u32, example = 7)]
    pub id: CredentialId,
    /// What it is.
    pub kind: CredentialKind,
    /// What people call it: a key's comment, what a token is for.
    pub label: String,
    /// The fingerprint of a key, as `ssh-keygen -l` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The text of a public key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When it was added.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

/// What a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// An SSH public key.
    Key,
    /// A token.
    Token,
}

impl CredentialKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Token => "token",
        }
    }
}

/// A person to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPerson {
    /// The name.
    #[schema(value_type = String, example = "ana")]
    pub name: PersonName,
    /// What the person may do.
    #[serde(default)]
    pub roles: Vec<RoleIn>,
    /// SSH public keys, each as a line of `authorized_keys` without options.
    #[serde(default)]
    #[schema(example = json!(["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDr8… ana@laptop"]))]
    pub keys: Vec<String>,
}

/// A role to give or to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleChange {
    /// The app; absent: every app that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "shop")]
    pub app: Option<AppName>,
    /// The role from now on; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "owner")]
    pub role: Option<Role>,
}

/// A key to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// An SSH public key, as a line of `authorized_keys` without options.
    pub key: String,
}

/// What a token is to be for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// What people will call it.
    #[serde(default)]
    #[schema(example = "ci")]
    pub label: String,
}

/// A token that was just made. It is never shown again.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// What is kept of it.
    pub credential: Credential,
    /// The token.
    #[serde(with = "shown_once")]
    #[schema(value_type = String)]
    pub token: Secret,
}

/// A secret serialises nowhere else.
pub(crate) mod shown_once {
    use super::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(token: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(token.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}
