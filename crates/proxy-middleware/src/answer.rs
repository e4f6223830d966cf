//! Answers that come from the proxy itself.

use std::fs::File;

use bytes::Bytes;
use coracle_proxy_http::{Fields, Known, ResponseHead};
use http::StatusCode;

use crate::chain::Passage;
use crate::encoder::Encoder;

/// An answer that comes from the proxy itself.
#[derive(Debug)]
pub struct Answer {
    /// Status and fields. `Content-Length` is there if the length is known.
    pub head: ResponseHead,
    /// What is sent behind them; not for HEAD, for which the engine sends the head alone.
    pub body: AnswerBody,
    /// What a file is to be run through while it is sent; the head says so already. Never with bytes.
    pub encoder: Option<Encoder>,
    /// What limits count, until the answer is dropped.
    pub(crate) held: Option<Box<Passage>>,
}

/// The body of an [`Answer`].
#[derive(Debug)]
pub enum AnswerBody {
    /// These bytes.
    Bytes(Bytes),
    /// A part of a file.
    File {
        /// The file, open for reading. Its position means nothing: read at `offset`.
        file: File,
        /// The first byte.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
}

impl AnswerBody {
    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Answer {
    /// An answer with these bytes and their type.
    pub fn new(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut head = ResponseHead::new(status);
        put(&mut head.fields, Known::ContentType, content_type);
        let body = AnswerBody::Bytes(body.into());
        put(&mut head.fields, Known::ContentLength, body.len().to_string());
        Self { head, body, encoder: None, held: None }
    }

    /// An answer without a body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        let mut head = ResponseHead::new(status);
        if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
            put(&mut head.fields, Known::ContentLength, "0");
        }
        Self { head, body: AnswerBody::Bytes(Bytes::new()), encoder: None, held: None }
    }

    /// The same with one field more.
    #[must_use]
    pub(crate) fn with(mut self, known: Known, value: impl AsRef<[u8]>) -> Self {
        put(&mut self.head.fields, known, value);
        self
    }
}

/// Sets a field whose value was checked, or is made of such values. One that is not a field after all is left out: an answer
/// without it is better than none.
pub(crate) fn put(fields: &mut Fields, known: Known, value: impl AsRef<[u8]>) {
    if let Err(error) = fields.set_known(known, value) {
        tracing::debug!(name = known.name(), %error, "a header field was left out");
    }
}
