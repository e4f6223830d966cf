//! What one group uses, read often: the files stay open, and what was used before a start counts as nothing.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

/// Reads the use of one group since it was [started](Meter::start). What the machine does not count is nothing.
#[derive(Debug)]
pub struct Meter {
    cpu: Counter,
    peak: Peak,
    oom_kills: Counter,
}

impl Meter {
    pub(super) fn new(cpu: Counter, peak: Peak, oom_kills: Counter) -> Self {
        Self { cpu, peak, oom_kills }
    }

    /// From here on counts. Answers whether the peak of memory begins anew too; where it does not, it is one of a former
    /// use, which only another group can mend.
    pub fn start(&mut self) -> bool {
        self.cpu.start();
        self.oom_kills.start();
        self.peak.start()
    }

    /// Processor time, in microseconds.
    pub fn cpu_us(&self) -> u64 {
        self.cpu.since()
    }

    /// The most memory that was in use at once, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.peak.read()
    }

    /// How often the kernel killed a process because the group reached its memory limit.
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills.since()
    }
}

/// A number that only grows.
#[derive(Debug)]
pub(super) struct Counter {
    file: Option<OwnedFd>,
    key: Option<&'static str>,
    unit: u64,
    before: u64,
}

impl Counter {
    /// The number in the file, or behind the key in it, in units of `unit`.
    pub(super) fn open(path: Option<PathBuf>, key: Option<&'static str>, unit: u64) -> Self {
        Self { file: path.and_then(|path| open(path, OFlags::RDONLY)), key, unit, before: 0 }
    }

    fn start(&mut self) {
        self.before = self.read();
    }

    fn since(&self) -> u64 {
        self.read().saturating_sub(self.before) / self.unit
    }

    fn read(&self) -> u64 {
        let Some(text) = self.file.as_ref().and_then(read) else { return 0 };
        match self.key {
            None => text.trim().parse().unwrap_or(0),
            Some(key) => {
                text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
            }
        }
    }
}

/// The highest value so far; kernels let it be set back in version 1 and, for readers of the same open file, in version 2
/// from 6.12 on.
#[derive(Debug)]
pub(super) struct Peak(Option<OwnedFd>);

impl Peak {
    pub(super) fn open(path: Option<PathBuf>) -> Self {
        Self(path.and_then(|path| open(path.clone(), OFlags::RDWR).or_else(|| open(path, OFlags::RDONLY))))
    }

    fn start(&self) -> bool {
        self.0.as_ref().is_some_and(|file| rustix::io::pwrite(file, b"0", 0).is_ok())
    }

    fn read(&self) -> u64 {
        self.0.as_ref().and_then(read).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}

fn open(path: PathBuf, flags: OFlags) -> Option<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn read(file: &OwnedFd) -> Option<String> {
    let mut text = [0_u8; 1024];
    let bytes = rustix::io::pread(file, &mut text, 0).ok()?;
    text.get(..bytes).map(|text| String::from_utf8_lossy(text).into_owned())
}
