//! Procfiles: one process a line, `name: command`. Blank lines and lines that begin with `#` say nothing; anything else is
//! an error, since a half-merged Procfile must not deploy half an app.

use std::collections::BTreeMap;

use coracle_model::{CommandLine, ProcessName};

/// A Procfile, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Procfile {
    /// Every process but `release`.
    pub processes: BTreeMap<ProcessName, CommandLine>,
    /// The `release:` line: a command that runs once before a release starts.
    pub release: Option<CommandLine>,
}

/// A line of a Procfile that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Procfile:{line}: {message}")]
pub struct ProcfileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Procfile {
    /// Reads a Procfile.
    pub fn parse(text: &str) -> Result<Self, ProcfileError> {
        let mut procfile = Self::default();
        for (n, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                procfile.add(line).map_err(|message| ProcfileError { line: n + 1, message })?;
            }
        }
        Ok(procfile)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let shown: String = line.chars().take(80).collect();
        let (name, command) = line.split_once(':').ok_or_else(|| format!("{shown:?} is not of the form `name: command`"))?;
        let name: ProcessName = name.trim_end().parse().map_err(|error: coracle_model::NameError| error.to_string())?;
        let command: CommandLine = command.parse().map_err(|error| format!("{name}: {error}"))?;
        let taken = if name.as_str() == "release" {
            self.release.replace(command).is_some()
        } else {
            self.processes.insert(name.clone(), command).is_some()
        };
        if taken { Err(format!("{name} is defined twice")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_blank_lines_and_windows_line_ends_are_no_processes() {
        let text = "\u{feff}# the app\r\n\r\nweb: gunicorn app:app # in front\r\n  worker :  python -u worker.py\r\nrelease: ./migrate\r\n";
        let procfile = Procfile::parse(text).unwrap();
        let lines: Vec<_> = procfile.processes.iter().map(|(name, command)| format!("{name}={command}")).collect();
        assert_eq!(lines, ["web=gunicorn app:app", "worker=python -u worker.py"]);
        assert_eq!(procfile.release.unwrap().to_string(), "./migrate");
        assert_eq!(Procfile::parse("").unwrap(), Procfile::default());
    }

    #[test]
    fn wrong_lines_are_named_by_their_number() {
        for (text, expected) in [
            ("web: a\n<<<<<<< HEAD\nworker: b", "Procfile:2: \"<<<<<<< HEAD\" is not of the form `name: command`"),
            ("web: a\n\nweb: b", "Procfile:3: web is defined twice"),
            ("release: a\nrelease: b", "Procfile:2: release is defined twice"),
            ("web:", "Procfile:1: web: the command names no program"),
            ("web: 'a", "Procfile:1: web: the ' at character 2 has no end"),
        ] {
            assert_eq!(Procfile::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        for text in ["Web: a", "../x: a", "web: a && b", ": a", "a b: c"] {
            assert!(Procfile::parse(text).is_err(), "{text}");
        }
    }

    /// Cases of other projects, read where they lie beside the checkout.
    #[test]
    fn other_peoples_procfiles() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/cases/detect/procfile.jsonl");
        let Ok(cases) = std::fs::read_to_string(path) else { return };
        for case in cases.lines() {
            let case: serde_json::Value = serde_json::from_str(case).unwrap();
            let (expect, read) = (&case["expect"], Procfile::parse(case["procfile"].as_str().unwrap()));
            assert_eq!(read.is_err(), expect["error"] == true, "{case}");
            let Ok(read) = read else { continue };
            if let Some(wanted) = expect["processes"].as_array() {
                let mut names: Vec<_> = read.processes.keys().map(ProcessName::as_str).collect();
                names.extend(read.release.iter().map(|_| "release"));
                names.sort_unstable();
                assert_eq!(&names, wanted, "{case}");
            }
            let web = || read.processes[&ProcessName::web()].expand(&|name| (name == "PORT").then(|| "5000".to_owned()));
            if let Some(start) = expect["web_starts_with"].as_str() {
                assert!(web().1.join(" ").starts_with(start), "{case}");
            }
            if expect["web_expands"] == "$PORT" {
                assert!(web().1.iter().any(|word| word.contains("5000")), "{case}");
            }
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(.{0,20}\n?){0,5}") {
            drop(Procfile::parse(&text));
        }
    }
}
