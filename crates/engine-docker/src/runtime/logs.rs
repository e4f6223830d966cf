//! What instances wrote.

use std::sync::Arc;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use coracle_engine::{EngineError, LogLine, LogQuery, Stream};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::client::Client;
use crate::lines::Interleaved;

/// Reads a container's log.
pub(super) fn read(client: Arc<Client>, container: String, query: &LogQuery) -> BoxStream<'static, Result<LogLine, EngineError>> {
    let since = query.since;
    // The library counts in whole seconds; the rest is ours to leave out.
    let seconds = since.and_then(|since| i32::try_from(since.as_second()).ok()).unwrap_or(0);
    let tail = query.tail.map_or_else(|| "all".to_owned(), |tail| tail.to_string());
    let options = LogsOptionsBuilder::default()
        .follow(query.follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .since(seconds)
        .tail(&tail)
        .build();
    let docker = if query.follow { client.patient() } else { client.docker.clone() };
    let lines = docker.logs(&container, Some(options));
    lines
        .filter_map(move |piece| {
            let line = match piece {
                Ok(piece) => parse(&piece).filter(|line| since.is_none_or(|since| line.at >= since)).map(Ok),
                Err(error) => Some(Err(client.error("read the log", &error))),
            };
            futures::future::ready(line)
        })
        .boxed()
}

/// A line as the engine tells it: its time, a space, its text.
fn parse(piece: &LogOutput) -> Option<LogLine> {
    let (stream, bytes) = split(piece)?;
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    let (at, text) = text.split_once(' ').unwrap_or((text, ""));
    Some(LogLine { at: at.parse::<Timestamp>().ok()?, stream, text: text.to_owned() })
}

fn split(piece: &LogOutput) -> Option<(Stream, &[u8])> {
    match piece {
        LogOutput::StdOut { message } | LogOutput::Console { message } => Some((Stream::Stdout, message)),
        LogOutput::StdErr { message } => Some((Stream::Stderr, message)),
        LogOutput::StdIn { .. } => None,
    }
}

/// Tells a piece of live output.
pub(super) fn tell(lines: &mut Interleaved<'_>, piece: LogOutput) {
    if let Some((stream, bytes)) = split(&piece) {
        lines.push(stream, bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_keep_their_spaces_and_lose_their_end() {
        let piece = LogOutput::StdErr { message: "2026-11-21T01:07:50.462341491Z  two  spaces \r\n".into() };
        let line = parse(&piece).unwrap();
        assert_eq!((line.stream, line.text.as_str()), (Stream::Stderr, " two  spaces "));
        assert_eq!(line.at.subsec_nanosecond(), 462_341_491);
        let empty = parse(&LogOutput::StdOut { message: "2026-11-21T01:07:50Z \n".into() }).unwrap();
        assert_eq!(empty.text, "");
    }
}
