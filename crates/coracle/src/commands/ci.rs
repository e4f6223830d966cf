//! `coracle ci`: the pipeline, here and on the server, and what a continuous integration of somebody else's has to do with it.

mod artifacts;
mod cancel;
mod clean;
mod init;
mod local;
mod logs;
mod run;
mod runs;
mod status;
mod workflow;

use clap::{Args, Subcommand};
use coracle_api::{Client, PipelineRun, PipelineStepState};
use coracle_model::DeploymentId;

use super::ExitCode;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Style;

/// Test, build and deploy by pipelines: here, on the server, and from others' workflows
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle ci run                   every step of [pipeline], here, with this working tree
  coracle ci run test              one step, and what it needs
  coracle ci runs                  what the server ran
  coracle ci logs --grep Error     search the newest run's output
  coracle ci init github           writes .github/workflows/coracle.yml
  coracle ci init gitlab           writes .gitlab-ci.yml")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Arguments),
    Run(run::Run),
    Clean(clean::Clean),
    Runs(runs::Runs),
    Status(status::Status),
    Logs(logs::Logs),
    Cancel(cancel::Cancel),
    Artifacts(artifacts::Artifacts),
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb {
        Verb::Init(arguments) => init::run(arguments, context).await,
        Verb::Run(verb) => verb.run(context).await,
        Verb::Clean(verb) => verb.run(context).await,
        Verb::Runs(verb) => verb.run(context).await,
        Verb::Status(verb) => verb.run(context).await,
        Verb::Logs(verb) => verb.run(context).await,
        Verb::Cancel(verb) => verb.run(context).await,
        Verb::Artifacts(verb) => verb.run(context).await,
    }
}

fn parse_run(text: &str) -> Result<DeploymentId, String> {
    let number = text.strip_prefix('d').unwrap_or(text).parse().ok().filter(|number| *number > 0);
    number.map(DeploymentId).ok_or_else(|| "use the number that `coracle ci runs` shows, such as d12".to_owned())
}

/// The run that is meant: the one that was named, else the app's newest.
async fn find(client: &Client, context: &Context, named: Option<DeploymentId>) -> Result<PipelineRun, Failure> {
    if let Some(id) = named {
        return Ok(client.pipeline_run(id).await?);
    }
    let app = context.app()?;
    let newest = client.pipeline_runs(&app).await?.into_iter().next();
    newest.ok_or_else(|| Failure::failed(format!("{app} has had no run yet")).hint(context.global.command("deploy")))
}

/// How a state looks.
fn style(state: PipelineStepState) -> Style {
    match state {
        PipelineStepState::Passed | PipelineStepState::Cached => Style::Green,
        PipelineStepState::Failed => Style::Red,
        PipelineStepState::Running | PipelineStepState::Cancelled => Style::Yellow,
        PipelineStepState::Waiting | PipelineStepState::NotRun | PipelineStepState::LeftOut => Style::Dim,
    }
}
