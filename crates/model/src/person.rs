//! People: what somebody who is not the administrator may do, and with which apps.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{AppName, PersonName};

/// What a person is to an app. The greater role may do everything that the lesser one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Brings new code, watches it, and goes back.
    Deployer,
    /// Whatever can be done with the app, its end included.
    Owner,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 2] = [Self::Deployer, Self::Owner];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployer => "deployer",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A word that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role: use deployer or owner")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let unknown = || RoleError(text.chars().take(80).collect());
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(unknown)
    }
}

/// A role, and where it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The app; `None`: every app that there is.
    pub app: Option<AppName>,
    /// The role.
    pub role: Role,
}

impl Grant {
    /// The greatest role that these give in an app.
    pub fn role_in(grants: &[Self], app: &AppName) -> Option<Role> {
        grants.iter().filter(|grant| grant.app.as_ref().is_none_or(|named| named == app)).map(|grant| grant.role).max()
    }

    /// Whether one of these names the app. Only then may it be made.
    pub fn names(grants: &[Self], app: &AppName) -> bool {
        grants.iter().any(|grant| grant.app.as_ref() == Some(app))
    }
}

/// A person, by the credential that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The name.
    pub name: PersonName,
    /// What was shown.
    pub credential: CredentialId,
}

/// The number of what a person proves to be that person by; never given again. People write it `c7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CredentialId(pub u32);

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("c{}", self.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_greatest_role_holds_and_only_a_name_allows_to_make_an_app() {
        let grant = |app: Option<&str>, role| Grant { app: app.map(|app| app.parse().unwrap()), role };
        let grants = [grant(None, Role::Deployer), grant(Some("shop"), Role::Owner)];
        let (shop, blog) = ("shop".parse().unwrap(), "blog".parse().unwrap());
        assert_eq!(Grant::role_in(&grants, &shop), Some(Role::Owner));
        assert_eq!(Grant::role_in(&grants, &blog), Some(Role::Deployer));
        assert_eq!(Grant::role_in(&grants[1..], &blog), None);
        assert!(Grant::names(&grants, &shop) && !Grant::names(&grants, &blog));
        assert!("root".parse::<Role>().is_err() && "Owner".parse::<Role>().is_err());
    }
}
