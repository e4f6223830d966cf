//! `coracle doctor`: what works here, and why not. The server examines its machine; where none answers, this program does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::Args;
use coracle_api::{Check, CheckStatus, ClientError, Doctor};

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text::harmless;
use crate::output::{Output, Style};

/// Where a server takes requests unless told otherwise.
const USUAL_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// The exit code when something does not work.
const ILL: ExitCode = 1;

/// Tell what works on the server's machine, and what to do about what does not
///
/// Asks the server; where none answers, examines this machine, which tells why a server might not start.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle doctor
  coracle doctor --json")]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) async fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let client = context.client()?;
    let doctor = match client.version().await {
        Ok(version) => {
            let mut doctor = client.doctor().await?;
            let detail = format!("version {} answers at {}", version.version, client.endpoint());
            doctor.checks.insert(0, Check { name: "server".into(), status: CheckStatus::Ok, detail, hint: None });
            doctor
        }
        // A server that was named must answer; the one of this machine need not run yet.
        Err(error @ ClientError::Unreachable { .. }) if context.remote().is_none() && !client.endpoint().is_remote() => {
            without_server(context, &error).await
        }
        Err(error) => return Err(error.into()),
    };
    context.output.document(&doctor);
    show(&doctor, &context.output);
    Ok(if doctor.worst() == CheckStatus::Fail { ILL } else { DONE })
}

async fn without_server(context: &Context, error: &ClientError) -> Doctor {
    let mut doctor = coracle_server::examine_machine(context.state(), &[USUAL_ADDRESS], None).await;
    let hint = error.hint().map(str::to_owned);
    doctor.checks.insert(0, Check { name: "server".into(), status: CheckStatus::Warn, detail: error.to_string(), hint });
    doctor
}

fn show(doctor: &Doctor, output: &Output) {
    let paint = output.paint();
    let width = doctor.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for check in &doctor.checks {
        let (sign, style) = match check.status {
            CheckStatus::Ok => ("✓", Style::Green),
            CheckStatus::Warn => ("!", Style::Yellow),
            CheckStatus::Fail => ("✗", Style::Red),
        };
        output.line(format!("{} {:width$}  {}", paint.with(style, sign), check.name, harmless(&check.detail)));
        if let Some(hint) = &check.hint {
            output.line(format!("  {:width$}  {} {}", "", paint.with(Style::Cyan, "next:"), harmless(hint)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Manner;
    use crate::output::testing::pages;

    #[test]
    fn every_check_says_what_it_found_and_what_to_do() {
        let check = |name: &str, status, detail: &str, hint: Option<&str>| Check {
            name: name.into(),
            status,
            detail: detail.into(),
            hint: hint.map(Into::into),
        };
        let checks = vec![
            check("docker", CheckStatus::Ok, "Engine 24.0.7", None),
            check("process isolation", CheckStatus::Warn, "not enforced: own user", Some("run the server as root")),
            check("port 80", CheckStatus::Fail, "taken", Some("stop what listens there")),
        ];
        let (output, out, _) = pages(Manner::plain());
        show(&Doctor { checks }, &output);
        insta::assert_snapshot!(out.text(), @r"
        ✓ docker             Engine 24.0.7
        ! process isolation  not enforced: own user
                             next: run the server as root
        ✗ port 80            taken
                             next: stop what listens there
        ");
    }
}
