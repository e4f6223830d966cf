//! What the policy says of a release that has been built, before anything of it is started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_build::DockerIgnore;
use coracle_model::policy::Level;
use coracle_model::{AppSpec, BuildPlan, BuildSpec, EngineKind, EnvName, Finding, Secret};
use coracle_policy::{Part, Policy, ServerPolicy, Subject, parts};
use coracle_store::PassedStep;

use super::{Candidacy, Failure, Rollout};
use crate::core::Core;
use crate::error::OrchestratorError;
use crate::orchestrator::DeployRequest;
use crate::progress::Event;

/// How long looking at a tree may take.
const LONGEST: Duration = Duration::from_secs(60);

/// What goes before the key of findings that were told, among those of steps: they are remembered in the same way.
const KEY: &str = "policy:";

impl Rollout<'_> {
    /// Tells what the policy says, and ends the deployment if that is to. What the app was told before is not told at length
    /// again. A change of configuration alone, a rollback and a restart make nothing that has not been looked at.
    pub(super) async fn check_policy(&self, candidacy: &Candidacy) -> Result<(), Failure> {
        let Candidacy { engine, release, orders, .. } = candidacy;
        let Some(orders) = orders else { return Ok(()) };
        // What is taken over was built elsewhere: it is looked at as the image that it is.
        let as_image = orders.taken_over.then(|| {
            let build = BuildSpec { image: Some(release.artifact.id.to_string()), ..BuildSpec::default() };
            AppSpec { build, ..release.spec.clone() }
        });
        let (source, spec) = (orders.source.clone(), as_image.as_ref().unwrap_or(&release.spec));
        let plan = match spec.is_stack() {
            true => None,
            false => Some(self.core.build_plan(&source, spec, engine.kind).await?),
        };
        let mut parts = parts(&source, spec, plan.as_ref(), engine.kind);
        for part in parts.iter_mut().filter(|part| !part.keeps_data) {
            let artifact = part.name.as_ref().map_or(&release.artifact, |name| release.artifact_of(name));
            part.facts = engine.builder.facts(&artifact.id).await?;
        }
        let findings = self.core.judge(spec, source, parts, &orders.policy).await?;
        let told: Vec<Finding> = findings.into_iter().filter(|finding| finding.level > Level::Off).collect();
        let blocking: Vec<&Finding> = told.iter().filter(|finding| finding.level == Level::Block).collect();
        let known = blocking.is_empty() && self.is_known(&told).await?;
        if known && let Some(summary) = summary(&told) {
            self.note(summary);
        }
        for finding in &told {
            self.progress.tell(Event::Finding { finding: finding.clone(), known });
        }
        match blocked(&blocking) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Whether the app was told the same before; it counts as told from now on.
    async fn is_known(&self, told: &[Finding]) -> Result<bool, Failure> {
        if told.is_empty() {
            return Ok(false);
        }
        let mut sum = blake3::Hasher::new();
        for finding in told {
            // Lines move with every change; the rest says whether it is the same.
            let file = finding.place.as_ref().map(|place| place.file.as_str()).unwrap_or_default();
            for text in [finding.rule.as_str(), finding.level.as_str(), &finding.what, file] {
                sum.update(&(text.len() as u64).to_le_bytes());
                sum.update(text.as_bytes());
            }
        }
        let (app, key) = (&self.deployment.app, format!("{KEY}{}", sum.finalize().to_hex()));
        if self.core.store.passed_step(app, &key).await?.is_some() {
            return Ok(true);
        }
        let passed = PassedStep { key, step: "policy".to_owned(), release: self.deployment.to, images: Vec::new() };
        self.core.store.record_step(app, &passed).await?;
        Ok(false)
    }
}

/// One line about what was told before.
fn summary(told: &[Finding]) -> Option<String> {
    let mut rules: Vec<&str> = told.iter().map(|finding| finding.rule.as_str()).collect();
    rules.dedup();
    let many = if told.len() == 1 { "one warning".to_owned() } else { format!("{} warnings", told.len()) };
    (!told.is_empty()).then(|| format!("policy: {many} as before ({}); `coracle policy` says more", rules.join(", ")))
}

/// Why the deployment ends, if it does.
fn blocked(blocking: &[&Finding]) -> Option<Failure> {
    let first = blocking.first()?;
    let more = if blocking.len() > 1 { format!("; and {} more", blocking.len() - 1) } else { String::new() };
    let evidence = blocking.iter().map(|finding| format!("{finding}: {}", finding.why)).collect();
    let hint = format!("{}, then `coracle deploy`; to silence it: {}", first.mend, first.silence);
    Some(Failure::Release { cause: format!("blocked by the policy: {first}{more}"), evidence, hint })
}

impl Core {
    /// What the policy says of a tree that has not been built: what its files tell.
    pub(crate) async fn findings(
        &self,
        request: &DeployRequest,
        plan: Option<&BuildPlan>,
        engine: EngineKind,
    ) -> Result<Vec<Finding>, OrchestratorError> {
        let spec = &request.spec;
        let parts = parts(&request.source, spec, plan, engine);
        self.judge(spec, request.source.clone(), parts, &request.policy).await
    }

    async fn judge(
        &self,
        spec: &AppSpec,
        source: PathBuf,
        parts: Vec<Part>,
        policy: &Policy,
    ) -> Result<Vec<Finding>, OrchestratorError> {
        let config = match self.store.config(&spec.app).await {
            Ok(config) => config.into_iter().map(|entry| (entry.name, entry.value, entry.secret)).collect(),
            Err(coracle_store::StoreError::NoSuchApp(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let (policy, server) = (policy.clone(), self.settings.policy.clone());
        let looking = tokio::task::spawn_blocking(move || look(&source, parts, config, &policy, &server));
        let refused = |cause: String| OrchestratorError::refused(format!("the policy check {cause}"), "see the server's log");
        match tokio::time::timeout(LONGEST, looking).await {
            Ok(looked) => looked.map_err(|error| refused(format!("broke off: {error}"))),
            Err(_) => Err(refused(format!("did not end within {} s", LONGEST.as_secs()))),
        }
    }
}

fn look(
    root: &Path,
    parts: Vec<Part>,
    config: Vec<(EnvName, Secret, bool)>,
    policy: &Policy,
    server: &ServerPolicy,
) -> Vec<Finding> {
    // What is left out has not been sent.
    let ignore = DockerIgnore::default();
    let subject = Subject { root, ignore: &ignore, parts, config: &config };
    policy.judge(server, subject.observe())
}
