//! What is written down about each execution, off its path: a queue takes the records and writes them in batches. In strict
//! mode nothing is answered before it is on the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use coracle_pyrunner_store::{NotRecorded, Policy, Record, Recorder, RecorderOptions, Store, StoreError, Usage};
use coracle_sandbox::{End, Execution, Mode, Reason, Stdin};

use crate::answer::{Stream, Transcript};
use crate::problem::{Problem, ProblemKind};

/// How often what is too old is deleted.
pub(crate) const SWEEP_PAUSE: Duration = Duration::from_secs(60);

/// Whether history is kept, and how surely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HistoryMode {
    /// Nothing is kept.
    Off,
    /// Kept off the path of executions; when the database cannot keep up, records are dropped and counted.
    #[default]
    Relaxed,
    /// An execution is answered when it is on the disk, and refused while it could not be.
    Strict,
}

/// The history.
pub(crate) struct History {
    mode: HistoryMode,
    pub(crate) recorder: Recorder,
    pub(crate) policy: Policy,
    /// Whether a drop has been logged since the last one that was not.
    dropping: AtomicBool,
}

impl History {
    pub(crate) fn new(store: Store, mode: HistoryMode, policy: Policy) -> Self {
        let recorder = Recorder::start(store, RecorderOptions::default());
        Self { mode, recorder, policy, dropping: AtomicBool::new(false) }
    }

    /// Why executions are refused because of the history, if they are.
    pub(crate) fn ready(&self) -> Result<(), String> {
        match self.mode {
            HistoryMode::Strict => self.recorder.ready().map_err(|why| format!("history is strict and cannot be written: {why}")),
            HistoryMode::Off | HistoryMode::Relaxed => Ok(()),
        }
    }

    /// Begins the record of an execution; refused in strict mode while it could not be kept.
    pub(crate) fn begin(&self, owner: &str, origin: &'static str) -> Result<Entry, Problem> {
        if self.mode == HistoryMode::Strict {
            self.recorder.ready().map_err(|why| not_kept(&why, "nothing was executed"))?;
        }
        let mut record = Record::new(owner, Bytes::new()).map_err(|error| unavailable(&error))?;
        // Until it is known better.
        Reason::Cancelled.as_str().clone_into(&mut record.reason);
        origin.clone_into(&mut record.origin);
        let kept = self.mode != HistoryMode::Off;
        Ok(Entry { record, kept, recorder: self.recorder.clone() })
    }

    /// Keeps a record; in strict mode, until it is on the disk.
    pub(crate) async fn keep(&self, entry: &mut Entry) -> Result<(), Problem> {
        if !entry.kept {
            return Ok(());
        }
        let record = entry.record.clone();
        if self.mode == HistoryMode::Strict {
            // Given up and tried again, it is still one record: its name is the same.
            let kept = self.recorder.record_durably(record).await;
            entry.kept = false;
            return kept.map_err(|why| not_kept(&why, "the program was executed, but its record may be lost"));
        }
        entry.kept = false;
        match self.recorder.record(record) {
            Ok(()) => self.dropping.store(false, Ordering::Relaxed),
            Err(why) if !self.dropping.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%why, "executions are not written down");
            }
            Err(_) => {}
        }
        Ok(())
    }
}

/// The record of an execution that may still be running. One that is dropped before it is kept is kept as cancelled.
pub(crate) struct Entry {
    pub(crate) record: Record,
    kept: bool,
    recorder: Recorder,
}

impl Entry {
    /// Notes what is executed.
    pub(crate) fn describe(&mut self, execution: Execution) {
        let details = details(&execution);
        let record = &mut self.record;
        record.details = details;
        record.image = execution.image;
        record.mode = if execution.mode == Mode::Exec { "exec" } else { "zygote" }.to_owned();
        record.code = execution.code.into();
        if let Stdin::Bytes(stdin) = execution.stdin {
            record.stdin = (!stdin.is_empty()).then(|| stdin.into());
        }
    }

    /// Nothing was executed, so nothing is kept.
    pub(crate) fn forget(&mut self) {
        self.kept = false;
    }

    /// Notes what the program wrote.
    pub(crate) fn wrote(&mut self, transcript: &Transcript) {
        // Copied: a piece holds on to the whole buffer that it was read into.
        self.record.stdout = Bytes::copy_from_slice(&transcript.bytes(Stream::Stdout));
        self.record.stderr = Bytes::copy_from_slice(&transcript.bytes(Stream::Stderr));
    }

    /// Notes how it ended.
    pub(crate) fn ended(&mut self, end: &End, queued: Duration) {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let record = &mut self.record;
        record.exit_code = end.exit_code;
        record.signal = end.signal;
        end.reason.as_str().clone_into(&mut record.reason);
        record.stdout_truncated = end.truncated.stdout;
        record.stderr_truncated = end.truncated.stderr;
        record.limits_hit = limits_hit(end);
        record.usage = Usage {
            wall_us: micros(end.usage.wall),
            cpu_us: micros(end.usage.cpu),
            memory_peak: end.usage.memory_peak,
            queue_us: micros(queued),
        };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.kept
            && let Err(why) = self.recorder.record(self.record.clone())
        {
            tracing::debug!(%why, "a cancelled execution is not written down");
        }
    }
}

fn limits_hit(end: &End) -> Vec<String> {
    let by_reason = match end.reason {
        Reason::Timeout => Some("wall"),
        Reason::CpuLimit => Some("cpu"),
        Reason::Oom => Some("memory"),
        _ => None,
    };
    let output = (end.truncated.stdout || end.truncated.stderr || end.reason == Reason::OutputLimit).then_some("output");
    let files = end.truncated.files.then_some("files");
    [by_reason, output, files].into_iter().flatten().map(str::to_owned).collect()
}

/// What else was sent along: arguments and the names, not the contents, of files and variables.
fn details(execution: &Execution) -> Option<Bytes> {
    if execution.args.is_empty() && execution.env.is_empty() && execution.files.is_empty() && execution.collect.is_empty() {
        return None;
    }
    let details = serde_json::json!({
        "args": execution.args,
        "env": execution.env.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "files": execution.files.iter().map(|file| &file.path).collect::<Vec<_>>(),
        "collect": execution.collect,
    });
    serde_json::to_vec(&details).ok().map(Bytes::from)
}

fn not_kept(why: &NotRecorded, meanwhile: &str) -> Problem {
    let detail = format!("history is strict here and cannot be written: {why}; {meanwhile}");
    Problem::new(ProblemKind::Unavailable, detail).retry_after(5)
}

/// What is answered when the database is not there.
pub(crate) fn unavailable(error: &StoreError) -> Problem {
    tracing::error!(%error, "the database does not do what it should");
    match error {
        StoreError::Invalid { .. } => Problem::new(ProblemKind::Internal, "the database does not take that"),
        _ => Problem::new(ProblemKind::Unavailable, "the database cannot be reached; executions without it go on").retry_after(5),
    }
}
