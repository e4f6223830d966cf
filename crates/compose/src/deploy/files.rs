//! `configs` and `secrets` of a service: files that are there when it starts.

use coracle_model::PrivateText;
use coracle_model::container::{BindMount, BindSource, ContainerSettings, FileContent, FileMount};

use super::Maker;
use crate::project::FileObject;
use crate::service::{self, Service};

/// Everybody may read them, as in Compose.
const MODE: u32 = 0o444;

impl Maker<'_> {
    /// Writes a service's configs and secrets into its settings.
    pub(super) fn files(&mut self, name: &str, service: &Service, container: &mut ContainerSettings) {
        for mount in &service.configs {
            let target = mount.target.clone().unwrap_or_else(|| format!("/{}", mount.source));
            self.file(name, "configs", mount, target, container);
        }
        for mount in &service.secrets {
            let target = match &mount.target {
                Some(target) if target.starts_with('/') => target.clone(),
                Some(target) => format!("/run/secrets/{target}"),
                None => format!("/run/secrets/{}", mount.source),
            };
            self.file(name, "secrets", mount, target, container);
        }
    }

    fn file(
        &mut self,
        name: &str,
        kind: &'static str,
        mount: &service::FileMount,
        path: String,
        container: &mut ContainerSettings,
    ) {
        let at = ["services", name, kind];
        let all = if kind == "configs" { &self.project.configs } else { &self.project.secrets };
        let Some(object) = all.get(&mount.source).cloned() else { return };
        let number = |text: &Option<String>| text.as_deref().map(str::parse::<u32>).transpose();
        let (Ok(uid), Ok(gid)) = (number(&mount.uid), number(&mount.gid)) else {
            return self.wrong(&at, format!("uid and gid of {} must be numbers", mount.source));
        };
        let mode = mount.mode.as_deref().map(|mode| u32::from_str_radix(mode.trim_start_matches("0o"), 8)).transpose();
        let Some(mode) = self.read(&at, mode) else { return };
        let is_plain = uid.is_none() && gid.is_none() && mode.is_none();
        // A file of the tree is mounted as it is, whatever it holds; what is said of its owner is for the content alone.
        if let (Some(file), true) = (&object.file, is_plain) {
            let Some(inside) = self.inside(file).filter(|inside| self.tree.join(inside).exists()) else {
                return self.wrong(&[kind, &mount.source, "file"], "is not in the folder that is sent to the server");
            };
            container.binds.push(BindMount { source: BindSource::Tree(inside), path, read_only: true, propagation: None });
            return;
        }
        if let Some(content) = self.content(kind, &mount.source, &object) {
            let (uid, gid) = (uid.unwrap_or(0), gid.unwrap_or(0));
            container.files.push(FileMount { path, content, uid, gid, mode: mode.unwrap_or(MODE) });
        }
    }

    fn content(&mut self, kind: &'static str, name: &str, object: &FileObject) -> Option<FileContent> {
        let at = [kind, name];
        if let Some(text) = &object.content {
            return Some(FileContent::Inline(PrivateText::new(text.as_str())));
        }
        if let Some(file) = &object.file {
            let Some(inside) = self.inside(file) else {
                self.wrong(&at, "is not in the folder that is sent to the server");
                return None;
            };
            let text = self.read(&at, self.text(&inside))?;
            return Some(FileContent::Inline(PrivateText::new(text)));
        }
        // What comes from a variable, and what exists outside of the file, is the app's configuration.
        let variable = variable_of(name, object);
        if object.environment.is_some()
            && let Some(value) = self.project.environment.get(&variable)
        {
            return Some(FileContent::Inline(PrivateText::new(value.as_str())));
        }
        let variable: coracle_model::EnvName = self.read(&at, variable.parse())?;
        self.secrets.push(variable.clone());
        Some(FileContent::Config(variable))
    }
}

/// The variable that a secret or a config takes its value from which is no file: the one it names, else one that is called as
/// it is, in capitals.
pub(super) fn variable_of(name: &str, object: &FileObject) -> String {
    match (&object.environment, object.external) {
        (Some(variable), _) => variable.replace(['-', '.'], "_"),
        (None, true) => object.name.replace(['-', '.'], "_").to_ascii_uppercase(),
        (None, false) => name.replace(['-', '.'], "_").to_ascii_uppercase(),
    }
}
