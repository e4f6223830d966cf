//! The list.

use libc::*;

/// Calls that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Their numbers.
    pub calls: &'static [i64],
    /// With which arguments.
    pub only: Only,
    /// What programs need them for.
    pub because: &'static str,
}

/// A condition on an argument, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// None.
    Always,
    /// Its lower 32 bits are this value.
    Is {
        /// Which.
        argument: u8,
        /// The value.
        value: u64,
    },
    /// None of these bits is set in it.
    Without {
        /// Which.
        argument: u8,
        /// The bits.
        bits: u64,
    },
    /// All of these bits are set in it.
    With {
        /// Which.
        argument: u8,
        /// The bits.
        bits: u64,
    },
    /// Its lower 32 bits are this value, and another argument is not 0.
    IsAndGives {
        /// Which.
        argument: u8,
        /// The value.
        value: u64,
        /// The other one.
        given: u8,
    },
}

/// A call with an answer of its own, where EPERM would mislead a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Its number.
    pub call: i64,
    /// Unless its first argument is this.
    pub unless_first: Option<u32>,
    /// What it answers.
    pub errno: i32,
    /// Why.
    pub because: &'static str,
}

const fn allow(calls: &'static [i64], because: &'static str) -> Allowed {
    Allowed { calls, only: Only::Always, because }
}

const fn when(calls: &'static [i64], argument: u8, value: u64, because: &'static str) -> Allowed {
    Allowed { calls, only: Only::Is { argument, value }, because }
}

const fn without(calls: &'static [i64], argument: u8, bits: u64, because: &'static str) -> Allowed {
    Allowed { calls, only: Only::Without { argument, bits }, because }
}

/// Every flag of clone(2) that makes a namespace, and the one that shares the tracer.
const NAMESPACES: u64 = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000 | 0x2000;

/// What is answered with something else than EPERM.
pub const ANSWERS: &[Answered] = &[
    Answered {
        call: SYS_clone3,
        unless_first: None,
        errno: ENOSYS,
        because: "its flags are in memory, where no filter can see them; the C library falls back to clone, whose are not",
    },
    Answered {
        call: SYS_socket,
        unless_first: Some(1),
        errno: EAFNOSUPPORT,
        because: "there is no network; libraries take this answer for a machine without one",
    },
    Answered { call: SYS_io_uring_setup, unless_first: None, errno: ENOSYS, because: "libraries fall back to epoll" },
    Answered {
        call: SYS_openat2,
        unless_first: None,
        errno: ENOSYS,
        because: "its flags are in memory; libraries fall back to openat",
    },
];

/// What is allowed.
pub const ALLOWED: &[Allowed] = &[
    // Reading and writing.
    allow(
        &[
            SYS_read,
            SYS_write,
            SYS_readv,
            SYS_writev,
            SYS_pread64,
            SYS_pwrite64,
            SYS_preadv,
            SYS_pwritev,
            SYS_preadv2,
            SYS_pwritev2,
        ],
        "reading and writing",
    ),
    allow(&[SYS_lseek, SYS_ftruncate, SYS_truncate, SYS_fallocate, SYS_fadvise64, SYS_readahead], "positions and sizes of files"),
    allow(&[SYS_sendfile, SYS_splice, SYS_tee, SYS_copy_file_range], "shutil copies files within the kernel"),
    allow(&[SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_flock], "sqlite3, dbm and fcntl.flock"),
    allow(&[SYS_openat, SYS_close, SYS_close_range, SYS_dup, SYS_dup3], "descriptors"),
    allow(&[SYS_fcntl], "descriptor flags, record locks, pipe sizes; but see REFUSED"),
    allow(&[SYS_pipe2], "pipes of subprocess and multiprocessing"),
    allow(&[SYS_memfd_create], "files in memory, charged to the execution as all memory is"),
    // The file system: the slot's own, everything else in it is read-only.
    allow(&[SYS_newfstatat, SYS_fstat, SYS_statx, SYS_statfs, SYS_fstatfs], "what a file is"),
    allow(&[SYS_faccessat, SYS_faccessat2, SYS_readlinkat, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir], "looking around"),
    allow(&[SYS_mkdirat, SYS_unlinkat, SYS_renameat, SYS_renameat2, SYS_linkat, SYS_symlinkat], "arranging one's files"),
    allow(&[SYS_mknodat], "FIFOs; devices need a capability that nobody has here, and could not be opened"),
    allow(
        &[SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_utimensat, SYS_umask],
        "modes and times of one's files; set-user-id has no effect on these mounts",
    ),
    allow(
        &[
            SYS_getxattr,
            SYS_lgetxattr,
            SYS_fgetxattr,
            SYS_listxattr,
            SYS_llistxattr,
            SYS_flistxattr,
            SYS_setxattr,
            SYS_lsetxattr,
            SYS_fsetxattr,
            SYS_removexattr,
            SYS_lremovexattr,
            SYS_fremovexattr,
        ],
        "shutil.copystat copies extended attributes",
    ),
    // Memory.
    allow(
        &[SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_msync, SYS_mincore],
        "getting memory and giving it back",
    ),
    allow(
        &[SYS_mlock, SYS_mlock2, SYS_munlock, SYS_mlockall, SYS_munlockall],
        "cryptography keeps keys out of swap; RLIMIT_MEMLOCK bounds it",
    ),
    allow(&[SYS_membarrier, SYS_rseq], "the C library's and memory allocators' concurrency"),
    allow(&[SYS_get_mempolicy], "numpy's libraries ask how memory is laid out"),
    allow(
        &[
            SYS_shmget,
            SYS_shmat,
            SYS_shmdt,
            SYS_shmctl,
            SYS_semget,
            SYS_semop,
            SYS_semtimedop,
            SYS_semctl,
            SYS_msgget,
            SYS_msgsnd,
            SYS_msgrcv,
            SYS_msgctl,
        ],
        "System V objects, which live in the slot's own IPC namespace",
    ),
    // Processes and threads.
    without(&[SYS_clone], 0, NAMESPACES, "threads and subprocesses; never with a namespace of their own"),
    allow(&[SYS_execve, SYS_execveat], "subprocess starts programs"),
    allow(&[SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid], "ends of processes"),
    allow(
        &[SYS_getpid, SYS_getppid, SYS_gettid, SYS_getpgid, SYS_setpgid, SYS_getsid, SYS_setsid],
        "process ids, groups and sessions",
    ),
    allow(&[SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups], "asking who one is"),
    when(
        &[SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid],
        0,
        crate::maker::INNER.uid as u64,
        "becoming who one is already; nobody else exists in the user namespace",
    ),
    allow(&[SYS_capget], "libraries look whether they are privileged"),
    allow(
        &[SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list, SYS_futex, SYS_futex_waitv],
        "the C library's threads and locks",
    ),
    allow(
        &[SYS_pidfd_open, SYS_pidfd_send_signal],
        "asyncio waits for its children by them; only the slot's processes can be named",
    ),
    allow(&[SYS_kill, SYS_tkill, SYS_tgkill], "signals to processes of the slot; no others exist in its pid namespace"),
    allow(
        &[
            SYS_rt_sigaction,
            SYS_rt_sigprocmask,
            SYS_rt_sigreturn,
            SYS_rt_sigpending,
            SYS_rt_sigtimedwait,
            SYS_rt_sigsuspend,
            SYS_rt_sigqueueinfo,
            SYS_rt_tgsigqueueinfo,
            SYS_sigaltstack,
            SYS_restart_syscall,
        ],
        "signals",
    ),
    allow(&[SYS_signalfd4, SYS_eventfd2, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime], "events as descriptors"),
    allow(
        &[
            SYS_sched_yield,
            SYS_sched_getaffinity,
            SYS_sched_setaffinity,
            SYS_sched_getparam,
            SYS_sched_getscheduler,
            SYS_sched_get_priority_max,
            SYS_sched_get_priority_min,
            SYS_sched_rr_get_interval,
            SYS_sched_setparam,
            SYS_sched_setscheduler,
            SYS_getcpu,
        ],
        "os.sched_*; real-time priorities need RLIMIT_RTPRIO, which is 0",
    ),
    allow(&[SYS_getpriority, SYS_setpriority], "os.nice; raising needs a capability"),
    allow(
        &[SYS_getrlimit, SYS_setrlimit, SYS_prlimit64, SYS_getrusage, SYS_times],
        "the resource module; limits can only be lowered",
    ),
    // Of prctl(2) little is harmless, and little is needed.
    when(&[SYS_prctl], 0, PR_SET_NAME as u64, "thread names"),
    when(&[SYS_prctl], 0, PR_GET_NAME as u64, "thread names"),
    when(&[SYS_prctl], 0, PR_SET_PDEATHSIG as u64, "children that end with their parent"),
    when(&[SYS_prctl], 0, PR_GET_DUMPABLE as u64, "libraries look whether they are privileged"),
    when(&[SYS_prctl], 0, PR_GET_NO_NEW_PRIVS as u64, "programs may look at their own fences"),
    when(&[SYS_prctl], 0, PR_SET_NO_NEW_PRIVS as u64, "is set already"),
    when(&[SYS_prctl], 0, PR_CAPBSET_READ as u64, "the C library's sysconf-like checks of capabilities"),
    when(&[SYS_prctl], 0, 0x5356_4d41, "PR_SET_VMA names memory; allocators do"),
    // Waiting.
    allow(
        &[SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2],
        "select, selectors, asyncio",
    ),
    allow(&[SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday], "the clock"),
    allow(
        &[
            SYS_getitimer,
            SYS_setitimer,
            SYS_timer_create,
            SYS_timer_settime,
            SYS_timer_gettime,
            SYS_timer_getoverrun,
            SYS_timer_delete,
        ],
        "timers",
    ),
    // Sockets between processes of the slot. The network namespace is empty, and other families are refused above.
    when(&[SYS_socket], 0, 1, "sockets of the Unix family: asyncio, multiprocessing"),
    when(&[SYS_socketpair], 0, 1, "asyncio wakes itself through a pair"),
    allow(
        &[SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_shutdown, SYS_getsockname, SYS_getpeername],
        "Unix sockets",
    ),
    allow(
        &[SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_getsockopt, SYS_setsockopt],
        "Unix sockets; multiprocessing passes descriptors",
    ),
    // Of ioctl(2) only what asks about descriptors; pushing characters into a terminal is the classic among the others.
    when(&[SYS_ioctl], 1, 0x5401, "TCGETS: isatty"),
    when(&[SYS_ioctl], 1, 0x5413, "TIOCGWINSZ: shutil.get_terminal_size"),
    when(&[SYS_ioctl], 1, 0x540f, "TIOCGPGRP: os.tcgetpgrp"),
    when(&[SYS_ioctl], 1, 0x541b, "FIONREAD: how much can be read"),
    when(&[SYS_ioctl], 1, 0x5421, "FIONBIO: sockets that do not wait"),
    when(&[SYS_ioctl], 1, 0x5451, "FIOCLEX: os.set_inheritable"),
    when(&[SYS_ioctl], 1, 0x5450, "FIONCLEX: os.set_inheritable"),
    when(&[SYS_personality], 0, 0xffff_ffff, "asking for the personality; changing it weakens the address layout"),
    allow(&[SYS_uname, SYS_sysinfo, SYS_getrandom], "the machine's name (the slot's own), its memory, randomness"),
    #[cfg(target_arch = "x86_64")]
    allow(&[SYS_arch_prctl], "thread-local storage of new threads and programs"),
    #[cfg(target_arch = "x86_64")]
    allow(
        &[
            SYS_open,
            SYS_creat,
            SYS_stat,
            SYS_lstat,
            SYS_access,
            SYS_readlink,
            SYS_getdents,
            SYS_mkdir,
            SYS_rmdir,
            SYS_unlink,
            SYS_rename,
            SYS_link,
            SYS_symlink,
            SYS_chmod,
            SYS_chown,
            SYS_lchown,
            SYS_utime,
            SYS_utimes,
            SYS_futimesat,
            SYS_mknod,
        ],
        "older forms of the calls on files above, which C libraries still use",
    ),
    #[cfg(target_arch = "x86_64")]
    allow(
        &[
            SYS_poll,
            SYS_select,
            SYS_epoll_create,
            SYS_epoll_wait,
            SYS_pipe,
            SYS_dup2,
            SYS_fork,
            SYS_vfork,
            SYS_getpgrp,
            SYS_alarm,
            SYS_pause,
            SYS_time,
            SYS_eventfd,
            SYS_signalfd,
        ],
        "older forms of the calls on processes and events above",
    ),
];

/// What is refused of calls that are allowed otherwise.
///
/// Everybody's libraries are the same files, so whoever may watch files sees what neighbours open. For the same reason there
/// is no inotify(7) in the list. flock(2) is: two programs that want to can pass bits by locking a library, but one learns
/// nothing from a neighbour that does not take part.
pub const REFUSED: &[Allowed] = &[
    when(&[SYS_fcntl], 1, F_NOTIFY as u64, "dnotify tells who reads a directory that neighbours have too"),
    when(&[SYS_fcntl], 1, F_SETLEASE as u64, "leases tell who opens a file"),
    Allowed {
        calls: &[SYS_clone],
        only: Only::With { argument: 0, bits: CLONE_PARENT as u64 },
        because: "a brother of the worker is the daemon's child, which expects none: nobody would bury it, and the slot not die",
    },
    when(&[SYS_setrlimit], 0, RLIMIT_CORE as u64, CORE),
    Allowed {
        calls: &[SYS_prlimit64],
        only: Only::IsAndGives { argument: 1, value: RLIMIT_CORE as u64, given: 2 },
        because: CORE,
    },
];

const CORE: &str =
    "a limit of 1 keeps the kernel from starting the machine's collector of core dumps; one of 0 would not (core(5))";

/// What a worker needs on its way into the sandbox, where it takes it away from itself as the last step.
pub const ENTERING: &[Allowed] = &[
    allow(&[SYS_setns, SYS_unshare], "joining the slot and its cgroup's namespace"),
    allow(&[SYS_setgroups, SYS_capset], "giving up groups and capabilities"),
    when(&[SYS_prctl], 0, PR_CAPBSET_DROP as u64, "giving up capabilities for ever"),
    when(&[SYS_prctl], 0, PR_SET_DUMPABLE as u64, "having a /proc/self of one's own after changing the user"),
    when(&[SYS_prctl], 0, PR_SET_SECCOMP as u64, "taking these away"),
    when(&[SYS_seccomp], 0, SECCOMP_SET_MODE_FILTER as u64, "taking these away, and having the daemon told of the end"),
];
