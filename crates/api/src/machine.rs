//! The server and the machine it is on.

use coracle_model::{EngineKind, PersonName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// The version of the server.
    #[schema(example = "0.1.0")]
    pub version: String,
    /// The version of the API: what its paths begin with.
    #[schema(example = "v1")]
    pub api: String,
    /// The version of the proxy, if it answers.
    pub proxy: Option<String>,
    /// The engines this server has.
    #[schema(value_type = Vec<String>, example = json!(["docker", "process"]))]
    pub engines: Vec<EngineKind>,
    /// The engine of apps that do not name one.
    #[schema(value_type = String, example = "docker")]
    pub default_engine: EngineKind,
    /// Addresses on which the proxy takes requests.
    #[schema(example = json!(["0.0.0.0:8080"]))]
    pub http: Vec<String>,
    /// Where the API, and git, are reached over TCP with the server's token, if they are.
    #[serde(default)]
    #[schema(example = "127.0.0.1:9000")]
    pub api_tcp: Option<String>,
    /// Where webhooks are taken beside that, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "0.0.0.0:9001")]
    pub hooks: Option<String>,
    /// Where the API, and git, are reached over TLS through the proxy, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://coracle.example.com")]
    pub api_url: Option<String>,
    /// Where git is reached over SSH, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshDoor>,
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub you: Option<Visitor>,
}

/// Who the server takes whoever asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Visitor {
    /// May do everything.
    Administrator,
    /// This person, with the roles that were given.
    #[schema(value_type = String)]
    Person(PersonName),
}

/// Where git, and the API for Coracle's own client, are reached over SSH, and how to know that it is this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SshDoor {
    /// The address.
    #[schema(example = "0.0.0.0:2222")]
    pub address: String,
    /// The fingerprint of the host key, as `ssh` shows it when it first connects.
    #[schema(example = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")]
    pub fingerprint: String,
    /// The host key, as it stands in `known_hosts` after the host's name.
    pub host_key: String,
}

/// What works on this machine, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doctor {
    /// The checks, in the order to read them in.
    pub checks: Vec<Check>,
}

impl Doctor {
    /// The worst of all checks.
    pub fn worst(&self) -> CheckStatus {
        self.checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Ok)
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What was looked at.
    #[schema(example = "docker")]
    pub name: String,
    /// How it stands.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How a check went, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// It works.
    Ok,
    /// Something is missing that one can do without.
    Warn,
    /// It does not work.
    Fail,
}
