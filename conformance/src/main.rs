//! `make conformance [CASES=DIR] [MUTATIONS=N]`: feeds cases of other projects, one JSON object per line, through the program's public
//! interfaces, and counts what holds.
//!
//! A real `coracle proxy` runs with nothing but options anybody could give it, is told each row's table over its control
//! socket, and is asked over real connections; an upstream of ours writes down what reaches it. Compose files are written into
//! folders of their own and read by `coracle compose config`; with `--mutations N` each of them is written in N other ways that
//! mean the same, and has to come to the same model. Programs are executed by a real `pyrunner serve`, which has to be root for
//! that, over HTTP. Nothing of the cases is kept here, and no row is known by name save in `disputed.toml`, which names those that we do not follow and says why.
//!
//! Ends with 0 if no row fails, with 1 if one does, with 2 if there are no cases.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cases;
mod compose_mutations;
mod compose_project;
mod compose_rows;
mod execution_rows;
mod expectation;
mod label_rows;
mod middleware_rows;
mod pyrunner;
mod report;
mod request;
mod rule_rows;
mod runtime_rows;
mod seed_rows;
mod subject;
mod translation;
mod upstream;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use cases::Row;
use compose_rows::ComposeSuite;
use futures::StreamExt;
use pyrunner::PyRunner;
use report::{Disputed, Report, Verdict};
use runtime_rows::{Outcome, Runtime};
use subject::Subjects;

/// How many compose projects are read at once.
const AT_ONCE: usize = 4;

/// Rows of a file, fed in their order.
#[derive(Debug, Clone, Copy)]
enum Suite {
    Rules,
    Middlewares,
    Seed,
    Labels,
    Compose(ComposeSuite),
    Execution,
    Runtime,
}

const SUITES: &[(&str, Suite)] = &[
    ("traefik/rules.jsonl", Suite::Rules),
    ("traefik/middlewares.jsonl", Suite::Middlewares),
    ("traefik/seed_proxy.jsonl", Suite::Seed),
    ("traefik/labels.jsonl", Suite::Labels),
    ("compose/model_unit.jsonl", Suite::Compose(ComposeSuite::Model)),
    ("compose/model_real_files.jsonl", Suite::Compose(ComposeSuite::Model)),
    ("compose/model_coolify_templates.jsonl", Suite::Compose(ComposeSuite::Model)),
    ("compose/seed_files.jsonl", Suite::Compose(ComposeSuite::Model)),
    ("compose/interpolation.jsonl", Suite::Compose(ComposeSuite::Interpolation)),
    ("compose/env_file.jsonl", Suite::Compose(ComposeSuite::EnvFile)),
    ("compose/short_syntax.jsonl", Suite::Compose(ComposeSuite::ShortSyntax)),
    ("compose/runtime_scenarios_docker_compose.jsonl", Suite::Runtime),
    ("exec/code_execution.jsonl", Suite::Execution),
];

/// What was typed.
#[derive(Debug, Default)]
struct Wishes {
    folder: PathBuf,
    /// Only files whose name begins so.
    only: String,
    /// In how many other ways each compose project is written.
    mutations: u64,
    /// Where their chance begins.
    seed: u64,
}

impl Wishes {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut wishes = Self { seed: 1, ..Self::default() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--only" => wishes.only = words.next()?,
                "--mutations" => wishes.mutations = words.next()?.parse().ok()?,
                "--seed" => wishes.seed = words.next()?.parse().ok()?,
                _ => wishes.folder = word.into(),
            }
        }
        Some(wishes).filter(|wishes| !wishes.folder.as_os_str().is_empty())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(wishes) = Wishes::read(std::env::args().skip(1)) else {
        eprintln!("usage: conformance DIRECTORY [--only BEGINNING] [--mutations N] [--seed N]");
        return ExitCode::from(2);
    };
    if !wishes.folder.is_dir() {
        eprintln!("conformance: there are no cases at {}; name a folder of them with CASES=DIR", wishes.folder.display());
        return ExitCode::from(2);
    }
    match run(&wishes).await {
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

async fn run(wishes: &Wishes) -> Result<Report> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let directory = tempfile::tempdir()?;
    let mut subjects = None;
    let program = coracle_tests::program::path();
    let mut report = Report::new(Disputed::read()?);
    for file in cases::files(&wishes.folder)?.into_iter().filter(|file| file.starts_with(&wishes.only)) {
        let Some((_, suite)) = SUITES.iter().find(|(name, _)| *name == file) else {
            report.not_fed(&file);
            continue;
        };
        let rows = cases::rows(&wishes.folder.join(&file))?;
        if let Suite::Compose(suite) = *suite {
            composed(&file, &rows, suite, wishes, &program, &mut report).await;
            continue;
        }
        if matches!(suite, Suite::Execution) {
            executed(&file, &rows, directory.path(), &mut report).await?;
            continue;
        }
        if let Suite::Runtime = suite {
            running(&file, &rows, &mut report).await?;
            continue;
        }
        if subjects.is_none() {
            subjects = Some(Subjects::new(directory.path()).await?);
        }
        let subjects = subjects.as_mut().context("proxies")?;
        for row in &rows {
            let verdict = match suite {
                Suite::Rules => rule_rows::verdict(row, subjects).await,
                Suite::Middlewares => middleware_rows::verdict(row, subjects).await,
                Suite::Seed => seed_rows::verdict(row, subjects).await,
                Suite::Labels => label_rows::verdict(row, directory.path(), &program).await,
                Suite::Compose(_) | Suite::Execution | Suite::Runtime => continue,
            };
            report.add(&file, row, verdict);
        }
    }
    Ok(report)
}

/// Programs run one after the other, so that what one leaves behind can be told.
async fn executed(file: &str, rows: &[Row], directory: &Path, report: &mut Report) -> Result<()> {
    let server = PyRunner::start(directory).await?;
    for row in rows {
        report.add(file, row, execution_rows::verdict(row, &server).await);
    }
    server.end().await
}

/// Scenarios are told one after the other to one server.
async fn running(file: &str, rows: &[Row], report: &mut Report) -> Result<()> {
    let mut runtime = Runtime::new()?;
    for row in rows {
        match runtime.outcome(row).await {
            Outcome::Judged(verdict) => report.add(file, row, verdict),
            Outcome::SetAside(reason) => report.set_aside(file, row, &reason),
        }
    }
    Ok(())
}

/// Compose projects know nothing of each other: several are read at once, and told of in order.
async fn composed(file: &str, rows: &[Row], suite: ComposeSuite, wishes: &Wishes, program: &Path, report: &mut Report) {
    let verdicts = futures::stream::iter(rows).map(|row| compose_rows::verdict(row, suite, program)).buffered(AT_ONCE);
    let verdicts: Vec<Verdict> = verdicts.collect().await;
    for (row, verdict) in rows.iter().zip(verdicts) {
        report.add(file, row, verdict);
    }
    if wishes.mutations == 0 {
        return;
    }
    let mutated = futures::stream::iter(rows).map(|row| async {
        let project = compose_rows::project(row, suite)?;
        compose_mutations::verdict(&project, wishes.mutations, wishes.seed, program).await
    });
    let verdicts: Vec<Verdict> = mutated.buffered(AT_ONCE).collect().await;
    for (row, verdict) in rows.iter().zip(verdicts) {
        report.add(&format!("{file}, mutated"), row, verdict);
    }
}
