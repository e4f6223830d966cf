//! `coracle ci status`: what became of each step of a run.

use clap::Args;
use coracle_api::{PipelineRun, PipelineStep};
use coracle_model::{ByteSize, DeploymentId};

use super::runs::{origin, state_words, took};
use super::{find, parse_run, style};
use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::text::{cut, harmless};
use crate::output::{Columns, Style};

/// Show what became of each step of a run
#[derive(Debug, Args)]
pub(super) struct Status {
    /// The run [default: the newest]
    #[arg(value_name = "RUN", value_parser = parse_run)]
    id: Option<DeploymentId>,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let run = find(&context.client()?, context, self.id).await?;
        show(&run, context);
        Ok(DONE)
    }
}

fn show(run: &PipelineRun, context: &Context) {
    let (output, paint) = (&context.output, context.output.paint());
    output.document(run);
    let (state, style) = state_words(run);
    let took = took(run.started_at, run.finished_at).map(|took| format!(" after {took}")).unwrap_or_default();
    let from = Some(origin(run)).filter(|from| !from.is_empty()).map(|from| format!(" from {}", harmless(&from)));
    let by = run.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    output.line(format!("{} of {} for {}{}{by}", run.id, run.app, run.release, from.unwrap_or_default()));
    output.line(format!("{}{took}", paint.with(style, state)));
    if let Some(cause) = &run.cause {
        output.line(format!("  {}", harmless(cause)));
    }
    if !output.manner().json && !run.steps.is_empty() {
        output.line(table(&run.steps).render(output.manner().width, paint).trim_end());
    }
}

/// The steps, one below the other.
pub(super) fn table(steps: &[PipelineStep]) -> Columns {
    let mut columns = Columns::new(&["step", "state", "took", "waited", "attempts", "exit", "artifacts", "why"]);
    for step in steps {
        let took = step.started_at.and_then(|from| took(from, step.finished_at));
        let artifacts = step.artifacts.as_ref();
        let artifacts = artifacts.map(|it| format!("{} files, {}", it.files, ByteSize::bytes(it.content_bytes)));
        columns.row([
            Cell::styled(harmless(&step.name), Style::Bold),
            Cell::styled(step.state.as_str(), style(step.state)),
            took.unwrap_or_default().into(),
            step.waited_ms.map(|ms| format!("{ms} ms")).unwrap_or_default().into(),
            if step.attempts > 1 { step.attempts.to_string() } else { String::new() }.into(),
            step.exit_code.map(|code| code.to_string()).unwrap_or_default().into(),
            artifacts.unwrap_or_default().into(),
            cut(step.why.as_deref().unwrap_or_default(), 80).as_ref().into(),
        ]);
    }
    columns
}
