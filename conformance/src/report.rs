//! What held and what did not.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cases::{Row, id};

/// A row holds, or what was expected and what came instead.
pub(crate) type Verdict = Result<(), String>;

/// Rows that we do not follow, by id, with the reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disputed {
    rows: BTreeMap<String, String>,
}

impl Disputed {
    pub(crate) fn read() -> Result<Self> {
        toml::from_str(include_str!("../disputed.toml")).context("disputed.toml")
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    passed: usize,
    failed: usize,
    disputed: usize,
    set_aside: usize,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} disputed", self.passed, self.failed, self.disputed)?;
        if self.set_aside > 0 { write!(f, ", {} set aside", self.set_aside) } else { Ok(()) }
    }
}

/// All files.
#[derive(Debug)]
pub(crate) struct Report {
    disputed: Disputed,
    counts: BTreeMap<String, Count>,
    not_fed: Vec<String>,
    lines: Vec<String>,
}

impl Report {
    pub(crate) fn new(disputed: Disputed) -> Self {
        Self { disputed, counts: BTreeMap::new(), not_fed: Vec::new(), lines: Vec::new() }
    }

    /// Counts a row.
    pub(crate) fn add(&mut self, file: &str, row: &Row, verdict: Verdict) {
        let count = self.counts.entry(file.to_owned()).or_default();
        let id = id(row);
        match (verdict, self.disputed.rows.get(id)) {
            (Ok(()), _) => count.passed += 1,
            (Err(why), Some(reason)) => {
                count.disputed += 1;
                self.lines.push(format!("disputed {id}: {why}\n         because {reason}"));
            }
            (Err(why), None) => {
                count.failed += 1;
                let about = row["desc"].as_str().or_else(|| row["title"].as_str()).unwrap_or_default();
                self.lines.push(format!("failed   {id} ({about}): {why}"));
            }
        }
    }

    /// Counts a row that was not fed, and says why.
    pub(crate) fn set_aside(&mut self, file: &str, row: &Row, reason: &str) {
        self.counts.entry(file.to_owned()).or_default().set_aside += 1;
        self.lines.push(format!("aside    {}: {reason}", id(row)));
    }

    /// Names a file that no suite knows.
    pub(crate) fn not_fed(&mut self, file: &str) {
        self.not_fed.push(file.to_owned());
    }

    pub(crate) fn failed(&self) -> usize {
        self.counts.values().map(|count| count.failed).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for file in &self.not_fed {
            writeln!(f, "{file}: not fed yet")?;
        }
        let mut all = Count::default();
        for (file, count) in &self.counts {
            writeln!(f, "{file}: {count}")?;
            all.passed += count.passed;
            all.failed += count.failed;
            all.disputed += count.disputed;
            all.set_aside += count.set_aside;
        }
        write!(f, "in all: {all}")
    }
}
