//! The messages of a build: one JSON object per line.

use coracle_engine::BuildError;
use serde::Deserialize;

use crate::client::unavailable;

/// The longest message; an engine that sends a longer one is broken.
const LONGEST: usize = 16 << 20;

/// One message. Each kind uses some of the fields.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Message {
    /// What `aux` is.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// Output of the classic builder.
    #[serde(default)]
    pub(super) stream: Option<String>,
    /// What a push is at.
    #[serde(default)]
    pub(super) status: Option<String>,
    /// An image's id, or BuildKit's progress.
    #[serde(default)]
    pub(super) aux: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) error: Option<String>,
    #[serde(default, rename = "errorDetail")]
    pub(super) detail: Option<Detail>,
}

/// A failure.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Detail {
    #[serde(default)]
    code: Option<i64>,
    #[serde(default)]
    message: Option<String>,
}

/// Why the engine gave a build up, in its own words.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) text: String,
    code: Option<i64>,
}

impl Message {
    /// The failure this message tells of, if it does.
    pub(super) fn failure(&self) -> Option<Failure> {
        let code = self.detail.as_ref().and_then(|detail| detail.code).filter(|code| *code != 0);
        let text = self.detail.as_ref().and_then(|detail| detail.message.clone()).or_else(|| self.error.clone())?;
        Some(Failure { text: text.trim().to_owned(), code })
    }

    /// The id of an image that `aux` tells.
    pub(super) fn image(&self) -> Option<&str> {
        self.aux.as_ref()?.get("ID")?.as_str()
    }
}

impl Failure {
    /// The id of a secret that a step demands and nobody has: `secret ID not found: not found`, or `secret ID: not found`.
    pub(super) fn missing_secret(&self) -> Option<&str> {
        let rest = &self.text[self.text.rfind("secret ")? + "secret ".len()..];
        let (id, end) = rest.split_once([' ', ':'])?;
        (end.trim_start().starts_with("not found") && !id.is_empty()).then_some(id)
    }

    /// The exit code of the program that failed: told as such, or only in words (`exit code: 3`, `exit status 3`).
    pub(super) fn code(&self) -> Option<i64> {
        let from_words = || {
            ["exit code: ", "exit status ", "non-zero code: "].iter().find_map(|words| {
                let rest = &self.text[self.text.rfind(words)? + words.len()..];
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            })
        };
        self.code.or_else(from_words)
    }
}

/// Cuts the answer into messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pending: Vec<u8>,
}

impl Messages {
    /// Takes a piece of the answer; answers the messages it completes.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<Vec<Message>, BuildError> {
        self.pending.extend_from_slice(data);
        let mut messages = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.pending[begin..].iter().position(|byte| *byte == b'\n') {
            let line = self.pending[begin..begin + length].trim_ascii();
            if !line.is_empty() {
                let message = serde_json::from_slice(line);
                messages.push(message.map_err(|error| unavailable(format!("the engine sent nonsense: {error}")))?);
            }
            begin += length + 1;
        }
        self.pending.drain(..begin);
        if self.pending.len() > LONGEST {
            return Err(unavailable("the engine sent a message without an end").into());
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_are_put_together_across_pieces() {
        let mut messages = Messages::default();
        assert!(messages.push(b"{\"stream\":\"a\"}\r\n{\"str").unwrap().len() == 1);
        let rest = messages.push(b"eam\":\"b\\n\"}\n").unwrap();
        assert_eq!(rest[0].stream.as_deref(), Some("b\n"));
        assert!(messages.push(b"no json\n").is_err());
    }

    #[test]
    fn a_secret_that_nobody_has_is_found_in_words() {
        for (text, id) in [
            ("secret absent not found: not found", Some("absent")),
            ("failed to solve: process: secret npm.token: not found", Some("npm.token")),
            ("no secret was found", None),
            ("COPY failed: secret /x", None),
        ] {
            assert_eq!(Failure { text: text.to_owned(), code: None }.missing_secret(), id, "{text}");
        }
    }

    #[test]
    fn exit_codes_are_found_in_words_too() {
        for (text, code) in [
            (r#"{"errorDetail":{"code":127,"message":"returned a non-zero code: 127"}}"#, Some(127)),
            (r#"{"errorDetail":{"message":"executor failed running [/bin/sh -c exit 3]: exit code: 3"}}"#, Some(3)),
            (r#"{"error":"building at STEP \"RUN false\": while running runtime: exit status 1"}"#, Some(1)),
            (r#"{"errorDetail":{"message":"COPY failed: file not found"}}"#, None),
        ] {
            let message: Message = serde_json::from_str(text).unwrap();
            assert_eq!(message.failure().unwrap().code(), code, "{text}");
        }
    }
}
