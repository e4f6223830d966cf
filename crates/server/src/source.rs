//! Source trees on their way to a deployment. What they describe depends on the app's configuration, so they are read when it
//! is the deployment's turn, and read again when the configuration changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use coracle_api::{DeployOptions, Problem, ProblemKind};
use coracle_model::{AppName, AppSpec, EngineKind, EnvName, ImageReference, PersonName, Secret};
use coracle_orchestrator::{DeployRequest, KeptSource, StatefulChanges};
use coracle_pipeline::Trigger;
use coracle_store::{Store, StoreError};

use crate::compose::Resolved;
use crate::intake::{self, IntakeLimits, Tree};
use crate::previews;
use crate::problems;
use crate::reach;
use crate::succession::Successions;

/// A tree that was sent, and how it is to be deployed.
#[derive(Debug)]
pub(crate) struct Sent {
    pub tree: Tree,
    pub options: DeployOptions,
    /// Which services that keep data may be changed.
    pub stateful: StatefulChanges,
    /// Whether the administrator asks for it: only then may it reach beyond the app.
    pub trusted: bool,
    /// What brought it here.
    pub trigger: Trigger,
    /// Who asks for it, where that is a person.
    pub by: Option<PersonName>,
}

/// Where source trees are unpacked and read.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub store: Store,
    /// What apps run on that do not say it.
    pub default_engine: EngineKind,
    /// Where trees lie until their deployments have ended.
    pub incoming: PathBuf,
    pub limits: IntakeLimits,
    /// What apps have taken over, and take over.
    pub successions: Successions,
}

impl Sources {
    /// What is to be deployed of a tree, with this configuration, or else with that of the app as it is now.
    pub(crate) async fn request(
        &self,
        app: &AppName,
        sent: &Sent,
        config: Option<Vec<(EnvName, Secret)>>,
    ) -> Result<DeployRequest, Problem> {
        let config = match config {
            Some(config) => config,
            None => match self.store.config(app).await {
                Ok(config) => config.into_iter().map(|entry| (entry.name, entry.value)).collect(),
                Err(StoreError::NoSuchApp(_)) => Vec::new(),
                Err(error) => return Err(problems::store(&error)),
            },
        };
        let given: Vec<EnvName> = config.iter().map(|(name, _)| name.clone()).collect();
        let variables: BTreeMap<String, String> =
            config.iter().map(|(name, value)| (name.to_string(), value.expose().to_owned())).collect();
        let Sent { tree, options, stateful, trusted, trigger, by } = sent;
        let told = |error: StoreError| problems::store(&error);
        let preview = self.store.preview(app).await.map_err(told)?;
        // The files of a preview are those of the app that it is a preview of, and name that.
        let named = preview.as_ref().map_or(app, |preview| &preview.parent);
        let subject = intake::Subject { app, named };
        let resolved = intake::spec(tree.path(), subject, options, variables, self.limits.manifest_bytes).await?;
        let Resolved { mut spec, mut notes, by_compose, pipeline, policy, manifest } = resolved;
        let image = image(options)?;
        if image.is_some() {
            spec.engine.get_or_insert(EngineKind::Docker);
            spec.http.port = options.port.or(spec.http.port);
        }
        if let Some(preview) = &preview {
            let variables = previews::variables(&self.store, &preview.parent).await.map_err(told)?;
            notes.extend(previews::confine(&mut spec, preview, variables));
            let of_steps = pipeline.all().flat_map(|step| &step.secrets);
            let required: BTreeSet<&EnvName> = spec.secrets.iter().chain(of_steps).collect();
            let missing = required.into_iter().filter(|name| !given.contains(name)).collect();
            previews::require_none(&self.store, preview, missing).await?;
        }
        check_labels(&spec)?;
        // Nobody's trust makes a preview reach beyond itself.
        let trusted = *trusted && preview.is_none();
        let import = self.successions.join(&mut spec, options).await?;
        if !trusted {
            self.refuse_more(app, &spec).await?;
        }
        self.settle_registry(app, &mut spec, trusted).await?;
        notes.extend(import.iter().flat_map(|import| import.notes.clone()));
        if by_compose && tree.archive().is_none() {
            notes.push(format!(
                "what was sent is larger than {}, so it is not kept: `config set` will change what services see of the \
                 configuration, and variables that the compose files name with the next deployment only",
                coracle_model::ByteSize::bytes(self.limits.kept_bytes)
            ));
        }
        let kept = |archive: PathBuf| Ok::<_, Problem>(KeptSource { archive, reading: reading(options)? });
        Ok(DeployRequest {
            spec,
            source: tree.path().to_owned(),
            commit: options.commit.clone(),
            stateful: stateful.clone(),
            notes,
            sent: tree.archive().filter(|_| by_compose).map(kept).transpose()?,
            pipeline,
            policy,
            trigger: trigger.clone(),
            by: by.as_ref().map(ToString::to_string),
            fresh: options.no_cache,
            force: options.force,
            incumbent: import.map(|import| import.incumbent),
            image,
            manifest,
        })
    }

    /// A tree in which there is nothing.
    pub(crate) fn empty(&self) -> Result<Tree, Problem> {
        intake::empty(&self.incoming)
    }

    /// With whose login images are pushed is decided once, when the release is brought: what the app has of its own may be gone when
    /// they are.
    pub(crate) async fn settle_registry(&self, app: &AppName, spec: &mut AppSpec, trusted: bool) -> Result<(), Problem> {
        let own = !trusted && !reach::lent(&self.store, app, spec).await.map_err(|error| problems::store(&error))?;
        if let Some(registry) = &mut spec.registry {
            registry.own_login = own;
        }
        Ok(())
    }

    /// Refuses a description that reaches further than that of the active release.
    pub(crate) async fn refuse_more(&self, app: &AppName, spec: &AppSpec) -> Result<(), Problem> {
        reach::refuse_more(&self.store, app, spec, self.default_engine).await
    }

    /// The tree that a release was made of, unpacked anew, to be read as it was then.
    pub(crate) async fn reopen(&self, kept: KeptSource, trusted: bool) -> Result<Sent, Problem> {
        let unreadable = |cause: String| {
            Problem::new(ProblemKind::Internal, format!("what the active release was made of cannot be read again: {cause}"))
                .hint("keep the change for the next deployment with --no-deploy, then `coracle deploy`")
        };
        let options = serde_json::from_str(&kept.reading).map_err(|error| unreadable(error.to_string()))?;
        let tree = intake::reopen(&self.incoming, kept.archive, self.limits).await;
        let tree = tree.map_err(|problem| unreadable(problem.detail))?;
        Ok(Sent { tree, options, stateful: StatefulChanges::None, trusted, trigger: Trigger::Tree, by: None })
    }
}

/// A table with a middleware that the proxy cannot make would be refused at the switch, so it is found out here.
fn check_labels(spec: &AppSpec) -> Result<(), Problem> {
    let table = coracle_orchestrator::labelled_table(spec);
    if table.routes.is_empty() {
        return Ok(());
    }
    coracle_proxy::check(table).map_err(|error| {
        // Names in the table end with the app's; in the file they do not.
        let message = error.to_string().replace(&format!("#{}", spec.app), "");
        Problem::new(ProblemKind::Invalid, format!("labels: {message}")).hint("correct the labels in the compose file")
    })
}

/// The image that is deployed in place of the tree.
fn image(options: &DeployOptions) -> Result<Option<ImageReference>, Problem> {
    match &options.image {
        Some(text) => {
            let wrong = |error: coracle_model::ReferenceError| {
                Problem::new(ProblemKind::Invalid, error.to_string())
                    .hint("write it as in `coracle deploy --image registry.example.com/team/shop:v1`")
            };
            text.parse().map(Some).map_err(wrong)
        }
        None if options.port.is_some() => {
            let problem = Problem::new(ProblemKind::BadRequest, "a port is told with an image only");
            Err(problem.hint("write `port = …` under [http] in coracle.toml"))
        }
        None => Ok(None),
    }
}

/// How a tree was read, to be read in the same way again.
fn reading(options: &DeployOptions) -> Result<String, Problem> {
    let DeployOptions { environment, compose_files, profiles, env_files, ignore_unsupported, .. } = options.clone();
    let reading =
        DeployOptions { environment, compose_files, profiles, env_files, ignore_unsupported, ..DeployOptions::default() };
    serde_json::to_string(&reading).map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use coracle_model::{Exposure, ProcessName, ProcessSpec};

    use super::*;

    #[test]
    fn what_the_proxy_would_refuse_of_labels_is_refused_before_anything_is_built() {
        let labelled = |labels: &[(&str, &str)]| {
            let mut spec = AppSpec::named("shop".parse().unwrap());
            let mut web = ProcessSpec { exposure: Exposure::Labels { port: Some(80) }, ..ProcessSpec::default() };
            let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
            web.container.labels = labels.collect();
            spec.processes.insert(ProcessName::web(), web);
            spec
        };
        let rule = ("traefik.http.routers.r.rule", "Host(`shop.localhost`)");
        let through = ("traefik.http.routers.r.middlewares", "m");
        let pages = ("traefik.http.middlewares.m.errors.service", "web-shop");
        check_labels(&labelled(&[rule])).unwrap();
        let refused = check_labels(&labelled(&[rule, through, pages])).unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Invalid);
        assert!(refused.detail.contains("route \"r\"") && refused.detail.contains("status"), "{}", refused.detail);
        let status = ("traefik.http.middlewares.m.errors.status", "500");
        check_labels(&labelled(&[rule, through, pages, status])).unwrap();
    }
}
