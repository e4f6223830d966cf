//! `coracle secrets`: configuration that goes in and never comes out. Values are never taken from the command line, which
//! every user of the machine can read.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use coracle_api::ConfigChange;
use coracle_model::EnvName;

use super::config::{ChangeOptions, change, unset};
use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::columns::Cell;
use crate::output::{Columns, Style, moment, terminal};

/// The longest value that is taken: what Linux allows for one environment variable, name included, is 128 KiB.
const LONGEST: u64 = 120 * 1024;

/// Show which secrets are set, or change them
///
/// Secrets are encrypted where they are kept and never shown again. They reach the app as environment variables.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  coracle secrets
  coracle secrets set SECRET_KEY                 asks for it
  coracle secrets set SECRET_KEY < key.txt
  coracle secrets unset SECRET_KEY"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set a secret: its value is read from standard input, a file or, unseen, from the terminal
    ///
    /// One line end at the end of the value is taken off.
    #[command(after_help = "Examples:
  coracle secrets set SECRET_KEY                 asks for it
  pass show shop/key | coracle secrets set SECRET_KEY
  coracle secrets set TLS_KEY --file key.pem")]
    Set {
        /// Its name
        // A text, not a name: clap would repeat a value that was typed along with it.
        name: String,
        /// Read the value from this file
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        #[command(flatten)]
        options: ChangeOptions,
    },
    /// Unset secrets
    #[command(after_help = "Examples:
  coracle secrets unset SECRET_KEY")]
    Unset {
        /// Which
        #[arg(required = true, value_name = "NAME")]
        names: Vec<EnvName>,
        #[command(flatten)]
        options: ChangeOptions,
    },
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.verb {
        None => list(context).await,
        Some(Verb::Set { name, file, options }) => {
            let name = parse_name(&name)?;
            let value = match file {
                Some(path) => from_file(&path)?,
                None if io::stdin().is_terminal() => terminal::ask_hidden(&context.output, &format!("{name}: "))?,
                None => one_line_end_off(limited(io::stdin().lock(), "standard input")?),
            };
            change(vec![checked(name, value)?], options, context).await
        }
        Some(Verb::Unset { names, options }) => change(names.into_iter().map(unset).collect(), options, context).await,
    }
}

async fn list(context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    let mut entries = context.client()?.config(&app).await?;
    entries.retain(|entry| entry.secret);
    let empty = format!("{app} has no secrets yet; set one: coracle secrets set NAME");
    context.output.list(&entries, &empty, |entries| {
        let now = jiff::Timestamp::now();
        let mut columns = Columns::new(&["name", "set"]);
        for entry in entries {
            columns.row([Cell::styled(entry.name.as_str(), Style::Bold), moment::ago(entry.updated_at, now).into()]);
        }
        columns
    });
    Ok(DONE)
}

fn parse_name(text: &str) -> Result<EnvName, Failure> {
    match text.split_once('=') {
        Some((name, _)) => Err(Failure::usage(
            "a secret's value is not taken from the command line, which every user here can read",
        )
        .hint(format!(
            "type `coracle secrets set {name}` and the value when it is asked for, or pipe it in; consider that value known"
        ))),
        None => Ok(text.parse()?),
    }
}

fn from_file(path: &PathBuf) -> Result<String, Failure> {
    let place = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| Failure::failed(format!("cannot read {place}: {error}")))?;
    limited(file, &place).map(one_line_end_off)
}

pub(super) fn limited(from: impl Read, place: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| Failure::failed(format!("cannot read {place}: {error}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Failure::usage(format!(
            "{place} holds more than {} KiB, too much for an environment variable",
            LONGEST / 1024
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{place} is not UTF-8 text")).hint("encode it, for instance with base64"))
}

pub(super) fn one_line_end_off(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

fn checked(name: EnvName, value: String) -> Result<ConfigChange, Failure> {
    if value.is_empty() {
        return Err(
            Failure::usage(format!("the value of {name} is empty")).hint(format!("unset it: coracle secrets unset {name}"))
        );
    }
    if value.contains('\0') {
        return Err(Failure::usage(format!("the value of {name} contains a zero byte, which no environment variable can hold")));
    }
    Ok(ConfigChange { name, value: Some(value), secret: true })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_on_the_command_line_is_refused_and_not_repeated() {
        let failure = parse_name("KEY=hunter2").unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        let told = failure.render(crate::output::Paint(false), true);
        assert!(told.contains("coracle secrets set KEY") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn one_line_end_is_taken_off_and_no_more() {
        for (given, kept) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("", "")] {
            assert_eq!(one_line_end_off(given.into()), kept);
        }
    }

    #[test]
    fn values_that_no_variable_can_hold_are_refused() {
        let name = || "KEY".parse().unwrap();
        assert!(checked(name(), String::new()).is_err());
        assert!(checked(name(), "a\0b".into()).is_err());
        assert!(limited(&[0xff_u8][..], "x").is_err());
        assert!(limited(io::repeat(b'a'), "x").is_err());
        assert_eq!(checked(name(), "a\nb".into()).unwrap().value.as_deref(), Some("a\nb"));
    }
}
