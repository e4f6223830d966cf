//! `coracle approve` and `coracle reject`: a person's word about a release that waits for it.

use clap::Args;
use coracle_api::{Deployment, RejectRequest};
use coracle_model::DeploymentId;

use super::{DONE, ExitCode, deployments};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow;
use crate::output::text::harmless;

/// Let a release go live that waits for approval
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle approve          the one of this app that waits
  coracle approve d42      this one
  coracle approve -f       and follow it to its end

It takes an owner of the app; where the manifest says approve = { by = \"another\" }, one who has not brought the release.")]
pub(crate) struct Approve {
    /// Which deployment; else the app's that waits
    #[arg(value_name = "DEPLOYMENT", value_parser = deployments::parse_id)]
    id: Option<DeploymentId>,
    /// Follow it to its end
    #[arg(short, long)]
    follow: bool,
}

/// Refuse a release that waits for approval
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle reject --reason \"not on a Friday\"
  coracle reject d42")]
pub(crate) struct Reject {
    /// Which deployment; else the app's that waits
    #[arg(value_name = "DEPLOYMENT", value_parser = deployments::parse_id)]
    id: Option<DeploymentId>,
    /// Why, for whoever brought it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Lets it go on.
pub(crate) async fn approve(arguments: Approve, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    let id = waiting(arguments.id, context).await?;
    let deployment = client.approve(id).await?;
    if arguments.follow {
        let events = client.deployment_events(id).await?;
        return follow::watch(context, &client, events).await.map(|()| DONE);
    }
    context.output.document(&deployment);
    context.output.line(format!("{id}: {} of {} goes on", deployment.to, deployment.app));
    context.output.remark(format!("follow it: coracle deployments -f {id}"));
    Ok(DONE)
}

/// Ends it.
pub(crate) async fn reject(arguments: Reject, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    let id = waiting(arguments.id, context).await?;
    let deployment = client.reject(id, &RejectRequest { reason: arguments.reason }).await?;
    context.output.document(&deployment);
    context.output.line(format!("{id}: {} of {} is rejected; nothing of it has run", deployment.to, deployment.app));
    Ok(DONE)
}

async fn waiting(named: Option<DeploymentId>, context: &Context) -> Result<DeploymentId, Failure> {
    if let Some(id) = named {
        return Ok(id);
    }
    let app = context.app()?;
    let status = context.client()?.app(&app).await?;
    let nothing =
        || Failure::failed(format!("nothing of {app} waits for approval")).hint(format!("coracle deployments -a {app}"));
    status.waiting.map(|deployment| deployment.id).ok_or_else(nothing)
}

/// What was demanded and decided, in a line each.
pub(super) fn told(deployment: &Deployment) -> Vec<String> {
    let Some(approval) = &deployment.approval else { return Vec::new() };
    let who = |name: &Option<coracle_model::PersonName>| {
        name.as_ref().map_or_else(|| "the administrator".to_owned(), ToString::to_string)
    };
    let brought = match approval.from_forge {
        true => "a push to the repository at the forge".to_owned(),
        false => who(&approval.asked_by),
    };
    let mut lines = vec![format!("brought  by {brought}")];
    match &approval.decision {
        Some(decision) => {
            let word = if decision.approved { "approved" } else { "rejected" };
            let reason = decision.reason.as_deref().map(|reason| format!(": {}", harmless(reason))).unwrap_or_default();
            lines.push(format!("{word} by {} at {}{reason}", who(&decision.by), decision.at));
        }
        None if deployment.outcome.is_none() => {
            let another = if approval.by_another { ", by somebody else" } else { "" };
            lines.push(format!("waits    until {}{another}: coracle approve {}", approval.until, deployment.id));
        }
        None => {}
    }
    lines
}
