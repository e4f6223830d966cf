//! One JSON line per request, written by a thread of its own: a slow disk or a full pipe holds up no request. When more
//! waits to be written than [`MOST`], lines are dropped, counted, and the count is written.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

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

    fn push(&self, line: &[u8]) {
        let mut pending = self.lock();
        if pending.lines.len() >= MOST {
            pending.dropped += 1;
            return;
        }
        let was_empty = pending.lines.is_empty();
        pending.lines.extend_from_slice(line);
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

    /// Whether there is a log.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes a line, if there is a log.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let Some(queue) = &self.0 else { return };
        let written = LINE.try_with(|text| {
            let mut text = text.borrow_mut();
            text.clear();
            line.write_to(&mut text);
            queue.push(&text);
        });
        if written.is_err() {
            tracing::debug!("a line of the access log was lost with its thread");
        }
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

thread_local! {
    /// The line that is being written, and the second that was written last.
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// One request, as the log tells it.
pub(crate) struct Line<'l> {
    pub(crate) request_id: &'l str,
    pub(crate) peer: SocketAddr,
    /// Told only if it is not the peer.
    pub(crate) client: IpAddr,
    pub(crate) tls: bool,
    pub(crate) protocol: &'static str,
    pub(crate) host: &'l str,
    pub(crate) method: &'l str,
    /// Without the query, which may hold secrets.
    pub(crate) path: &'l str,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
    pub(crate) route: Option<&'l str>,
    pub(crate) target: Option<&'l str>,
    pub(crate) attempts: u32,
    /// The answer began but did not reach its end.
    pub(crate) truncated: bool,
}

impl Line<'_> {
    /// As JSON. By hand, as what is written is known and there may be fifty thousand a second.
    fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        write_time(out);
        text(out, "\",\"request_id\":", self.request_id);
        number(out, format_args!(",\"peer\":\"{}\"", self.peer));
        if self.client != self.peer.ip() {
            number(out, format_args!(",\"client\":\"{}\"", self.client));
        }
        number(out, format_args!(",\"tls\":{},\"protocol\":\"{}\"", self.tls, self.protocol));
        text(out, ",\"host\":", self.host);
        text(out, ",\"method\":", self.method);
        text(out, ",\"path\":", self.path);
        let (status, bytes, duration) = (self.status, self.bytes, self.duration.as_micros());
        number(out, format_args!(",\"status\":{status},\"bytes\":{bytes},\"duration_us\":{duration}"));
        if let Some(route) = self.route {
            text(out, ",\"route\":", route);
        }
        if let Some(target) = self.target {
            text(out, ",\"target\":", target);
        }
        number(out, format_args!(",\"attempts\":{}", self.attempts));
        if self.truncated {
            out.extend_from_slice(b",\"truncated\":true");
        }
        out.extend_from_slice(b"}\n");
    }
}

fn text(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    // Writing a text into memory does not fail; nor does writing numbers.
    drop(serde_json::to_writer(out, value));
}

fn number(out: &mut Vec<u8>, value: std::fmt::Arguments<'_>) {
    drop(out.write_fmt(value));
}

/// The time in UTC. What changes once a second only is made once a second only.
fn write_time(out: &mut Vec<u8>) {
    let now = jiff::Timestamp::now();
    let written = SECOND.try_with(|second| {
        let mut second = second.borrow_mut();
        if second.0 != now.as_second() {
            let whole = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
            *second = (now.as_second(), whole.to_string().trim_end_matches('Z').to_owned());
        }
        out.extend_from_slice(second.1.as_bytes());
    });
    if written.is_ok() {
        number(out, format_args!(".{:06}Z", now.subsec_nanosecond() / 1000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json() {
        let mut line = Line {
            request_id: "r",
            peer: "192.0.2.1:5".parse().unwrap(),
            client: "192.0.2.1".parse().unwrap(),
            tls: true,
            protocol: "HTTP/1.1",
            host: "h",
            method: "GET",
            path: "/\"\\\n\u{1}",
            status: 200,
            bytes: 5,
            duration: Duration::from_micros(7),
            route: Some("a\"b"),
            target: None,
            attempts: 1,
            truncated: false,
        };
        let mut out = Vec::new();
        line.write_to(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&value["path"], &value["route"], &value["duration_us"]), (&line.path.into(), &"a\"b".into(), &7.into()));
        assert!(value.get("client").is_none() && value.get("target").is_none() && value.get("truncated").is_none(), "{value}");
        value["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        (line.client, line.truncated) = ("::1".parse().unwrap(), true);
        out.clear();
        line.write_to(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&value["client"], &value["truncated"]), (&"::1".into(), &true.into()));
    }
}
