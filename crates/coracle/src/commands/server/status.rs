//! `coracle server status`: who answers.

use clap::Args;
use serde_json::json;

use super::super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Style;
use crate::peer;

/// Show whether the server answers, and what it looks after
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle server status --json")]
pub(super) struct Arguments {}

/// Does it.
pub(super) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    let version = client.version().await?;
    let apps = client.apps().await?.len();
    let process = peer::process_behind(client.endpoint());
    let (output, paint) = (&context.output, context.output.paint());
    output.document(&json!({ "server": version, "endpoint": client.endpoint().to_string(), "process": process, "apps": apps }));
    let fact = |name: &str, value: String| output.line(format!("{} {value}", paint.with(Style::Dim, format!("{name:<9}"))));
    let process = process.map(|process| format!(", process {process}")).unwrap_or_default();
    fact("server", format!("{} at {}{process}", version.version, client.endpoint()));
    match &version.proxy {
        Some(proxy) => fact("proxy", format!("{proxy}, requests on {}", version.http.join(", "))),
        None => fact("proxy", paint.with(Style::Red, "does not answer")),
    }
    if let Some(hooks) = &version.hooks {
        fact("webhooks", hooks.clone());
    }
    if let Some(ssh) = &version.ssh {
        fact("ssh", format!("{}, host key {}", ssh.address, ssh.fingerprint));
    }
    let engines: Vec<_> = version.engines.iter().map(ToString::to_string).collect();
    fact("engines", format!("{} (default {})", engines.join(", "), version.default_engine));
    fact("apps", apps.to_string());
    Ok(DONE)
}
