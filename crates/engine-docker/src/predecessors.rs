//! Containers of compose projects, found by the labels that Compose sets (`pkg/api/labels.go` in docker/compose). They bear no
//! label of ours and never will: what is done to them is to stop them, and to start them again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::{ContainerUpdateBody, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder};
use coracle_engine::{EngineError, Mounted, Predecessor, Predecessors, Restart};
use serde::Deserialize;

use crate::client::{Client, ORDINARY, status, timely};
use crate::neighbours::{Networking, State};
use crate::{labels, wire};

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const NUMBER: &str = "com.docker.compose.container-number";
const ONE_OFF: &str = "com.docker.compose.oneoff";
const VOLUME: &str = "com.docker.compose.volume";
const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";

/// Compose projects on an engine.
pub(crate) struct Projects {
    client: Arc<Client>,
}

impl Projects {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    async fn set_restart(&self, id: &str, restart: RestartPolicy) -> Result<(), Error> {
        let body = ContainerUpdateBody { restart_policy: Some(restart), ..Default::default() };
        timely(self.client.docker.update_container(id, body)).await.map(drop)
    }
}

#[async_trait]
impl Predecessors for Projects {
    async fn list(&self) -> Result<Vec<Predecessor>, EngineError> {
        let filters = serde_json::json!({ "label": [SERVICE] }).to_string();
        let path = format!("/containers/json{}", wire::query(&[("all", "1".to_owned()), ("filters", filters)]));
        let listed: Vec<Listed> = self.client.get(&path, "list containers").await?.unwrap_or_default();
        let mut found = Vec::new();
        for Listed { id, labels } in listed {
            let has = |name: &str| labels.as_ref().and_then(|labels| labels.get(name));
            // A compose file may name labels of Coracle's by mistake; a container of ours is none of a project's.
            if has(labels::OWNER).is_some() || has(ONE_OFF).is_some_and(|word| word.eq_ignore_ascii_case("true")) {
                continue;
            }
            let inspected: Option<Inspected> =
                self.client.get(&format!("/containers/{id}/json"), &format!("inspect {id}")).await?;
            found.extend(inspected.and_then(Inspected::predecessor));
        }
        found.sort_by(|one, other| (&one.project, &one.service, one.number).cmp(&(&other.project, &other.service, other.number)));
        Ok(found)
    }

    async fn volumes(&self, project: &str) -> Result<BTreeMap<String, String>, EngineError> {
        let filters = serde_json::json!({ "label": [format!("{PROJECT}={project}")] }).to_string();
        let path = format!("/volumes{}", wire::query(&[("filters", filters)]));
        let found: Option<Volumes> = self.client.get(&path, "list volumes").await?;
        let volumes = found.and_then(|found| found.volumes).unwrap_or_default();
        let named = |volume: Volume| Some((volume.labels?.remove(VOLUME)?, volume.name));
        Ok(volumes.into_iter().filter_map(named).collect())
    }

    async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let action = || format!("stop container {id}");
        // First, so that nothing starts it again between the two.
        match self.set_restart(id, RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }).await {
            Ok(()) => {}
            Err(error) if status(&error) == Some(404) => return Ok(()),
            Err(error) => return Err(self.client.error(action(), &error)),
        }
        let seconds = i32::try_from(grace.as_secs().max(1)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let docker = self.client.docker.clone().with_timeout(grace + ORDINARY);
        match tokio::time::timeout(grace + ORDINARY, docker.stop_container(id, Some(options))).await {
            Ok(Ok(())) => Ok(()),
            // It does not run, or is gone.
            Ok(Err(error)) if matches!(status(&error), Some(304 | 404)) => Ok(()),
            Ok(Err(error)) => Err(self.client.error(action(), &error)),
            Err(_) => Err(self.client.error(action(), &Error::RequestTimeoutError)),
        }
    }

    async fn start(&self, id: &str, restart: &Restart) -> Result<(), EngineError> {
        let failed = |error: &Error| self.client.error(format!("start container {id}"), error);
        let name = match restart.policy.as_str() {
            "always" => RestartPolicyNameEnum::ALWAYS,
            "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
            "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
            _ => RestartPolicyNameEnum::NO,
        };
        let times = (name == RestartPolicyNameEnum::ON_FAILURE).then_some(i64::from(restart.times));
        self.set_restart(id, RestartPolicy { name: Some(name), maximum_retry_count: times }).await.map_err(|e| failed(&e))?;
        match timely(self.client.docker.start_container(id, None::<StartContainerOptions>)).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(304) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn remove(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default().v(false).build();
        match timely(self.client.docker.remove_container(id, Some(options))).await {
            Ok(()) => Ok(()),
            Err(error) if status(&error) == Some(404) => Ok(()),
            Err(error) => Err(self.client.error(format!("remove container {id}"), &error)),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    #[serde(default)]
    volumes: Option<Vec<Volume>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volume {
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Inspected {
    id: String,
    name: String,
    config: Config,
    host_config: HostConfig,
    network_settings: Networking,
    state: State,
    mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    labels: Option<BTreeMap<String, String>>,
    stop_timeout: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    restart_policy: RestartRule,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RestartRule {
    name: String,
    maximum_retry_count: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mount {
    #[serde(rename = "Type")]
    kind: String,
    name: String,
    source: String,
    destination: String,
    #[serde(rename = "RW")]
    writable: bool,
}

impl Inspected {
    /// `None` if its labels name no project or no service.
    fn predecessor(self) -> Option<Predecessor> {
        let mut labels = self.config.labels.unwrap_or_default();
        let mut take = |name: &str| labels.remove(name).filter(|value| !value.is_empty());
        let words = |text: Option<String>| -> Vec<String> {
            text.iter()
                .flat_map(|text| text.split(','))
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let addresses: Vec<IpAddr> = self.network_settings.addresses().into_values().flatten().collect();
        Some(Predecessor {
            project: take(PROJECT)?,
            service: take(SERVICE)?,
            number: take(NUMBER).and_then(|number| number.parse().ok()).unwrap_or(1),
            working_dir: take(WORKING_DIR),
            config_files: words(take(CONFIG_FILES)),
            environment_files: words(take(ENVIRONMENT_FILE)),
            id: self.id,
            name: self.name.trim_start_matches('/').to_owned(),
            running: self.state.runs(),
            health: self.state.health(),
            mounts: self.mounts.unwrap_or_default().into_iter().map(Mount::mounted).collect(),
            addresses,
            ports: self.network_settings.exposed(),
            restart: Restart {
                policy: self.host_config.restart_policy.name,
                times: self.host_config.restart_policy.maximum_retry_count,
            },
            grace: self.config.stop_timeout.map(Duration::from_secs),
        })
    }
}

impl Mount {
    fn mounted(self) -> Mounted {
        let volume = (self.kind == "volume").then_some(self.name);
        Mounted { path: self.destination, volume, source: self.source, writable: self.writable }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As Docker 20.10 describes a container that Compose 2 made.
    const CONTAINER: &str = r#"{"Id":"abc","Name":"/shop-db-1","State":{"Running":true,"Paused":false},
        "Config":{"StopTimeout":30,"Labels":{"com.docker.compose.project":"shop","com.docker.compose.service":"db",
        "com.docker.compose.container-number":"2","com.docker.compose.oneoff":"False",
        "com.docker.compose.project.working_dir":"/srv/shop",
        "com.docker.compose.project.config_files":"/srv/shop/compose.yaml,/srv/shop/prod.yaml"}},
        "HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3}},
        "Mounts":[{"Type":"volume","Name":"shop_data","Source":"/var/lib/docker/volumes/shop_data/_data","Destination":"/data","RW":true},
        {"Type":"bind","Source":"/srv/shop/conf","Destination":"/conf","RW":false}],
        "NetworkSettings":{"Ports":{"5432/tcp":[{"HostIp":"0.0.0.0","HostPort":"5433"}]},
        "Networks":{"shop_default":{"IPAddress":"172.20.0.2"},"later":{"IPAddress":""}}}}"#;

    #[test]
    fn what_compose_wrote_on_a_container_is_read() {
        let found = serde_json::from_str::<Inspected>(CONTAINER).unwrap().predecessor().unwrap();
        assert_eq!(
            (found.name.as_str(), found.project.as_str(), found.service.as_str(), found.number),
            ("shop-db-1", "shop", "db", 2)
        );
        assert_eq!(found.config_files, ["/srv/shop/compose.yaml", "/srv/shop/prod.yaml"]);
        assert_eq!((found.working_dir.as_deref(), found.grace), (Some("/srv/shop"), Some(Duration::from_secs(30))));
        assert_eq!(found.restart, Restart { policy: "on-failure".into(), times: 3 });
        let mounts: Vec<_> = found.mounts.iter().map(|m| (m.path.as_str(), m.volume.as_deref(), m.writable)).collect();
        assert_eq!(mounts, [("/data", Some("shop_data"), true), ("/conf", None, false)]);
        assert_eq!(found.addresses, ["172.20.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(found.ports[0].published, [(None, 5433)]);
        let nobodys = CONTAINER.replace("com.docker.compose.service", "com.docker.compose.servant");
        assert_eq!(serde_json::from_str::<Inspected>(&nobodys).unwrap().predecessor(), None);
    }
}
