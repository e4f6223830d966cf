//! BuildKit's progress: protocol buffers in Base64 in JSON. Only the few fields that a person wants to see are read, so
//! there is no need for a code generator (`moby.buildkit.v1.StatusResponse` in BuildKit's `api/services/control`).

use std::collections::HashMap;

use base64::Engine as _;
use coracle_engine::{OutputSink, Stream};

use super::fields::{Fields, Value};
use super::message::Message;
use crate::client::is_disk_full;
use crate::lines::Lines;

/// Reads progress.
#[derive(Debug, Default)]
pub(super) struct Reader {
    steps: HashMap<Vec<u8>, Step>,
    failed: Option<String>,
    image: Option<String>,
    saw_full_disk: bool,
}

#[derive(Debug, Default)]
struct Step {
    name: String,
    told: bool,
    stdout: Lines,
    stderr: Lines,
}

impl Reader {
    /// Takes a message and tells what a person wants to see of it.
    pub(super) fn take(&mut self, message: &Message, output: &OutputSink) {
        match message.id.as_deref() {
            Some("moby.image.id") => self.image = message.image().map(str::to_owned),
            Some("moby.buildkit.trace") => {
                let trace = message.aux.as_ref().and_then(|aux| aux.as_str()).unwrap_or_default();
                let trace = base64::engine::general_purpose::STANDARD.decode(trace).unwrap_or_default();
                for (number, value) in Fields(&trace) {
                    match (number, value) {
                        (1, Value::Bytes(vertex)) => self.vertex(vertex, output),
                        (3, Value::Bytes(log)) => self.log(log, output),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    /// The instruction that failed.
    pub(super) fn failed_step(&self) -> Option<String> {
        self.failed.clone()
    }

    pub(super) fn saw_full_disk(&self) -> bool {
        self.saw_full_disk
    }

    fn vertex(&mut self, bytes: &[u8], output: &OutputSink) {
        let (mut digest, mut name, mut error) = (Vec::new(), String::new(), String::new());
        let (mut cached, mut started, mut completed) = (false, false, false);
        for (number, value) in Fields(bytes) {
            match (number, value) {
                (1, Value::Bytes(bytes)) => digest = bytes.to_vec(),
                (3, Value::Bytes(bytes)) => name = String::from_utf8_lossy(bytes).into_owned(),
                (4, Value::Number(number)) => cached = number != 0,
                (5, Value::Bytes(_)) => started = true,
                (6, Value::Bytes(_)) => completed = true,
                (7, Value::Bytes(bytes)) => error = String::from_utf8_lossy(bytes).into_owned(),
                _ => {}
            }
        }
        let step = self.steps.entry(digest).or_default();
        step.name = name;
        // Names in brackets are the Dockerfile's: `[build 2/5] RUN make`; `[internal] …` and names without are housekeeping.
        let Some((head, instruction)) = step.name.strip_prefix('[').and_then(|name| name.split_once("] ")) else { return };
        if head == "internal" {
            return;
        }
        if (started || cached) && !step.told {
            step.told = true;
            output.line(Stream::Stdout, if cached { format!("{} (cached)", step.name) } else { step.name.clone() });
        }
        if !error.is_empty() && !error.contains("context canceled") && self.failed.is_none() {
            self.failed = Some(instruction.to_owned());
        }
        if completed {
            step.stdout.finish(|line| output.line(Stream::Stdout, line));
            step.stderr.finish(|line| output.line(Stream::Stderr, line));
        }
    }

    fn log(&mut self, bytes: &[u8], output: &OutputSink) {
        let (mut digest, mut stream, mut text): (&[u8], _, &[u8]) = (&[], Stream::Stdout, &[]);
        for (number, value) in Fields(bytes) {
            match (number, value) {
                (1, Value::Bytes(bytes)) => digest = bytes,
                (3, Value::Number(2)) => stream = Stream::Stderr,
                (4, Value::Bytes(bytes)) => text = bytes,
                _ => {}
            }
        }
        self.saw_full_disk |= is_disk_full(&String::from_utf8_lossy(text));
        let step = self.steps.entry(digest.to_vec()).or_default();
        let lines = if stream == Stream::Stderr { &mut step.stderr } else { &mut step.stdout };
        lines.push(text, |line| output.line(stream, line));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A step that began and a line it wrote, as Docker 20.10 sent them.
    const BEGAN: &str = "CtoBCkdzaGEyNTY6MThjNjk3OGZmYjkwYmUwMWNiN2E5Mjg2OWIwODgwYjYxNTQxZmRhZDgyN2Q1YThjNGNiMzAxZDkxYzM2YTEzZhJHc2hhMjU2OjU2YmY1ZGNkMzhlZTJmNjBmNjQ2YjE1YjFiOTFlNDBiNWU4Mzc1YTQ1NzU3MmY4OTBlZGJjY2JkMTcxOTA4MTMaKltiYXNlIDIvMl0gUlVOIGVjaG8gaGVsbG8gNDI7IGVjaG8gZXJyID4mMioMCOXdg9gGELSQxY8CMgwI5d2D2AYQlPbl3AI=";
    const WROTE: &str = "Gl8KR3NoYTI1NjoxOGM2OTc4ZmZiOTBiZTAxY2I3YTkyODY5YjA4ODBiNjE1NDFmZGFkODI3ZDVhOGM0Y2IzMDFkOTFjMzZhMTNmEgwI5d2D2AYQiImZ1wIYAiIEZXJyCg==";

    fn trace(text: &str) -> Message {
        Message { id: Some("moby.buildkit.trace".into()), aux: Some(text.into()), ..Message::default() }
    }

    #[test]
    fn real_progress_is_read() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let told = told.clone();
            OutputSink::new(move |line| told.lock().unwrap().push((line.stream, line.text)))
        };
        let mut reader = Reader::default();
        reader.take(&trace(BEGAN), &sink);
        reader.take(&trace(WROTE), &sink);
        let expected =
            [(Stream::Stdout, "[base 2/2] RUN echo hello 42; echo err >&2".to_owned()), (Stream::Stderr, "err".to_owned())];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn nonsense_is_let_be() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(BEGAN).unwrap();
        for length in 0..bytes.len() {
            let cut = base64::engine::general_purpose::STANDARD.encode(&bytes[..length]);
            Reader::default().take(&trace(&cut), &OutputSink::discard());
        }
        Reader::default().take(&trace("!!!"), &OutputSink::discard());
    }
}
