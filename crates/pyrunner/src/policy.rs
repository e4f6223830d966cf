//! Modules that programs may not import: told to people before anything runs. This is a policy and no protection. A program
//! that wants to can import anything in a hundred ways that no reading of its text finds; what it can do with it is the
//! sandbox's affair alone.
//!
//! A program's text is read by Python's own parser, which is not made for hostile texts, so it is read inside a sandbox.

use std::collections::BTreeSet;

use coracle_sandbox::{Event, Execution, Reason, Stdin};
use serde::Deserialize;

use crate::context::Context;
use crate::execution::not_started;
use crate::problem::{Problem, ProblemKind};
use crate::settings::Settings;

/// Reads a program from its standard input and writes the modules that it imports, with their lines, as JSON.
const READER: &str = include_str!("policy_reader.py");

/// The policy of a server.
pub(crate) struct ImportPolicy {
    forbidden: BTreeSet<String>,
    image: String,
}

#[derive(Debug, Deserialize)]
struct Import {
    module: String,
    line: u64,
}

impl ImportPolicy {
    /// The policy that the settings ask for, if they do.
    pub(crate) fn of(settings: &Settings) -> Option<Self> {
        let forbidden: BTreeSet<String> = settings.forbidden_imports.iter().filter(|name| !name.is_empty()).cloned().collect();
        (!forbidden.is_empty()).then(|| Self { forbidden, image: settings.default_image.clone() })
    }

    /// Refuses a program that imports what it may not. One that is no Python is let through, and will say so itself.
    pub(crate) async fn check(&self, context: &Context, execution: &Execution) -> Result<(), Problem> {
        let mut reading = Execution::new(self.image.clone(), READER);
        reading.stdin = Stdin::Bytes(execution.code.clone());
        reading.limits = execution.limits;
        let mut running = context.execute(&reading).await.map_err(|error| not_started(&error))?;
        let mut output = Vec::new();
        while let Some(event) = running.next().await.map_err(|error| not_started(&error))? {
            match event {
                Event::Stdout(piece) => output.extend_from_slice(&piece),
                Event::End(end) if end.reason != Reason::Ok => {
                    let detail = format!("the import policy cannot read this program ({})", end.reason.as_str());
                    return Err(Problem::new(ProblemKind::PolicyViolation, detail));
                }
                _ => {}
            }
        }
        let imports: Vec<Import> = serde_json::from_slice(&output)
            .map_err(|_| Problem::new(ProblemKind::PolicyViolation, "the import policy cannot read this program"))?;
        match imports.iter().find(|import| self.forbids(&import.module)) {
            None => Ok(()),
            Some(import) => {
                let module = crate::program::cut(&import.module, 200);
                let detail = format!("line {} imports {module}, which this server does not allow", import.line);
                let list: Vec<&str> = self.forbidden.iter().map(String::as_str).collect();
                Err(Problem::new(ProblemKind::PolicyViolation, detail).hint(format!("not allowed: {}", list.join(", "))))
            }
        }
    }

    /// A module is forbidden with all that is below it.
    fn forbids(&self, module: &str) -> bool {
        let above = module.match_indices('.').map(|(end, _)| &module[..end]);
        above.chain([module]).any(|name| self.forbidden.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_forbidden_module_is_forbidden_and_what_only_sounds_like_it_is_not() {
        let policy = ImportPolicy { forbidden: ["os".to_owned(), "a.b".to_owned()].into(), image: String::new() };
        for (module, forbidden) in
            [("os", true), ("os.path", true), ("osx", false), ("a", false), ("a.b.c", true), ("x.os", false)]
        {
            assert_eq!(policy.forbids(module), forbidden, "{module}");
        }
    }
}
