//! Errors on the wire: problem details (RFC 9457) with what a person needs to go on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `urn:coracle:problem:` and the kind (RFC 9457 section 3.1.1).
    #[serde(rename = "type")]
    pub type_uri: String,
    /// What kind of problem it is, for people.
    pub title: String,
    /// The HTTP status code.
    #[schema(example = 409)]
    pub status: u16,
    /// What is wrong this time, in a sentence.
    pub detail: String,
    /// What kind of problem it is, for programs.
    pub kind: ProblemKind,
    /// What to type next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The last log lines of what failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// The media type of a problem.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

impl Problem {
    /// A problem of this kind, with a sentence about this time.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("urn:coracle:problem:{}", kind.as_str()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            kind,
            hint: None,
            evidence: Vec::new(),
        }
    }

    /// Adds what to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.hint = (!hint.is_empty()).then_some(hint);
        self
    }

    /// Adds log lines.
    #[must_use]
    pub fn evidence(mut self, evidence: Vec<String>) -> Self {
        self.evidence = evidence;
        self
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// Kinds of problems; each has its HTTP status.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        pub enum ProblemKind {
            $($(#[$doc])* #[serde(rename = $text)] $kind,)*
            /// A kind that this version does not know.
            #[serde(other, rename = "other")]
            Other,
        }

        impl ProblemKind {
            /// The word for it on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $text,)*
                    Self::Other => "other",
                }
            }

            /// The HTTP status it is answered with.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$kind => $status,)*
                    Self::Other => 500,
                }
            }

            /// What it is, for people.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$kind => $title,)*
                    Self::Other => "Something else",
                }
            }
        }
    };
}

kinds! {
    /// The request is malformed.
    BadRequest = "bad-request", 400, "The request is malformed";
    /// The token is missing or wrong.
    Unauthorized = "unauthorized", 401, "The token is missing or wrong";
    /// Whoever asks has no role that allows it.
    Forbidden = "forbidden", 403, "It is not allowed";
    /// There is no such app, release, deployment or path.
    NotFound = "not-found", 404, "There is no such thing";
    /// The path exists, but not with this method.
    MethodNotAllowed = "method-not-allowed", 405, "This cannot be done with it";
    /// The request took too long to arrive.
    TimedOut = "timed-out", 408, "It took too long";
    /// Another deployment of the app is running.
    Busy = "busy", 409, "Another deployment is running";
    /// What the thing is in the middle of does not allow it: calling off a deployment that is past its switch.
    Conflict = "conflict", 409, "It is too late, or too early, for this";
    /// The body is larger than allowed.
    TooLarge = "too-large", 413, "Too much was sent";
    /// The request is well-formed but cannot be carried out: the manifest, the tree, a name.
    Invalid = "invalid", 422, "It cannot be done as asked";
    /// The deployment began and failed; nothing changed for the app.
    DeploymentFailed = "deployment-failed", 422, "The deployment failed";
    /// The deployment was called off; nothing changed for the app.
    Cancelled = "cancelled", 409, "The deployment was called off";
    /// A fault of the server.
    Internal = "internal", 500, "The server is at fault";
    /// The engine or the proxy does not answer, or the server is stopping.
    Unavailable = "unavailable", 503, "Something that is needed does not answer";
    /// No space is left on the disk.
    DiskFull = "disk-full", 507, "No space is left on the disk";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kinds_of_a_newer_server_are_understood_as_others() {
        let text = r#"{"type":"x","title":"t","status":418,"detail":"d","kind":"teapot","new":1}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!((problem.kind, problem.status), (ProblemKind::Other, 418));
    }

    #[test]
    fn a_problem_survives_the_wire() {
        let problem = Problem::new(ProblemKind::DiskFull, "full").hint("free some").evidence(vec!["line".into()]);
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.contains(r#""type":"urn:coracle:problem:disk-full""#) && text.contains(r#""kind":"disk-full""#), "{text}");
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
        assert_eq!(Problem::new(ProblemKind::Busy, "").hint("").hint, None);
    }
}
