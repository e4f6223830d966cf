//! `coracle server unit`: for systemd.

use clap::Args;
use coracle_server::unit::{UnitOptions, render};

use super::super::{DONE, ExitCode};
use super::{Listening, run::absolute};
use crate::context::Context;
use crate::failure::Failure;

/// Print a systemd unit that runs the server
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle server unit --http 0.0.0.0:80 | sudo tee /etc/systemd/system/coracle.service
  sudo systemctl enable --now coracle")]
pub(super) struct Arguments {
    #[command(flatten)]
    listening: Listening,
    /// The user to run as [default: root]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// Does it.
pub(super) fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let program =
        std::env::current_exe().map_err(|error| Failure::failed(format!("cannot tell where this program is: {error}")))?;
    if let Some(user) = &arguments.user {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if user.is_empty() || !user.bytes().all(plain) {
            return Err(Failure::usage(format!("{user:?} is not the name of a user")));
        }
    }
    let acme = arguments.listening.acme()?;
    let api_host = arguments.listening.api_host()?.into_iter().flat_map(|host| ["--api-host".to_owned(), host]);
    let more: Vec<String> = api_host.chain(arguments.listening.typed()?).collect();
    let unit = render(&UnitOptions {
        program: &program,
        state_dir: &absolute(&context.state())?,
        http: &arguments.listening.http,
        https: &arguments.listening.https,
        acme: acme.as_ref(),
        api_tcp: arguments.listening.api_tcp,
        ssh: arguments.listening.ssh,
        more: &more,
        user: arguments.user.as_deref(),
    });
    context.output.line(unit.trim_end());
    Ok(DONE)
}
