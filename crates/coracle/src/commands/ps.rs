//! `coracle ps`: instances, and how many there should be.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::{Args, Subcommand};
use coracle_api::{Health, InstanceState, InstanceStatus, ServiceStatus};
use coracle_model::ProcessName;
use jiff::Timestamp;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style, moment};

/// List instances, or say how many there should be
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  coracle ps
  coracle ps scale web=2 worker=1     (ps:scale is the same)"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say how many instances of a process should run
    ///
    /// Returns when they do. The number stays across deployments, until it is changed again.
    #[command(after_help = "Examples:
  coracle ps scale web=2 worker=1
  coracle ps scale worker=0")]
    Scale {
        /// How many, by process
        #[arg(required = true, value_name = "PROCESS=COUNT")]
        scale: Vec<Scale>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Scale {
    process: ProcessName,
    count: u16,
}

impl FromStr for Scale {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (process, count) = text.split_once('=').ok_or("use the form web=2")?;
        let process = process.parse().map_err(|error: coracle_model::NameError| error.to_string())?;
        let count = count.parse().map_err(|_| format!("{count:?} is not a number of instances"))?;
        Ok(Self { process, count })
    }
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    match arguments.verb {
        None => {
            let status = client.app(&app).await?;
            context.output.list(&status.instances, &format!("nothing of {app} runs; coracle status -a {app}"), |instances| {
                table(instances, &status.services, Timestamp::now())
            });
        }
        Some(Verb::Scale { scale }) => {
            let wanted: BTreeMap<_, _> = scale.into_iter().map(|scale| (scale.process, scale.count)).collect();
            let status = client.scale(&app, &wanted).await?;
            context.output.document(&status);
            for process in &status.processes {
                context.output.line(format!("{} {} of {}", process.name, process.running, process.wanted));
            }
        }
    }
    Ok(DONE)
}

/// How the only instance of a service stands.
pub(crate) fn words(state: Option<&InstanceState>, now: Timestamp) -> String {
    match state {
        None => "is not there".to_owned(),
        Some(InstanceState::Running { health, since }) => {
            let health = match health {
                Health::Unchecked => "",
                Health::Starting => ", starting",
                Health::Healthy => ", healthy",
                Health::Unhealthy => ", unhealthy",
            };
            format!("running for {}{health}", moment::age(*since, now))
        }
        Some(InstanceState::Exited { exit }) => format!("ended, {exit}"),
    }
}

/// Instances in columns.
pub(crate) fn table(instances: &[InstanceStatus], services: &[ServiceStatus], now: Timestamp) -> Columns {
    let heads = ["instance", "state", "health", "since", "keeps data"];
    // Most apps keep none.
    let shown = if services.is_empty() { &heads[..4] } else { &heads[..] };
    let mut columns = Columns::new(shown);
    for instance in instances {
        let id = instance.id.to_string();
        let mut row = match &instance.state {
            InstanceState::Running { health, since } => {
                vec![id.into(), Cell::styled("running", Style::Green), health_cell(*health), moment::age(*since, now).into()]
            }
            InstanceState::Exited { exit } => {
                vec![id.into(), Cell::styled("exited", Style::Red), "".into(), exit.to_string().into()]
            }
        };
        if !services.is_empty() {
            let is_it = |service: &&ServiceStatus| (&service.name, service.release) == (&instance.process, instance.release);
            let image = services.iter().find(is_it).map(|service| service.image.clone().unwrap_or_else(|| "yes".to_owned()));
            row.push(image.map_or_else(|| "".into(), |image| image.into()));
        }
        columns.row_of(row);
    }
    columns
}

fn health_cell(health: Health) -> Cell {
    match health {
        Health::Unchecked => "".into(),
        Health::Starting => Cell::styled("starting", Style::Yellow),
        Health::Healthy => Cell::styled("healthy", Style::Green),
        Health::Unhealthy => Cell::styled("unhealthy", Style::Red),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_process_and_a_number() {
        assert!("web=2".parse::<Scale>().is_ok_and(|scale| scale.count == 2 && scale.process.is_web()));
        for bad in ["web", "web=", "web=-1", "web=x", "=2", "../x=1", "web=70000"] {
            assert!(bad.parse::<Scale>().is_err(), "{bad}");
        }
    }
}
