//! `coracle deployments`: the history, failures included.

use clap::Args;
use coracle_api::{Deployment, Outcome, Phase};
use coracle_model::DeploymentId;
use jiff::Timestamp;
use std::time::Duration;

use super::{DONE, ExitCode, approve};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow;
use crate::output::columns::Cell;
use crate::output::text::harmless;
use crate::output::{Columns, Style, moment};

/// Show the history of deployments, failures included
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle deployments         the latest, newest first
  coracle deployments d12     one of them, with its evidence if it failed
  coracle deployments -f      follow the one that runs now")]
pub(crate) struct Arguments {
    /// Only this deployment, in full
    #[arg(value_name = "ID", value_parser = parse_id)]
    id: Option<DeploymentId>,
    /// Follow it (or the one that runs now) to its end
    #[arg(short, long)]
    follow: bool,
    /// How many to show
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
}

pub(super) fn parse_id(text: &str) -> Result<DeploymentId, String> {
    let number = text.strip_prefix('d').unwrap_or(text).parse().ok().filter(|number| *number > 0);
    number.map(DeploymentId).ok_or_else(|| "use the id that `coracle deployments` shows, such as d12".to_owned())
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    if arguments.follow {
        let id = match arguments.id {
            Some(id) => id,
            None => running(context).await?,
        };
        let events = client.deployment_events(id).await?;
        return follow::watch(context, &client, events).await.map(|()| DONE);
    }
    if let Some(id) = arguments.id {
        show(&client.deployment(id).await?, context);
        return Ok(DONE);
    }
    let app = context.app()?;
    let mut deployments = client.deployments(&app).await?;
    deployments.truncate(arguments.lines);
    context.output.list(
        &deployments,
        &format!("{app} was never deployed; do it: {}", context.global.command("deploy")),
        |deployments| table(deployments, Timestamp::now()),
    );
    Ok(DONE)
}

async fn running(context: &Context) -> Result<DeploymentId, Failure> {
    let app = context.app()?;
    let status = context.client()?.app(&app).await?;
    let nothing = || Failure::failed(format!("no deployment of {app} is running")).hint("coracle deployments");
    status.deployment.map(|deployment| deployment.id).ok_or_else(nothing)
}

fn table(deployments: &[Deployment], now: Timestamp) -> Columns {
    let mut columns = Columns::new(&["id", "what", "release", "started", "took", "outcome", "cause"]);
    for deployment in deployments {
        let (outcome, style, cause) = outcome_words(deployment);
        columns.row([
            Cell::styled(deployment.id.to_string(), Style::Bold),
            deployment.kind.to_string().into(),
            deployment.to.to_string().into(),
            moment::ago(deployment.started_at, now).into(),
            took(deployment).unwrap_or_default().into(),
            Cell::styled(outcome, style),
            crate::output::text::cut(&cause, 60).as_ref().into(),
        ]);
    }
    columns
}

fn outcome_words(deployment: &Deployment) -> (&'static str, Style, String) {
    match &deployment.outcome {
        None if deployment.phase == Phase::Approval => ("waiting", Style::Yellow, waiting_words(deployment)),
        None => ("running", Style::Yellow, format!("in {}", deployment.phase)),
        Some(Outcome::Succeeded) => ("succeeded", Style::Green, String::new()),
        Some(Outcome::Unchanged) => ("unchanged", Style::Green, "nothing to change".to_owned()),
        Some(Outcome::Failed { phase, cause, .. }) => ("failed", Style::Red, format!("{phase}: {cause}")),
        Some(Outcome::Cancelled { phase }) => ("cancelled", Style::Yellow, format!("during {phase}")),
        Some(Outcome::Interrupted { phase, completed: true }) => {
            ("succeeded", Style::Green, format!("server stopped during {phase}"))
        }
        Some(Outcome::Interrupted { phase, .. }) => ("interrupted", Style::Yellow, format!("server stopped during {phase}")),
    }
}

/// What something that waits waits for.
fn waiting_words(deployment: &Deployment) -> String {
    match deployment.approval.as_ref().and_then(|approval| approval.decision.as_ref()) {
        Some(decision) if decision.approved => "approved; for its turn".to_owned(),
        Some(_) => "rejected; for its turn to end".to_owned(),
        None => format!("for approval: coracle approve {}", deployment.id),
    }
}

fn took(deployment: &Deployment) -> Option<String> {
    let took = deployment.finished_at?.duration_since(deployment.started_at);
    Duration::try_from(took).ok().map(moment::length)
}

fn show(deployment: &Deployment, context: &Context) {
    let (output, paint) = (&context.output, context.output.paint());
    output.document(deployment);
    let (outcome, style, cause) = outcome_words(deployment);
    let took = took(deployment).map(|took| format!(" after {took}")).unwrap_or_default();
    output.line(format!("{} {} of {} as {}", deployment.id, deployment.kind, deployment.app, deployment.to));
    output.line(format!("started  {}", deployment.started_at));
    output.line(format!("outcome  {}{took}", paint.with(style, outcome)));
    approve::told(deployment).into_iter().for_each(|line| output.line(line));
    if !cause.is_empty() {
        output.line(format!("cause    {}", harmless(&cause)));
    }
    if let Some(Outcome::Failed { evidence, .. }) = &deployment.outcome {
        for line in evidence {
            output.line(format!("  {} {}", paint.with(Style::Dim, "│"), harmless(line)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_api::DeploymentKind;

    use super::*;
    use crate::output::Paint;

    #[test]
    fn failures_stand_in_the_history_with_their_cause() {
        let deployment = |id, outcome| Deployment {
            id: DeploymentId(id),
            app: "shop".parse().unwrap(),
            kind: DeploymentKind::Deploy,
            to: "v4".parse().unwrap(),
            from: None,
            phase: Phase::Build,
            outcome,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Some(Timestamp::from_millisecond(1100).unwrap()),
            approval: None,
        };
        let failed = Outcome::Failed { phase: Phase::Build, cause: "RUN pip install failed".into(), evidence: Vec::new() };
        let list = [
            Deployment { finished_at: None, phase: Phase::Approval, ..deployment(15, None) },
            Deployment { finished_at: None, ..deployment(14, None) },
            deployment(13, Some(failed)),
            deployment(12, Some(Outcome::Succeeded)),
        ];
        insta::assert_snapshot!(table(&list, Timestamp::from_second(90).unwrap()).render(None, Paint(false)), @r"
        ID   WHAT    RELEASE  STARTED    TOOK   OUTCOME    CAUSE
        d15  deploy  v4       1 min ago         waiting    for approval: coracle approve d15
        d14  deploy  v4       1 min ago         running    in build
        d13  deploy  v4       1 min ago  1.1 s  failed     build: RUN pip install failed
        d12  deploy  v4       1 min ago  1.1 s  succeeded
        ");
    }

    #[test]
    fn ids_are_read_as_they_are_shown() {
        assert_eq!(parse_id("d12"), Ok(DeploymentId(12)));
        assert_eq!(parse_id("12"), Ok(DeploymentId(12)));
        for bad in ["", "d", "0", "v3", "-1", "d-1"] {
            assert!(parse_id(bad).is_err(), "{bad}");
        }
    }
}
