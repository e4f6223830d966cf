//! Containers as engines describe them: only what we look at, and without the library's strictness. Podman knows states
//! that Docker does not (`stopped`), and the library refuses the whole answer for one of them.

use std::collections::HashMap;

use coracle_engine::EngineError;
use http::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, ORDINARY, unavailable};
use crate::labels;
use crate::wire;

/// A container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Container {
    /// The engine's own id of it.
    pub(crate) id: String,
    /// How it stands.
    pub(crate) state: State,
    config: Config,
    /// Where it can be reached.
    pub(crate) network_settings: Networking,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    labels: Option<HashMap<String, String>>,
}

/// How a container stands.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct State {
    pub(crate) running: bool,
    #[serde(rename = "OOMKilled")]
    pub(crate) oom_killed: bool,
    pub(crate) exit_code: i64,
    pub(crate) started_at: String,
    /// What its check says.
    pub(crate) health: Option<Health>,
}

/// What a container's check says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Health {
    pub(crate) status: String,
}

/// Where a container can be reached.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Networking {
    pub(crate) ports: Option<HashMap<String, Option<Vec<Binding>>>>,
    pub(crate) networks: Option<HashMap<String, Endpoint>>,
}

/// A port of this machine that leads to a container.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Binding {
    pub(crate) host_port: String,
}

/// A container in a network.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Endpoint {
    #[serde(rename = "IPAddress")]
    pub(crate) ip_address: String,
}

impl Container {
    /// Its labels.
    pub(crate) fn labels(&self) -> HashMap<String, String> {
        self.config.labels.clone().unwrap_or_default()
    }
}

/// A container in a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    id: String,
    labels: Option<HashMap<String, String>>,
}

impl Client {
    /// A container by name or id, ours or not; `None` if there is none.
    pub(crate) async fn container(&self, name: &str) -> Result<Option<Container>, EngineError> {
        self.get(&format!("/containers/{name}/json"), &format!("inspect {name}")).await
    }

    /// The ids of our containers that bear these labels too.
    pub(crate) async fn containers(&self, labels: &[(&str, &str)]) -> Result<Vec<String>, EngineError> {
        let filters = serde_json::json!(labels::filter(labels)).to_string();
        let path = format!("/containers/json{}", wire::query(&[("all", "1".to_owned()), ("filters", filters)]));
        let listed: Vec<Listed> = self.get(&path, "list containers").await?.unwrap_or_default();
        let ours = |listed: &Listed| listed.labels.as_ref().is_some_and(|l| labels::instance_of(&self.owner, l).is_some());
        Ok(listed.into_iter().filter(ours).map(|container| container.id).collect())
    }

    /// Asks for something; `None` if there is no such thing.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, action: &str) -> Result<Option<T>, EngineError> {
        let failed = |cause: String| EngineError::Failed { action: action.to_owned(), cause };
        let uri = format!("/v{}{path}", self.facts.api_version);
        let request =
            Request::get(uri).header("Host", "docker").body(wire::empty()).map_err(|error| failed(error.to_string()))?;
        let ask = async {
            let answer = wire::send(&self.socket, request).await?;
            let status = answer.status;
            Ok::<_, std::io::Error>((status, answer.text().await?))
        };
        let (status, text) = match tokio::time::timeout(ORDINARY, ask).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unavailable(error.to_string())),
            Err(_) => return Err(EngineError::TimedOut { action: action.to_owned(), limit: crate::client::ordinary() }),
        };
        match status.as_u16() {
            200 => serde_json::from_str(&text).map(Some).map_err(|error| failed(error.to_string())),
            404 => Ok(None),
            _ => Err(failed(wire::refusal(&text))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn states_that_docker_does_not_know_are_no_obstacle() {
        let text = r#"{"Id":"a","State":{"Status":"stopped","Running":false,"ExitCode":3,"Health":null},"Config":{"Labels":null},
            "NetworkSettings":{"Ports":{"80/tcp":null},"Networks":{"n":{"IPAddress":""}}}}"#;
        let container: Container = serde_json::from_str(text).unwrap();
        assert_eq!((container.state.running, container.state.exit_code), (false, 3));
    }
}
