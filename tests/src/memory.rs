//! What processes use, as the kernel counts it.

use std::collections::BTreeMap;

use rustix::process::Pid;

/// Resident memory in bytes; nothing if the process has ended.
pub fn resident(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Processor time so far, in seconds; nothing if the process has ended.
pub fn processor(pid: Pid) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // The command in parentheses may contain anything; utime and stime are the 12th and 13th field behind it (proc(5)).
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    // What user space sees is in hundredths of a second on every Linux that Coracle runs on (USER_HZ).
    ticks / 100.0
}

/// Memory in bytes of which pages shared with others count by their share; nothing if the process has ended.
pub fn proportional(pid: Pid) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero())).unwrap_or_default();
    let kibibytes = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// What the kernel's scheduler has counted for a thread, or for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scheduled {
    /// Nanoseconds on a processor.
    pub running: u64,
    /// Nanoseconds in which they could have run, but something else did.
    pub waiting: u64,
}

/// Of each thread of a process that still runs, by its id, since it began; nothing if the process has ended.
pub fn scheduled(pid: Pid) -> BTreeMap<i32, Scheduled> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).into_iter().flatten().flatten();
    let counts = threads.filter_map(|thread| {
        // The schedstat of the process is its first thread's alone.
        let counts = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let mut counts = counts.split(' ').map(|count| count.trim().parse().ok());
        let scheduled = Scheduled { running: counts.next()??, waiting: counts.next()?? };
        Some((thread.file_name().to_str()?.parse().ok()?, scheduled))
    });
    counts.collect()
}
