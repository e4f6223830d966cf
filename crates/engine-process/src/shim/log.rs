//! The log of an instance: lines as they came, each behind its time and stream, in files that are rotated by size. The
//! format is read by [`crate::logs`]: microseconds since 1970, a blank, `o` or `e`, a blank, the bytes of the line.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use coracle_engine::Stream;

use crate::files::{InstanceDir, LOG_FILES};

/// The longest line that is kept; what is behind is dropped.
pub(crate) const LONGEST_LINE: usize = 16 << 10;

/// A file is rotated when it has grown beyond this.
const LARGEST_FILE: u64 = 10 << 20;

/// Where lines go.
pub(super) struct Log {
    directory: InstanceDir,
    file: Option<File>,
    size: u64,
}

impl Log {
    pub(super) fn create(directory: InstanceDir) -> std::io::Result<Self> {
        let file = directory.create_log()?;
        Ok(Self { directory, file: Some(file), size: 0 })
    }

    /// Writes whole entries. A full disk loses lines, not the instance.
    fn write(&mut self, entries: &[u8]) {
        if self.size > LARGEST_FILE {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(entries).is_ok()
        {
            self.size += entries.len() as u64;
        }
    }

    fn rotate(&mut self) {
        for number in (0..LOG_FILES - 1).rev() {
            self.directory.rename_log(number, number + 1);
        }
        self.file = self.directory.create_log().ok();
        self.size = 0;
    }
}

/// One of the program's two pipes, and the line that is not complete yet.
pub(super) struct Capture {
    pipe: Option<std::io::PipeReader>,
    stream: Stream,
    line: Vec<u8>,
    /// Whether the rest of the line is being dropped.
    cut: bool,
}

impl Capture {
    pub(super) fn new(pipe: std::io::PipeReader, stream: Stream) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe: Some(pipe), stream, line: Vec::new(), cut: false })
    }

    /// The pipe, until it has ended.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there, up to a bound that gives the other stream its turn. Answers whether there may be more.
    pub(super) fn take(&mut self, log: &mut Log) -> bool {
        let mut chunk = [0; 32 << 10];
        let Some(pipe) = &mut self.pipe else { return false };
        match pipe.read(&mut chunk) {
            Ok(0) => {
                self.end(log);
                false
            }
            Ok(count) => {
                let mut entries = Vec::with_capacity(count + 64);
                self.split(&chunk[..count], &mut entries);
                log.write(&entries);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.end(log);
                false
            }
        }
    }

    /// The stream is over: an incomplete line is a line.
    pub(super) fn end(&mut self, log: &mut Log) {
        self.pipe = None;
        if !self.line.is_empty() {
            let mut entries = Vec::new();
            self.emit(&mut entries);
            log.write(&entries);
        }
    }

    fn split(&mut self, mut bytes: &[u8], entries: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            self.emit(entries);
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut |= bytes.len() > room;
    }

    fn emit(&mut self, entries: &mut Vec<u8>) {
        if !self.cut && self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        let letter = if self.stream == Stream::Stdout { 'o' } else { 'e' };
        // Writing to a vector cannot fail.
        drop(write!(entries, "{} {letter} ", now_micros()));
        entries.append(&mut self.line);
        entries.push(b'\n');
        self.cut = false;
    }
}

fn now_micros() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|time| time.as_micros()).unwrap_or_default()
}
