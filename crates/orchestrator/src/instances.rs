//! From a release to the instances that run it.

use std::collections::BTreeMap;

use coracle_build::dockerfile::DEFAULT_PORT;
use coracle_engine::{Bind, File, InstanceSpec, PortRequest, Surroundings};
use coracle_model::container::{FileContent, HealthCheck};
use coracle_model::{CommandLine, EngineKind, EnvName, Exposure, InstanceId, ProcessName, ProcessSpec, Release, Secret};

use crate::mounts::Mounts;

/// The name a release command runs under.
pub(crate) const RELEASE_COMMAND: &str = "release-command";
/// The name one-off processes run under.
pub(crate) const ONE_OFF: &str = "run";

/// Whether instances of this name run to an end that somebody waits for, or for as long as such a one does.
pub(crate) fn is_transient(process: &ProcessName) -> bool {
    let name = process.as_str();
    [RELEASE_COMMAND, ONE_OFF, coracle_pipeline_runner::BESIDE_STEP].contains(&name)
        || name.starts_with(coracle_pipeline_runner::STEP)
}

/// A process name of ours that is known to be one.
pub(crate) fn reserved(name: &'static str) -> ProcessName {
    name.parse().unwrap_or_else(|_| unreachable!("{name} is a process name"))
}

/// What instances of a release are made of.
pub(crate) struct Making<'a> {
    pub release: &'a Release,
    /// The configuration it runs with.
    pub config: &'a [(EnvName, Secret)],
    pub mounts: &'a Mounts,
}

impl Making<'_> {
    /// The environment of an instance: the manifest's plain values, the configuration on top, and who it is. A stateful
    /// service sees of both only what it names, so that it changes with nothing else.
    fn environment(&self, process: &ProcessName, spec: &ProcessSpec, is_service: bool) -> Vec<(EnvName, Secret)> {
        let identity = [
            ("CORACLE_APP", self.release.app.to_string()),
            ("CORACLE_RELEASE", self.release.number.to_string()),
            ("CORACLE_PROCESS", process.to_string()),
        ];
        let mut env: BTreeMap<EnvName, Secret> = BTreeMap::new();
        if !is_service {
            env.extend(self.release.spec.env.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str()))));
        }
        let seen = self.config.iter().filter(|(name, _)| !is_service || spec.container.config.contains(name));
        env.extend(seen.cloned());
        env.extend(identity.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, Secret::new(value)))));
        env.into_iter().collect()
    }

    /// What to start for the `index`-th instance of `process`.
    pub(crate) fn instance(&self, process: &ProcessName, spec: &ProcessSpec, index: u16) -> InstanceSpec {
        let release = self.release;
        let is_service = release.spec.services.contains_key(process);
        let artifact = release.artifact_of(process);
        let port = spec.port(&release.spec.http).or(artifact.port).unwrap_or(DEFAULT_PORT);
        let mut surroundings = self.surroundings(spec, is_service);
        if artifact.engine == EngineKind::Docker && !release.image_checks(process) {
            surroundings.container.health.get_or_insert_with(HealthCheck::none);
        }
        InstanceSpec {
            id: InstanceId { app: release.app.clone(), release: release.number, process: process.clone(), index },
            artifact: artifact.id.clone(),
            command: spec.command.clone(),
            env: self.environment(process, spec, is_service),
            port: match spec.exposure {
                Exposure::Inside { port } => PortRequest::Neighbours(port),
                _ if spec.serves(process) => PortRequest::Listen(port),
                _ => PortRequest::None,
            },
            limits: spec.limits,
            volumes: spec.volumes.clone(),
            surroundings,
        }
    }

    fn surroundings(&self, spec: &ProcessSpec, lives_with_app: bool) -> Surroundings {
        let binds = spec.container.binds.iter().map(|bind| Bind {
            source: self.mounts.place_to_mount(&self.release.app, self.release.number, &bind.source),
            path: bind.path.clone(),
            read_only: bind.read_only,
            propagation: bind.propagation.clone(),
        });
        let configured = |name: &EnvName| self.config.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let files = spec.container.files.iter().map(|file| File {
            path: file.path.clone(),
            content: match &file.content {
                FileContent::Inline(text) => Secret::new(text.expose()),
                // A name that is not set was refused before anything was built.
                FileContent::Config(name) => configured(name).unwrap_or_else(|| Secret::new("")),
            },
            uid: file.uid,
            gid: file.gid,
            mode: file.mode,
        });
        Surroundings {
            binds: binds.collect(),
            files: files.collect(),
            container: spec.container.clone(),
            lives_with_app,
            ..Surroundings::default()
        }
    }

    /// What to run once, with the release's code and configuration: the release command, or what a person asked for.
    /// Everything else is that of the process which receives requests, since that is what such commands act upon; but
    /// nobody sends any to it, and ports of the machine stay with the one that has them.
    pub(crate) fn one_off(&self, name: &'static str, command: CommandLine, index: u16) -> InstanceSpec {
        let (release, process) = (self.release, reserved(name));
        let mut processes = release.processes();
        processes.retain(|_, spec| !spec.task);
        let like = release.serving().into_iter().find(|name| processes.contains_key(name));
        let like = like.or_else(|| processes.keys().next().cloned());
        let artifact = like.as_ref().map_or(&release.artifact, |like| release.artifact_of(like)).id.clone();
        let mut spec = like.and_then(|like| processes.remove(&like)).unwrap_or_default();
        (spec.command, spec.replicas, spec.exposure) = (Some(command), 1, Exposure::Hidden);
        spec.container.ports.clear();
        spec.container.aliases.clear();
        spec.container.health = None;
        InstanceSpec { artifact, ..self.instance(&process, &spec, index) }
    }
}
