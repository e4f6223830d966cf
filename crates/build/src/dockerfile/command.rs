//! A command as `CMD`.

use coracle_model::CommandLine;
use coracle_model::command::{Piece, Word};
use serde_json::Value;

/// `CMD` as an argument vector. What has variables is expanded by a shell when the image starts by itself, since nobody else
/// would; the shell gives way to the program at once, so that signals reach that.
pub(super) fn instruction(command: &CommandLine, port: u16) -> String {
    let argv = match literal(command) {
        Some(words) => words,
        None => vec!["sh".to_owned(), "-c".to_owned(), format!("exec {}", with_default_port(command, port))],
    };
    format!("CMD {}\n", Value::from(argv))
}

/// The words of a command that has neither variables nor assignments.
fn literal(command: &CommandLine) -> Option<Vec<String>> {
    let text = |word: &Word| {
        let pieces = word.0.iter().map(|piece| if let Piece::Text(text) = piece { Some(text.as_str()) } else { None });
        pieces.collect::<Option<String>>()
    };
    if command.assignments.is_empty() { command.words.iter().map(text).collect() } else { None }
}

/// The same command with assignments as arguments of `env`, which `exec` can begin, and `$PORT` as it is where nobody says.
fn with_default_port(command: &CommandLine, port: u16) -> CommandLine {
    let mut words: Vec<Word> = Vec::new();
    if !command.assignments.is_empty() {
        words.push(Word(vec![Piece::Text("env".to_owned())]));
        words.extend(command.assignments.iter().map(|(name, value)| {
            // What is assigned is never split at its blanks.
            let begin = std::iter::once(Piece::Text(format!("{name}=")));
            Word(begin.chain(value.0.iter().map(quoted)).collect())
        }));
    }
    words.extend(command.words.iter().cloned());
    for word in &mut words {
        for piece in &mut word.0 {
            if let Piece::Variable { name, default: default @ None, .. } = piece
                && name.as_str() == "PORT"
            {
                *default = Some(port.to_string());
            }
        }
    }
    CommandLine { assignments: Vec::new(), words }
}

fn quoted(piece: &Piece) -> Piece {
    match piece {
        Piece::Text(text) => Piece::Text(text.clone()),
        Piece::Variable { name, default, .. } => Piece::Variable { name: name.clone(), default: default.clone(), quoted: true },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> String {
        instruction(&text.parse().unwrap(), 8080)
    }

    #[test]
    fn a_shell_is_there_only_for_variables() {
        assert_eq!(of("python -u 'my app.py'"), "CMD [\"python\",\"-u\",\"my app.py\"]\n");
        assert_eq!(of("gunicorn --bind :$PORT app:app"), "CMD [\"sh\",\"-c\",\"exec gunicorn --bind :${PORT:-8080} app:app\"]\n");
        assert_eq!(of("A=1 B=\"$A x\" web '$5'"), "CMD [\"sh\",\"-c\",\"exec env A=1 B=\\\"${A}\\\"' x' web '$5'\"]\n");
    }

    /// What a shell makes of it, with the variables of the test's environment.
    fn run_by_shell(command: &CommandLine, port: Option<&str>) -> Vec<String> {
        let line = instruction(command, 8080);
        let argv: Vec<String> = serde_json::from_str(line.strip_prefix("CMD ").unwrap().trim_end()).unwrap();
        let mut program = Command::new(&argv[0]);
        program
            .args(&argv[1..])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("WORDS", "a  b")
            .envs(port.map(|port| ("PORT", port)));
        let output = program.output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        output.stdout.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// No text of a command can become an instruction of the Dockerfile or a word of the shell's.
        #[test]
        fn every_command_says_what_coracle_would_run(
            texts in prop::collection::vec("[ -~\n\té]{0,12}", 1..5),
            variable in prop::sample::select(vec!["PORT", "WORDS", "NONE"]),
            quoted: bool,
            default in prop::option::of("[a-z]{1,3}"),
        ) {
            let text = |text: &str| Word(vec![Piece::Text(text.to_owned())]);
            let mut words = vec![text("printf"), text("%s\\0")];
            words.extend(texts.iter().map(|one| text(one)));
            words.push(Word(vec![
                Piece::Text("x".to_owned()),
                Piece::Variable { name: variable.parse().unwrap(), default, quoted },
            ]));
            let command = CommandLine { assignments: Vec::new(), words };
            prop_assert_eq!(instruction(&command, 8080).lines().count(), 1);
            let known = |name: &str| match name {
                "PORT" => Some("5000".to_owned()),
                "WORDS" => Some("a  b".to_owned()),
                _ => None,
            };
            let mut expected = command.expand(&known).1[2..].to_vec();
            // After the last word comes the end of the output.
            expected.push(String::new());
            prop_assert_eq!(run_by_shell(&command, Some("5000")), expected);
        }
    }

    #[test]
    fn where_nobody_says_the_port_it_is_that_of_the_image() {
        let command = "printf '%s\\0' $PORT".parse().unwrap();
        assert_eq!(run_by_shell(&command, None), ["8080", ""]);
        assert_eq!(run_by_shell(&command, Some("3000")), ["3000", ""]);
    }
}
