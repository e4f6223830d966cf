//! The book of a run that goes on. Whoever writes into it never waits: lines and steps go through a queue to a task, which writes
//! them to the disk and to the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_engine::{OutputLine, Stream};
use coracle_model::{AppName, DeploymentId, Phase, StepRun, StepState};
use coracle_pipeline_runner::Hiding;
use coracle_store::{RunSource, Store};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::RunLine;
use crate::mounts::Mounts;

/// The most bytes that the log of one step has at its beginning, and at its end: what fails does so there.
const HEAD: usize = 3 << 20;
const TAIL: usize = 512 << 10;
/// The most bytes that the log of a run has, the ends of its steps aside.
const RUN: usize = 24 << 20;
/// Bytes of lines that may wait for a slow disk; more are left out.
const WAITING: usize = 8 << 20;
/// What a line costs beside its text.
const LINE_COST: usize = 96;
/// How long the end of a run waits for the disk.
const END_LIMIT: Duration = Duration::from_secs(10);

enum Entry {
    Line(RunLine),
    Steps(Vec<StepRun>),
    Handed { step: String, parcel: PathBuf },
    StepEnded(String),
}

/// The book of one run.
pub(crate) struct RunBook {
    writer: Mutex<Option<JoinHandle<()>>>,
    page: Arc<Page>,
}

/// What those who write have.
pub(crate) struct Page {
    queue: Mutex<Option<mpsc::UnboundedSender<Entry>>>,
    waiting: Arc<AtomicUsize>,
    steps: Mutex<Vec<StepRun>>,
    /// How many lines of a step have been left out since the last one that was not.
    left_out: Mutex<BTreeMap<String, usize>>,
    hiding: Hiding,
    /// The names that steps of the pipeline share with parts of the deployment.
    shared: BTreeSet<String>,
}

impl RunBook {
    /// Opens the book of a deployment. What cannot be written down is no reason not to deploy, and told in the server's log.
    pub(crate) async fn open(
        store: &Store,
        mounts: &Mounts,
        (app, id): (&AppName, DeploymentId),
        source: &RunSource,
        hiding: &Hiding,
        steps: impl Iterator<Item = String>,
    ) -> Self {
        let (queue, entries) = mpsc::unbounded_channel();
        if let Err(error) = store.begin_run(id, app, source).await {
            tracing::warn!(deployment = %id, %error, "its run cannot be written down");
        }
        let waiting = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            store: store.clone(),
            mounts: mounts.clone(),
            app: app.clone(),
            id,
            waiting: waiting.clone(),
            logs: Logs::open(mounts, app, id),
        };
        let writer = Mutex::new(Some(tokio::spawn(writer.write(entries))));
        let phases: BTreeSet<&str> = Phase::ALL.into_iter().map(Phase::as_str).collect();
        let page = Page {
            queue: Mutex::new(Some(queue)),
            waiting,
            steps: Mutex::default(),
            left_out: Mutex::default(),
            hiding: hiding.clone(),
            shared: steps.filter(|name| phases.contains(name.as_str())).collect(),
        };
        Self { writer, page: Arc::new(page) }
    }

    /// For those who write.
    pub(crate) fn page(&self) -> Arc<Page> {
        self.page.clone()
    }

    /// Ends the book: what has not ended has done so in this state. Waits until all is written.
    pub(crate) async fn close(&self, state: StepState, why: Option<String>) {
        let unfinished: Vec<StepRun> = {
            let steps = self.page.steps.lock().unwrap_or_else(PoisonError::into_inner);
            steps.iter().filter(|step| !step.state.is_over()).cloned().collect()
        };
        for step in unfinished {
            let state = if step.state == StepState::Waiting && state == StepState::Failed { StepState::NotRun } else { state };
            let why = why.clone().filter(|_| state == StepState::Failed);
            self.page.step(StepRun { state, why, finished_at: Some(Timestamp::now()), ..step });
        }
        self.page.tell_all_left_out();
        self.page.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && tokio::time::timeout(END_LIMIT, writer).await.is_err()
        {
            tracing::warn!("the log of a run is still being written");
        }
    }
}

impl Page {
    fn put(&self, entry: Entry) {
        if let Some(queue) = &*self.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            // The task that reads lives as long as the queue.
            queue.send(entry).ok();
        }
    }

    /// A line that a step wrote. It is left out if too much waits to be written.
    pub(crate) fn line(&self, step: &str, line: &OutputLine) {
        let text = self.hiding.clean(line.text.clone());
        let cost = text.len() + LINE_COST;
        if self.waiting.fetch_add(cost, Ordering::Relaxed) > WAITING {
            self.waiting.fetch_sub(cost, Ordering::Relaxed);
            *self.left_out().entry(step.to_owned()).or_default() += 1;
            return;
        }
        self.tell_left_out(step);
        self.put(Entry::Line(self.run_line(step, line.stream, text)));
    }

    fn run_line(&self, step: &str, stream: Stream, text: String) -> RunLine {
        let own = step.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let shares_name = own.is_some_and(|name| self.shared.contains(name));
        RunLine { at: Timestamp::now(), step: step.to_owned(), stream, text, shares_name }
    }

    fn left_out(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks where lines of a step have been left out.
    fn tell_left_out(&self, step: &str) {
        let Some(count) = self.left_out().remove(step) else { return };
        let text = left_out(count);
        self.waiting.fetch_add(text.len() + LINE_COST, Ordering::Relaxed);
        self.put(Entry::Line(self.run_line(step, Stream::Stderr, text)));
    }

    fn tell_all_left_out(&self) {
        let steps: Vec<String> = self.left_out().keys().cloned().collect();
        steps.iter().for_each(|step| self.tell_left_out(step));
    }

    /// How a step stands now.
    pub(crate) fn step(&self, step: StepRun) {
        let step = StepRun { why: step.why.map(|why| self.hiding.clean(why)), ..step };
        let all = {
            let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
            let is_over = step.state.is_over().then(|| step.name.clone());
            match steps.iter_mut().find(|known| known.name == step.name) {
                Some(known) => *known = step,
                None => steps.push(step),
            }
            (steps.clone(), is_over)
        };
        self.put(Entry::Steps(all.0));
        if let Some(name) = all.1 {
            self.tell_left_out(&name);
            self.put(Entry::StepEnded(name));
        }
    }

    /// What a step handed over.
    pub(crate) fn handed(&self, step: String, parcel: PathBuf) {
        self.put(Entry::Handed { step, parcel });
    }

    /// A part of the deployment itself that counts as a step.
    pub(crate) fn begins(&self, name: &str) {
        let started_at = Some(Timestamp::now());
        self.step(StepRun { started_at, attempts: 1, ..StepRun::new(name, StepState::Running) });
    }

    /// It has ended well.
    pub(crate) fn passes(&self, name: &str) {
        let known = {
            let steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
            steps.iter().find(|step| step.name == name).cloned()
        };
        if let Some(step) = known {
            self.step(StepRun { state: StepState::Passed, finished_at: Some(Timestamp::now()), ..step });
        }
    }
}

struct Writer {
    store: Store,
    mounts: Mounts,
    app: AppName,
    id: DeploymentId,
    waiting: Arc<AtomicUsize>,
    logs: io::Result<Logs>,
}

impl Writer {
    async fn write(mut self, mut entries: mpsc::UnboundedReceiver<Entry>) {
        let mut batch = Vec::new();
        while entries.recv_many(&mut batch, 256).await > 0 {
            // Of several states of the steps, the last one says all.
            let mut steps = None;
            let mut lines = Vec::new();
            for entry in batch.drain(..) {
                match entry {
                    Entry::Steps(all) => steps = Some(all),
                    other => lines.push(other),
                }
            }
            if let Some(steps) = steps
                && let Err(error) = self.store.set_run_steps(self.id, &steps).await
            {
                tracing::warn!(deployment = %self.id, %error, "the steps of its run cannot be written down");
            }
            let written = tokio::task::spawn_blocking(move || {
                lines.into_iter().for_each(|entry| self.take(entry));
                self.flush();
                self
            });
            match written.await {
                Ok(writer) => self = writer,
                Err(_) => return,
            }
        }
        let ended = tokio::task::spawn_blocking(move || self.finish()).await;
        if ended.is_err() {
            tracing::warn!("the log of a run was not ended");
        }
    }

    fn take(&mut self, entry: Entry) {
        let done = match (&mut self.logs, entry) {
            (Ok(logs), Entry::Line(line)) => {
                self.waiting.fetch_sub(line.text.len() + LINE_COST, Ordering::Relaxed);
                logs.line(line)
            }
            (Err(_), Entry::Line(line)) => {
                self.waiting.fetch_sub(line.text.len() + LINE_COST, Ordering::Relaxed);
                Ok(())
            }
            (Ok(logs), Entry::StepEnded(step)) => logs.step_ended(&step),
            (_, Entry::Handed { step, parcel }) => {
                // The log goes on without it.
                if let Err(error) = self.keep(&step, &parcel) {
                    tracing::warn!(deployment = %self.id, step, %error, "what it handed over is not kept with its run");
                }
                Ok(())
            }
            _ => Ok(()),
        };
        self.failed(done);
    }

    /// The run has a name of its own for what its step handed over: it is this, whatever a later run of the step makes.
    fn keep(&self, step: &str, parcel: &std::path::Path) -> io::Result<()> {
        let to = self.mounts.run_artifact(&self.app, self.id, step);
        if let Some(folder) = to.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        match std::fs::remove_file(&to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::hard_link(parcel, to)
    }

    fn flush(&mut self) {
        let done = self.logs.as_mut().map_or(Ok(()), |logs| logs.file.flush());
        self.failed(done);
    }

    fn finish(mut self) {
        let done = self.logs.as_mut().map_or(Ok(()), Logs::finish);
        self.failed(done);
    }

    /// The first failure is told; after it, nothing is tried any more.
    fn failed(&mut self, done: io::Result<()>) {
        if let Err(error) = done {
            tracing::warn!(deployment = %self.id, %error, "the log of its run is incomplete");
            self.logs = Err(error);
        }
    }
}

/// The file of a run's log, and what is held back of each step.
struct Logs {
    file: io::BufWriter<std::fs::File>,
    written: usize,
    steps: BTreeMap<String, OfStep>,
}

#[derive(Default)]
struct OfStep {
    written: usize,
    left_out: usize,
    tail: VecDeque<RunLine>,
    tail_bytes: usize,
}

impl Logs {
    fn open(mounts: &Mounts, app: &AppName, id: DeploymentId) -> io::Result<Self> {
        let place = mounts.run(app, id);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        let options = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).clone();
        let file = io::BufWriter::new(options.open(place.join("log"))?);
        Ok(Self { file, written: 0, steps: BTreeMap::new() })
    }

    fn line(&mut self, line: RunLine) -> io::Result<()> {
        let cost = line.text.len() + LINE_COST;
        let step = self.steps.entry(line.step.clone()).or_default();
        if step.written + cost <= HEAD && self.written + cost <= RUN && step.tail.is_empty() {
            step.written += cost;
            self.written += cost;
            return self.write(&line);
        }
        step.tail_bytes += cost;
        step.tail.push_back(line);
        while step.tail_bytes > TAIL
            && let Some(oldest) = step.tail.pop_front()
        {
            step.tail_bytes -= oldest.text.len() + LINE_COST;
            step.left_out += 1;
        }
        Ok(())
    }

    /// Writes what was held back of a step.
    fn step_ended(&mut self, name: &str) -> io::Result<()> {
        let Some(step) = self.steps.remove(name) else { return Ok(()) };
        if step.left_out > 0
            && let Some(first) = step.tail.front()
        {
            self.write(&RunLine { stream: Stream::Stderr, text: left_out(step.left_out), ..first.clone() })?;
        }
        step.tail.iter().try_for_each(|line| self.write(line))
    }

    fn write(&mut self, line: &RunLine) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.file.write_all(b"\n")
    }

    fn finish(&mut self) -> io::Result<()> {
        let names: Vec<String> = self.steps.keys().cloned().collect();
        names.iter().try_for_each(|name| self.step_ended(name))?;
        self.file.flush()
    }
}

/// The line that stands for others.
fn left_out(count: usize) -> String {
    let lines = if count == 1 { "line is" } else { "lines are" };
    format!("… {count} {lines} left out of the log here …")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use coracle_model::{DeploymentKind, Secret};

    /// The book of a deployment, with a secret of 4000 characters, and with a step named `build`.
    async fn book(directory: &std::path::Path) -> (RunBook, PathBuf) {
        let store = Store::open(&directory.join("state")).await.unwrap();
        let (mounts, app): (_, AppName) = (Mounts::new(directory.join("mounts")), "shop".parse().unwrap());
        store.ensure_app(&app).await.unwrap();
        let id = store.begin_deployment(&app, DeploymentKind::Deploy).await.unwrap().id;
        let hiding = Hiding::new(&[("SEC".parse().unwrap(), Secret::new("secret!".repeat(500)))]);
        let (source, steps) = (RunSource::default(), ["build".to_owned()]);
        let book = RunBook::open(&store, &mounts, (&app, id), &source, &hiding, steps.into_iter()).await;
        (book, mounts.run(&app, id).join("log"))
    }

    fn written(text: impl Into<String>) -> OutputLine {
        OutputLine { stream: Stream::Stdout, text: text.into() }
    }

    fn lines(log: &std::path::Path) -> Vec<RunLine> {
        let text = std::fs::read_to_string(log).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_waits_is_counted_as_it_is_written_and_what_is_left_out_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let (book, log) = book(directory.path()).await;
        let page = book.page();
        let line = written("secret!".repeat(500));
        for _ in 0..100 {
            page.line("test", &line);
        }
        page.waiting.fetch_add(WAITING + 1, Ordering::Relaxed);
        page.line("test", &written("lost"));
        page.line("test", &written("lost as well"));
        page.line("other", &written("lost"));
        page.waiting.fetch_sub(WAITING + 1, Ordering::Relaxed);
        page.line("test", &written("after"));
        book.close(StepState::Passed, None).await;
        assert_eq!(page.waiting.load(Ordering::Relaxed), 0);
        let lines = lines(&log);
        let texts: Vec<&str> = lines[100..].iter().map(|line| line.text.as_str()).collect();
        let told = ["… 2 lines are left out of the log here …", "after", "… 1 line is left out of the log here …"];
        assert_eq!((texts, lines[0].text.as_str(), lines[102].step.as_str()), (told.to_vec(), "***", "other"));
    }

    #[tokio::test]
    async fn what_cannot_be_kept_of_a_step_ends_no_log() {
        let directory = tempfile::tempdir().unwrap();
        let (book, log) = book(directory.path()).await;
        let page = book.page();
        page.line("test", &written("before"));
        page.handed("test".to_owned(), directory.path().join("gone"));
        page.line("test", &written("after"));
        book.close(StepState::Passed, None).await;
        let texts: Vec<String> = lines(&log).into_iter().map(|line| line.text).collect();
        assert_eq!(texts, ["before", "after"]);
    }

    #[tokio::test]
    async fn a_steps_name_is_the_steps_even_if_a_part_of_the_deployment_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (book, log) = book(directory.path()).await;
        let page = book.page();
        for step in ["(build)", "build", "(release)"] {
            page.line(step, &written("x"));
        }
        book.close(StepState::Passed, None).await;
        let lines = lines(&log);
        let of = |name: &str| lines.iter().filter(|line| line.is_of(name)).map(|line| line.step.as_str()).collect::<Vec<_>>();
        assert_eq!([of("build"), of("(build)"), of("release")], [["build"], ["(build)"], ["(release)"]]);
    }

    #[test]
    fn of_what_writes_too_much_the_beginning_and_the_end_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mounts, app) = (Mounts::new(dir.path().to_owned()), "shop".parse().unwrap());
        let mut logs = Logs::open(&mounts, &app, DeploymentId(1)).unwrap();
        let line = |step: &str, text: String| RunLine {
            at: Timestamp::now(),
            step: step.into(),
            stream: Stream::Stdout,
            text,
            shares_name: false,
        };
        for number in 0..60_000 {
            logs.line(line("loud", format!("{number:0>80}"))).unwrap();
        }
        logs.line(line("quiet", "heard".into())).unwrap();
        logs.finish().unwrap();
        let log = mounts.run(&app, DeploymentId(1)).join("log");
        let (lines, length) = (lines(&log), std::fs::metadata(&log).unwrap().len() as usize);
        let has = |end: &str| lines.iter().any(|line| line.text.ends_with(end));
        assert!(has("00000") && has("59999") && has("heard") && !has("040000") && has("left out of the log here …"));
        assert!(length < 2 * (HEAD + TAIL), "{length}");
    }
}
