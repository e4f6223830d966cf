//! `coracle ci clean`: removes what runs on this machine have left.

use clap::Args;
use coracle_model::EngineKind;

use super::local::Local;
use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;

/// Remove what `ci run` keeps of this directory: caches, images, and what is known of steps
#[derive(Debug, Args)]
pub(super) struct Clean {}

impl Clean {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        for kind in [EngineKind::Docker, EngineKind::Process] {
            if Local::has_used(&context.directory, kind, context)? {
                Local::open(&context.directory, kind, context).await?.forget().await?;
            }
        }
        Local::remove_state(&context.directory, context)?;
        context.output.tell(format!("nothing is kept of the runs in {}", context.directory.display()));
        Ok(DONE)
    }
}
