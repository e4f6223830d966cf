//! Rows about a compose project that runs. They say what a test of another suite is to show, and which words were typed, but the
//! projects themselves are not in them: `scenarios.toml` has projects of ours that ask the same, by the tests' names, and says of
//! the others why Coracle has no such thing. Each project is deployed by a real server on Docker and destroyed again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use coracle_model::EngineKind;
use coracle_tests::Env;
use coracle_tests::engine::docker_answers;
use coracle_tests::program::Ran;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::cases::{Row, text};
use crate::report::Verdict;

/// No scenario takes longer: some build images.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a line may take to come up in the logs.
const LOGS: Duration = Duration::from_secs(20);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    scenario: Vec<Scenario>,
    without: Vec<Without>,
}

/// A project of ours, and what is to come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    of: Vec<String>,
    files: BTreeMap<String, String>,
    #[serde(default)]
    config: Vec<String>,
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    then: Vec<Then>,
    refused: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Then {
    Shows(String),
    Never(String),
    Same(bool),
    Resolved(String),
}

/// What is not here, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Without {
    of: Vec<String>,
    why: String,
}

/// What is to be said of a row.
pub(crate) enum Outcome {
    Judged(Verdict),
    /// It was not fed, for this reason.
    SetAside(String),
}

/// The scenarios, and the server that they are told to, once one is needed.
pub(crate) struct Runtime {
    book: Book,
    env: Option<Env>,
    /// Scenarios that several rows ask for are told once.
    told: BTreeMap<usize, Verdict>,
}

impl Runtime {
    pub(crate) fn new() -> Result<Self> {
        let book = toml::from_str(include_str!("../scenarios.toml")).context("scenarios.toml")?;
        Ok(Self { book, env: None, told: BTreeMap::new() })
    }

    /// Judges a row by the scenario that asks the same.
    pub(crate) async fn outcome(&mut self, row: &Row) -> Outcome {
        let source = text(row, "src").unwrap_or_default();
        let test = source.rsplit('#').next().unwrap_or_default().split('(').next().unwrap_or_default();
        let is_of = |of: &[String]| of.iter().any(|name| name == test);
        if let Some(without) = self.book.without.iter().find(|without| is_of(&without.of)) {
            return Outcome::SetAside(without.why.clone());
        }
        let Some(at) = self.book.scenario.iter().position(|scenario| is_of(&scenario.of)) else {
            return Outcome::SetAside(format!("scenarios.toml has nothing for {test}"));
        };
        if !docker_answers() {
            return Outcome::SetAside("no Docker Engine answers".to_owned());
        }
        if let Some(verdict) = self.told.get(&at) {
            return Outcome::Judged(verdict.clone());
        }
        let verdict = self.tell(at).await.map_err(|error| format!("{error:#}"));
        self.told.insert(at, verdict.clone());
        Outcome::Judged(verdict)
    }

    async fn tell(&mut self, at: usize) -> Result<()> {
        let env = match &self.env {
            Some(env) => env.clone(),
            // What the harness has against a server it says by panicking.
            None => tokio::spawn(Env::start(EngineKind::Docker)).await.context("the server does not start")?,
        };
        self.env = Some(env.clone());
        let telling = Telling {
            env,
            scenario: self.book.scenario[at].clone(),
            app: format!("scenario-{at}"),
            folder: tempfile::tempdir()?,
        };
        let told = tokio::spawn(async move {
            let told = timeout(PATIENCE, telling.tell()).await;
            let destroyed = telling.coracle(&["-y", "destroy"]).await;
            let told = told.with_context(|| format!("it takes longer than {PATIENCE:?}"))?;
            // What was refused before there was an app leaves none to destroy.
            anyhow::ensure!(destroyed.code == Some(0) || telling.scenario.refused.is_some(), "{destroyed}");
            told
        });
        told.await.context("the harness gave up")?
    }
}

/// A scenario while it is being told.
struct Telling {
    env: Env,
    scenario: Scenario,
    app: String,
    folder: TempDir,
}

impl Telling {
    async fn coracle(&self, words: &[&str]) -> Ran {
        let mut command = self.env.command(&["-a", &self.app]);
        command.args(words).current_dir(self.folder.path());
        Ran::to_its_end(command).await
    }

    async fn tell(&self) -> Result<()> {
        write(self.folder.path(), &self.scenario.files)?;
        if !self.scenario.config.is_empty() {
            let words: Vec<&str> = ["config", "set"].into_iter().chain(self.scenario.config.iter().map(String::as_str)).collect();
            anyhow::ensure!(self.coracle(&words).await.code == Some(0), "its configuration is not taken");
        }
        let deployed = self.deploy().await;
        if let Some(named) = &self.scenario.refused {
            // Whether that is a failure or a wrong question is told elsewhere.
            anyhow::ensure!(matches!(deployed.code, Some(1 | 2)), "expected to be refused with {named:?}: {deployed}");
            anyhow::ensure!(deployed.output().contains(named.as_str()), "refused without naming {named:?}: {deployed}");
            return Ok(());
        }
        anyhow::ensure!(deployed.code == Some(0), "{deployed}");
        for then in &self.scenario.then {
            self.check(then).await?;
        }
        Ok(())
    }

    async fn deploy(&self) -> Ran {
        let words: Vec<&str> = ["deploy"].into_iter().chain(self.scenario.options.iter().map(String::as_str)).collect();
        self.coracle(&words).await
    }

    async fn check(&self, then: &Then) -> Result<()> {
        match then {
            Then::Shows(wanted) => {
                let give_up = Instant::now() + LOGS;
                loop {
                    let logs = self.logs().await;
                    if logs.contains(wanted) {
                        return Ok(());
                    }
                    anyhow::ensure!(Instant::now() < give_up, "{wanted:?} is not in the logs: {logs}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Then::Never(unwanted) => {
                let logs = self.logs().await;
                anyhow::ensure!(!logs.contains(unwanted), "{unwanted:?} is in the logs: {logs}");
            }
            Then::Same(same) => {
                let before = self.coracle(&["releases"]).await.stdout;
                let again = self.deploy().await;
                anyhow::ensure!(again.code == Some(0), "{again}");
                let after = self.coracle(&["releases"]).await.stdout;
                anyhow::ensure!((before.lines().count() == after.lines().count()) == *same, "{before}then {after}");
            }
            Then::Resolved(wanted) => {
                let printed = self.coracle(&["compose", "config"]).await;
                anyhow::ensure!(printed.stdout.contains(wanted), "{wanted:?} is not in the model: {printed}");
            }
        }
        Ok(())
    }

    async fn logs(&self) -> String {
        self.coracle(&["logs", "-n", "all"]).await.output()
    }
}

fn write(folder: &Path, files: &BTreeMap<String, String>) -> Result<()> {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(path, text)?;
    }
    Ok(())
}
