//! Reading the logs that shims write, across rotations, and following them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_engine::{EngineError, LogLine, LogQuery, Stream};
use futures::stream::BoxStream;
use jiff::Timestamp;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::files::{LOG_FILES, log_name};
use crate::instance::{Standing, watched};
use crate::lines::readable;

/// How long a follower sleeps at most, should a notice get lost.
const GLANCE: Duration = Duration::from_secs(2);

/// How much is read at a time.
const CHUNK: usize = 256 << 10;

/// Reads entries in the order they were written.
struct Reader {
    directory: PathBuf,
    file: Option<File>,
    /// The beginning of an entry whose end is not there yet.
    rest: Vec<u8>,
}

impl Reader {
    /// Begins with the oldest file that is there.
    fn open(directory: &Path) -> Self {
        let file = (0..LOG_FILES).rev().find_map(|number| File::open(directory.join(log_name(number))).ok());
        Self { directory: directory.to_owned(), file, rest: Vec::new() }
    }

    /// The next entries; none if there are none for now.
    fn read(&mut self) -> io::Result<Vec<LogLine>> {
        let mut chunk = vec![0; CHUNK];
        loop {
            if self.file.is_none() {
                self.file = File::open(self.directory.join(log_name(0))).ok();
            }
            let Some(file) = &mut self.file else { return Ok(Vec::new()) };
            let count = file.read(&mut chunk)?;
            if count > 0 {
                self.rest.extend_from_slice(&chunk[..count]);
                let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let entries: Vec<u8> = self.rest.drain(..whole).collect();
                let lines: Vec<_> = entries.split(|byte| *byte == b'\n').filter_map(parse).collect();
                if !lines.is_empty() {
                    return Ok(lines);
                }
            } else if !self.go_on_to_newer()? {
                return Ok(Vec::new());
            }
        }
    }

    /// At the end of a file: if it has been rotated away, goes on to the one written after it.
    fn go_on_to_newer(&mut self) -> io::Result<bool> {
        let Some(current) = &self.file else { return Ok(false) };
        let current = current.metadata()?.ino();
        let files: Vec<File> =
            (0..LOG_FILES).filter_map(|number| File::open(self.directory.join(log_name(number))).ok()).collect();
        let inodes: Vec<u64> = files.iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.ino()).collect();
        let newer = match inodes.iter().position(|inode| *inode == current) {
            Some(0) => return Ok(false),
            Some(number) => number - 1,
            // Rotated out altogether: the oldest that is left comes next.
            None => files.len().wrapping_sub(1),
        };
        self.file = files.into_iter().nth(newer);
        Ok(self.file.is_some())
    }
}

/// An entry as [`crate::shim`] writes it.
fn parse(entry: &[u8]) -> Option<LogLine> {
    let mut pieces = entry.splitn(3, |byte| *byte == b' ');
    let micros = std::str::from_utf8(pieces.next()?).ok()?.parse().ok()?;
    let stream = match pieces.next()? {
        b"o" => Stream::Stdout,
        b"e" => Stream::Stderr,
        _ => return None,
    };
    Some(LogLine { at: Timestamp::from_microsecond(micros).ok()?, stream, text: readable(pieces.next()?) })
}

/// A follower's state.
struct Follower {
    reader: Reader,
    ready: VecDeque<LogLine>,
    since: Option<Timestamp>,
    /// What tells of new lines and of the end; gone when nothing more can come.
    watch: Option<Watch>,
}

struct Watch {
    shim: AsyncFd<OwnedFd>,
    notices: AsyncFd<OwnedFd>,
}

/// Lines of the instance in `directory` as the query wants them.
pub(crate) fn lines(directory: &Path, query: &LogQuery) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
    let failed = |error: io::Error| EngineError::io(format!("read the log in {}", directory.display()), &error);
    // The watch begins before the first look, so that nothing is written unnoticed in between.
    let watch = if query.follow { Watch::begin(directory).map_err(failed)? } else { None };
    let mut reader = Reader::open(directory);
    let mut ready = VecDeque::new();
    loop {
        let more = reader.read().map_err(failed)?;
        if more.is_empty() {
            break;
        }
        ready.extend(more.into_iter().filter(|line| query.since.is_none_or(|since| line.at >= since)));
        while query.tail.is_some_and(|tail| ready.len() > tail) {
            ready.pop_front();
        }
    }
    let follower = Follower { reader, ready, since: query.since, watch };
    Ok(Box::pin(futures::stream::unfold(follower, |mut follower| async move {
        let line = follower.next().await?;
        Some((line, follower))
    })))
}

impl Follower {
    async fn next(&mut self) -> Option<Result<LogLine, EngineError>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            let watch = self.watch.as_mut()?;
            if watch.something_new().await {
                // What is there now is all there will ever be.
                self.watch = None;
            }
            if let Err(error) = self.read_all() {
                self.watch = None;
                return Some(Err(EngineError::io("read the log", &error)));
            }
        }
    }

    fn read_all(&mut self) -> io::Result<()> {
        loop {
            let more = self.reader.read()?;
            if more.is_empty() {
                return Ok(());
            }
            self.ready.extend(more.into_iter().filter(|line| self.since.is_none_or(|since| line.at >= since)));
            // While the instance writes faster than this reads, hand on what is here.
            if self.watch.is_some() && self.ready.len() > 10_000 {
                return Ok(());
            }
        }
    }
}

impl Watch {
    /// `None` if the instance has ended.
    fn begin(directory: &Path) -> io::Result<Option<Self>> {
        let Standing::Running(_, shim) = Standing::of(directory)? else { return Ok(None) };
        let notices = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&notices, directory, events)?;
        Ok(Some(Self { shim: shim.watched()?, notices: watched(notices)? }))
    }

    /// Waits for a notice. Answers whether the shim has ended.
    async fn something_new(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.shim.readable() => true,
            guard = self.notices.readable() => {
                if let Ok(mut guard) = guard {
                    let mut buffer = [0_u8; 4096];
                    while rustix::io::read(guard.get_inner(), &mut buffer).is_ok_and(|count| count > 0) {}
                    guard.clear_ready();
                }
                false
            }
            () = tokio::time::sleep(GLANCE) => false,
        }
    }
}
