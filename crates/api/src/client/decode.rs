//! Taking streams apart into their documents, however the network cut them into pieces.

use std::collections::VecDeque;

/// A line longer than this is taken for a fault. (Output lines are cut at 16 KiB by the engines; a problem with its
/// evidence is the longest thing there is.)
const LONGEST_LINE: usize = 4 << 20;

/// A line that does not end, or is not text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is too long.
    #[error("a line of the stream is longer than {LONGEST_LINE} bytes")]
    TooLong,
    /// It is not UTF-8.
    #[error("a line of the stream is not UTF-8")]
    NotText,
}

/// Takes bytes and gives documents.
pub trait Decode: Default {
    /// Takes the next piece.
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError>;

    /// The stream has ended.
    fn finish(&mut self);

    /// The next document that is complete.
    fn next(&mut self) -> Option<String>;
}

/// Cuts bytes into lines ending in LF or CR LF.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, mut piece: &[u8], mut take: impl FnMut(&str)) -> Result<(), DecodeError> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&piece[..end]);
            piece = &piece[end + 1..];
            let line = std::mem::take(&mut self.rest);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            take(std::str::from_utf8(line).map_err(|_| DecodeError::NotText)?);
        }
        self.rest.extend_from_slice(piece);
        if self.rest.len() > LONGEST_LINE { Err(DecodeError::TooLong) } else { Ok(()) }
    }
}

/// Lines of JSON; empty ones keep the connection alive and mean nothing.
#[derive(Debug, Default)]
pub struct Ndjson {
    lines: Lines,
    ready: VecDeque<String>,
}

impl Decode for Ndjson {
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        let ready = &mut self.ready;
        self.lines.feed(piece, |line| {
            if !line.trim().is_empty() {
                ready.push_back(line.to_owned());
            }
        })
    }

    fn finish(&mut self) {
        // A last line without its end was cut off in the middle: it is better not told than told wrongly.
        self.lines.rest.clear();
    }

    fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }
}

/// Server-sent events (HTML standard, section 9.2.6); only their data, which names the event again.
#[derive(Debug, Default)]
pub struct Sse {
    lines: Lines,
    data: String,
    ready: VecDeque<String>,
}

impl Decode for Sse {
    fn feed(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        let Self { lines, data, ready } = self;
        let mut total = data.len();
        lines.feed(piece, |line| {
            if line.is_empty() {
                if !data.is_empty() {
                    // Every `data:` line added a line end; the last one is not part of it.
                    data.pop();
                    ready.push_back(std::mem::take(data));
                }
                total = 0;
                return;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            if field == "data" {
                data.push_str(value.strip_prefix(' ').unwrap_or(value));
                data.push('\n');
                total = data.len();
            }
        })?;
        if total > LONGEST_LINE { Err(DecodeError::TooLong) } else { Ok(()) }
    }

    fn finish(&mut self) {
        // An event without its empty line is incomplete and is thrown away, as the standard says.
        self.data.clear();
        self.lines.rest.clear();
    }

    fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Decodes the text cut at every possible place, and byte by byte.
    fn decodes<D: Decode>(text: &str, expected: &[&str]) {
        let bytes = text.as_bytes();
        let one_by_one: Vec<&[u8]> = bytes.chunks(1).collect();
        let halves = (0..=bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
        for pieces in halves.chain([one_by_one]) {
            let mut decoder = D::default();
            for piece in &pieces {
                decoder.feed(piece).unwrap();
            }
            decoder.finish();
            let found: Vec<String> = std::iter::from_fn(|| decoder.next()).collect();
            assert_eq!(found, expected, "pieces {pieces:?}");
        }
    }

    #[test]
    fn lines_of_json_are_found_wherever_they_are_cut() {
        decodes::<Ndjson>("{\"a\":\"ö\"}\n\n\r\n{\"b\":1}\r\n{\"cut", &["{\"a\":\"ö\"}", "{\"b\":1}"]);
    }

    #[test]
    fn events_are_found_wherever_they_are_cut() {
        let text = ": hello\n\nid: 1\nevent: note\ndata: {\"ö\":1}\n\ndata:a\ndata: b\n\n:\n\nevent: x\n\ndata: cut";
        decodes::<Sse>(text, &["{\"ö\":1}", "a\nb"]);
    }

    #[test]
    fn endless_lines_are_refused() {
        let piece = vec![b'x'; 1 << 20];
        let endless = |decoder: &mut dyn FnMut(&[u8]) -> Result<(), DecodeError>| (0..5).try_for_each(|_| decoder(&piece));
        let (mut ndjson, mut sse) = (Ndjson::default(), Sse::default());
        assert_eq!(endless(&mut |piece| ndjson.feed(piece)), Err(DecodeError::TooLong));
        assert_eq!(endless(&mut |piece| sse.feed(piece)), Err(DecodeError::TooLong));
        let mut sse = Sse::default();
        let line = [b"data: ", piece.as_slice(), b"\n"].concat();
        assert_eq!((0..5).try_for_each(|_| sse.feed(&line)), Err(DecodeError::TooLong));
    }

    #[test]
    fn what_is_not_text_is_refused() {
        assert_eq!(Ndjson::default().feed(b"\xff\xfe\n"), Err(DecodeError::NotText));
    }
}
