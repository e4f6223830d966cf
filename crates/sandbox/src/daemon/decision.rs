//! How programs will be isolated: found out once, also where the daemon starts itself again as root of a user namespace. What
//! was chosen goes with it in a variable, which counts only in the process that has set it.

use std::process::Command;

use serde_json::{Value, json};

use super::{DaemonError, Options};
use crate::docker::EngineInfo;
use crate::isolation::Isolation;
use crate::probe::{Choice, Report};

/// The variable.
const VARIABLE: &str = "CORACLE_SANDBOX_DECISION";

/// What was found and chosen.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) choice: Choice,
    /// Whether this is the machine's root.
    pub(super) root: bool,
    /// The engine, where it was chosen.
    pub(super) docker: Result<EngineInfo, String>,
}

impl Decision {
    /// The one that this process came to before it started itself again, or else a new one.
    pub(super) fn find(options: &Options) -> Result<Self, DaemonError> {
        let taken_along = std::env::var(VARIABLE).ok().and_then(|text| read(&text, std::process::id()));
        if let Some(choice) = taken_along {
            return Ok(Self { choice, root: false, docker: Err("no engine was chosen".to_owned()) });
        }
        let report = Report::look(options.docker.as_deref());
        let missing = |why| DaemonError::Missing { what: "a safe way to run programs", why };
        let choice = report.choose(options.isolation, options.permitted).map_err(missing)?;
        Ok(Self { choice, root: report.root, docker: report.docker })
    }

    /// Whether programs will be in slots of our own.
    pub(super) fn is_slots(&self) -> bool {
        matches!(self.choice.isolation, Isolation::Zygote | Isolation::Exec)
    }

    /// Gives it to a program that this process is about to become.
    pub(super) fn take_along<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(VARIABLE, write(&self.choice, std::process::id()))
    }

    /// Tells the operator.
    pub(super) fn log(&self) {
        tracing::info!(isolation = self.choice.isolation.as_str(), why = self.choice.why, "programs are isolated");
        for sentence in &self.choice.weaker {
            tracing::warn!("{sentence}");
        }
    }
}

fn write(choice: &Choice, process: u32) -> String {
    let Choice { isolation, why, weaker } = choice;
    json!({ "process": process, "isolation": isolation.as_str(), "why": why, "weaker": weaker }).to_string()
}

/// Slots of our own are all that is taken along.
fn read(text: &str, process: u32) -> Option<Choice> {
    let told: Value = serde_json::from_str(text).ok()?;
    if told.get("process")?.as_u64()? != u64::from(process) {
        return None;
    }
    let word = told.get("isolation")?.as_str()?;
    let isolation = [Isolation::Zygote, Isolation::Exec].into_iter().find(|one| one.as_str() == word)?;
    let weaker = told.get("weaker")?.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<_>>()?;
    Some(Choice { isolation, why: told.get("why")?.as_str()?.to_owned(), weaker })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_counts_for_the_process_that_made_it_and_nobody_else() {
        let choice =
            Choice { isolation: Isolation::Exec, why: "\"why\"".to_owned(), weaker: vec!["a".to_owned(), "b".to_owned()] };
        let text = write(&choice, 7);
        assert_eq!(read(&text, 7), Some(choice.clone()));
        assert_eq!(read(&text, 8), None);
        let none = Choice { isolation: Isolation::Nothing, ..choice };
        assert_eq!(read(&write(&none, 7), 7), None);
        assert_eq!(read("", 7), None);
    }
}
