//! What one group uses, read often: the files stay open, and what was used before a start counts as nothing.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

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

    /// One that counts nothing, for what is in no group.
    pub fn of_nothing() -> Self {
        Self::new(Counter::open(None, None, 1), Peak::Unknown, Counter::open(None, None, 1))
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

    /// The most memory that was in use at once, in bytes; where the kernel keeps no highest value, the most that was seen
    /// when this was called.
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

/// The highest value so far.
#[derive(Debug)]
pub(super) enum Peak {
    /// The kernel keeps it. It lets it be set back in version 1 and, for readers of the same open file, in version 2 from
    /// 6.12 on.
    Kept(OwnedFd),
    /// The kernel tells the value now (version 2 before 5.19), so the highest that was ever read is the best there is.
    Sampled(OwnedFd, AtomicU64),
    /// Nobody counts.
    Unknown,
}

impl Peak {
    pub(super) fn open(kept: Option<PathBuf>, now: Option<PathBuf>) -> Self {
        let kept = kept.and_then(|path| open(path.clone(), OFlags::RDWR).or_else(|| open(path, OFlags::RDONLY)));
        let sampled = || now.and_then(|path| open(path, OFlags::RDONLY)).map(|now| Self::Sampled(now, AtomicU64::new(0)));
        kept.map(Self::Kept).or_else(sampled).unwrap_or(Self::Unknown)
    }

    fn start(&self) -> bool {
        match self {
            Self::Kept(file) => rustix::io::pwrite(file, b"0", 0).is_ok(),
            Self::Sampled(_, highest) => {
                highest.store(0, Ordering::Relaxed);
                true
            }
            Self::Unknown => true,
        }
    }

    fn read(&self) -> u64 {
        let number = |file: &OwnedFd| read(file).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        match self {
            Self::Kept(file) => number(file),
            Self::Sampled(file, highest) => {
                let now = number(file);
                highest.fetch_max(now, Ordering::Relaxed).max(now)
            }
            Self::Unknown => 0,
        }
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
