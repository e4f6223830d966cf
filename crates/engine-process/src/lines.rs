//! Output of a program, as lines.

use coracle_engine::{OutputSink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::shim::LONGEST_LINE;

/// Hands every line that comes out of `pipe` to `output`, until the pipe ends.
pub(crate) async fn forward(mut pipe: impl AsyncRead + Unpin, stream: Stream, output: OutputSink) {
    let mut line: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    loop {
        let count = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for piece in chunk[..count].split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = LONGEST_LINE.saturating_sub(line.len());
            line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                output.line(stream, readable(&line));
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        output.line(stream, readable(&line));
    }
}

/// The text of a line: invalid UTF-8 replaced, without a carriage return at its end.
pub(crate) fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned()
}
