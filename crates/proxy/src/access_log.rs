//! One JSON line per request, written by a thread of its own: a slow disk or a full pipe holds up no request. When more
//! waits to be written than [`MOST`], lines are dropped, counted, and the count is written.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::request::Parts;
use serde::Serialize;

use crate::options;

/// Bytes that may wait to be written.
const MOST: usize = 4 * 1024 * 1024;
/// How long a line may wait for others.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes that are written without waiting for more.
const ENOUGH: usize = 64 * 1024;

/// Where lines go; a cheap handle.
#[derive(Clone, Default)]
pub(crate) struct AccessLog(Option<Arc<Queue>>);

#[derive(Default)]
struct Queue {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    lines: Vec<u8>,
    dropped: u64,
    reopen: bool,
    ends: bool,
}

/// Owns the writing thread; dropping it writes what is left.
pub(crate) struct Writer {
    queue: Option<Arc<Queue>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Opens the log.
pub(crate) fn open(to: &options::AccessLog) -> std::io::Result<(AccessLog, Writer)> {
    let sink = match to {
        options::AccessLog::Off => return Ok((AccessLog(None), Writer { queue: None, thread: None })),
        options::AccessLog::File(path) => Sink::File { file: append_to(path)?, path: path.clone() },
        options::AccessLog::Stdout => Sink::Stdout,
    };
    let queue = Arc::new(Queue::default());
    let of_thread = Arc::clone(&queue);
    let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || of_thread.write_to(sink))?;
    Ok((AccessLog(Some(Arc::clone(&queue))), Writer { queue: Some(queue), thread: Some(thread) }))
}

fn append_to(path: &std::path::Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).append(true).mode(0o640).open(path)
}

enum Sink {
    File { file: File, path: std::path::PathBuf },
    Stdout,
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        match self {
            Self::File { file, .. } => file.write_all(lines),
            Self::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
        }
    }

    fn reopen(&mut self) {
        if let Self::File { file, path } = self {
            match append_to(path) {
                Ok(fresh) => *file = fresh,
                Err(error) => tracing::warn!(%error, path = %path.display(), "the access log stays in the file it is in"),
            }
        }
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &Line<'_>) {
        let mut pending = self.lock();
        if pending.lines.len() >= MOST {
            pending.dropped += 1;
            return;
        }
        let was_empty = pending.lines.is_empty();
        // Writing into memory what consists of texts and numbers does not fail.
        drop(serde_json::to_writer(&mut pending.lines, line));
        pending.lines.push(b'\n');
        let wake = was_empty || pending.lines.len() >= ENOUGH;
        drop(pending);
        if wake {
            self.changed.notify_one();
        }
    }

    fn write_to(&self, mut sink: Sink) {
        let mut lines = Vec::new();
        loop {
            let mut pending = self.lock();
            while pending.lines.is_empty() && !pending.ends && !pending.reopen {
                pending = self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            if pending.lines.len() < ENOUGH && !pending.ends && !pending.reopen {
                let more = |pending: &mut Pending| pending.lines.len() < ENOUGH && !pending.ends && !pending.reopen;
                let waited = self.changed.wait_timeout_while(pending, PAUSE, more);
                pending = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            std::mem::swap(&mut lines, &mut pending.lines);
            let (dropped, reopen, ends) = (pending.dropped, pending.reopen, pending.ends);
            (pending.dropped, pending.reopen) = (0, false);
            drop(pending);
            if dropped > 0 {
                lines.extend_from_slice(format!("{{\"dropped_lines\":{dropped}}}\n").as_bytes());
            }
            if let Err(error) = sink.write(&lines) {
                tracing::warn!(%error, "the access log cannot be written");
            }
            lines.clear();
            lines.shrink_to(ENOUGH);
            if reopen {
                sink.reopen();
            }
            if ends {
                return;
            }
        }
    }
}

impl AccessLog {
    /// Opens the file anew: it has been moved away.
    pub(crate) fn reopen(&self) {
        if let Some(queue) = &self.0 {
            queue.lock().reopen = true;
            queue.changed.notify_one();
        }
    }

    /// Begins a record, if there is a log.
    pub(crate) fn record(&self, peer: SocketAddr, parts: &Parts) -> Option<Box<Record>> {
        let queue = Arc::clone(self.0.as_ref()?);
        let host = parts.headers.get(http::header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        Some(Box::new(Record {
            queue,
            began: Instant::now(),
            peer,
            host: parts.uri.host().map(str::to_owned).or(host).unwrap_or_default(),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            request_id: String::new(),
            status: 499,
            bytes: 0,
            target: None,
            attempts: 0,
            truncated: false,
        }))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.lock().ends = true;
            queue.changed.notify_one();
        }
        if let Some(thread) = self.thread.take() {
            // It ends after one write; a panic there has said so itself.
            drop(thread.join());
        }
    }
}

/// What is known of one request; the line is written when it is dropped. Unless a status is set by then, the client went
/// away first: 499.
pub(crate) struct Record {
    queue: Arc<Queue>,
    began: Instant,
    peer: SocketAddr,
    host: String,
    method: String,
    /// Without the query, which may hold secrets.
    path: String,
    pub(crate) request_id: String,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) target: Option<String>,
    pub(crate) attempts: u32,
    /// The answer began but did not reach its end.
    pub(crate) truncated: bool,
}

#[derive(Serialize)]
struct Line<'r> {
    time: String,
    request_id: &'r str,
    peer: SocketAddr,
    host: &'r str,
    method: &'r str,
    path: &'r str,
    status: u16,
    bytes: u64,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'r str>,
    attempts: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.queue.push(&Line {
            time: jiff::Timestamp::now().to_string(),
            request_id: &self.request_id,
            peer: self.peer,
            host: &self.host,
            method: &self.method,
            path: &self.path,
            status: self.status,
            bytes: self.bytes,
            duration_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            target: self.target.as_deref(),
            attempts: self.attempts,
            truncated: self.truncated,
        });
    }
}
