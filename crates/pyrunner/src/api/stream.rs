//! Executions told as they happen: lines of JSON, server-sent events, or messages of a WebSocket, with the same content.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;
use utoipa::ToSchema;

use crate::answer::{CollectedFile, ExecutionAnswer, Stream};
use crate::execution::{News, Ongoing};
use crate::problem::Problem;
use crate::text::Decoder;

/// Something that happens to an execution. The last one is `end`, or `error` if it did not come to an end.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum StreamEvent {
    /// It has started.
    Start {
        /// The execution's name.
        id: String,
    },
    /// It wrote to its standard output.
    Stdout {
        /// The text. A character that was written in two pieces comes whole.
        data: String,
    },
    /// It wrote to its standard error.
    Stderr {
        /// The text.
        data: String,
    },
    /// A file that was asked for.
    File {
        /// The file.
        file: CollectedFile,
    },
    /// It is over. What has been told before is not repeated: texts and files are empty here.
    End {
        /// The answer.
        result: Box<ExecutionAnswer>,
    },
    /// It broke off.
    Error {
        /// Why.
        problem: Problem,
    },
}

impl StreamEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stdout { .. } => "stdout",
            Self::Stderr { .. } => "stderr",
            Self::File { .. } => "file",
            Self::End { .. } => "end",
            Self::Error { .. } => "error",
        }
    }

    /// As JSON, which holds no line ends.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| unreachable!("events are plain data"))
    }
}

/// An execution as a source of events.
pub(super) struct Telling {
    pub(super) ongoing: Ongoing,
    started: bool,
    over: bool,
    out: Decoder,
    err: Decoder,
}

impl Telling {
    pub(super) fn new(ongoing: Ongoing) -> Self {
        Self { ongoing, started: false, over: false, out: Decoder::default(), err: Decoder::default() }
    }

    /// What happens next; empty after the end. Several at once where they belong together.
    pub(super) async fn next(&mut self) -> Vec<StreamEvent> {
        if !std::mem::replace(&mut self.started, true) {
            return vec![StreamEvent::Start { id: self.ongoing.id().to_owned() }];
        }
        while !self.over {
            let event = match self.ongoing.next().await {
                Ok(Some(News::Wrote(Stream::Stdout, piece))) => StreamEvent::Stdout { data: self.out.push(&piece) },
                Ok(Some(News::Wrote(Stream::Stderr, piece))) => StreamEvent::Stderr { data: self.err.push(&piece) },
                Ok(Some(News::File(file))) => StreamEvent::File { file: CollectedFile::from(&file) },
                Ok(Some(News::Ended(result))) => return self.end(StreamEvent::End { result }),
                Ok(None) => break,
                Err(problem) => return self.end(StreamEvent::Error { problem }),
            };
            if !event.is_silent() {
                return vec![event];
            }
        }
        Vec::new()
    }

    /// The last word, and before it what had been begun.
    fn end(&mut self, last: StreamEvent) -> Vec<StreamEvent> {
        self.over = true;
        let rest = [StreamEvent::Stdout { data: self.out.finish() }, StreamEvent::Stderr { data: self.err.finish() }];
        rest.into_iter().filter(|event| !event.is_silent()).chain([last]).collect()
    }
}

impl StreamEvent {
    /// A piece that was the beginning of a character only.
    fn is_silent(&self) -> bool {
        matches!(self, Self::Stdout { data } | Self::Stderr { data } if data.is_empty())
    }
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A line of JSON each.
    Lines,
    /// Server-sent events (HTML Living Standard, section 9.2).
    Events,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        }
    }

    fn write(self, event: &StreamEvent) -> String {
        match self {
            Self::Lines => format!("{}\n", event.json()),
            Self::Events => format!("event: {}\ndata: {}\n\n", event.name(), event.json()),
        }
    }
}

/// The response; when its client goes away, the program is ended.
pub(super) fn response(ongoing: Ongoing, format: Format) -> Response {
    let events = futures::stream::unfold(Telling::new(ongoing), move |mut telling| async move {
        let events = telling.next().await;
        let text: String = events.iter().map(|event| format.write(event)).collect();
        (!text.is_empty()).then(|| (Ok::<_, Infallible>(Bytes::from(text)), telling))
    });
    let mut response = Body::from_stream(events).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that gather answers shall not gather this one.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
