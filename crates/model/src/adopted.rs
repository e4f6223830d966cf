//! What an app has taken over from a compose project that ran before it: data that stays where it is, and ports at which
//! people know it. Releases keep it as a part of what they describe, and every later deployment has it from the one before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::container::{BindMount, BindSource};
use crate::names::{ProcessName, VolumeName};
use crate::spec::{AppSpec, ProcessSpec, VolumeMount};

/// What an app has taken over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Adopted {
    /// The compose project that it was.
    pub project: String,
    /// The app's volumes by the names that the engine knows them by.
    pub volumes: BTreeMap<VolumeName, String>,
    /// What lies at a path of a part, wherever the app's own description would put it.
    pub mounts: BTreeMap<ProcessName, BTreeMap<String, AdoptedMount>>,
    /// Ports of the machine at which the proxy takes requests for it, whatever host they name.
    pub ports: Vec<AdoptedPort>,
}

/// Data that is older than the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdoptedMount {
    /// A volume of the engine, by its name there.
    Volume(String),
    /// A directory of the machine, absolute.
    Directory(String),
}

/// A port of the machine at which an app is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AdoptedPort {
    /// The part that requests go to.
    pub part: ProcessName,
    /// The machine's address; `None`: all of them.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

impl AdoptedPort {
    /// The name of the proxy's listener for it.
    pub fn listener(&self) -> String {
        match self.address {
            None => format!("{}{}", Self::LISTENER, self.port),
            Some(address) => format!("{}{address}-{}", Self::LISTENER, self.port),
        }
    }

    /// What the names of such listeners begin with.
    pub const LISTENER: &'static str = "port-";
}

impl Adopted {
    /// Puts what was taken over into the description of an app.
    pub fn apply(&self, spec: &mut AppSpec) {
        for (name, part) in spec.processes.iter_mut() {
            self.apply_to(name, part, false);
        }
        for (name, part) in spec.services.iter_mut() {
            self.apply_to(name, part, true);
        }
        spec.adopted = Some(Box::new(self.clone()));
    }

    fn apply_to(&self, name: &ProcessName, part: &mut ProcessSpec, keeps_data: bool) {
        for volume in part.volumes.iter_mut().filter(|volume| volume.external.is_none()) {
            volume.external = self.volumes.get(&volume.name).cloned();
        }
        for (path, mount) in self.mounts.get(name).into_iter().flatten() {
            match mount {
                AdoptedMount::Volume(real) => adopt_volume(part, path, real, keeps_data),
                AdoptedMount::Directory(source) => {
                    let of_app = part.container.binds.iter_mut().find(|bind| bind.path == *path);
                    if let Some(bind) = of_app.filter(|bind| !bind.read_only) {
                        bind.source = BindSource::Host(source.clone());
                    }
                }
            }
        }
    }

    /// The volumes of the engine that hold what was taken over.
    pub fn volume_names(&self) -> Vec<&str> {
        let mounted = self.mounts.values().flat_map(BTreeMap::values).filter_map(|mount| match mount {
            AdoptedMount::Volume(name) => Some(name.as_str()),
            AdoptedMount::Directory(_) => None,
        });
        let mut names: Vec<&str> = self.volumes.values().map(String::as_str).chain(mounted).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A path at which the app's description mounts a volume, or at which what keeps data had one that no file names.
fn adopt_volume(part: &mut ProcessSpec, path: &str, real: &str, keeps_data: bool) {
    if let Some(volume) = part.volumes.iter_mut().find(|volume| volume.path == path) {
        volume.external.get_or_insert_with(|| real.to_owned());
        return;
    }
    let is_taken = |bind: &BindMount| bind.path == path;
    if !keeps_data || part.container.binds.iter().any(is_taken) {
        return;
    }
    let name: String = path.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let mut name = format!("adopted{name}");
    name.truncate(32);
    if let Ok(name) = name.trim_end_matches('-').parse() {
        part.container.anonymous_volumes.retain(|anonymous| anonymous != path);
        part.volumes.push(VolumeMount { name, path: path.to_owned(), read_only: false, external: Some(real.to_owned()) });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn adopted() -> Adopted {
        let data = [("/var/lib/data".to_owned(), AdoptedMount::Volume("a1b2".into()))];
        let files = [("/files".to_owned(), AdoptedMount::Directory("/srv/shop/files".into()))];
        Adopted {
            project: "shop".into(),
            volumes: [("data".parse().unwrap(), "shop_data".to_owned())].into(),
            mounts: [("db".parse().unwrap(), data.into()), ("web".parse().unwrap(), files.into())].into(),
            ports: vec![AdoptedPort { part: "web".parse().unwrap(), address: None, port: 8080 }],
        }
    }

    #[test]
    fn volumes_are_those_that_were_there() {
        let mut spec = AppSpec::named("shop".parse().unwrap());
        let mut web = ProcessSpec { volumes: vec!["data:/data".parse().unwrap()], ..ProcessSpec::default() };
        let kept = |path: &str, read_only| BindMount {
            source: BindSource::Kept("files".into()),
            path: path.into(),
            read_only,
            propagation: None,
        };
        web.container.binds = vec![kept("/files", false), kept("/others", false)];
        spec.processes.insert("web".parse().unwrap(), web);
        spec.services.insert("db".parse().unwrap(), ProcessSpec::default());
        adopted().apply(&mut spec);
        let web = &spec.processes[&"web".parse().unwrap()];
        assert_eq!(web.volumes[0].external.as_deref(), Some("shop_data"));
        let sources: Vec<_> = web.container.binds.iter().map(|bind| bind.source.clone()).collect();
        assert_eq!(sources, [BindSource::Host("/srv/shop/files".into()), BindSource::Kept("files".into())]);
        let db = &spec.services[&"db".parse().unwrap()];
        assert_eq!((db.volumes[0].path.as_str(), db.volumes[0].external.as_deref()), ("/var/lib/data", Some("a1b2")));
        assert_eq!(adopted().volume_names(), ["a1b2", "shop_data"]);
        // What it was applied to once is as it is after a second time.
        let once = spec.clone();
        adopted().apply(&mut spec);
        assert_eq!(spec, once);
    }

    #[test]
    fn it_is_kept_as_it_was() {
        let text = serde_json::to_string(&adopted()).unwrap();
        assert_eq!(serde_json::from_str::<Adopted>(&text).unwrap(), adopted());
        let ports = adopted().ports;
        assert_eq!(ports[0].listener(), "port-8080");
    }
}
