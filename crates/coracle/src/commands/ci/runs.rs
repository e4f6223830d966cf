//! `coracle ci runs`: the server's runs of the app's pipeline.

use std::time::Duration;

use clap::Args;
use coracle_api::{PipelineRun, PipelineRunState, PipelineStepState};
use jiff::Timestamp;

use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::text::cut;
use crate::output::{Columns, Style, moment};

/// Show the server's runs of the pipeline, newest first
#[derive(Debug, Args)]
pub(super) struct Runs {
    /// How many to show
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    lines: usize,
}

impl Runs {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let app = context.app()?;
        let mut runs = context.client()?.pipeline_runs(&app).await?;
        runs.truncate(self.lines);
        context.output.list(&runs, &format!("{app} has had no run yet; do it: {}", context.global.command("deploy")), |runs| {
            table(runs, Timestamp::now())
        });
        Ok(DONE)
    }
}

fn table(runs: &[PipelineRun], now: Timestamp) -> Columns {
    let mut columns = Columns::new(&["run", "release", "started", "took", "from", "by", "state", "failed"]);
    for run in runs {
        let (state, style) = state_words(run);
        let failed: Vec<&str> =
            run.steps.iter().filter(|step| step.state == PipelineStepState::Failed).map(|step| step.name.as_str()).collect();
        let failed = if failed.is_empty() { run.cause.clone().unwrap_or_default() } else { failed.join(", ") };
        columns.row([
            Cell::styled(run.id.to_string(), Style::Bold),
            run.release.to_string().into(),
            moment::ago(run.started_at, now).into(),
            took(run.started_at, run.finished_at).unwrap_or_default().into(),
            origin(run).into(),
            run.by.as_deref().unwrap_or_default().into(),
            Cell::styled(state, style),
            cut(&failed, 60).as_ref().into(),
        ]);
    }
    columns
}

/// The branch and the beginning of the commit, as far as they are known.
pub(super) fn origin(run: &PipelineRun) -> String {
    let commit = run.commit.as_ref().map(|commit| {
        let (commit, changed) = commit.split_once('-').map_or((commit.as_str(), ""), |(commit, _)| (commit, "+"));
        format!("{}{changed}", commit.chars().take(9).collect::<String>())
    });
    run.reference.clone().into_iter().chain(commit).collect::<Vec<_>>().join(" ")
}

pub(super) fn state_words(run: &PipelineRun) -> (&'static str, Style) {
    let style = match run.state {
        PipelineRunState::Running | PipelineRunState::Waiting => Style::Yellow,
        PipelineRunState::Passed => Style::Green,
        PipelineRunState::Failed => Style::Red,
        PipelineRunState::Cancelled | PipelineRunState::Interrupted => Style::Yellow,
    };
    (run.state.as_str(), style)
}

pub(super) fn took(from: Timestamp, to: Option<Timestamp>) -> Option<String> {
    Duration::try_from(to?.duration_since(from)).ok().map(moment::length)
}
