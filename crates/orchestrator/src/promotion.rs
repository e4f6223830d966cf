//! Promotions: what one app runs is taken over by another, as it is. Nothing is built, and nothing of the first app's
//! configuration comes along; how the second one is reached and scaled is its own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_engine::{BuildRequest, Engine, Sharing};
use coracle_model::stack::PullPolicy;
use coracle_model::{
    AppName, AppSpec, Artifact, EngineKind, EnvName, HttpSpec, Manifest, ProcessName, ProcessSource, Release, ReleaseNumber,
    Secret,
};
use coracle_pipeline::Pipeline;
use tokio_util::sync::CancellationToken;

use crate::candidate::Candidate;
use crate::core::Core;
use crate::error::OrchestratorError;
use crate::orchestrator::{Deployed, HostOrchestrator};
use crate::progress::Progress;
use crate::rollout::build_limits;
use crate::services::StatefulChanges;

/// What would become of another app's release in this one.
#[derive(Debug, Clone)]
pub struct Promotion {
    /// The app as it will be described.
    pub spec: AppSpec,
    /// How that came about, in a sentence.
    pub described_by: String,
    /// The release that is taken over.
    pub release: Release,
    /// The manifest that describes it, if it was kept.
    pub(crate) manifest: Option<String>,
    /// The steps that the new release is asked by.
    pub(crate) pipeline: Pipeline,
}

/// A promotion that is being carried out.
pub(crate) struct Promoted {
    pub promotion: Promotion,
    /// An empty directory: nothing of the source comes along.
    pub source: PathBuf,
    pub stateful: StatefulChanges,
    /// What the app is configured with.
    pub env: Vec<(EnvName, Secret)>,
}

impl HostOrchestrator {
    /// What a promotion of an app's release, its active one if none is named, would make of another app. Changes nothing.
    pub async fn promotion(
        &self,
        from: &AppName,
        release: Option<ReleaseNumber>,
        to: &AppName,
    ) -> Result<Promotion, OrchestratorError> {
        self.core().promotion(from, release, to).await
    }

    /// What a promotion would do and why, without doing it; one sentence each.
    pub async fn plan_promotion(
        &self,
        promotion: &Promotion,
        stateful: &StatefulChanges,
    ) -> Result<Vec<String>, OrchestratorError> {
        self.core().plan_promotion(promotion, stateful).await
    }

    /// Makes a release of another app's. `source` is an empty directory.
    pub async fn promote(
        &self,
        promotion: Promotion,
        source: PathBuf,
        stateful: StatefulChanges,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Deployed, OrchestratorError> {
        let env = self.core().config_of(&promotion.spec.app).await?;
        let promoted = Promoted { promotion, source, stateful, env };
        self.core_handle().deploy(Candidate::Promotion(Box::new(promoted)), progress, cancel).await
    }
}

impl Core {
    async fn promotion(
        &self,
        from: &AppName,
        release: Option<ReleaseNumber>,
        to: &AppName,
    ) -> Result<Promotion, OrchestratorError> {
        if from == to {
            let message = format!("{from} cannot be promoted to itself");
            return Err(OrchestratorError::refused(
                message,
                format!("coracle promote {from} ANOTHER, or coracle rollback -a {from}"),
            ));
        }
        let release = match release {
            Some(number) => self.store.release(from, number).await?,
            None => self.active_release(from).await?,
        };
        check(&release, to)?;
        self.require_allowed(from, release.number).await?;
        let manifest = self.store.manifest(from, release.number).await?;
        let active = match self.store.app(to).await {
            Ok(record) => match record.active {
                Some(number) => Some(self.store.release(to, number).await?),
                None => None,
            },
            Err(coracle_store::StoreError::NoSuchApp(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let overlay = manifest.as_deref().and_then(|text| by_overlay(text, &release, to));
        let is_described = overlay.is_some();
        let (spec, described_by, environment) = match overlay {
            Some(found) => found,
            None => {
                self.refuse_preview(from, to).await?;
                let told = format!("described as {from} is, with {to}'s own hosts and numbers of instances");
                (in_its_place(&release.spec, to, active.as_ref()), told, None)
            }
        };
        // It was read when the release was made; steps that gate a build have had their say then.
        let pipeline = manifest.as_deref().and_then(|text| Pipeline::parse(text).ok()).unwrap_or_default();
        let mut pipeline = pipeline.in_environment(environment.as_deref());
        pipeline.steps.clear();
        if !is_described && active.is_some() {
            // Nothing here speaks of this app, so its own rule stands.
            pipeline.approve = self.store.approval_rule(to).await?;
        }
        Ok(Promotion { spec, described_by, release, manifest, pipeline })
    }

    /// Refuses to describe an app as a preview is: what confines that would come along.
    async fn refuse_preview(&self, from: &AppName, to: &AppName) -> Result<(), OrchestratorError> {
        match self.store.preview(from).await? {
            None => Ok(()),
            Some(preview) => Err(OrchestratorError::refused(
                format!("{from} is a preview of {}, and nothing in its coracle.toml describes {to}", preview.parent),
                format!("write `app = \"{to}\"` into coracle.toml, or push the branch to the one that is deployed"),
            )),
        }
    }

    async fn plan_promotion(&self, promotion: &Promotion, stateful: &StatefulChanges) -> Result<Vec<String>, OrchestratorError> {
        let Promotion { spec, described_by, release, pipeline, .. } = promotion;
        let engine = self.engine(release.artifact.engine)?;
        self.check_promotion(promotion, &self.config_of(&spec.app).await?)?;
        let active = match self.store.app(&spec.app).await {
            Ok(record) => record.active,
            Err(coracle_store::StoreError::NoSuchApp(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let mut lines = vec![
            active.map_or_else(|| format!("{} is new", spec.app), |active| format!("{} replaces {active}", spec.app)),
            format!("runs what {} {} runs, built no second time: {}", release.app, release.number, told(&release.artifact)),
            described_by.clone(),
        ];
        for artifact in release.all_artifacts() {
            if !engine.builder.has(&artifact.id).await? {
                lines.push(match &artifact.registry {
                    Some(image) => format!("{} is not here any more and is fetched anew: {image}", artifact.id),
                    None => format!("REFUSED, since {} is not here any more", artifact.id),
                });
            }
        }
        let config = self.config_of(&spec.app).await?;
        let coming = crate::services::Coming { spec, config: &config, artifacts: Some(&release.artifacts), tree: None };
        let comparison = self.compare_services(&coming).await?;
        lines.extend(self.plan_parts(engine, spec, &comparison, stateful).await);
        let (strategy, why) = spec.strategy();
        if active.is_some() {
            lines.push(format!("strategy {strategy}: {why}"));
        }
        let stands = match active {
            Some(_) => self.store.approval_rule(&spec.app).await?,
            None => None,
        };
        let demanded = crate::approval::both(stands, pipeline.approve);
        lines.extend(crate::rollout::planned_gates(pipeline, spec, demanded, (active.is_some(), false)));
        lines.extend(crate::rollout::planned_push(spec));
        let hosts: Vec<String> = spec.http.hosts.iter().map(ToString::to_string).collect();
        lines.push(format!("hosts: {}", hosts.join(", ")));
        if let Some(conflict) = self.route_conflict(&self.release_to_be(spec)).await? {
            lines.push(format!("REFUSED, since {} belongs to the app {}", conflict.of, conflict.other));
        }
        Ok(lines)
    }

    /// What can be said against a promotion before anything runs.
    pub(crate) fn check_promotion(&self, promotion: &Promotion, config: &[(EnvName, Secret)]) -> Result<(), OrchestratorError> {
        let spec = &promotion.spec;
        let of_steps = promotion.pipeline.all().flat_map(|step| &step.secrets);
        let wanted: std::collections::BTreeSet<&EnvName> = spec.secrets.iter().chain(of_steps).collect();
        let missing: Vec<&str> =
            wanted.into_iter().filter(|name| !config.iter().any(|(known, _)| known == *name)).map(EnvName::as_str).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let hint =
            format!("coracle secrets set -a {} {}; none comes along from {}", spec.app, missing.join(" "), promotion.release.app);
        Err(OrchestratorError::refused(format!("required and not set: {}", missing.join(", ")), hint))
    }

    /// Sees to it that an app has an artifact: shared with whoever has it, or else fetched from where a registry has it.
    pub(crate) async fn provide(
        &self,
        engine: &Engine,
        artifact: &Artifact,
        with: &Sharing,
        spec: &AppSpec,
        (output, cancel): (&coracle_engine::OutputSink, &CancellationToken),
    ) -> Result<Artifact, coracle_engine::BuildError> {
        if engine.builder.has(&artifact.id).await? {
            return engine.builder.share(artifact, with).await;
        }
        let Some(image) = &artifact.registry else {
            return Err(coracle_engine::EngineError::NoSuchArtifact(artifact.id.clone()).into());
        };
        let source = ProcessSource::Image { reference: image.to_string(), pull: PullPolicy::Missing };
        let request = BuildRequest {
            app: with.app.clone(),
            release: with.release,
            part: with.part.clone(),
            source: PathBuf::new(),
            contexts: BTreeMap::new(),
            plan: crate::rollout::plan_of(&source),
            limits: build_limits(self, spec),
            logins: self.logins(&with.app).await?,
        };
        let fetched = engine.builder.build(&request, output, cancel).await?;
        Ok(Artifact { id: fetched.id, ..artifact.clone() })
    }

    /// What an app may show to registries.
    pub(crate) async fn logins(&self, app: &AppName) -> Result<coracle_model::Logins, coracle_engine::EngineError> {
        self.store.logins_of(app).await.map_err(|error| unread(&error))
    }

    /// The app's own logins, without the server's.
    pub(crate) async fn own_logins(&self, app: &AppName) -> Result<coracle_model::Logins, coracle_engine::EngineError> {
        self.store.own_logins_of(app).await.map_err(|error| unread(&error))
    }
}

fn unread(error: &coracle_store::StoreError) -> coracle_engine::EngineError {
    coracle_engine::EngineError::Failed { action: "read logins of registries".to_owned(), cause: error.to_string() }
}

/// What an artifact is called before people.
fn told(artifact: &Artifact) -> String {
    artifact.registry.as_ref().map_or_else(|| artifact.id.to_string(), |image| format!("{} ({})", artifact.id, image.described()))
}

/// What cannot be promoted as a whole is not promoted at all.
fn check(release: &Release, to: &AppName) -> Result<(), OrchestratorError> {
    let Release { app, spec, artifact, .. } = release;
    let deploy = format!("deploy its source there: coracle deploy -a {to}");
    if artifact.engine == EngineKind::Process {
        let message = format!("{app} runs on the process engine, whose builds are one app's alone and cannot be promoted");
        return Err(OrchestratorError::refused(message, deploy));
    }
    if spec.is_stack() || spec.adopted.is_some() {
        let message = format!(
            "{app} consists of parts of compose files, in which its own configuration is filled in; that cannot be promoted to {to}"
        );
        return Err(OrchestratorError::refused(message, deploy));
    }
    Ok(())
}

/// The description that the release's manifest has for an app, if one of its environments is that app, or it is without any.
/// And which environment that is.
fn by_overlay(text: &str, release: &Release, to: &AppName) -> Option<(AppSpec, String, Option<String>)> {
    let manifest = Manifest::parse(text).ok()?;
    let from = &release.app;
    // A manifest that names no app is called by its folder, which is known by what came of it.
    let folder = |environment: &str| from.as_str().strip_suffix(environment)?.strip_suffix('-')?.parse().ok();
    let bases: Vec<AppName> = match manifest.app() {
        Some(app) => vec![app.clone()],
        None => manifest.environments().into_iter().filter_map(folder).chain([from.clone()]).collect(),
    };
    let environments = manifest.environments().into_iter().map(Some).chain([None]);
    for environment in environments {
        for base in &bases {
            let Ok(spec) = manifest.resolve(Some(base.clone()), environment) else { continue };
            if spec.app != *to {
                continue;
            }
            let told = match environment {
                Some(environment) => format!("described by [environments.{environment}] of {from}'s coracle.toml"),
                None => format!("described by {from}'s coracle.toml, without an environment"),
            };
            return Some((with_what_was_built(spec, &release.spec), told, environment.map(str::to_owned)));
        }
    }
    None
}

/// What belongs to the image comes with it: how it was made, where it listens if nothing else is said, and the release command
/// that its Procfile has.
fn with_what_was_built(mut spec: AppSpec, of: &AppSpec) -> AppSpec {
    spec.build = of.build.clone();
    spec.engine = spec.engine.or(of.engine);
    spec.http.port = spec.http.port.or(of.http.port);
    spec.deploy.release_command = spec.deploy.release_command.or_else(|| of.deploy.release_command.clone());
    spec
}

/// The description of an app under another's name: how that is reached, and how much of it there is, is its own.
fn in_its_place(of: &AppSpec, to: &AppName, active: Option<&Release>) -> AppSpec {
    let own = active.map(|release| &release.spec);
    let http = own.map_or_else(|| HttpSpec::default_for(to), |own| own.http.clone());
    let mut spec = AppSpec { app: to.clone(), ..of.clone() };
    spec.http = HttpSpec { port: of.http.port, health: of.http.health.clone(), ..http };
    spec.registry = own.and_then(|own| own.registry.clone());
    for (name, process) in &mut spec.processes {
        if let Some(own) = own.and_then(|own| own.processes.get(name)) {
            (process.replicas, process.limits) = (own.replicas, own.limits);
        }
    }
    spec.env.extend(own.map(|own| own.env.clone()).unwrap_or_default());
    spec
}

/// What the parts of a promoted release run: of what keeps data, what it runs already.
pub(crate) async fn parts_of(
    core: &Core,
    promoted: &Promoted,
    comparison: &crate::services::Comparison,
) -> Result<BTreeMap<ProcessName, (Artifact, bool)>, OrchestratorError> {
    let mut parts = BTreeMap::new();
    for (name, artifact) in &promoted.promotion.release.artifacts {
        let stays = match comparison.standings.get(name) {
            Some(crate::services::Standing::Same(now)) => Some(*now),
            _ => None,
        };
        let own = match stays {
            Some(now) => {
                let release = core.store.release(&promoted.promotion.spec.app, now).await?;
                release.artifacts.get(name).cloned()
            }
            None => None,
        };
        let is_own = own.is_some();
        parts.insert(name.clone(), (own.unwrap_or_else(|| artifact.clone()), is_own));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_model::ArtifactId;

    use super::*;
    use crate::table::to_be;

    fn release(spec: AppSpec) -> Release {
        let artifact = Artifact::new(EngineKind::Docker, ArtifactId::new("sha256:1"));
        Release { artifact, ..to_be(&spec, EngineKind::Docker) }
    }

    fn app(name: &str) -> AppName {
        name.parse().unwrap()
    }

    const MANIFEST: &str = "[http]\nport = 9000\n[env]\nMODE = \"plain\"\n[environments.staging]\n[environments.staging.http]\n\
        hosts = [\"staging.example\"]\n[environments.staging.env]\nMODE = \"staging\"\n[environments.production.http]\nhosts = [\"shop.example\"]\n\
        [environments.production.processes.web]\nreplicas = 3\n[environments.live]\napp = \"flagship\"\n";

    #[test]
    fn the_environment_that_is_called_so_describes_the_app() {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let staging = release(manifest.resolve(Some(app("shop")), Some("staging")).unwrap());
        let (spec, told, environment) = by_overlay(MANIFEST, &staging, &app("shop-production")).unwrap();
        assert_eq!(environment.as_deref(), Some("production"));
        assert_eq!(told, "described by [environments.production] of shop-staging's coracle.toml");
        assert_eq!((spec.http.hosts[0].to_string(), spec.http.port), ("shop.example".to_owned(), Some(9000)));
        assert_eq!(spec.processes.values().map(|process| process.replicas).collect::<Vec<_>>(), [3]);
        assert_eq!(spec.env.values().collect::<Vec<_>>(), ["plain"]);
        assert_eq!(by_overlay(MANIFEST, &staging, &app("flagship")).unwrap().0.app, app("flagship"));
        assert_eq!(by_overlay(MANIFEST, &staging, &app("shop")).unwrap().0.app, app("shop"));
        assert!(by_overlay(MANIFEST, &staging, &app("another")).is_none());
    }

    #[test]
    fn without_one_its_own_hosts_and_numbers_hold() {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let of = manifest.resolve(Some(app("shop")), Some("staging")).unwrap();
        let new = in_its_place(&of, &app("another"), None);
        assert_eq!((new.http.hosts[0].to_string(), new.http.port), ("another.localhost".to_owned(), Some(9000)));
        let mut own = AppSpec::named(app("another"));
        own.http.hosts = vec!["another.example".parse().unwrap()];
        own.env.insert("MODE".parse().unwrap(), "own".to_owned());
        let known = in_its_place(&of, &app("another"), Some(&release(own)));
        assert_eq!((known.http.hosts[0].to_string(), known.http.port), ("another.example".to_owned(), Some(9000)));
        assert_eq!(known.env.values().collect::<Vec<_>>(), ["own"]);
    }

    #[test]
    fn what_would_come_in_part_is_refused_as_a_whole() {
        let plain = release(AppSpec::named(app("a")));
        assert!(check(&plain, &app("b")).is_ok());
        let mut slug = plain.clone();
        slug.artifact.engine = EngineKind::Process;
        assert!(check(&slug, &app("b")).is_err());
        let mut stack = plain;
        stack.spec.services_only = true;
        assert!(check(&stack, &app("b")).is_err());
    }
}
