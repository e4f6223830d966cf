//! `make conformance [CASES=DIR]`: feeds cases of other projects, one JSON object per line, through the program's public
//! interfaces, and counts what holds.
//!
//! A real `coracle proxy` runs with nothing but options anybody could give it, is told each row's table over its control
//! socket, and is asked over real connections; an upstream of ours writes down what reaches it. Nothing of the cases is kept
//! here, and no row is known by name save in `disputed.toml`, which names those that we do not follow and says why.
//!
//! Ends with 0 if no row fails, with 1 if one does, with 2 if there are no cases.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cases;
mod expectation;
mod middleware_rows;
mod report;
mod request;
mod rule_rows;
mod seed_rows;
mod subject;
mod translation;
mod upstream;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use report::{Disputed, Report};
use subject::Subjects;

/// Rows of a file, fed in their order.
#[derive(Debug, Clone, Copy)]
enum Suite {
    Rules,
    Middlewares,
    Seed,
}

const SUITES: &[(&str, Suite)] = &[
    ("traefik/rules.jsonl", Suite::Rules),
    ("traefik/middlewares.jsonl", Suite::Middlewares),
    ("traefik/seed_proxy.jsonl", Suite::Seed),
];

#[tokio::main]
async fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: conformance DIRECTORY");
        return ExitCode::from(2);
    };
    if !folder.is_dir() {
        eprintln!("conformance: there are no cases at {}; name a folder of them with CASES=DIR", folder.display());
        return ExitCode::from(2);
    }
    match run(&folder).await {
        Ok(report) => {
            println!("{report}");
            if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(folder: &std::path::Path) -> Result<Report> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let directory = tempfile::tempdir()?;
    let mut subjects = Subjects::new(directory.path()).await?;
    let mut report = Report::new(Disputed::read()?);
    for file in cases::files(folder)? {
        let Some((_, suite)) = SUITES.iter().find(|(name, _)| *name == file) else {
            report.not_fed(&file);
            continue;
        };
        for row in cases::rows(&folder.join(&file))? {
            let verdict = match suite {
                Suite::Rules => rule_rows::verdict(&row, &mut subjects).await,
                Suite::Middlewares => middleware_rows::verdict(&row, &mut subjects).await,
                Suite::Seed => seed_rows::verdict(&row, &mut subjects).await,
            };
            report.add(&file, &row, verdict);
        }
    }
    Ok(report)
}
