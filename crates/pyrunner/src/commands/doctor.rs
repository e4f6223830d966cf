//! `pyrunner doctor`: what this machine offers for sandboxes, which way is chosen, and why.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coracle_sandbox::probe::{Choice, Report};
use coracle_sandbox::{Image, Library, Permitted, Source, Wanted};

use super::image::library;
use super::settings::interpreter;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The way that is wanted
    #[arg(long, env = "PYRUNNER_ISOLATION", default_value = "auto", value_name = "auto|zygote|exec|docker")]
    isolation: Wanted,
    /// Socket of the Docker engine [default: DOCKER_HOST, or /var/run/docker.sock]
    #[arg(long, env = "PYRUNNER_DOCKER_SOCKET", value_name = "PATH")]
    docker_socket: Option<PathBuf>,
    /// Put up with limits of each process alone, where there are no cgroups
    #[arg(long, env = "PYRUNNER_ALLOW_WEAK_LIMITS")]
    allow_weak_limits: bool,
    /// Put up with no sandbox at all where none can be made
    #[arg(long)]
    unsafe_no_sandbox: bool,
    /// Interpreter of the default image [default: the machine's]
    #[arg(long, env = "PYRUNNER_PYTHON", value_parser = interpreter, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Directory of images [default: /var/lib/pyrunner-images for root, else ~/.local/share/pyrunner/images]
    #[arg(long, env = "PYRUNNER_IMAGES", value_name = "DIR")]
    images: Option<PathBuf>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// What can be done where no way is safe.
pub(super) const WAYS_OUT: &str = "hint: run as root, have a cgroup delegated to this user, or let this user reach a Docker engine; \
                                   --allow-weak-limits puts up with limits of each process alone where there are no cgroups";

/// One thing that was looked at.
struct Finding {
    what: String,
    found: Result<String, String>,
}

pub(crate) fn run(arguments: &Doctor) -> ExitCode {
    // First of all, while this process has one thread: what is found out is found out by trying.
    let report = Report::look(arguments.docker_socket.as_deref());
    let permitted = Permitted { weak_limits: arguments.allow_weak_limits, no_sandbox: arguments.unsafe_no_sandbox };
    let choice = report.choose(arguments.isolation, permitted);
    let mut findings: Vec<Finding> =
        report.lines().into_iter().map(|(what, found)| Finding { what: what.to_owned(), found }).collect();
    let python = Image::find("default", Source::Host { python: arguments.python.clone() }, 1);
    let found = python.map(|image| image.python().display().to_string()).map_err(|error| error.to_string());
    findings.push(Finding { what: "python".to_owned(), found });
    match library(arguments.images.as_deref()) {
        Ok(library) => findings.extend(images(&library)),
        Err(error) => findings.push(Finding { what: "image library".to_owned(), found: Err(error.to_string()) }),
    }
    // What is missing is no failure by itself: the choice says whether there is a way without it.
    let images_work = findings.iter().filter(|finding| finding.what.starts_with("image ")).all(|finding| finding.found.is_ok());
    if arguments.json {
        output::result(as_json(&findings, &choice));
    } else {
        tell(&findings, &choice);
    }
    if choice.is_ok() && images_work { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn images(library: &Library) -> Vec<Finding> {
    let one = |name: &String| library.open(name, 1).map(|image| image.python().display().to_string());
    match library.list() {
        Ok(list) => list
            .iter()
            .map(|(name, _)| Finding { what: format!("image {name}"), found: one(name).map_err(|error| error.to_string()) })
            .collect(),
        Err(error) => vec![Finding { what: "image library".to_owned(), found: Err(error.to_string()) }],
    }
}

fn tell(findings: &[Finding], choice: &Result<Choice, String>) {
    for Finding { what, found } in findings {
        match found {
            Ok(found) => output::result(format_args!("{what:<12} {found}")),
            Err(why) => output::result(format_args!("{what:<12} not usable: {why}")),
        }
    }
    match choice {
        Ok(choice) => {
            output::result(format_args!("{:<12} {}, because {}", "isolation", choice.isolation, choice.why));
            for sentence in &choice.weaker {
                output::result(format_args!("{:<12} {sentence}", "weaker"));
            }
        }
        Err(why) => {
            output::result(format_args!("{:<12} none is safe here: {why}", "isolation"));
            output::note(WAYS_OUT);
        }
    }
}

fn as_json(findings: &[Finding], choice: &Result<Choice, String>) -> serde_json::Value {
    let findings: Vec<_> = findings
        .iter()
        .map(|Finding { what, found }| match found {
            Ok(found) => serde_json::json!({ "what": what, "ok": true, "found": found }),
            Err(why) => serde_json::json!({ "what": what, "ok": false, "why": why }),
        })
        .collect();
    match choice {
        Ok(choice) => serde_json::json!({
            "isolation": choice.isolation.as_str(), "why": choice.why, "weaker": choice.weaker, "findings": findings,
        }),
        Err(why) => serde_json::json!({ "isolation": null, "why": why, "weaker": [], "findings": findings }),
    }
}
