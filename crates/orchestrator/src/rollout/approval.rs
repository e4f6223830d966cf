//! Waiting for a person. The deployment steps aside, so that others may change the app, and goes on on top of what is active
//! when it was allowed.

use coracle_model::{Approval, ApprovalRule, Decision, DeploymentKind, EnvName, Phase, Secret};
use jiff::Timestamp;
use tokio::time::Instant;

use super::services::refuse_changes;
use super::steps::route_taken;
use super::{Candidacy, Failure, LiveGuard, Rollout};
use crate::approval::{Word, both, nobody};
use crate::core::Core;
use crate::services::Coming;

/// What is done about a release that will not go live as it is.
const AGAIN: &str = "deploy it again; the app is as it was before";

impl Rollout<'_> {
    /// Ends what waits of the app, since this one is newer and has passed.
    pub(super) async fn supersede_waiting(&self) -> Result<(), Failure> {
        if self.deployment.kind != DeploymentKind::Deploy {
            return Ok(());
        }
        let Some(waiting) = self.core.store.parked_deployment(&self.deployment.app).await? else { return Ok(()) };
        self.note(format!("{} of {} waits for approval and is superseded by this", waiting.id, waiting.to));
        let is_told = match self.progress.approver() {
            Some(approver) => approver.supersede(waiting.id, self.deployment.id).await,
            None => false,
        };
        if !is_told {
            // Its task is gone.
            self.core.settle(&waiting).await?;
        }
        Ok(())
    }

    /// Waits until a person allows the release, if the manifest demands that, or that of the active release did.
    pub(super) async fn wait_for_approval(&mut self, candidacy: Candidacy) -> Result<Candidacy, Failure> {
        let Some(rule) = self.demanded(&candidacy).await? else { return Ok(candidacy) };
        let Some(approver) = self.progress.approver().cloned() else {
            return Err(Failure::release(nobody(&self.deployment.app), "deploy it through the server: coracle deploy"));
        };
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let now = Timestamp::now();
        let until = now + rule.timeout.duration();
        let approval = Approval { rule, brought_by: approver.brought_by(), asked_at: now, until, decision: None };
        let since = Instant::now();
        self.core.store.park_deployment(self.deployment.id, &approval).await?;
        self.deployment.phase = Phase::Approval;
        self.deployment.approval = Some(approval);
        self.live = None;
        self.is_aside = true;
        approver.step_aside(&self.deployment).await;
        self.note(waits(&self.deployment.app, rule));
        self.entered(Phase::Approval);
        let verdict = approver.decide(&self.deployment).await;
        self.is_aside = !verdict.has_turn;
        let decision = self.allowed(verdict.word, rule)?;
        if self.is_aside {
            return Err(Failure::Cancelled);
        }
        // How long it took to go live is nothing that a person took.
        self.begun += since.elapsed();
        self.deployment = self.core.store.unpark_deployment(self.deployment.id).await?;
        self.live = Some(LiveGuard::new(self.core, &self.deployment));
        self.note(format!("approved by {}", decision.who()));
        self.look_again(candidacy).await
    }

    /// What has to be allowed by whom. A manifest that demands nothing any more is itself to be allowed first: whoever brings it
    /// could go around everybody otherwise.
    async fn demanded(&self, candidacy: &Candidacy) -> Result<Option<ApprovalRule>, Failure> {
        if self.deployment.kind != DeploymentKind::Deploy {
            return Ok(None);
        }
        let stands = self.core.store.approval_rule(&self.deployment.app).await?;
        let Some(orders) = &candidacy.orders else { return Ok(stands) };
        let brought = orders.approval();
        if brought != stands {
            self.core.store.bring_approval_rule(self.deployment.id, brought).await?;
        }
        if let (Some(_), None) = (stands, brought) {
            self.note("the manifest demands no approval any more; that takes effect when this release is approved");
        }
        Ok(both(stands, brought))
    }

    fn allowed(&self, word: Word, rule: ApprovalRule) -> Result<Decision, Failure> {
        let told = |decision: &Decision| decision.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        match word {
            Word::Approved(decision) => Ok(decision),
            Word::Rejected(decision) => {
                Err(Failure::release(format!("rejected by {}{}", decision.who(), told(&decision)), AGAIN))
            }
            Word::Late => Err(Failure::release(format!("not approved within {}", rule.timeout), AGAIN)),
            Word::Superseded(by) => {
                Err(Failure::release(format!("superseded by {by}"), format!("look at that one: coracle deployments {by}")))
            }
            Word::Stale(why) => Err(Failure::release(format!("approved, but too late: {why}"), AGAIN)),
            Word::CalledOff => Err(Failure::Cancelled),
        }
    }

    /// Checks again what may be otherwise by now, and builds on what is active now.
    async fn look_again(&self, candidacy: Candidacy) -> Result<Candidacy, Failure> {
        let Candidacy { engine, release, old: before, stateful, changes, orders, strategy, needed, .. } = candidacy;
        let core = self.core;
        let record = core.store.app(&release.app).await?;
        let old = match record.active {
            Some(number) => Some(core.store.release(&record.name, number).await?),
            None => None,
        };
        if let Some(old) = old.as_ref().filter(|old| before.as_ref().map(|before| before.number) != Some(old.number)) {
            let was = before.map_or_else(|| "nothing".to_owned(), |before| before.number.to_string());
            self.note(format!("while it waited, {was} made way for {}, which this replaces now", old.number));
        }
        for artifact in release.all_artifacts() {
            if !engine.builder.has(&artifact.id).await? {
                return Err(Failure::release(format!("what {} was built into is gone ({})", release.number, artifact.id), AGAIN));
            }
        }
        let env = self.take_up_configuration(&release).await?;
        let coming = Coming { spec: &release.spec, config: &env, artifacts: Some(&release.artifacts), tree: None };
        let comparison = core.compare_services(&coming).await?;
        refuse_changes(&comparison, &stateful, false)?;
        if let Some(conflict) = core.route_conflict(&release).await? {
            return Err(route_taken(&conflict));
        }
        let wanted = Core::wanted(&release, &record.scale);
        Ok(Candidacy { engine, release, strategy, old, wanted, needed, changes, comparison, stateful, orders })
    }

    /// The configuration may have been changed while the release waited; it runs with what is set now.
    async fn take_up_configuration(&self, release: &coracle_model::Release) -> Result<Vec<(EnvName, Secret)>, Failure> {
        let (app, number) = (&release.app, release.number);
        let now = self.core.config_of(app).await?;
        let then = self.core.store.release_env(app, number).await?;
        let changed = changed(&then, &now);
        if changed.is_empty() {
            return Ok(then);
        }
        let names = changed.join(", ");
        if release.spec.is_stack() {
            let cause = format!(
                "the configuration was changed while it waited ({names}), and what its parts are made of may depend on it"
            );
            return Err(Failure::release(cause, AGAIN));
        }
        if let Some(missing) = release.spec.secrets.iter().find(|name| !now.iter().any(|(set, _)| set == *name)) {
            let hint = format!("coracle secrets set {missing} -a {app}, then deploy it again");
            return Err(Failure::release(format!("{missing} is required, and was taken away while it waited"), hint));
        }
        self.core.store.renew_release_env(app, number, &now).await?;
        self.hiding.add(&self.core.secrets_of(app).await);
        self.note(format!("the configuration was changed while it waited, and is taken as it is now: {names}"));
        Ok(now)
    }
}

fn waits(app: &coracle_model::AppName, rule: ApprovalRule) -> String {
    let who = match rule.by_another {
        true => format!("an owner of {app} who has not brought it"),
        false => format!("an owner of {app}"),
    };
    format!("nothing of it runs until {who} approves it, within {}; others may change the app meanwhile", rule.timeout)
}

/// Names whose values are not the same.
fn changed<'a>(then: &'a [(EnvName, Secret)], now: &'a [(EnvName, Secret)]) -> Vec<&'a str> {
    let value =
        |config: &'a [(EnvName, Secret)], name: &EnvName| config.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let names: std::collections::BTreeSet<&EnvName> = then.iter().chain(now).map(|(name, _)| name).collect();
    names.into_iter().filter(|name| value(then, name) != value(now, name)).map(EnvName::as_str).collect()
}
