//! `coracle ci artifacts`: what the steps of a run handed over, brought here. The archives are taken for hostile: nothing but plain
//! files and folders is laid down, no link is followed, and nothing that is there is touched.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use coracle_api::{Client, PipelineRun, PipelineStep};
use coracle_build::ParcelLimits;
use coracle_build::parcel::{self, Standing};
use coracle_model::run::is_called;
use coracle_model::{ByteSize, DeploymentId};
use serde_json::json;

use super::{find, parse_run};
use crate::commands::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::output::text::harmless;

/// An archive that is larger cannot be one of a step's: they are bounded before they are compressed.
const MOST_BYTES: u64 = 300 << 20;

/// Download what the steps of a run handed over
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle ci artifacts                    what each step of the newest run handed over, in ./artifacts-d12/STEP
  coracle ci artifacts d12 --step test    what one step handed over, in ./artifacts-d12
  coracle ci artifacts --step test -o out")]
pub(super) struct Artifacts {
    /// The run [default: the newest]
    #[arg(value_name = "RUN", value_parser = parse_run)]
    id: Option<DeploymentId>,
    /// Only what this step handed over
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Where to put it; files that are there are not touched [default: artifacts-RUN]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Artifacts {
    pub(super) async fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        let client = context.client()?;
        let run = find(&client, context, self.id).await?;
        let with: Vec<&PipelineStep> = run.steps.iter().filter(|step| step.artifacts.is_some()).collect();
        let wanted: Vec<&PipelineStep> = match &self.step {
            None => with.clone(),
            Some(name) => with.iter().filter(|step| is_called(&step.name, name)).copied().collect(),
        };
        if wanted.is_empty() {
            let names: Vec<&str> = with.iter().map(|step| step.name.as_str()).collect();
            let told = match self.step.filter(|_| !names.is_empty()) {
                Some(step) => format!("{step} in {} handed nothing over; these did: {}", run.id, names.join(", ")),
                None => format!("no step of {} handed anything over", run.id),
            };
            return Err(
                Failure::failed(harmless(&told).into_owned()).hint("say what a step hands over with `artifacts` in coracle.toml")
            );
        }
        let root = self.output.unwrap_or_else(|| PathBuf::from(format!("artifacts-{}", run.id)));
        let alone = self.step.is_some() && wanted.len() == 1;
        let mut told = Vec::new();
        for step in wanted {
            let below = if alone { PathBuf::new() } else { PathBuf::from(folder_name(&step.name)) };
            let facts = fetch(&client, &run, step, (&root, &below)).await?;
            let place = root.join(&below);
            let bytes = ByteSize::bytes(facts.bytes);
            context.output.line(format!("{}: {} files, {bytes}, in {}", harmless(&step.name), facts.files, place.display()));
            told.push(json!({ "step": step.name, "files": facts.files, "content_bytes": facts.bytes, "place": place }));
        }
        context.output.document(&told);
        Ok(DONE)
    }
}

/// A step's name as that of a folder: values of its matrix may have anything in them.
fn folder_name(step: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.=,[]".contains(c) { c } else { '_' };
    step.chars().map(plain).collect()
}

async fn fetch(
    client: &Client,
    run: &PipelineRun,
    step: &PipelineStep,
    (root, below): (&Path, &Path),
) -> Result<coracle_build::ParcelFacts, Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::failed(format!("{what}: {error}"));
    let mut pieces = client.pipeline_artifacts(run.id, &step.name).await?;
    let (folder, _) = Folder::make(root)?.below(below)?.into_parts();
    let mut archive = tempfile::NamedTempFile::new().map_err(|error| failed("cannot make a file", &error))?;
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        bytes += piece.len() as u64;
        if bytes > MOST_BYTES {
            return Err(Failure::failed("the server sends more than artifacts can be"));
        }
        archive.write_all(&piece).map_err(|error| failed("cannot keep what was sent", &error))?;
    }
    archive.flush().map_err(|error| failed("cannot keep what was sent", &error))?;
    let laid = parcel::lay_in(archive.path(), folder, &root.join(below), Standing::Stays, ParcelLimits::default());
    laid.map_err(|error| failed("cannot lay out what was sent", &error).hint("name an empty directory with -o DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_step_leads_anywhere() {
        assert_eq!(folder_name("test[PYTHON=3.12]"), "test[PYTHON=3.12]");
        assert_eq!(folder_name("test[A=../../x/\u{1b}]"), "test[A=.._.._x__]");
    }
}
