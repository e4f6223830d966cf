//! `coracle promote`: one app takes over what another runs.

use clap::Args;
use coracle_api::PromotionRequest;
use coracle_model::{AppName, ReleaseNumber};

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{self, Turn};

/// Let one app run what another runs: the same image, never a rebuild
///
/// The second app gets a release of its own, with its own configuration, hosts and numbers of instances, and goes live as by any
/// deployment: started beside the old one, proven, switched. If the manifest has an environment that is called like it, that
/// describes it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle promote shop-staging shop-production
  coracle promote shop-staging shop-production --release v12
  coracle promote shop-staging shop-production --plan")]
pub(crate) struct Arguments {
    /// The app whose image is taken
    from: AppName,
    /// The app that is to run it
    to: AppName,
    /// The release that is taken [default: the active one]
    #[arg(long, value_name = "RELEASE")]
    release: Option<ReleaseNumber>,
    /// Only say what would happen and why; change nothing
    #[arg(long, conflicts_with_all = ["detach", "wait"])]
    plan: bool,
    /// Change, replace or stop these services although they keep data; requests wait meanwhile, volumes stay
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    recreate_services: Vec<String>,
    #[command(flatten)]
    turn: Turn,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let Arguments { from, to, release, plan, recreate_services, turn } = arguments;
    if context.global.app.as_ref().is_some_and(|app| *app != to) {
        return Err(Failure::usage("-a names another app than the one that is promoted to").hint("leave -a away"));
    }
    let client = context.client()?;
    let recreate_services = super::deploy::stateful(false, &recreate_services);
    let promotion = PromotionRequest { from, release, recreate_services };
    if plan {
        let plan = client.plan_promotion(&to, &promotion).await?;
        super::deploy::show_plan(context, &plan, &format!("coracle promote {} {to}", promotion.from));
        return Ok(DONE);
    }
    let request = client.promote(&to, &promotion, turn.into());
    follow::begin(context, &client, turn, "asking the server", request).await.map(|()| DONE)
}
