//! `volumes`: named volumes, directories beside the file, and what is mounted from elsewhere.
//!
//! A bind mount of something that the tree holds is the release's: it is kept with it, and what a container writes there
//! goes with it. One of a path that the tree does not hold is a directory that outlives releases, kept by the server; and so is
//! every directory that a service writes to which keeps data: what the tree holds of it is what it begins with.

use coracle_model::container::{BindMount, BindSource, ContainerSettings, Tmpfs};
use coracle_model::{ProcessSource, ProcessSpec, VolumeMount, VolumeName};

use super::Maker;
use crate::project::Volume;
use crate::service::{Mount, Service};

/// How mounts below one show on the other side, as `mount` has it.
const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

impl Maker<'_> {
    /// The volumes of a service; everything else that it mounts is written into its settings.
    pub(super) fn mounts(&mut self, name: &str, service: &Service, container: &mut ContainerSettings) -> Vec<VolumeMount> {
        let mut volumes = Vec::new();
        for (index, mount) in service.volumes.iter().enumerate() {
            let index = index.to_string();
            let path = ["services", name, "volumes", index.as_str()];
            if !mount.target.starts_with('/') {
                self.wrong(&path, format!("{:?} is not an absolute path", mount.target));
                continue;
            }
            match mount.kind.as_str() {
                "volume" => match mount.source.as_deref() {
                    Some(source) => match self.directory_of(source) {
                        Some(directory) => container.binds.extend(self.kept(&path, directory, mount)),
                        None => volumes.extend(self.volume(&path, source, mount)),
                    },
                    None => container.anonymous_volumes.push(mount.target.clone()),
                },
                "bind" => container.binds.extend(self.bind(&path, mount)),
                "tmpfs" => container.tmpfs.push(in_memory(mount)),
                other => self.cannot(&path, format!("mounts of type {other} are not honoured")),
            }
        }
        volumes
    }

    /// The directories that a service writes to which keeps data outlive releases, even if the tree has something of that name.
    pub(super) fn keep_directories(&mut self, name: &str, keeps: bool, part: &mut ProcessSpec) {
        let is_image = matches!(part.source, Some(ProcessSource::Image { .. }));
        for bind in part.container.binds.iter_mut().filter(|bind| !bind.read_only) {
            let BindSource::Tree(inside) = &bind.source else { continue };
            if !self.tree.join(inside).is_dir() {
                continue;
            }
            if keeps {
                bind.source = BindSource::Kept(inside.clone());
            } else if is_image {
                self.notes.push(format!(
                    "what {name} writes to {inside} goes with the release, since the folder is a part of it; mount it `:ro`, or say \
                     `x-coracle: {{stateful: true}}` if it is to be kept"
                ));
            }
        }
    }

    fn volume(&mut self, path: &[&str], source: &str, mount: &Mount) -> Option<VolumeMount> {
        let external = self.project.volumes.get(source).filter(|volume| volume.external).map(|volume| volume.name.clone());
        let plain = plain_name(source);
        if let Some(other) = self.project.volumes.keys().find(|other| *other != source && plain_name(other) == plain) {
            self.wrong(
                path,
                format!("{source} and {other} would be one volume: names differ in more than case and marks at their ends"),
            );
            return None;
        }
        let name: VolumeName = self.read(path, plain.parse())?;
        Some(VolumeMount { name, path: mount.target.clone(), read_only: mount.read_only, external })
    }

    /// The directory that a volume of the `local` driver is, if its options say so.
    fn directory_of(&self, volume: &str) -> Option<String> {
        self.project.volumes.get(volume).and_then(directory).map(str::to_owned)
    }

    /// A volume that is a directory outlives releases, whatever the tree has of that name.
    fn kept(&mut self, path: &[&str], directory: String, mount: &Mount) -> Option<BindMount> {
        let mut bind = self.bind(path, &Mount { source: Some(directory), bind: None, ..mount.clone() })?;
        if let BindSource::Tree(inside) = bind.source {
            bind.source = BindSource::Kept(inside);
        }
        Some(bind)
    }

    fn bind(&mut self, path: &[&str], mount: &Mount) -> Option<BindMount> {
        let options = mount.bind.clone().unwrap_or_default();
        if let Some(unknown) = options.propagation.as_deref().filter(|word| !PROPAGATIONS.contains(word)) {
            self.wrong(path, format!("{unknown:?} is no propagation: {}", PROPAGATIONS.join(", ")));
        }
        let source = mount.source.as_deref().unwrap_or_default();
        let sent_with = self.tree.parent().unwrap_or(&self.tree);
        let is_closed = |path: &std::path::Path| self.closed.as_ref().is_some_and(|closed| path.starts_with(closed));
        let real = std::path::Path::new(source).canonicalize().unwrap_or_else(|_| source.into());
        let source = match self.inside(source) {
            Some(inside) if self.tree.join(&inside).exists() => BindSource::Tree(inside),
            Some(inside) if mount.read_only => {
                self.wrong(path, format!("there is no {inside} in the folder that is sent to the server"));
                return None;
            }
            Some(inside) if options.create_host_path == Some(false) => {
                self.wrong(path, format!("there is no {inside}, and `create_host_path: false` says that none is made"));
                return None;
            }
            Some(inside) => BindSource::Kept(inside),
            None if std::path::Path::new(source).starts_with(sent_with) => {
                self.wrong(path, "lies outside of the folder that is sent to the server");
                return None;
            }
            None if is_closed(std::path::Path::new(source)) || is_closed(&real) => {
                self.wrong(path, "the server's own state cannot be mounted");
                return None;
            }
            None => BindSource::Host(source.to_owned()),
        };
        Some(BindMount { source, path: mount.target.clone(), read_only: mount.read_only, propagation: options.propagation })
    }
}

/// The directory that a volume is: `{type: none, o: bind, device: /srv/data}`.
pub(super) fn directory(volume: &Volume) -> Option<&str> {
    let options = &volume.driver_opts;
    let is_plain = options.get("type").is_none_or(|kind| matches!(kind.as_str(), "none" | ""));
    let is_bind = options.get("o").is_some_and(|how| how == "bind") && options.len() <= 3;
    options.get("device").filter(|_| is_plain && is_bind && !volume.external).map(String::as_str)
}

/// A volume's name as ours are: in lower case, without marks at its ends.
fn plain_name(source: &str) -> String {
    source.to_ascii_lowercase().trim_matches(|end: char| !end.is_ascii_alphanumeric()).to_owned()
}

fn in_memory(mount: &Mount) -> Tmpfs {
    let options = mount.tmpfs.clone().unwrap_or_default();
    let size = options.size.filter(|size| size != "0").map(|size| format!("size={size}"));
    let mode = options.mode.map(|mode| format!("mode={mode:o}"));
    Tmpfs { path: mount.target.clone(), options: size.into_iter().chain(mode).collect::<Vec<_>>().join(",") }
}
