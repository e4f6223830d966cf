//! `coracle ci logs`: what the steps of a run wrote.

use std::collections::BTreeMap;

use clap::Args;
use coracle_api::{PipelineLogLine, PipelineLogOptions};
use coracle_model::DeploymentId;
use coracle_model::run::is_called;

use super::{find, parse_run};
use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text::{harmless, harmless_colours};
use crate::output::{Output, Style};

/// Show what the steps of a run wrote
///
/// It is kept with the run, of failed ones too, and without the values of secrets. With --json each line is an object.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle ci logs                       everything of the newest run
  coracle ci logs d12 --step test       what one step wrote; `build` is the build itself, unless a step is called that
  coracle ci logs --grep AssertionError only lines in which this stands
  coracle ci logs -f                    go on until the run has ended")]
pub(super) struct Logs {
    /// The run [default: the newest]
    #[arg(value_name = "RUN", value_parser = parse_run)]
    id: Option<DeploymentId>,
    /// Only what this step wrote
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Only lines in which this text stands
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Go on with new lines until the run has ended
    #[arg(short, long)]
    follow: bool,
}

impl Logs {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let client = context.client()?;
        let run = find(&client, context, self.id).await?;
        let options = PipelineLogOptions { step: self.step.clone(), grep: self.grep, follow: self.follow };
        let mut lines = client.pipeline_log(run.id, &options).await?;
        let mut sheet = Sheet::new(&context.output);
        while let Some(line) = lines.next().await {
            sheet.show(&line?);
            if context.output.reader_gone() {
                break;
            }
        }
        if sheet.lines == 0 {
            let names: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
            let is_there = |name: &str| run.steps.iter().any(|step| is_called(&step.name, name));
            if let Some(name) = self.step.as_deref().filter(|name| !is_there(name)) {
                return Err(Failure::failed(harmless(&format!("{} has no step {name}", run.id)).into_owned())
                    .hint(harmless(&format!("its steps: {}", names.join(", "))).into_owned()));
            }
            let steps = if names.is_empty() { String::new() } else { format!("; its steps: {}", harmless(&names.join(", "))) };
            context.output.remark(format!("there is no such line of {}{steps}", run.id));
        }
        Ok(DONE)
    }
}

/// Lays lines out, each behind the name of its step.
struct Sheet<'a> {
    output: &'a Output,
    /// Which colour each step has, in the order they turned up.
    colours: BTreeMap<String, usize>,
    /// The widest name so far, to keep texts in one column.
    width: usize,
    lines: usize,
}

impl<'a> Sheet<'a> {
    fn new(output: &'a Output) -> Self {
        Self { output, colours: BTreeMap::new(), width: 0, lines: 0 }
    }

    fn show(&mut self, line: &PipelineLogLine) {
        self.lines += 1;
        self.output.record(line);
        let next = self.colours.len();
        let colour = *self.colours.entry(line.step.clone()).or_insert(next);
        let name = harmless(&line.step);
        self.width = self.width.max(name.chars().count());
        let text = if self.output.manner().colour { harmless_colours(&line.text) } else { harmless(&line.text) };
        let prefix = self.output.paint().with(Style::Process(colour), format!("{name:width$} |", width = self.width));
        self.output.line(format!("{prefix} {text}"));
    }
}
