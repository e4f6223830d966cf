//! `coracle compose`: what compose files come to. Nothing is started, and no server is asked.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use coracle_compose::{ComposeError, ErrorKind, Loaded, Options};

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;

/// A compose file on standard input is read up to this length; the loader refuses longer ones.
const MOST_INPUT: u64 = 64 * 1024 * 1024;

/// Read compose files as the Compose Specification says
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle compose config
  coracle compose config -f compose.yaml -f compose.prod.yaml --profile debug --format json")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    question: Question,
}

/// What can be asked about a project.
#[derive(Debug, Subcommand)]
enum Question {
    Config(Config),
}

/// Print the model that the compose files come to
///
/// Files are merged, variables filled in, short forms written out and paths made absolute, as `docker compose config` does it.
/// Mistakes are told with file, line and column.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle compose config
  coracle compose config -f compose.yaml -f compose.prod.yaml --env-file prod.env
  coracle compose config --profile '*' --format json")]
struct Config {
    #[command(flatten)]
    project: ProjectFiles,
    /// The form to print the model in [default: yaml, or json with --json]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Which compose project is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProjectFiles {
    /// A compose file; later ones are merged over earlier ones, `-` is standard input [default: compose.yaml and its override]
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A profile whose services belong to the project; `*` is all of them
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
    /// Variables for the compose files; later files win [default: .env in the project's directory]
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// The project's name [default: `name` in the files, else the directory's name]
    #[arg(short, long = "project-name", value_name = "NAME")]
    project_name: Option<String>,
    /// What relative paths count from [default: the first compose file's directory]
    #[arg(long = "project-directory", value_name = "DIRECTORY")]
    project_directory: Option<PathBuf>,
}

impl ProjectFiles {
    /// Whether it was said which files are meant.
    pub(crate) fn are_named(&self) -> bool {
        !self.files.is_empty() || std::env::var_os("COMPOSE_FILE").is_some_and(|files| !files.is_empty())
    }

    /// The environment files that were named.
    pub(crate) fn env_files(&self) -> &[PathBuf] {
        &self.env_files
    }

    /// Loads the project in the surroundings of this command and remarks upon what the loader warns of.
    pub(crate) fn load(&self, context: &Context) -> Result<Loaded, Failure> {
        let options = Options {
            files: self.files.clone(),
            project_dir: self.project_directory.clone(),
            project_name: self.project_name.clone(),
            profiles: self.profiles.clone(),
            env_files: self.env_files.clone(),
            environment: environment(),
            working_dir: context.directory.clone(),
            stdin: if self.files.iter().any(|file| file.as_os_str() == "-") { Some(standard_input()?) } else { None },
            within: None,
        };
        let loaded = coracle_compose::load(&options).map_err(failure)?;
        for warning in &loaded.warnings {
            context.output.remark(format!("warning: {warning}"));
        }
        Ok(loaded)
    }
}

/// The variables of this process. What is not text cannot be put into a text.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MOST_INPUT).read_to_string(&mut text);
    read.map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    Ok(text)
}

/// What is wrong with a project, with its place.
fn failure(error: ComposeError) -> Failure {
    let hint = error.hint.clone().unwrap_or_default();
    let others = error.others.iter().map(ComposeError::to_string).collect();
    // The hint has a line of its own here.
    let message = ComposeError { hint: None, ..error.clone() }.to_string();
    let failure = if error.kind == ErrorKind::File { Failure::failed(message) } else { Failure::usage(message) };
    failure.evidence(others).hint(hint)
}

/// Does it.
pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    match arguments.question {
        Question::Config(config) => show(&config, context),
    }
}

fn show(config: &Config, context: &Context) -> Result<ExitCode, Failure> {
    let loaded = config.project.load(context)?;
    let format = config.format.unwrap_or(if context.output.manner().json { Format::Json } else { Format::Yaml });
    let text = match format {
        Format::Yaml => loaded.to_yaml(),
        Format::Json => serde_json::to_string_pretty(&loaded.value)
            .map(|text| text + "\n")
            .map_err(|error| Failure::failed(format!("the model cannot be written as JSON: {error}")))?,
    };
    context.output.pass_out(text.as_bytes());
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::sync::Arc;

    use super::*;
    use crate::arguments::Global;
    use crate::output::Manner;
    use crate::output::testing::{Page, pages};

    /// A context in a directory with a compose file.
    fn project(text: &str, json: bool) -> (tempfile::TempDir, Context, Page, Page) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("shop");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("compose.yaml"), text).unwrap();
        let (output, out, err) = pages(Manner { json, ..Manner::plain() });
        let context = Context { global: Global::default(), output: Arc::new(output), directory: root };
        (directory, context, out, err)
    }

    fn config(format: Option<Format>) -> Config {
        Config { project: ProjectFiles::default(), format }
    }

    #[test]
    fn the_model_comes_in_the_form_that_was_asked_for() {
        let (_directory, context, out, _) = project("services:\n  web:\n    image: nginx\n", false);
        show(&config(Some(Format::Json)), &context).unwrap();
        let model: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!((&model["name"], &model["services"]["web"]["image"]), (&"shop".into(), &"nginx".into()));
        let (_directory, context, out, _) = project("services:\n  web:\n    image: nginx\n", false);
        show(&config(None), &context).unwrap();
        assert!(out.text().contains("\n  web:\n    image: nginx\n"), "{}", out.text());
    }

    #[test]
    fn json_for_all_commands_is_json_here() {
        let (_directory, context, out, _) = project("services:\n  web:\n    image: nginx\n", true);
        show(&config(None), &context).unwrap();
        assert!(out.text().starts_with('{'), "{}", out.text());
    }

    #[test]
    fn mistakes_have_a_place_and_a_hint() {
        let (_directory, context, _, _) = project("services:\n  web:\n    imagee: nginx\n", false);
        let failure = show(&config(None), &context).unwrap_err();
        let text = failure.render(crate::output::Paint(false), false);
        assert!(text.contains("compose.yaml:3:5") && text.contains("imagee") && text.contains("next:"), "{text}");
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let (_directory, context, _, _) =
            project("services:\n  web:\n    imagee: nginx\n    restart: [often]\n    ports: 80\n", false);
        let text = show(&config(None), &context).unwrap_err().render(crate::output::Paint(false), false);
        assert!(["yaml:3:5", "yaml:4:14", "yaml:5:12"].iter().all(|place| text.contains(place)), "{text}");
    }

    #[test]
    fn variables_without_a_value_are_remarked_upon() {
        let (_directory, context, _, err) = project("services:\n  web:\n    image: nginx:${CORACLE_TEST_NOT_SET}\n", false);
        show(&config(None), &context).unwrap();
        assert!(err.text().contains("CORACLE_TEST_NOT_SET"), "{}", err.text());
    }
}
