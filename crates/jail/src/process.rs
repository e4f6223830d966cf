//! The calls around a process's life that the standard library does not offer, for single-threaded programs.
#![allow(unsafe_code)] // fork(2), signalfd(2) and sigprocmask(2) have no safe binding; each block says why it is sound.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::Namespaces;

/// The two sides of a fork.
#[derive(Debug)]
pub enum Fork {
    /// This is the child.
    Child,
    /// This is the parent, and that is the child.
    Parent(Pid),
}

/// Forks. Refuses to in a process with several threads, where the child could use almost nothing safely.
pub fn fork() -> io::Result<Fork> {
    require_single_thread()?;
    // SAFETY: there is only one thread (checked above), so the child is a faithful copy: no lock is held by a thread that
    // is missing in it, and allocation and everything else work as before.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::Error::other("fork answered nonsense")),
    }
}

/// Forks a brother of this process, not a child: its parent is this process's parent, who alone can wait for it. It starts
/// in new `namespaces`, in the pid namespace as PID 1.
///
/// Between here and its exec (or end) the new process may do everything except start threads: the C library was not told.
pub fn fork_brother(namespaces: Namespaces) -> io::Result<Fork> {
    require_single_thread()?;
    let flags = u64::from(libc::CLONE_PARENT.cast_unsigned()) | namespaces.flags();
    let exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: without CLONE_VM and with no stack given this is fork(2): the new process has a copy of everything. There is
    // only one thread (checked above), so no lock in the copy belongs to a thread that is missing there.
    match unsafe { libc::syscall(libc::SYS_clone, flags | exit_signal, 0, 0, 0, 0) } {
        0 => Ok(Fork::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .map(Fork::Parent)
            .ok_or_else(|| io::Error::other("clone answered nonsense")),
    }
}

/// Replaces this process by a program, with exactly these arguments (the first one is its name) and variables. Returns only
/// if that fails.
pub fn exec(program: &std::ffi::CStr, arguments: &[std::ffi::CString], variables: &[std::ffi::CString]) -> io::Error {
    let pointers = |texts: &[std::ffi::CString]| {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<*const libc::c_char>>()
    };
    let (arguments, variables) = (pointers(arguments), pointers(variables));
    // SAFETY: both arrays end in a null pointer, their texts end in NUL and outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
    io::Error::last_os_error()
}

/// Puts `descriptor` at exactly this number, replacing what was there, and keeps it open across exec.
pub fn place_descriptor(descriptor: &impl AsRawFd, number: i32) -> io::Result<()> {
    // SAFETY: the caller owns the descriptor; whoever held the number before is a program that is about to be replaced.
    match unsafe { libc::dup2(descriptor.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Closes every descriptor except those given, whoever holds them. For a process that shares nothing with its past, such as
/// PID 1 of a pid namespace, which uses none of them any more.
pub fn close_all_but(kept: &[i32]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().filter_map(|number| u32::try_from(*number).ok()).collect();
    kept.sort_unstable();
    let mut first = 0;
    for number in kept.into_iter().chain([u32::MAX]) {
        if number > first {
            let last = if number == u32::MAX { number } else { number - 1 };
            // SAFETY: the documented contract: nothing in this process uses those descriptors any more.
            if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = number.saturating_add(1);
    }
    Ok(())
}

/// Leaves ended children to the kernel: they vanish by themselves, and nobody can wait for them.
pub fn forget_children() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Sleeps for ever; only a signal that ends the process ends this.
pub fn sleep_for_ever() -> ! {
    loop {
        // SAFETY: pause(2) has no preconditions.
        unsafe { libc::pause() };
    }
}

/// The kernel refuses CLONE_THREAD exactly when there is more than one thread (unshare(2)); otherwise it does nothing.
fn require_single_thread() -> io::Result<()> {
    // SAFETY: unsharing the thread group of a process with one thread changes nothing; with more it fails.
    match unsafe { libc::unshare(libc::CLONE_THREAD) } {
        0 => Ok(()),
        _ => Err(io::Error::other("only a process with a single thread can do this")),
    }
}

/// Ends this process at once, without running destructors or flushing anything that a fork has copied.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` on to be closed by exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only a flag changes; no descriptor is closed under its owner's feet.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Points some of standard input (0), output (1) and error (2) at nothing.
pub fn silence(standard: &[i32]) -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for descriptor in standard.iter().filter(|descriptor| (0..=2).contains(*descriptor)) {
        // SAFETY: the standard library owns the three standard descriptors as numbers and lets them be replaced.
        if unsafe { libc::dup2(null.as_raw_fd(), *descriptor) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Signals read from a descriptor instead of interrupting the program. The signals stay blocked for good; children
/// inherit that and call [`unblock_signals`].
#[derive(Debug)]
pub struct SignalQueue(OwnedFd);

impl SignalQueue {
    /// Blocks these signals and queues them.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before anything reads it; all pointers are to locals.
        unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, signal.as_raw());
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                // The descriptor was just made and belongs to nobody else.
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// The next queued signal, if there is one.
    pub fn next(&self) -> Option<Signal> {
        // SAFETY: the structure is plain data, as large as the kernel expects, and read only if it was filled.
        let number = unsafe {
            let mut info = std::mem::zeroed::<libc::signalfd_siginfo>();
            let size = size_of::<libc::signalfd_siginfo>();
            let got = libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size);
            usize::try_from(got).is_ok_and(|got| got == size).then_some(info.ssi_signo)
        };
        number.and_then(|number| i32::try_from(number).ok()).and_then(Signal::from_named_raw)
    }
}

impl std::os::fd::AsFd for SignalQueue {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Blocks no signal any more and gives SIGPIPE its usual effect: what a new program expects.
pub fn unblock_signals() {
    // SAFETY: the set is initialised before it is read; SIG_DFL is a valid disposition.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Gives every signal its usual effect, as for a program that is started afresh: shells make background jobs ignore some.
pub fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition; where it may not be set (SIGKILL, SIGSTOP, the C library's own) nothing
        // happens.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The child.
    pub pid: Pid,
    /// Its exit code, if it exited by itself.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
}

/// Reaps one child that has ended, if there is one. `Err` means there are no children at all.
pub fn reap() -> Result<Option<Ended>, rustix::io::Errno> {
    let ended = rustix::process::wait(WaitOptions::NOHANG)?;
    Ok(ended.map(|(pid, status)| Ended { pid, code: status.exit_status(), signal: status.terminating_signal() }))
}

/// Kills every process that this one can see and may signal, except itself: as PID 1 of a pid namespace, all of it. Does
/// nothing in any other process, where that would be everything on the machine.
pub fn kill_namespace() {
    if rustix::process::getpid() == Pid::INIT {
        // SAFETY: kill(2) has no preconditions.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// The pid of this process as the mounted `/proc` numbers it: from within a new pid namespace, that of the namespace which
/// `/proc` was mounted in.
pub fn pid_in_proc() -> io::Result<i32> {
    let link = std::fs::read_link("/proc/self")?;
    link.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("/proc/self is not a number"))
}

/// Whether a process is running, and since which tick of the clock: pid and start together name a process for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The state's letter: `Z` for one that has ended and is not reaped yet.
    pub state: char,
    /// Its parent.
    pub parent: i32,
    /// When it started, in ticks since the machine was started.
    pub start: u64,
}

impl Stat {
    /// Reads `/proc/<pid>/stat`; `None` if there is no such process.
    pub fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The program's name may contain anything, so the fields count from the last parenthesis (proc_pid_stat(5)).
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, start })
    }
}

/// A name for the time since the machine was started.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stat_is_read_behind_hostile_names() {
        let text = "17 (a) R 9 (b) S 1 17 17 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 8675309 1 1 1";
        assert_eq!(Stat::parse(text), Some(Stat { state: 'S', parent: 1, start: 8_675_309 }));
    }

    #[test]
    fn this_process_is_seen_running() {
        let own = i32::try_from(std::process::id()).unwrap();
        let stat = Stat::of(own).unwrap();
        assert!(matches!(stat.state, 'R' | 'S'));
        assert_eq!(pid_in_proc().unwrap(), own);
    }

    #[test]
    fn a_process_with_threads_is_not_forked() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(fork().is_err());
        drop(release);
        assert!(other.join().unwrap().is_err());
    }
}
