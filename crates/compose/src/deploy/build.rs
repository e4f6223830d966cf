//! `build` and `image`.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_model::stack::{BuildExtras, ContextSource, PartBuild, PullPolicy};
use coracle_model::{PrivateText, ProcessSource};

use super::Maker;
use super::files::variable_of;
use crate::service::{Build, Service};

impl Maker<'_> {
    /// What a service is made from.
    pub(super) fn source(&mut self, name: &str, service: &Service) -> Option<ProcessSource> {
        let path = ["services", name];
        match (&service.build, &service.image) {
            (Some(build), _) => self.build(name, service, build).map(|build| ProcessSource::Build(Box::new(build))),
            (None, Some(reference)) => {
                let pull = match service.pull_policy.as_deref() {
                    None | Some("missing" | "if_not_present") => PullPolicy::Missing,
                    Some("always" | "daily" | "weekly") => PullPolicy::Always,
                    Some(text) if text.starts_with("every_") => PullPolicy::Always,
                    Some("never") => PullPolicy::Never,
                    Some(other) => {
                        self.cannot(&["services", name, "pull_policy"], format!("{other:?} is not honoured"));
                        PullPolicy::Missing
                    }
                };
                Some(ProcessSource::Image { reference: reference.clone(), pull })
            }
            (None, None) => {
                self.wrong(&path, "has neither image nor build");
                None
            }
        }
    }

    fn build(&mut self, name: &str, service: &Service, build: &Build) -> Option<PartBuild> {
        let written = build.context.clone().unwrap_or_else(|| ".".to_owned());
        let Some(context) = self.inside(&written) else {
            let message = match written.contains("://") || written.starts_with("git@") {
                true => "is a repository; Coracle builds from the tree it is sent".to_owned(),
                false => "lies outside of the folder that is sent to the server".to_owned(),
            };
            self.wrong(&["services", name, "build", "context"], message);
            return None;
        };
        let platform = service.platform.clone().or_else(|| build.platforms.first().cloned());
        let args = build.args.iter().filter_map(|(arg, value)| {
            let value = value.clone().or_else(|| self.project.environment.get(arg).cloned())?;
            Some((arg.clone(), value))
        });
        let args = args.collect();
        let (dockerfile, inline) = self.dockerfile(name, build, &context)?;
        let extras = BuildExtras {
            inline,
            contexts: self.contexts(name, build),
            cache_from: self.cache_from(name, build),
            secrets: self.build_secrets(name, build),
            labels: build.labels.clone(),
            extra_hosts: build.extra_hosts.iter().map(|host| host.replacen('=', ":", 1)).collect(),
            network: build.network.clone(),
            shm_size: build.shm_size.as_deref().and_then(|size| size.parse().ok()),
            platform,
            no_cache: build.no_cache,
            pull: build.pull,
        };
        Some(PartBuild { context, dockerfile, target: build.target.clone(), args, extras })
    }

    /// The images whose layers may be taken; of other caches it is told that they are not asked.
    fn cache_from(&mut self, name: &str, build: &Build) -> Vec<String> {
        let is_image = |source: &&String| !source.contains("type=");
        for (index, source) in build.cache_from.iter().enumerate().filter(|(_, source)| !is_image(source)) {
            let index = index.to_string();
            let told = self.told(
                &["services", name, "build", "cache_from", &index],
                format!("{source} has no effect here: only images are caches"),
            );
            self.notes.push(told.to_string());
        }
        build.cache_from.iter().filter(is_image).cloned().collect()
    }

    /// The Dockerfile within its context, or the text of one that stands elsewhere.
    fn dockerfile(&mut self, name: &str, build: &Build, context: &str) -> Option<(Option<String>, Option<String>)> {
        if let Some(inline) = &build.dockerfile_inline {
            return Some((None, Some(inline.clone())));
        }
        let Some(written) = &build.dockerfile else { return Some((None, None)) };
        let root = self.tree.join(context);
        let Some(path) = self.inside(&root.join(written).to_string_lossy()) else {
            self.wrong(&["services", name, "build", "dockerfile"], "lies outside of the folder that is sent to the server");
            return None;
        };
        if let Ok(inside) = self.tree.join(&path).strip_prefix(&root) {
            return Some((Some(inside.to_string_lossy().into_owned()), None));
        }
        let text = self.text(&path);
        let text = self.read(&["services", name, "build", "dockerfile"], text)?;
        Some((None, Some(text)))
    }

    fn contexts(&mut self, name: &str, build: &Build) -> BTreeMap<String, ContextSource> {
        let mut contexts = BTreeMap::new();
        for (context, source) in &build.additional_contexts {
            let path = ["services", name, "build", "additional_contexts", context];
            let source = match (source.strip_prefix("docker-image://"), source.strip_prefix("service:")) {
                (Some(image), _) => Some(ContextSource::Image(image.to_owned())),
                (None, Some(service)) => self.names.get(service).cloned().map(ContextSource::Process),
                (None, None) => self.inside(source).map(ContextSource::Folder),
            };
            match source {
                Some(source) => {
                    contexts.insert(context.clone(), source);
                }
                None => self.wrong(&path, "is neither a folder of the tree, nor an image, nor a service"),
            }
        }
        contexts
    }

    /// The values that steps of the build mount, by the id that the Dockerfile knows them by (Compose Build Specification,
    /// "secrets"): the mount's `target`, else the secret's name.
    fn build_secrets(&mut self, name: &str, build: &Build) -> BTreeMap<String, PrivateText> {
        let mut secrets = BTreeMap::new();
        for (index, mount) in build.secrets.iter().enumerate() {
            let index = index.to_string();
            let path = ["services", name, "build", "secrets", index.as_str()];
            let Some(secret) = self.project.secrets.get(&mount.source).cloned() else { continue };
            let value = match &secret.file {
                Some(file) => {
                    let Some(inside) = self.inside(file) else {
                        self.wrong(&path, format!("the file of {} lies outside of the folder that is sent", mount.source));
                        continue;
                    };
                    let read = self.text(&inside);
                    self.read(&path, read)
                }
                None => {
                    let variable = variable_of(&mount.source, &secret);
                    let value = self.project.environment.get(&variable).cloned();
                    if value.is_none() {
                        let told = format!("the secret {} has no value; `coracle secrets set {variable}`", mount.source);
                        self.wrong(&path, told);
                    }
                    value
                }
            };
            if let Some(value) = value {
                let id = mount.target.clone().unwrap_or_else(|| mount.source.clone());
                secrets.insert(id, PrivateText::new(value));
            }
        }
        secrets
    }

    /// The image that the wanted stage of a Dockerfile begins from, followed through its stages.
    pub(super) fn base_of(&self, build: &PartBuild) -> Option<String> {
        let text = match &build.extras.inline {
            Some(text) => text.clone(),
            None => {
                let path = Path::new(&build.context).join(build.dockerfile.as_deref().unwrap_or("Dockerfile"));
                self.text(path.to_str()?).ok()?
            }
        };
        base(&text, build.target.as_deref())
    }
}

fn base(dockerfile: &str, target: Option<&str>) -> Option<String> {
    let stages: Vec<(String, Option<String>)> = dockerfile
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().filter(|word| !word.starts_with("--"));
            words.next().filter(|word| word.eq_ignore_ascii_case("FROM"))?;
            let image = words.next()?.to_owned();
            let named = words.next().is_some_and(|word| word.eq_ignore_ascii_case("AS"));
            Some((image, words.next().filter(|_| named).map(str::to_owned)))
        })
        .collect();
    let named =
        |name: &str| stages.iter().position(|(_, stage)| stage.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name)));
    let mut at = match target {
        Some(target) => named(target)?,
        None => stages.len().checked_sub(1)?,
    };
    // Each stage begins from one before it, so this ends.
    while let Some(earlier) = named(&stages[at].0).filter(|earlier| *earlier < at) {
        at = earlier;
    }
    Some(stages[at].0.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_followed_through_stages() {
        let text = "ARG X\nFROM --platform=linux/amd64 postgres:9 AS data\nRUN x\nfrom data as more\nFROM debian\nCOPY --from=more / /\n";
        assert_eq!(base(text, None).as_deref(), Some("debian"));
        assert_eq!(base(text, Some("more")).as_deref(), Some("postgres:9"));
        assert_eq!(base(text, Some("none")), None);
        assert_eq!(base("", None), None);
    }
}
