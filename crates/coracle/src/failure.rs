//! What a person is told when something did not happen: what went wrong, the evidence, what to type next. It decides the
//! exit code: 1 it failed, 2 it was asked for wrongly.

use coracle_api::{ClientError, Problem, ProblemKind};
use coracle_model::NameError;
use serde::Serialize;

use crate::output::text::{Paint, Style, harmless};

/// Why a command ends without having done what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
    evidence: Vec<String>,
    /// Text that is laid out already: a manifest's line with its caret.
    excerpt: Option<String>,
    cause: Option<String>,
}

/// The sort of failure; the words are part of the JSON output.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// It was asked for wrongly.
    Usage,
    /// It failed.
    Failed,
    /// It failed, in the server's word for how.
    Server(ProblemKind),
}

/// A failure for scripts.
#[derive(Debug, Serialize)]
pub(crate) struct FailureJson<'a> {
    error: Body<'a>,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    kind: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    /// The lines that show it: of a file with mistakes, or of what was printed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    evidence: Vec<&'a str>,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, evidence: Vec::new(), excerpt: None, cause: None }
    }

    /// It was asked for wrongly (exit code 2).
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// It failed (exit code 1).
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// It failed, and the server has a word for how.
    pub(crate) fn server(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self::new(Kind::Server(kind), message)
    }

    /// What to type next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self
    }

    /// Lines that prove it.
    #[must_use]
    pub(crate) fn evidence(mut self, lines: Vec<String>) -> Self {
        self.evidence = lines;
        self
    }

    /// The place of the mistake, laid out.
    #[must_use]
    pub(crate) fn excerpt(mut self, excerpt: impl Into<String>) -> Self {
        self.excerpt = Some(excerpt.into());
        self
    }

    /// What lies below it, told with `--verbose`.
    #[must_use]
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What went wrong, and nothing of what shows it.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// In a line or a few, for whoever goes on all the same.
    pub(crate) fn told(&self) -> String {
        let more = self.excerpt.iter().map(String::as_str).chain(self.evidence.iter().map(String::as_str));
        std::iter::once(self.message.as_str()).chain(more).collect::<Vec<_>>().join("; ")
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match &self.kind {
            Kind::Usage | Kind::Server(ProblemKind::BadRequest | ProblemKind::Invalid | ProblemKind::TooLarge) => 2,
            Kind::Failed | Kind::Server(_) => 1,
        }
    }

    /// For scripts.
    pub(crate) fn as_json(&self) -> FailureJson<'_> {
        let kind = match &self.kind {
            Kind::Usage => "usage",
            Kind::Failed => "failed",
            Kind::Server(kind) => kind.as_str(),
        };
        let excerpt = self.excerpt.as_deref().unwrap_or_default().lines();
        let evidence = excerpt.chain(self.evidence.iter().map(String::as_str)).collect();
        FailureJson { error: Body { kind, message: &self.message, hint: self.hint.as_deref(), evidence } }
    }

    /// For people.
    pub(crate) fn render(&self, paint: Paint, verbose: bool) -> String {
        let mut text = format!("{} {}\n", paint.with(Style::Red, "error:"), paragraph(&self.message));
        if let Some(excerpt) = &self.excerpt {
            for line in excerpt.lines() {
                text.push_str(&format!("{}\n", harmless(line)));
            }
        }
        for line in &self.evidence {
            text.push_str(&format!("  {} {}\n", paint.with(Style::Dim, "│"), harmless(line)));
        }
        if let (true, Some(cause)) = (verbose, &self.cause) {
            text.push_str(&format!("{} {}\n", paint.with(Style::Dim, "cause:"), paragraph(cause)));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{} {}\n", paint.with(Style::Cyan, "next:"), paragraph(hint)));
        }
        text
    }
}

/// A text of several lines behind a label.
fn paragraph(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(harmless).collect();
    lines.join("\n  ")
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::server(problem.kind, problem.detail).evidence(problem.evidence).hint(problem.hint.unwrap_or_default())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = error.hint().unwrap_or_default().to_owned();
        match error {
            ClientError::Problem(problem) => Self::from(*problem),
            ClientError::Endpoint(message) => Self::usage(message).hint(hint),
            other => Self::failed(other.to_string()).hint(hint),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_tells_what_the_evidence_and_what_next() {
        let failure = Failure::server(ProblemKind::DeploymentFailed, "probe failed: shop.v4.web.1 exited with code 1")
            .evidence(vec!["Traceback (most recent call last):".into(), "ImportError: no module named \x1b[2Jflask".into()])
            .hint("the old release serves; mend it and type `coracle deploy`");
        insta::assert_snapshot!(failure.render(Paint(false), false), @r"
        error: probe failed: shop.v4.web.1 exited with code 1
          │ Traceback (most recent call last):
          │ ImportError: no module named flask
        next: the old release serves; mend it and type `coracle deploy`
        ");
        assert_eq!(failure.exit_code(), 1);
        insta::assert_json_snapshot!(failure.as_json(), @r#"
        {
          "error": {
            "kind": "deployment-failed",
            "message": "probe failed: shop.v4.web.1 exited with code 1",
            "hint": "the old release serves; mend it and type `coracle deploy`",
            "evidence": [
              "Traceback (most recent call last):",
              "ImportError: no module named \u001b[2Jflask"
            ]
          }
        }
        "#);
    }

    #[test]
    fn scripts_see_the_place_of_a_mistake() {
        let failure =
            Failure::usage("coracle.toml has a mistake").excerpt("3 | stepz\n  | ^^^^^").evidence(vec!["more".to_owned()]);
        let evidence = serde_json::to_value(failure.as_json()).unwrap()["error"]["evidence"].clone();
        assert_eq!(evidence, serde_json::json!(["3 | stepz", "  | ^^^^^", "more"]));
    }

    #[test]
    fn asking_wrongly_is_exit_code_2() {
        assert_eq!(Failure::usage("x").exit_code(), 2);
        assert_eq!(Failure::from("../x".parse::<coracle_model::AppName>().unwrap_err()).exit_code(), 2);
        assert_eq!(Failure::failed("x").exit_code(), 1);
    }
}
