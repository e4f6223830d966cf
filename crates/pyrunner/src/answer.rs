//! What came of an execution, as it is told on the wire.

use base64::Engine as _;
use bytes::Bytes;
use coracle_sandbox::{Collected, End, Limits, Reason};
use serde::Serialize;
use utoipa::ToSchema;

use crate::program::Encoding;
use crate::text::Decoder;

/// What came of an execution. That a program failed is told here, and is no error of the request.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ExecutionAnswer {
    /// `success` if the program ended by itself with exit code 0.
    pub status: Status,
    /// What it wrote to both streams, in the order in which it arrived.
    pub output: String,
    /// Why it is no success, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The execution's name, under which `GET /executions/{id}` knows it.
    #[schema(example = "019378b2f1c57d0e9a6b3c4d5e6f7081")]
    pub id: String,
    /// What it wrote to its standard output. Bytes that are no UTF-8 are U+FFFD here.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// Its exit code; `null` if a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it, such as `SIGSEGV`; `null` if none did.
    pub signal: Option<String>,
    /// Why it ended.
    pub reason: ReasonWord,
    /// What was not kept.
    pub truncated: Truncation,
    /// What it used, as the kernel counts.
    pub usage: Usage,
    /// The files that `collect` asked for.
    pub files: Vec<CollectedFile>,
}

/// Whether a program succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Exit code 0.
    Success,
    /// Anything else.
    Error,
}

/// Why an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReasonWord {
    /// By itself, with exit code 0.
    Ok,
    /// By itself, with another one.
    ExitNonzero,
    /// By a signal of its own doing.
    Signal,
    /// Its time was over.
    Timeout,
    /// Its processor time was over.
    CpuLimit,
    /// It reached its memory limit.
    Oom,
    /// It did not stop writing long after its output was cut.
    OutputLimit,
    /// It was cancelled, or whoever asked for it went away.
    Cancelled,
}

impl From<Reason> for ReasonWord {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Ok => Self::Ok,
            Reason::ExitNonzero => Self::ExitNonzero,
            Reason::Signal => Self::Signal,
            Reason::Timeout => Self::Timeout,
            Reason::CpuLimit => Self::CpuLimit,
            Reason::Oom => Self::Oom,
            Reason::OutputLimit => Self::OutputLimit,
            Reason::Cancelled => Self::Cancelled,
        }
    }
}

/// What was not kept, because there was too much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub(crate) struct Truncation {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Some file that was asked for.
    pub files: bool,
}

/// What an execution used.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Milliseconds from its start to its end.
    pub wall_ms: f64,
    /// Milliseconds of processor time of all its processes.
    pub cpu_ms: f64,
    /// The most bytes of memory it had at once; 0 where the kernel does not tell.
    pub memory_peak: u64,
    /// Milliseconds it waited before it started.
    pub queue_ms: f64,
}

/// A file that was brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct CollectedFile {
    /// Its path relative to the working directory. Bytes that are no UTF-8 are U+FFFD here.
    pub name: String,
    /// The path in base64, where it is no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_base64: Option<String>,
    /// Its content.
    pub content: String,
    /// How `content` is written: `utf-8` where it is text, else `base64`.
    pub encoding: Encoding,
    /// Bytes of the file.
    pub size: usize,
}

impl From<&Collected> for CollectedFile {
    fn from(file: &Collected) -> Self {
        let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let (content, encoding) = match std::str::from_utf8(&file.content) {
            Ok(text) => (text.to_owned(), Encoding::Utf8),
            Err(_) => (base64(&file.content), Encoding::Base64),
        };
        Self {
            name: String::from_utf8_lossy(&file.path).into_owned(),
            name_base64: std::str::from_utf8(&file.path).is_err().then(|| base64(&file.path)),
            content,
            encoding,
            size: file.content.len(),
        }
    }
}

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Everything that an execution has written so far.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pieces: Vec<(Stream, Bytes)>,
    files: Vec<Collected>,
}

impl Transcript {
    pub(crate) fn write(&mut self, stream: Stream, piece: Bytes) {
        self.pieces.push((stream, piece));
    }

    pub(crate) fn keep(&mut self, file: Collected) {
        self.files.push(file);
    }

    /// What was written to one stream, as it came.
    pub(crate) fn bytes(&self, stream: Stream) -> Bytes {
        let mut pieces = self.pieces.iter().filter(|(of, _)| *of == stream).map(|(_, piece)| piece);
        match (pieces.next(), pieces.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            (Some(first), Some(second)) => {
                let mut whole = [&first[..], second].concat();
                pieces.for_each(|piece| whole.extend_from_slice(piece));
                whole.into()
            }
        }
    }

    /// Both streams as one text; no character of one is torn apart by the other.
    fn both(&self) -> String {
        let mut text = String::new();
        let (mut out, mut err) = (Decoder::default(), Decoder::default());
        for (stream, piece) in &self.pieces {
            let decoder = if *stream == Stream::Stdout { &mut out } else { &mut err };
            text.push_str(&decoder.push(piece));
        }
        text.push_str(&out.finish());
        text.push_str(&err.finish());
        text
    }

    /// The whole answer, of which the end is known.
    pub(crate) fn answer(&self, ended: ExecutionAnswer) -> ExecutionAnswer {
        let text = |stream| String::from_utf8_lossy(&self.bytes(stream)).into_owned();
        let (stdout, stderr) = (text(Stream::Stdout), text(Stream::Stderr));
        let output = match (stdout.is_empty(), stderr.is_empty()) {
            (_, true) => stdout.clone(),
            (true, false) => stderr.clone(),
            _ => self.both(),
        };
        ExecutionAnswer { output, stdout, stderr, files: self.files.iter().map(CollectedFile::from).collect(), ..ended }
    }
}

/// The answer without what the program wrote.
pub(crate) fn ended(id: &str, end: &End, queued: std::time::Duration, limits: &Limits) -> ExecutionAnswer {
    let milliseconds = |time: std::time::Duration| time.as_micros() as f64 / 1000.0;
    ExecutionAnswer {
        status: if end.reason == Reason::Ok { Status::Success } else { Status::Error },
        output: String::new(),
        message: message(end, limits),
        id: id.to_owned(),
        stdout: String::new(),
        stderr: String::new(),
        exit_code: end.exit_code,
        signal: end.signal.map(signal_name),
        reason: end.reason.into(),
        truncated: Truncation { stdout: end.truncated.stdout, stderr: end.truncated.stderr, files: end.truncated.files },
        usage: Usage {
            wall_ms: milliseconds(end.usage.wall),
            cpu_ms: milliseconds(end.usage.cpu),
            memory_peak: end.usage.memory_peak,
            queue_ms: milliseconds(queued),
        },
        files: Vec::new(),
    }
}

/// Why an execution is no success, with the limit that it met.
fn message(end: &End, limits: &Limits) -> Option<String> {
    Some(match end.reason {
        Reason::Ok => return None,
        Reason::ExitNonzero => format!("the program ended with exit code {}", end.exit_code.unwrap_or_default()),
        Reason::Signal => match end.signal {
            Some(number) => format!("the program was ended by {} (signal {number})", signal_name(number)),
            None => "the program was ended by a signal".to_owned(),
        },
        Reason::Timeout => format!("the program ran longer than {} ms and was ended", limits.wall.as_millis()),
        Reason::CpuLimit => format!("the program used more than {} ms of processor time and was ended", limits.cpu.as_millis()),
        Reason::Oom => format!("the program needed more than {} bytes of memory", limits.memory_bytes),
        Reason::OutputLimit => {
            format!("the program went on writing long after its {} bytes of output and was ended", limits.output_bytes)
        }
        Reason::Cancelled => "the execution was cancelled".to_owned(),
    })
}

/// The name of a signal, or its number where it has none (signal(7)).
pub(crate) fn signal_name(number: i32) -> String {
    let named = rustix::process::Signal::from_named_raw(number);
    let known = [
        (6, "SIGABRT"),
        (14, "SIGALRM"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (1, "SIGHUP"),
        (4, "SIGILL"),
        (2, "SIGINT"),
        (29, "SIGIO"),
        (9, "SIGKILL"),
        (13, "SIGPIPE"),
        (27, "SIGPROF"),
        (30, "SIGPWR"),
        (3, "SIGQUIT"),
        (11, "SIGSEGV"),
        (31, "SIGSYS"),
        (15, "SIGTERM"),
        (5, "SIGTRAP"),
        (10, "SIGUSR1"),
        (12, "SIGUSR2"),
        (26, "SIGVTALRM"),
        (24, "SIGXCPU"),
        (25, "SIGXFSZ"),
    ];
    let name = known.iter().find(|(known, _)| named.is_some() && *known == number);
    name.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn end(reason: Reason, exit_code: Option<i32>, signal: Option<i32>) -> End {
        End {
            reason,
            exit_code,
            signal,
            usage: coracle_sandbox::Usage::default(),
            truncated: coracle_sandbox::Truncated::default(),
        }
    }

    #[test]
    fn output_is_both_streams_in_their_order_without_torn_characters() {
        let mut transcript = Transcript::default();
        for (stream, piece) in
            [(Stream::Stdout, &b"a\xe2\x82"[..]), (Stream::Stderr, b"E"), (Stream::Stdout, b"\xacz"), (Stream::Stderr, b"\xff")]
        {
            transcript.write(stream, Bytes::from_static(piece));
        }
        let answer = transcript.answer(ended("x", &end(Reason::Ok, Some(0), None), Duration::ZERO, &Limits::default()));
        assert_eq!(
            (answer.output.as_str(), answer.stdout.as_str(), answer.stderr.as_str()),
            ("aE€z\u{fffd}", "a€z", "E\u{fffd}")
        );
        assert_eq!((answer.status, answer.message), (Status::Success, None));
    }

    #[test]
    fn failures_are_told_in_a_sentence() {
        let told = |end| ended("x", &end, Duration::ZERO, &Limits::default());
        assert_eq!(told(end(Reason::ExitNonzero, Some(3), None)).message.as_deref(), Some("the program ended with exit code 3"));
        let crashed = told(end(Reason::Signal, None, Some(11)));
        assert_eq!((crashed.signal.as_deref(), crashed.exit_code), (Some("SIGSEGV"), None));
        assert!(told(end(Reason::Timeout, None, Some(9))).message.is_some_and(|message| message.contains("10000 ms")));
    }

    #[test]
    fn files_that_are_no_text_are_base64() {
        let file = CollectedFile::from(&Collected { path: b"a\xff".to_vec(), content: Bytes::from_static(b"\x00\xff") });
        assert_eq!((file.content.as_str(), file.encoding, file.size), ("AP8=", Encoding::Base64, 2));
        assert_eq!((file.name.as_str(), file.name_base64.as_deref()), ("a\u{fffd}", Some("Yf8=")));
    }
}
