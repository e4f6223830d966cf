//! `coracle reference` (hidden): the command line as a page of the documentation. `docs/reference/cli.md` is its output, and a
//! test keeps it so.

use clap::{Args, Command};

use super::{DONE, ExitCode};
use crate::arguments::definition;
use crate::context::Context;
use crate::failure::Failure;

/// Print docs/reference/cli.md
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// Does it.
pub(crate) fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    context.output.pass_out(page().as_bytes());
    Ok(DONE)
}

const HEAD: &str = "\
<!-- Written by `coracle reference > docs/reference/cli.md`; a test compares. -->
# The command line
";

/// The page.
pub(crate) fn page() -> String {
    let mut root = definition().term_width(100);
    root.build();
    let mut page = HEAD.to_owned();
    section(&root, true, &mut page);
    for command in visible(&root) {
        describe(command, &mut page);
    }
    page
}

fn describe(command: &Command, page: &mut String) {
    section(command, false, page);
    for inner in visible(command) {
        describe(inner, page);
    }
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// A heading and the help text. The global options stand in the first section only.
fn section(command: &Command, with_globals: bool, page: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut command = command.clone();
    if !with_globals {
        command = command.mut_args(|argument| if argument.is_global_set() { argument.hide(true) } else { argument });
    }
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    page.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n").trim_end()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;

    #[test]
    fn the_committed_page_is_what_the_program_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, page()).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == page(),
            "docs/reference/cli.md is out of date; write it anew: UPDATE=1 cargo test -p coracle reference"
        );
    }
}
