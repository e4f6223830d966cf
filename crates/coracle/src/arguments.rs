//! What can be typed: the global options and the tree of commands. Each command's own arguments stand in its file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser};
use coracle_model::AppName;

use crate::commands::Command;

/// Turn one bare Linux server into a small Heroku.
///
/// Coracle builds an app, starts the new release beside the old one, proves it healthy, moves the traffic without losing a
/// request, and keeps every release ready to go back to.
#[derive(Debug, Parser)]
#[command(
    name = "coracle",
    version,
    propagate_version = false,
    max_term_width = 100,
    after_help = "\
Examples:
  coracle server run               start a server on this machine
  coracle init                     write a coracle.toml to begin with
  coracle deploy                   deploy the app in this directory
  coracle logs -f                  follow what it writes
  coracle rollback                 go back to the previous release

Exit codes: 0 done, 1 it failed, 2 it was asked for wrongly; `run` and `exec` pass on the program's own."
)]
pub(crate) struct CommandLine {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The app [default: the one in ./coracle.toml, else the directory's name]
    #[arg(short, long, global = true, env = "CORACLE_APP", hide_env_values = true, value_name = "NAME", display_order = 900)]
    pub(crate) app: Option<AppName>,
    /// The environment of the manifest to use, such as staging
    #[arg(
        short,
        long,
        global = true,
        env = "CORACLE_ENVIRONMENT",
        hide_env_values = true,
        value_name = "NAME",
        display_order = 901
    )]
    pub(crate) environment: Option<String>,
    /// Answer yes to every question
    #[arg(short, long, global = true, display_order = 902)]
    pub(crate) yes: bool,
    /// Print JSON: one document, or one object per line where output streams
    #[arg(long, global = true, display_order = 903)]
    pub(crate) json: bool,
    /// The server to talk to: the name of a remote, a URL, or the path of its Unix socket [default: the usual remote, else the
    /// server on this machine]
    ///
    /// URLs are ssh://user@host:port, https://host:port and http://host:port. `coracle remote add` gives one a name; `local` always
    /// means this machine's. Over HTTP and HTTPS a server wants a token: the remote's own, or the one in CORACLE_TOKEN. CORACLE_SERVER
    /// is read as well, where CORACLE_REMOTE is not set.
    #[arg(
        long,
        visible_alias = "server",
        global = true,
        env = "CORACLE_REMOTE",
        hide_env_values = true,
        value_name = "NAME|URL|PATH",
        display_order = 904
    )]
    pub(crate) remote: Option<String>,
    /// Where the server of this machine keeps its state [default: /var/lib/coracle as root, else ~/.local/state/coracle]
    #[arg(long, global = true, env = "CORACLE_STATE", hide_env_values = true, value_name = "DIR", display_order = 905)]
    pub(crate) state: Option<PathBuf>,
    /// Print neither progress nor remarks
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 906)]
    pub(crate) quiet: bool,
    /// Print more: every line of a build, the causes of errors
    #[arg(short, long, global = true, display_order = 907)]
    pub(crate) verbose: bool,
    /// Print without colours and moving lines (as does NO_COLOR)
    #[arg(long, global = true, display_order = 908)]
    pub(crate) no_color: bool,
}

/// The definition, for completion, man pages and the reference.
pub(crate) fn definition() -> clap::Command {
    CommandLine::command()
}

/// What fingers know from elsewhere, in the words that are meant by it.
pub(crate) fn familiar(typed: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let definition = definition();
    let words = split_colon(&definition, typed.into_iter().collect());
    volumes_of_dev(&definition, words)
}

/// `dev --down -v` is what Compose calls removing volumes as well. Everywhere else, and before the command, `-v` is the global
/// option, which must never cost anybody data.
fn volumes_of_dev(definition: &clap::Command, mut words: Vec<OsString>) -> Vec<OsString> {
    let at = first_command(definition, &words).filter(|at| words[*at] == "dev");
    let Some(own) = at.map(|at| &mut words[at + 1..]) else { return words };
    if own.iter().any(|word| word == "--down") {
        own.iter_mut().filter(|word| *word == "-v").for_each(|word| *word = "--volumes".into());
    }
    words
}

/// `ps:scale`, `config:set` and their like as the two words they stand for. Only the
/// first word that is not an option can be a command; nothing behind it is touched.
fn split_colon(definition: &clap::Command, mut words: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = first_command(definition, &words) else { return words };
    let Some((outer, inner)) = words[at].to_str().and_then(|word| word.split_once(':')) else { return words };
    if definition.find_subcommand(outer).is_some_and(|outer| outer.find_subcommand(inner).is_some()) {
        let pair = [outer.into(), inner.into()];
        words.splice(at..=at, pair);
    }
    words
}

/// Where the command stands: the first word that is neither an option nor an option's value.
fn first_command(definition: &clap::Command, words: &[OsString]) -> Option<usize> {
    let takes_value = |word: &str| {
        definition.get_arguments().filter(|argument| argument.get_action().takes_values()).any(|argument| {
            let mut longs = argument.get_long().into_iter().chain(argument.get_all_aliases().unwrap_or_default());
            longs.any(|long| word.strip_prefix("--") == Some(long))
                || argument.get_short().is_some_and(|short| word.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4])))
        })
    };
    let mut at = 1;
    while let Some(word) = words.get(at).map(|word| word.to_string_lossy()) {
        match word.as_ref() {
            "--" => return None,
            option if takes_value(option) => at += 2,
            option if option.starts_with('-') => at += 1,
            _ => return Some(at),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn split(line: &str) -> String {
        let words = familiar(line.split(' ').map(OsString::from));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_definition_contradicts_itself_nowhere() {
        definition().debug_assert();
    }

    #[test]
    fn colons_are_taken_where_a_command_stands_and_nowhere_else() {
        assert_eq!(split("coracle ps:scale web=2"), "coracle ps scale web=2");
        assert_eq!(split("coracle -a shop --json config:set A=b:c"), "coracle -a shop --json config set A=b:c");
        assert_eq!(split("coracle --server box --remote x ps:scale web=2"), "coracle --server box --remote x ps scale web=2");
        assert_eq!(split("coracle run ps:scale"), "coracle run ps:scale");
        assert_eq!(split("coracle run -- config:set"), "coracle run -- config:set");
        assert_eq!(split("coracle ps:nonsense"), "coracle ps:nonsense");
        assert_eq!(split("coracle"), "coracle");
    }

    #[test]
    fn volumes_go_only_where_the_word_for_it_belongs_to_the_command() {
        assert_eq!(split("coracle --json dev --down -v"), "coracle --json dev --down --volumes");
        assert_eq!(split("coracle dev -v --down"), "coracle dev --volumes --down");
        for untouched in ["coracle -v dev --down", "coracle dev -v", "coracle dev --verbose --down", "coracle run dev --down -v"]
        {
            assert_eq!(split(untouched), untouched);
        }
    }

    #[test]
    fn global_options_stand_before_and_behind_the_command() {
        let before = CommandLine::try_parse_from(["coracle", "--json", "-a", "shop", "apps"]).unwrap();
        let behind = CommandLine::try_parse_from(["coracle", "apps", "--json", "-a", "shop"]).unwrap();
        assert!(before.global.json && behind.global.json);
        assert_eq!(before.global.app, behind.global.app);
    }

    #[test]
    fn what_is_typed_behind_run_belongs_to_the_program() {
        let line = CommandLine::try_parse_from(["coracle", "run", "-a", "shop", "--", "python", "-c", "1", "--json"]).unwrap();
        let Command::Run(run) = line.command else { panic!("not run: {line:?}") };
        assert_eq!(run.argv, ["python", "-c", "1", "--json"]);
        assert!(!line.global.json);
    }
}
