//! What processes use, as the kernel counts it.

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

/// Processor time so far of all threads that still run, in nanoseconds; nothing if the process has ended.
pub fn processor_of_threads(pid: Pid) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).into_iter().flatten().flatten();
    // The first of the three numbers is the time on a processor; that of the process is its first thread's alone.
    let spent = |path: std::path::PathBuf| std::fs::read_to_string(path).ok()?.split(' ').next()?.parse::<u64>().ok();
    threads.filter_map(|thread| spent(thread.path().join("schedstat"))).sum()
}
