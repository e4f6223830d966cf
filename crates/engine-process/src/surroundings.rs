//! What an instance's program finds around it: its environment, its directories, its limits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_build::parcel::{self, ParcelLimits, Standing};
use coracle_engine::{EngineError, Handed, InstanceSpec, PortRequest};
use coracle_jail::{GroupLimits, Show, User};
use coracle_model::{ContainerSettings, Limits, ProcessSpec, VolumeMount};

use crate::files::{give_to, make_directory};
use crate::site::Site;
use crate::slug::{SlugName, SlugRecord};
use crate::task::{PortChoice, Task, TaskGroup};

/// What of the server's own environment every program gets: it says how text and time are shown, nothing about the server.
const PASSED_ON: [&str; 4] = ["LANG", "LC_ALL", "LC_CTYPE", "TZ"];

/// A variable that tells whose process it is, where nothing else does: the value is the instance's HOME.
pub(crate) const MARKER: &str = "CORACLE_INSTANCE";

/// The task of an instance. Makes its volumes if they are not there yet.
pub(crate) fn task_of(site: &Site, spec: &InstanceSpec, slug: &SlugName, record: &SlugRecord) -> Result<Task, EngineError> {
    let command = spec
        .command
        .clone()
        .ok_or_else(|| EngineError::CannotStart { id: spec.id.clone(), cause: "the process has no command".to_owned() })?;
    refuse(spec)?;
    let user = site.user_of(&spec.id.app)?;
    let instance = site.home.instance(&spec.id);
    let mut shows = vec![Show::readable(slug.place(&site.home)), Show::writable(instance.join("home"))];
    shows.extend(record.dependencies.iter().map(|name| Show::readable(site.home.dependencies(&slug.app).join(name))));
    let mut env: BTreeMap<String, String> = passed_on();
    env.insert("HOME".to_owned(), text(&instance.join("home")));
    env.extend(record.env.iter().cloned());
    for volume in &spec.volumes {
        let (show, variable) = place_volume(site, spec, volume, user)?;
        env.insert(variable, text(&show.target));
        shows.push(show);
    }
    if !site.means.has_pid_namespaces() && spec.env.iter().any(|(name, _)| name.as_str() == "HOME") {
        // Then HOME does not tell whose process it is.
        env.insert(MARKER.to_owned(), text(&instance.join("home")));
    }
    env.extend(spec.env.iter().map(|(name, value)| (name.to_string(), value.expose().to_owned())));
    let own = &spec.surroundings.container.env;
    env.extend(own.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
    let mut cwd = slug.tree(&site.home);
    if let Some(handed) = &spec.surroundings.handed {
        let work = handed.scratch.join(Handed::WORK);
        if site.means.has_mount_namespaces() {
            // Where it was: what was built may name its own place.
            shows.push(Show { source: work, target: cwd.clone(), writable: true });
        } else {
            cwd = work;
        }
    }
    let wanted = env.get("PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_else(|| site.search_path());
    env.insert("PATH".to_owned(), join(record.path.iter().cloned().chain(wanted)));
    let confines = site.means.confine(user, &site.home, &site.program, shows);
    let group = site.means.group(site.owner.as_str(), &spec.id.to_string(), group_limits(&spec.limits), true);
    Ok(Task {
        command,
        env: env.into_iter().collect(),
        cwd,
        port: match spec.port {
            PortRequest::None | PortRequest::Neighbours(_) => PortChoice::None,
            PortRequest::Listen(_) => PortChoice::Free,
        },
        group: group.map(|group| TaskGroup { delegated: spec.limits.delegate_cgroup, ..group }),
        namespaces: confines.namespaces,
        join: None,
        file_system: confines.file_system,
        confinement: confines.confinement,
    })
}

/// Copies what an artifact was built into to where an instance may write, and lays over it what it is brought. Blocking.
pub(crate) fn hand_over(tree: &Path, handed: &Handed) -> Result<(), EngineError> {
    let work = handed.scratch.join(Handed::WORK);
    let failed = |error: std::io::Error| EngineError::io(format!("copy {}", tree.display()), &error);
    coracle_build::copy_for_all(tree, &work).map_err(failed)?;
    for archive in &handed.brought {
        parcel::lay(archive, &work, Standing::GivesWay, ParcelLimits::default())
            .map_err(|error| EngineError::Failed { action: "lay out files".to_owned(), cause: error.to_string() })?;
    }
    Ok(())
}

/// What is asked for of a container and means the same without one, or nothing.
const HONOURED: [&str; 8] = ["confinement", "env", "config", "health", "init", "labels", "restart", "stop_grace_period"];

/// What of a part needs a container.
pub(crate) fn cannot_honour(part: &ProcessSpec) -> Vec<&'static str> {
    let of_others = part.volumes.iter().any(|volume| volume.external.is_some()).then_some("external volumes");
    needs_container(&part.container).into_iter().chain(of_others).collect()
}

/// Which settings need a container.
fn needs_container(settings: &ContainerSettings) -> Vec<&'static str> {
    settings.asked_for().into_iter().filter(|name| !HONOURED.contains(name)).collect()
}

fn refuse(spec: &InstanceSpec) -> Result<(), EngineError> {
    let cannot = |cause: String| Err(EngineError::CannotStart { id: spec.id.clone(), cause });
    let names = needs_container(&spec.surroundings.container);
    if !names.is_empty() {
        return cannot(format!("the process engine cannot honour {}; use engine = \"docker\"", names.join(", ")));
    }
    match spec.volumes.iter().find_map(|volume| volume.external.as_ref()) {
        Some(name) => cannot(format!("the process engine knows no volume {name} of others; use engine = \"docker\"")),
        None => Ok(()),
    }
}

/// The variables that say how text and time are shown.
pub(crate) fn passed_on() -> BTreeMap<String, String> {
    PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// A search path as text; what cannot stand in one is left out.
pub(crate) fn join(path: impl Iterator<Item = PathBuf>) -> String {
    let clean = path.filter(|place| !text(place).contains(':'));
    clean.map(|place| text(&place)).collect::<Vec<_>>().join(":")
}

/// A path as text. The paths here were made from text.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Limits in the kernel's terms.
pub(crate) fn group_limits(limits: &Limits) -> GroupLimits {
    GroupLimits {
        memory: limits.memory.map(|size| size.get()),
        cpu_milli: limits.cpus.map(|cpus| cpus.as_milli()),
        pids: Some(limits.pids),
    }
}

/// Makes the volume's directory; where it is seen, and the variable that tells where.
fn place_volume(
    site: &Site,
    spec: &InstanceSpec,
    volume: &VolumeMount,
    user: Option<User>,
) -> Result<(Show, String), EngineError> {
    let source = site.home.volume(&spec.id.app, &volume.name);
    if !source.is_dir() {
        let made = make_directory(&source, 0o700).and_then(|()| give_to(&source, user));
        made.map_err(|error| EngineError::io(format!("make volume {}", volume.name), &error))?;
    }
    let variable = format!("CORACLE_VOLUME_{}", volume.name.as_str().to_uppercase().replace(['-', '.'], "_"));
    // Without a view of its own, the program has to go where the volume is.
    let target = if site.means.has_mount_namespaces() { PathBuf::from(&volume.path) } else { source.clone() };
    Ok((Show { source, target, writable: !volume.read_only }, variable))
}
