//! What an image says about itself, and whether it is ours to run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bollard::models::ImageInspect;
use coracle_engine::EngineError;
use coracle_model::{Artifact, ArtifactId, CommandLine, EngineKind, ImageFacts, ProcessName};

use crate::client::{Client, status, timely};
use crate::labels;

/// An image of ours. Images do not change, so this is remembered for as long as the client lives.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// Its own environment.
    pub(crate) env: HashMap<String, String>,
    /// Whether it has a command of its own.
    pub(crate) has_command: bool,
    /// Whether it has a HEALTHCHECK.
    pub(crate) has_healthcheck: bool,
    /// The lowest TCP port it exposes.
    pub(crate) port: Option<u16>,
    /// Where its programs begin.
    pub(crate) working_dir: Option<String>,
}

/// Images seen before.
pub(crate) type Seen = Mutex<HashMap<ArtifactId, Arc<Image>>>;

impl Image {
    fn new(inspected: ImageInspect) -> Self {
        let config = inspected.config.unwrap_or_default();
        let filled = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
        let check = config.healthcheck.and_then(|check| check.test).unwrap_or_default();
        Self {
            has_command: filled(&config.cmd) || filled(&config.entrypoint),
            has_healthcheck: check.first().is_some_and(|kind| kind != "NONE" && !kind.is_empty()),
            working_dir: config.working_dir.filter(|place| !place.is_empty()),
            port: config.exposed_ports.unwrap_or_default().iter().filter_map(|port| tcp_port(port)).min(),
            env: config.env.unwrap_or_default().iter().filter_map(|pair| pair.split_once('=').map(owned)).collect(),
        }
    }

    /// The artifact that this image is, with the processes the plan names on top.
    pub(crate) fn artifact(&self, id: ArtifactId, processes: &BTreeMap<ProcessName, CommandLine>) -> Artifact {
        let mut all: BTreeMap<ProcessName, Option<CommandLine>> = BTreeMap::new();
        if self.has_command {
            all.insert(ProcessName::web(), None);
        }
        all.extend(processes.iter().map(|(name, command)| (name.clone(), Some(command.clone()))));
        Artifact {
            engine: EngineKind::Docker,
            id,
            processes: all,
            port: self.port,
            has_healthcheck: self.has_healthcheck,
            fingerprint: None,
            registry: None,
        }
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// The number of `8080/tcp`.
fn tcp_port(text: &str) -> Option<u16> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    port.parse().ok().filter(|_| protocol == "tcp")
}

impl Client {
    /// The image of an artifact, if it is there and ours.
    pub(crate) async fn image(&self, artifact: &ArtifactId) -> Result<Arc<Image>, EngineError> {
        let seen = self.images.lock().unwrap_or_else(PoisonError::into_inner).get(artifact).cloned();
        if let Some(image) = seen {
            return Ok(image);
        }
        self.find_image(artifact).await?.ok_or_else(|| EngineError::NoSuchArtifact(artifact.clone()))
    }

    /// Asks the engine for an artifact; `None` if it is gone or not ours.
    pub(crate) async fn find_image(&self, artifact: &ArtifactId) -> Result<Option<Arc<Image>>, EngineError> {
        let Some(inspected) = self.inspected(artifact).await? else { return Ok(None) };
        let image = Arc::new(Image::new(inspected));
        self.images.lock().unwrap_or_else(PoisonError::into_inner).insert(artifact.clone(), image.clone());
        Ok(Some(image))
    }

    /// All that an image says of itself and of its making.
    pub(crate) async fn image_facts(&self, artifact: &ArtifactId) -> Result<ImageFacts, EngineError> {
        let inspected = self.inspected(artifact).await?.ok_or_else(|| EngineError::NoSuchArtifact(artifact.clone()))?;
        let mut history = timely(self.docker.image_history(artifact.as_str()))
            .await
            .map_err(|error| self.error(format!("read the history of image {artifact}"), &error))?;
        // The engine tells the newest first.
        history.reverse();
        let config = inspected.config.clone().unwrap_or_default();
        Ok(ImageFacts {
            user: config.user.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default().iter().filter_map(|pair| pair.split_once('=').map(owned)).collect(),
            labels: config.labels.unwrap_or_default().into_iter().collect(),
            has_healthcheck: Image::new(inspected).has_healthcheck,
            history: history.into_iter().map(|layer| layer.created_by).collect(),
        })
    }

    async fn inspected(&self, artifact: &ArtifactId) -> Result<Option<ImageInspect>, EngineError> {
        let inspected = match timely(self.docker.inspect_image(artifact.as_str())).await {
            Ok(inspected) => inspected,
            Err(error) if matches!(status(&error), Some(400 | 404)) => return Ok(None),
            Err(error) => return Err(self.error(format!("inspect image {artifact}"), &error)),
        };
        let tags = inspected.repo_tags.as_deref().unwrap_or_default();
        if inspected.id.as_deref() != Some(artifact.as_str()) || !tags.iter().any(|tag| labels::is_our_tag(&self.owner, tag)) {
            return Ok(None);
        }
        Ok(Some(inspected))
    }

    /// The engine says that this image is not there.
    pub(crate) fn forget_image(&self, artifact: &ArtifactId) {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).remove(artifact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{HealthConfig, ImageConfig};

    #[test]
    fn the_lowest_tcp_port_counts() {
        let ports = ["9000/tcp", "53/udp", "8080/tcp"].map(String::from).to_vec();
        let config = ImageConfig { exposed_ports: Some(ports), ..Default::default() };
        assert_eq!(Image::new(ImageInspect { config: Some(config), ..Default::default() }).port, Some(8080));
    }

    #[test]
    fn a_check_that_is_switched_off_is_none() {
        for (test, expected) in [(vec!["NONE"], false), (vec![], false), (vec!["CMD", "true"], true)] {
            let check = HealthConfig { test: Some(test.into_iter().map(String::from).collect()), ..Default::default() };
            let config = ImageConfig { healthcheck: Some(check), ..Default::default() };
            assert_eq!(Image::new(ImageInspect { config: Some(config), ..Default::default() }).has_healthcheck, expected);
        }
    }
}
