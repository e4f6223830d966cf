//! Processes that are measured: where they run and what they use, children and threads included.

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use coracle_tests::belongings::signal;
use coracle_tests::memory::{self, Scheduled};
use rustix::process::{Pid, Resource, Signal};
use rustix::thread::CpuSet;

/// Who gets which processor.
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    pinned: bool,
}

impl Placement {
    /// The proxy has the first processor to itself; this process and everything it starts besides has the others. With
    /// `pinned` false or a single processor, the kernel decides.
    ///
    /// # Panics
    /// If the kernel does not let this process choose.
    pub fn choose(pinned: bool) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if !pinned || processors < 2 {
            return Self { pinned: false };
        }
        let mut others = CpuSet::new();
        (1..processors).for_each(|processor| others.set(processor));
        rustix::thread::sched_setaffinity(None, &others).unwrap();
        Self { pinned: true }
    }

    /// Whether the proxies have a processor to themselves.
    pub fn is_pinned(self) -> bool {
        self.pinned
    }

    /// What to put before a proxy's command.
    pub fn prefix(self) -> &'static [&'static str] {
        if self.pinned { &["taskset", "--cpu-list", "0"] } else { &[] }
    }

    /// Runs `program` where proxies run.
    pub fn command(self, program: &str) -> Command {
        match self.prefix().split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        }
    }
}

/// Lets this process and all that it starts open as many files as root allows.
///
/// # Panics
/// If the kernel refuses a limit that it named itself.
pub fn open_many_files() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
}

/// A process that ends with this value, by SIGTERM, so that it takes its children along.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// The process.
    ///
    /// # Panics
    /// Never: a process id is not zero.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed()).unwrap()
    }
}

impl From<Child> for Running {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        signal(self.pid(), Signal::TERM);
        let give_up = Instant::now() + Duration::from_secs(10);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > give_up {
                signal(self.pid(), Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process and its children.
#[derive(Debug, Clone)]
pub struct Family(Vec<Pid>);

impl Family {
    /// As it is now.
    pub fn of(parent: Pid) -> Self {
        let is_child = |pid: &Pid| parent_of(*pid) == Some(parent);
        let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let children = numbers.filter_map(Pid::from_raw).filter(is_child);
        Self(std::iter::once(parent).chain(children).collect())
    }

    /// How many processes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// What the kernel's scheduler has counted so far, by thread.
    pub fn scheduled(&self) -> BTreeMap<i32, Scheduled> {
        self.0.iter().flat_map(|pid| memory::scheduled(*pid)).collect()
    }

    /// What it has counted since then, of all threads that still run: workers do. What a thread did that has ended meanwhile (a
    /// runtime's helper that nobody needed for seconds) is not known.
    pub fn scheduled_since(&self, then: &BTreeMap<i32, Scheduled>) -> Scheduled {
        let mut sum = Scheduled::default();
        for (thread, now) in self.scheduled() {
            let before = then.get(&thread).copied().unwrap_or_default();
            // The kernel may have given an ended thread's id to another.
            sum.running += now.running.saturating_sub(before.running);
            sum.waiting += now.waiting.saturating_sub(before.waiting);
        }
        sum
    }

    /// Resident memory in bytes; pages that several of them share are counted for each.
    pub fn resident(&self) -> u64 {
        self.0.iter().map(|pid| memory::resident(*pid)).sum()
    }

    /// Memory in bytes, shared pages by their share.
    pub fn proportional(&self) -> u64 {
        self.0.iter().map(|pid| memory::proportional(*pid)).sum()
    }
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The command in parentheses may contain anything; the state and the parent come right after it (proc(5)).
    let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?;
    Pid::from_raw(parent.parse().ok()?)
}
