//! From a part to an instance of it.

use coracle_build::dockerfile::DEFAULT_PORT;
use coracle_engine::{Bind, File, InstanceSpec, PortRequest, Surroundings};
use coracle_model::container::{BindSource, FileContent};
use coracle_model::{Artifact, EngineKind, InstanceId, ProcessName, Secret};

use crate::folder::{FOLDER_LABEL, Folder};
use crate::stack::Stack;

/// What to start as the `id`.
pub(crate) fn instance(stack: &Stack, folder: &Folder, id: InstanceId, artifact: &Artifact, kind: EngineKind) -> InstanceSpec {
    let part = stack.process(&id.process).cloned().unwrap_or_default();
    let mut env: Vec<_> = stack.spec.env.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect();
    let who = [("CORACLE_APP", id.app.to_string()), ("CORACLE_PROCESS", id.process.to_string())];
    env.extend(who.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, Secret::new(value)))));
    let mut container = part.container.clone();
    if kind == EngineKind::Docker {
        container.labels.insert(FOLDER_LABEL.to_owned(), folder.path().display().to_string());
    }
    let binds = container.binds.iter().map(|bind| Bind {
        source: match &bind.source {
            BindSource::Host(path) => path.into(),
            BindSource::Tree(path) | BindSource::Kept(path) => folder.path().join(path),
        },
        path: bind.path.clone(),
        read_only: bind.read_only,
        propagation: bind.propagation.clone(),
    });
    let files = container.files.iter().filter_map(|file| {
        // What stands in the configuration of a server is not known here; a stack for a folder has none.
        let FileContent::Inline(text) = &file.content else { return None };
        let content = Secret::new(text.expose());
        Some(File { path: file.path.clone(), content, uid: file.uid, gid: file.gid, mode: file.mode })
    });
    let port = part.port(&stack.spec.http).or(artifact.port).unwrap_or(DEFAULT_PORT);
    let command = part.command.clone().or_else(|| artifact.processes.get(&id.process).cloned().flatten());
    InstanceSpec {
        artifact: artifact.id.clone(),
        command: if kind == EngineKind::Docker { part.command.clone() } else { command },
        env,
        port: if part.serves(&id.process) { PortRequest::Listen(port) } else { PortRequest::None },
        limits: part.limits,
        volumes: part.volumes.clone(),
        surroundings: Surroundings { binds: binds.collect(), files: files.collect(), container, ..Surroundings::default() },
        id,
    }
}

/// Whether a new copy of a part can run beside the old one: it receives requests through a door of ours.
pub(crate) fn has_door(stack: &Stack, name: &ProcessName, kind: EngineKind) -> bool {
    kind == EngineKind::Process && stack.process(name).is_some_and(|part| part.serves(name))
}
