//! `coracle ci run`: the pipeline on this machine, with the working tree as it is. No server is asked, nothing is deployed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use coracle_api::{PipelineStep, PipelineStepState};
use coracle_compose::dotenv;
use coracle_dev::Stops;
use coracle_model::{AppSpec, EngineKind, EnvName, Secret};
use coracle_pipeline::{Pipeline, Plan, StepImage, StepName, Trigger};
use coracle_pipeline_runner::{News, StepFailure, Tell, unsuitable};
use serde_json::json;

use super::local::{Local, Order};
use super::status::table;
use crate::commands::deploy::compose_file;
use crate::commands::dev::Listener;
use crate::commands::{DONE, ExitCode};
use crate::context::{Context, MANIFEST, directory_name, nameless, spec_of};
use crate::failure::Failure;
use crate::output::text::{harmless, harmless_colours};
use crate::output::{Output, Style};
use crate::project_file;

/// What shells call a death by SIGINT.
const INTERRUPTED: ExitCode = 130;

/// Run the steps of the pipeline on this machine
///
/// With the working tree as it is, on Docker or on the process engine, by the same code as on the server: the app is built if a step
/// runs in it, then its [pipeline.steps] are run. Nothing is deployed, and no server is asked. Secrets that steps name are taken from
/// the environment, else from .env. Ctrl-C ends every step and what runs beside it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle ci run
  coracle ci run test lint          these steps, and what they need
  coracle ci run --no-cache         also what has passed with the same before
  coracle ci run --engine process   without Docker

Exit codes: 0 every step passed, 1 one failed, 2 it was asked for wrongly, 130 interrupted.")]
pub(super) struct Run {
    /// Only these steps, and what they need
    #[arg(value_name = "STEP")]
    steps: Vec<StepName>,
    /// The same
    #[arg(long = "step", value_name = "STEP")]
    named: Vec<StepName>,
    /// Run steps also if they have passed with the same before
    #[arg(long, visible_alias = "force")]
    no_cache: bool,
    /// After a failure, go on with the steps that do not need what failed, as the server does
    #[arg(long)]
    keep_going: bool,
    /// What the steps run on [default: what coracle.toml says; else Docker, if it answers]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<EngineKind>,
    /// A file with the values of secrets [default: .env]
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl Run {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let root = context.directory.clone();
        let pipeline = pipeline(&root)?;
        let spec = spec(&root, context)?;
        let plan = self.plan(&pipeline)?;
        let kind = self.engine(&spec, &plan, context).await?;
        if let Some((message, hint)) = unsuitable(plan.jobs.iter().map(|job| &job.step), kind) {
            return Err(Failure::usage(message).hint(hint));
        }
        let builds = plan.jobs.iter().any(|job| job.step.image == StepImage::App);
        if builds && let Some(file) = compose_file(&root, context.global.environment.as_deref())? {
            return Err(Failure::usage(format!("steps that run in the app need it built, and {file} describes several parts"))
                .hint("give the steps an `image`; on the server they run in the part that receives requests"));
        }
        let config = self.secrets(&root, &spec, &plan, builds)?;
        let sheet = Arc::new(Sheet::new(context.output.clone(), &plan));
        let stops = Stops::default();
        let _listener = Listener::start(stops.clone())?;
        let local = Local::open(&root, kind, context).await?;
        let order = Order {
            spec,
            plan,
            parallel: pipeline.parallel(),
            builds,
            config,
            fresh: self.no_cache,
            keep_going: self.keep_going,
            commit: crate::git::commit(&root),
        };
        let ended = local.work(order, sheet.tell(), &stops.stop).await;
        sheet.finish(&ended);
        match ended {
            Ok(()) => Ok(DONE),
            Err(StepFailure::Cancelled) => Ok(INTERRUPTED),
            Err(StepFailure::Failed { cause, evidence, hint, .. }) => Err(Failure::failed(cause).evidence(evidence).hint(hint)),
            Err(StepFailure::Engine(error)) => Err(Failure::failed(error.to_string()).hint("coracle doctor")),
        }
    }

    fn plan(&self, pipeline: &Pipeline) -> Result<Plan, Failure> {
        if pipeline.steps.is_empty() {
            return Err(Failure::usage(format!("there is no step in {MANIFEST}"))
                .hint("say what is to be run: [pipeline.steps.test] with run = \"…\""));
        }
        let plan = pipeline.plan(&Trigger::Tree);
        let wanted: Vec<StepName> = self.steps.iter().chain(&self.named).cloned().collect();
        if wanted.is_empty() {
            return Ok(plan);
        }
        plan.only(&wanted).map_err(|unknown| {
            let names: Vec<&str> = pipeline.steps.iter().map(|step| step.name.as_str()).collect();
            Failure::usage(format!("there is no step {unknown} in {MANIFEST}")).hint(format!("there are: {}", names.join(", ")))
        })
    }

    /// What they run on: as was typed, as the manifest says, as the steps need it, else what is there.
    async fn engine(&self, spec: &AppSpec, plan: &Plan, context: &Context) -> Result<EngineKind, Failure> {
        if let Some(kind) = self.engine.or(spec.engine) {
            return Ok(kind);
        }
        if unsuitable(plan.jobs.iter().map(|job| &job.step), EngineKind::Process).is_some() {
            return Ok(EngineKind::Docker);
        }
        match Local::open(&context.directory, EngineKind::Docker, context).await {
            Ok(_) => Ok(EngineKind::Docker),
            Err(_) => Ok(EngineKind::Process),
        }
    }

    /// The values of what steps, and the build, name as secrets: from the environment, else from the files.
    fn secrets(&self, root: &Path, spec: &AppSpec, plan: &Plan, builds: bool) -> Result<Vec<(EnvName, Secret)>, Failure> {
        let of_steps = plan.jobs.iter().flat_map(|job| &job.step.secrets);
        let of_build = builds.then_some(&spec.build.secrets).into_iter().flatten();
        let mut names: Vec<&EnvName> = of_steps.chain(of_build).collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let files = self.variables(root)?;
        let value = |name: &EnvName| std::env::var(name.as_str()).ok().or_else(|| files.get(name.as_str()).cloned());
        let missing: Vec<&str> = names.iter().filter(|name| value(name).is_none()).map(|name| name.as_str()).collect();
        if !missing.is_empty() {
            return Err(Failure::usage(format!("secrets that steps name are not set: {}", missing.join(", ")))
                .hint("write them into .env in this directory, or set them in the environment"));
        }
        Ok(names.into_iter().filter_map(|name| Some((name.clone(), Secret::new(value(name)?)))).collect())
    }

    fn variables(&self, root: &Path) -> Result<BTreeMap<String, String>, Failure> {
        let named = self.env_file.iter().map(|file| root.join(file)).collect();
        let mut variables = BTreeMap::new();
        for (file, text) in project_file::variables(root.join(".env"), named)? {
            let failed = |what: String| Failure::usage(format!("{}: {what}", file.display()));
            let entries = dotenv::parse(&text, &|name| std::env::var(name).ok()).map_err(|error| failed(error.to_string()))?;
            variables.extend(entries.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        Ok(variables)
    }
}

fn spec(root: &Path, context: &Context) -> Result<AppSpec, Failure> {
    let name = context.global.app.clone().or_else(|| directory_name(root)).or_else(|| "app".parse().ok());
    let spec = spec_of(root, context.global.environment.as_deref(), name)?;
    spec.ok_or_else(nameless)
}

fn pipeline(root: &Path) -> Result<Pipeline, Failure> {
    let path = root.join(MANIFEST);
    let missing = || {
        Failure::usage(format!("there is no {MANIFEST} here, and so there are no steps"))
            .hint("write one with `coracle init`, and what is to be run: [pipeline.steps.test] with run = \"…\"")
    };
    let text = project_file::manifest(&path)?.ok_or_else(missing)?;
    Pipeline::parse(&text).map_err(|mistakes| {
        Failure::usage(format!("the [pipeline] of {} has mistakes; nothing was done", path.display()))
            .excerpt(mistakes.to_string())
    })
}

/// Shows what happens, each line behind the name of its step, and at the end what became of each.
struct Sheet {
    output: Arc<Output>,
    /// The names of the steps, in their order; what stands at its place has this colour.
    names: Vec<String>,
    width: usize,
    steps: Mutex<Vec<PipelineStep>>,
}

/// What Coracle itself says stands behind this name.
const OWN: &str = "ci";

impl Sheet {
    fn new(output: Arc<Output>, plan: &Plan) -> Self {
        let names: Vec<String> = plan.jobs.iter().map(ToString::to_string).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).clamp(OWN.len(), 40);
        Self { output, names, width, steps: Mutex::default() }
    }

    fn tell(self: &Arc<Self>) -> Tell {
        let sheet = self.clone();
        Arc::new(move |news| sheet.take(news))
    }

    fn take(&self, news: News) {
        match news {
            News::Note(text) => {
                self.output.record(&json!({ "event": "note", "text": text }));
                if !self.output.manner().json {
                    let paint = self.output.paint();
                    self.output.tell(format!("{} {}", self.prefix(OWN, Style::Dim), paint.with(Style::Dim, harmless(&text))));
                }
            }
            News::Output { step, line } => {
                self.output.record(&json!({ "event": "output", "step": step, "stream": line.stream, "text": line.text }));
                if !self.output.manner().json {
                    let colour = self.names.iter().position(|name| *name == step).unwrap_or(self.names.len());
                    let text = if self.output.manner().colour { harmless_colours(&line.text) } else { harmless(&line.text) };
                    self.output.tell(format!("{} {text}", self.prefix(&step, Style::Process(colour))));
                }
            }
            News::Step(step) => {
                let step = PipelineStep::from(step);
                self.output.record(&json!({ "event": "step", "step": step }));
                let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
                match steps.iter_mut().find(|known| known.name == step.name) {
                    Some(known) => *known = step,
                    None => steps.push(step),
                }
            }
            News::Handed { .. } => {}
        }
    }

    fn prefix(&self, name: &str, style: Style) -> String {
        self.output.paint().with(style, format!("{:width$} |", harmless(name), width = self.width))
    }

    fn finish(&self, ended: &Result<(), StepFailure>) {
        let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match ended {
            Ok(()) => PipelineStepState::Passed,
            Err(StepFailure::Cancelled) => PipelineStepState::Cancelled,
            Err(_) => PipelineStepState::Failed,
        };
        self.output.record(&json!({ "event": "ended", "outcome": outcome, "steps": *steps }));
        if !steps.is_empty() && !self.output.manner().json {
            self.output.line("");
            self.output.line(table(&steps).render(self.output.manner().width, self.output.paint()).trim_end());
        }
    }
}
