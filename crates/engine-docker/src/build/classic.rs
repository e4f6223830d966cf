//! The classic builder, and Podman's, which speaks the same way.

use std::collections::HashMap;

use bollard::query_parameters::EventsOptionsBuilder;
use coracle_engine::{BuildLimits, OutputSink, Stream};
use futures::StreamExt;
use jiff::Timestamp;

use super::journal::Layer;
use super::message::Message;
use crate::client::{Client, is_disk_full, timely};
use crate::facts::{Facts, Flavour};
use crate::lines::Lines;

/// The scheduler's period in microseconds, as the kernel has it by default.
const PERIOD: u64 = 100_000;

/// The builder colours what a step writes to its standard error.
const RED: &str = "\u{1b}[91m";
const PLAIN: &str = "\u{1b}[0m";

/// What Docker says when the image that a step builds upon is gone.
const LOST_LAYER: [&str; 4] = ["no such image", "unknown parent image", "failed to get digest", "layer does not exist"];

/// Caps, and the wish that no container of a step stays behind whatever happens.
pub(super) fn parameters(facts: &Facts, limits: &BuildLimits) -> Vec<(&'static str, String)> {
    let mut parameters = vec![("rm", "1".to_owned()), ("forcerm", "1".to_owned())];
    if facts.flavour == Flavour::Podman {
        // Its own format has no place for a HEALTHCHECK.
        parameters.push(("outputformat", "application/vnd.docker.distribution.manifest.v2+json".to_owned()));
    }
    if facts.limits.memory {
        parameters.push(("memory", limits.memory.get().to_string()));
        parameters.push(("memswap", limits.memory.get().to_string()));
    }
    if facts.limits.cpus {
        parameters.push(("cpuperiod", PERIOD.to_string()));
        parameters.push(("cpuquota", (u64::from(limits.cpus.as_milli()) * PERIOD / 1000).max(1000).to_string()));
    }
    parameters
}

/// Reads progress.
#[derive(Debug, Default)]
pub(super) struct Reader {
    step: Option<String>,
    /// The container in which the step runs, or did run.
    container: Option<String>,
    running: bool,
    /// The step's result came from the cache.
    cached: bool,
    image: Option<String>,
    saw_full_disk: bool,
    lost_a_layer: bool,
    stdout: Lines,
    stderr: Lines,
}

impl Reader {
    /// Takes a message and tells what a person wants to see of it. Answers the layer that it tells of, if it does.
    pub(super) fn take(&mut self, message: &Message, output: &OutputSink) -> Option<Layer> {
        if let Some(image) = message.image() {
            self.image = Some(image.to_owned());
        }
        let text = message.stream.as_deref()?;
        if let Some((number, step)) = step_of(text) {
            self.finish_lines(output);
            output.line(Stream::Stdout, format!("[{number}] {step}"));
            *self = Self { step: Some(step), image: self.image.take(), ..Self::default() };
            return None;
        }
        if let Some(container) = text.strip_prefix(" ---> Running in ") {
            self.container = Some(container.trim().to_owned());
            self.running = true;
            return None;
        }
        if let Some(rest) = text.strip_prefix(" ---> ") {
            return self.layer(rest.trim());
        }
        if text.starts_with("Removing intermediate container ") {
            self.finish_lines(output);
            self.running = false;
            return None;
        }
        self.tell(text, output);
        None
    }

    /// The instruction that is being carried out.
    pub(super) fn step(&self) -> Option<String> {
        self.step.clone()
    }

    pub(super) fn container(&self) -> Option<&str> {
        self.container.as_deref()
    }

    pub(super) fn image(&self) -> Option<&str> {
        self.image.as_deref()
    }

    pub(super) fn saw_full_disk(&self) -> bool {
        self.saw_full_disk
    }

    /// The engine gave the build up with these words.
    pub(super) fn failed_with(&mut self, text: &str) {
        let text = text.to_lowercase();
        self.lost_a_layer = !self.is_at_from() && LOST_LAYER.iter().any(|words| text.contains(words));
    }

    /// Whether the build failed because an image it was about to build upon had been removed.
    pub(super) fn lost_a_layer(&self) -> bool {
        self.lost_a_layer
    }

    fn is_at_from(&self) -> bool {
        self.step.as_deref().is_none_or(|step| step.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("FROM ")))
    }

    fn layer(&mut self, rest: &str) -> Option<Layer> {
        if rest == "Using cache" {
            self.cached = true;
            return None;
        }
        // What FROM names is the user's base image, not a layer of this build.
        let is_id = rest.len() >= 12 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_id && !self.is_at_from()).then(|| Layer { id: rest.to_owned(), made: !self.cached })
    }

    fn tell(&mut self, text: &str, output: &OutputSink) {
        let (stream, text) = match text.strip_prefix(RED) {
            Some(rest) => (Stream::Stderr, rest.strip_suffix(PLAIN).unwrap_or(rest)),
            None => (Stream::Stdout, text),
        };
        if !self.running && text.trim().is_empty() {
            return;
        }
        self.saw_full_disk |= is_disk_full(text);
        let lines = if stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout };
        lines.push(text.as_bytes(), |line| output.line(stream, line));
    }

    fn finish_lines(&mut self, output: &OutputSink) {
        self.stdout.finish(|line| output.line(Stream::Stdout, line));
        self.stderr.finish(|line| output.line(Stream::Stderr, line));
    }
}

/// `Step 2/5 : RUN make`, or Podman's `STEP 2/5: RUN make`.
fn step_of(text: &str) -> Option<(String, String)> {
    let (head, step) = text.strip_prefix("Step ").or_else(|| text.strip_prefix("STEP "))?.split_once(": ")?;
    let head = head.trim_end();
    let counts = head.bytes().all(|byte| byte.is_ascii_digit() || byte == b'/') && head.contains('/');
    counts.then(|| (head.to_owned(), step.trim().to_owned()))
}

/// Whether the kernel killed something in the failed step's container because of its memory cap. The engine has removed
/// the container, but it remembers what happened.
pub(super) async fn ran_out_of_memory(client: &Client, reader: &Reader, began: Timestamp) -> bool {
    let Some(container) = reader.container() else { return false };
    let filters = HashMap::from([("type", vec!["container"]), ("event", vec!["oom"]), ("container", vec![container])]);
    let options = EventsOptionsBuilder::default()
        .since(&began.as_second().to_string())
        .until(&(Timestamp::now().as_second() + 1).to_string())
        .filters(&filters)
        .build();
    let mut events = std::pin::pin!(client.docker.events(Some(options)));
    // The answer ends a second from now at the latest, but evidence that is there comes at once.
    matches!(timely(async { events.next().await.transpose() }).await, Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::{Arc, Mutex};

    fn read(texts: &[&str]) -> (Reader, Vec<String>, Vec<Layer>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let told = told.clone();
            OutputSink::new(move |line| told.lock().unwrap().push(line.text))
        };
        let mut reader = Reader::default();
        let layers = texts
            .iter()
            .filter_map(|text| reader.take(&Message { stream: Some((*text).to_owned()), ..Message::default() }, &sink))
            .collect();
        let told = told.lock().unwrap().clone();
        (reader, told, layers)
    }

    #[test]
    fn people_see_steps_and_their_output_only() {
        let (reader, told, layers) = read(&[
            "Step 1/3 : FROM debian",
            "\n",
            " ---> 73da88ee5370\n",
            "Step 2/3 : RUN make",
            "\n",
            " ---> Running in 4952d5628663\n",
            "one\ntw",
            "o\n",
            "\u{1b}[91mbad\n\u{1b}[0m",
            "Removing intermediate container 4952d5628663\n",
            " ---> f9f570757191\n",
            "Step 3/3 : COPY a b",
            "\n",
            " ---> Using cache\n",
            " ---> 1e3c7e244ea2\n",
        ]);
        assert_eq!(told, ["[1/3] FROM debian", "[2/3] RUN make", "one", "two", "bad", "[3/3] COPY a b"]);
        assert_eq!(reader.step().as_deref(), Some("COPY a b"));
        let expected = [("f9f570757191", true), ("1e3c7e244ea2", false)];
        assert_eq!(layers.iter().map(|layer| (layer.id.as_str(), layer.made)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_layer_that_vanished_is_nobodys_mistake() {
        let (mut reader, ..) = read(&["Step 2/3 : CMD [\"true\"]", " ---> Running in 4952d5628663\n"]);
        reader.failed_with("failed to set parent sha256:aa: unknown parent image ID sha256:aa");
        assert!(reader.lost_a_layer());
        let (mut reader, ..) = read(&["Step 1/3 : FROM nothing"]);
        reader.failed_with("No such image: nothing");
        assert!(!reader.lost_a_layer());
    }

    #[test]
    fn podman_counts_steps_in_capitals() {
        assert_eq!(step_of("STEP 2/5: RUN make\n"), Some(("2/5".to_owned(), "RUN make".to_owned())));
        assert_eq!(step_of("Step by step: how to\n"), None);
    }
}
