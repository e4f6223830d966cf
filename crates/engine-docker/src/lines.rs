//! Output that arrives in pieces, put together into lines.

use coracle_engine::{OutputSink, Stream};

/// The longest line that is told whole; what is beyond is cut off.
pub(crate) const LONGEST: usize = 16 * 1024;

/// Cuts one stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    /// The rest of the current line is beyond the longest and is being dropped.
    cut: bool,
}

impl Lines {
    /// Takes a piece and tells the lines it completes.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut tell: impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.keep(&bytes[..end]);
            tell(self.take());
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// Tells the last line, if it had no end.
    pub(crate) fn finish(&mut self, tell: impl FnOnce(String)) {
        if !self.pending.is_empty() {
            tell(self.take());
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.pending.len());
        self.cut |= bytes.len() > room;
        self.pending.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn take(&mut self) -> String {
        if !self.cut && self.pending.last() == Some(&b'\r') {
            self.pending.pop();
        }
        let line = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        self.cut = false;
        line
    }
}

/// Tells the lines of two interleaved streams to a sink.
pub(crate) struct Interleaved<'a> {
    sink: &'a OutputSink,
    stdout: Lines,
    stderr: Lines,
}

impl<'a> Interleaved<'a> {
    pub(crate) fn new(sink: &'a OutputSink) -> Self {
        Self { sink, stdout: Lines::default(), stderr: Lines::default() }
    }

    /// Takes a piece of one of the streams.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        lines.push(bytes, |line| self.sink.line(stream, line));
    }

    /// Both streams have ended.
    pub(crate) fn finish(mut self) {
        self.stdout.finish(|line| self.sink.line(Stream::Stdout, line));
        self.stderr.finish(|line| self.sink.line(Stream::Stderr, line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| told.push(line));
        }
        lines.finish(|line| told.push(line));
        told
    }

    #[test]
    fn lines_are_put_together_across_pieces() {
        assert_eq!(cut(&[b"a\nb", b"c\r\n", b"\nd"]), ["a", "bc", "", "d"]);
    }

    #[test]
    fn characters_split_between_pieces_survive() {
        let text = "ü\n".as_bytes();
        assert_eq!(cut(&[&text[..1], &text[1..]]), ["ü"]);
    }

    #[test]
    fn endless_lines_are_cut_and_cost_no_more_memory() {
        let piece = vec![b'x'; 10_000];
        let told = cut(&[&piece, &piece, &piece, b"\nnext\n"]);
        assert_eq!(told.iter().map(String::len).collect::<Vec<_>>(), [LONGEST, 4]);
    }
}
