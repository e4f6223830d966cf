//! `coracle config`: plain configuration. What must not be seen belongs to `coracle secrets`.

use clap::{Args, Subcommand};
use coracle_api::{ConfigChange, ConfigEntry, ConfigPatch, ConfigSet};
use coracle_model::EnvName;
use serde_json::json;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::{self, Turn};
use crate::output::columns::Cell;
use crate::output::{Columns, Style};

/// Show or change the app's configuration
///
/// Configuration reaches the app as environment variables. A change makes a new release, so it can be rolled back.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  coracle config
  coracle config get LOG_LEVEL
  coracle config set LOG_LEVEL=debug WORKERS=2
  coracle config unset LOG_LEVEL"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print one value
    #[command(after_help = "Examples:
  coracle config get LOG_LEVEL")]
    Get {
        /// Which
        name: EnvName,
    },
    /// Set values
    #[command(after_help = "Examples:
  coracle config set LOG_LEVEL=debug WORKERS=2
  coracle config set --no-deploy FEATURE=on     from the next release on")]
    Set {
        /// Names and values
        #[arg(required = true, value_name = "NAME=VALUE")]
        assignments: Vec<String>,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// Unset values
    #[command(after_help = "Examples:
  coracle config unset LOG_LEVEL")]
    Unset {
        /// Which
        #[arg(required = true, value_name = "NAME")]
        names: Vec<EnvName>,
        #[command(flatten)]
        options: ChangeOptions,
    },
}

/// Options of every change of configuration.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ChangeOptions {
    /// Only store it: the next release will run with it
    #[arg(long, conflicts_with_all = ["detach", "wait"])]
    no_deploy: bool,
    #[command(flatten)]
    turn: Turn,
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb {
        None => list(context).await,
        Some(Verb::Get { name }) => get(&name, context).await,
        Some(Verb::Set { assignments, options }) => {
            let changes = assignments.iter().map(|text| assignment(text)).collect::<Result<_, _>>()?;
            change(changes, options, context).await
        }
        Some(Verb::Unset { names, options }) => change(names.into_iter().map(unset).collect(), options, context).await,
    }
}

async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    let entries = context.client()?.config(&app).await?;
    let empty = format!("{app} has no configuration yet; set some: coracle config set NAME=VALUE");
    context.output.list(&entries, &empty, |entries| {
        let mut columns = Columns::new(&["name", "value"]);
        for entry in entries {
            columns.row([Cell::styled(entry.name.as_str(), Style::Bold), value_cell(entry)]);
        }
        columns
    });
    Ok(DONE)
}

fn value_cell(entry: &ConfigEntry) -> Cell {
    match &entry.value {
        Some(value) => value.as_str().into(),
        None => Cell::styled("(secret)", Style::Dim),
    }
}

async fn get(name: &EnvName, context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    let entries = context.client()?.config(&app).await?;
    let entry = entries.into_iter().find(|entry| entry.name == *name);
    let entry = entry.ok_or_else(|| {
        Failure::failed(format!("{name} is not set for {app}")).hint(format!("coracle config set {name}=VALUE"))
    })?;
    let Some(value) = &entry.value else {
        return Err(Failure::failed(format!("{name} is a secret, and secrets are never shown again"))
            .hint(format!("set it anew: coracle secrets set {name}")));
    };
    context.output.document(&entry);
    context.output.line(value);
    Ok(DONE)
}

/// Reads `NAME=VALUE`. Errors name the name alone: the value may be more private than was thought.
fn assignment(text: &str) -> Result<ConfigChange, Failure> {
    let Some((name, value)) = text.split_once('=') else {
        let name: EnvName = text.parse()?;
        return Err(Failure::usage(format!("{name} is given no value")).hint(format!("coracle config set {name}=VALUE")));
    };
    Ok(ConfigChange { name: name.parse()?, value: Some(value.to_owned()), secret: false })
}

/// A change that unsets.
pub(crate) fn unset(name: EnvName) -> ConfigChange {
    ConfigChange { name, value: None, secret: false }
}

/// Makes changes, and follows the release that comes of them.
pub(crate) async fn change(changes: Vec<ConfigChange>, options: ChangeOptions, context: &Context) -> Result<ExitCode, Failure> {
    let (app, client) = (context.app()?, context.client()?);
    let names: Vec<_> = changes.iter().map(|change| change.name.clone()).collect();
    let patch = ConfigPatch { changes, no_deploy: options.no_deploy };
    match client.set_config(&app, &patch, options.turn.into()).await? {
        ConfigSet::Stored(_) => {
            context.output.document(&json!({ "stored": names }));
            context.output.tell(format!("stored; the next release of {app} runs with it"));
        }
        ConfigSet::Deploying(events) => {
            follow::begin(context, &client, options.turn, "asking the server", async { Ok(events) }).await?
        }
    }
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_assignment_keeps_everything_behind_the_first_sign() {
        let change = assignment("URL=postgres://u:p@db/x?a=b").unwrap();
        assert_eq!((change.name.as_str(), change.value.as_deref()), ("URL", Some("postgres://u:p@db/x?a=b")));
        assert_eq!(assignment("EMPTY=").unwrap().value.as_deref(), Some(""));
    }

    #[test]
    fn a_wrong_assignment_does_not_repeat_the_value() {
        for text in ["1BAD=hunter2", "=hunter2", "A-B=hunter2"] {
            let failure = assignment(text).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(!failure.render(crate::output::Paint(false), true).contains("hunter2"), "{text}");
        }
        assert_eq!(assignment("NAME").unwrap_err().exit_code(), 2);
    }
}
