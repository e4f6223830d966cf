//! `coracle ci cancel`: calls a run off.

use clap::Args;
use coracle_api::PipelineRunState;
use coracle_model::DeploymentId;

use super::{find, parse_run};
use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;

/// Call a run off; the old release goes on serving
///
/// From the switch on, a deployment runs to its end; `coracle rollback` goes back then.
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The run [default: the newest]
    #[arg(value_name = "RUN", value_parser = parse_run)]
    id: Option<DeploymentId>,
}

impl Cancel {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let client = context.client()?;
        let run = find(&client, context, self.id).await?;
        if !matches!(run.state, PipelineRunState::Running | PipelineRunState::Waiting) {
            let told = format!("{} of {} has ended: {}", run.id, run.app, run.state.as_str());
            return Err(Failure::failed(told).hint(format!("coracle ci runs -a {}", run.app)));
        }
        let deployment = client.cancel(run.id).await?;
        context.output.document(&deployment);
        context.output.line(format!("{} of {} is being called off; see it end: coracle ci logs -f {}", run.id, run.app, run.id));
        Ok(DONE)
    }
}
