//! A release: what was built, with which configuration, from where. Never changed after it is written.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::command::CommandLine;
use crate::image::PinnedImage;
use crate::names::{AppName, EnvName, ProcessName, ReleaseNumber};
use crate::spec::{AppSpec, HttpSpec, ProcessSpec};
use crate::stack::Exposure;

/// An immutable release. Its configuration values lie beside it in the store, encrypted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// The app.
    pub app: AppName,
    /// Its number.
    pub number: ReleaseNumber,
    /// What was built.
    pub artifact: Artifact,
    /// What the processes and stateful services of their own source run.
    #[serde(default)]
    pub artifacts: BTreeMap<ProcessName, Artifact>,
    /// The app as its manifest described it.
    pub spec: AppSpec,
    /// Where it came from.
    pub origin: Origin,
    /// When it was written.
    pub created_at: Timestamp,
}

impl Release {
    /// Every process this release can run: what the build found, with the manifest's word on top. A process that only the
    /// build found and that is not `web` runs no instance until `ps scale` asks for one, as on Heroku.
    pub fn processes(&self) -> BTreeMap<ProcessName, ProcessSpec> {
        let mut all = self.spec.processes.clone();
        if self.spec.is_stack() {
            return all;
        }
        for (name, command) in &self.artifact.processes {
            let process = all
                .entry(name.clone())
                .or_insert_with(|| ProcessSpec { replicas: u16::from(name.is_web()), ..ProcessSpec::default() });
            if process.command.is_none() {
                process.command = command.clone();
            }
        }
        all
    }

    /// The app with the processes that the build found: what its parts and their order are to be read from.
    pub fn resolved(&self) -> AppSpec {
        AppSpec { processes: self.processes(), ..self.spec.clone() }
    }

    /// Whether a process or stateful service of it receives requests.
    pub fn serves(&self, part: &ProcessName) -> bool {
        match self.spec.part(part) {
            Some(spec) => spec.serves(part),
            None => part.is_web() && self.processes().contains_key(part),
        }
    }

    /// Whether the image's HEALTHCHECK is about this part. It asks what the image's own command does, which listens; a process with
    /// another command that receives no requests (a worker of the Procfile) could only fail it. Parts with images of their own are
    /// checked as these say.
    pub fn image_checks(&self, part: &ProcessName) -> bool {
        let has_another_command = || self.processes().get(part).is_some_and(|process| process.command.is_some());
        self.spec.is_stack() || self.spec.services.contains_key(part) || self.serves(part) || !has_another_command()
    }

    /// Every process and stateful service of it that receives requests.
    pub fn serving(&self) -> Vec<ProcessName> {
        let processes = self.processes();
        let parts = processes.iter().chain(&self.spec.services);
        parts.filter(|(name, spec)| spec.serves(name)).map(|(name, _)| name.clone()).collect()
    }

    /// How a part of it is reached, unless labels say so.
    pub fn http_of(&self, part: &ProcessName) -> Option<&HttpSpec> {
        match self.spec.part(part).map(|spec| &spec.exposure) {
            Some(Exposure::Http(http)) => Some(http),
            Some(Exposure::ByName) | None if part.is_web() => Some(&self.spec.http),
            _ => None,
        }
    }

    /// What a process or stateful service runs.
    pub fn artifact_of(&self, part: &ProcessName) -> &Artifact {
        self.artifacts.get(part).unwrap_or(&self.artifact)
    }

    /// Everything that was built for it.
    pub fn all_artifacts(&self) -> impl Iterator<Item = &Artifact> {
        std::iter::once(&self.artifact).chain(self.artifacts.values())
    }

    /// The command to run before its instances start.
    pub fn release_command(&self) -> Option<&CommandLine> {
        self.spec.deploy.release_command.as_ref()
    }
}

/// Where a release came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Origin {
    /// A source tree was deployed.
    Deploy {
        /// The git commit of the tree, if the client told one.
        commit: Option<String>,
    },
    /// An image of a registry was deployed.
    Image {
        /// Which.
        image: PinnedImage,
    },
    /// What another app runs was taken over, as it is.
    Promotion {
        /// That app.
        from: AppName,
        /// Its release.
        release: ReleaseNumber,
    },
    /// The configuration changed; the artifact is that of an earlier release.
    Config {
        /// The names that changed.
        changed: Vec<EnvName>,
    },
    /// An earlier release was taken up again, artifact, configuration and manifest.
    Rollback {
        /// That release.
        to: ReleaseNumber,
    },
    /// The same release with fresh instances.
    Restart {
        /// That release.
        of: ReleaseNumber,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy { commit: Some(commit) } => write!(f, "deploy {}", commit.chars().take(12).collect::<String>()),
            Self::Deploy { commit: None } => f.write_str("deploy"),
            Self::Image { image } => write!(f, "image {}", image.described()),
            Self::Promotion { from, release } => write!(f, "promoted from {from} {release}"),
            Self::Config { changed } => {
                let names: Vec<_> = changed.iter().map(EnvName::as_str).collect();
                write!(f, "config {}", names.join(", "))
            }
            Self::Rollback { to } => write!(f, "rollback to {to}"),
            Self::Restart { of } => write!(f, "restart of {of}"),
        }
    }
}
