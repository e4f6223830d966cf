//! Programs that try doors beside the usual ones, and a witness on the machine who looks whether one has opened.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use coracle_sandbox::Reason;

use crate::abuse::{Abuse, reason};
use crate::host::{Done, Host, mounts};

/// What a program finds `NAME` replaced by: the abstract socket of the test's own witness.
pub fn name() -> String {
    format!("coracle-witness-{}", std::process::id())
}

/// Nothing else was said than what a fence answers.
fn says(done: &Done, text: &str) -> bool {
    done.text() == text
}

/// `call` answers an error's name, or what the system call answered.
macro_rules! calling {
    ($code:literal) => {
        concat!(
            "import ctypes, errno, os\nlibc = ctypes.CDLL(None, use_errno=True)\n",
            "def call(number, *args):\n    ctypes.set_errno(0)\n    got = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in args])\n",
            "    return errno.errorcode.get(ctypes.get_errno(), '?') if got == -1 else got\n",
            $code
        )
    };
}

pub const ATTACKS: &[Abuse] = &[
    #[cfg(target_arch = "x86_64")]
    Abuse {
        name: "brothers of the worker, who would be the daemon's children",
        code: calling!(
            "said = set()\nfor flags in 0x8000, 0x8000 | 0x4000 | 0x100, 0x8000 | (1 << 40):\n    got = call(56, flags | 17, 0, 0, 0, 0)\n    if got == 0: os._exit(7)\n    said.add(got)\nprint(said)"
        ),
        expected: |done| says(done, "{'EPERM'}\n"),
    },
    Abuse {
        name: "a program without a file",
        code: "import os, subprocess\nfd = os.memfd_create('x', 0)\nos.write(fd, open('/bin/cat', 'rb').read())\n\
               text = subprocess.run([f'/proc/self/fd/{fd}', '/proc/self/status'], pass_fds=[fd], capture_output=True, text=True).stdout\n\
               s = dict(l.split(':\\t', 1) for l in text.splitlines() if ':\\t' in l)\nprint(int(s['CapEff'], 16), int(s['CapBnd'], 16), s['NoNewPrivs'], s['Seccomp'])",
        expected: |done| says(done, "0 0 1 2\n"),
    },
    Abuse {
        name: "abstract sockets of the machine",
        code: "import socket\nfor kind in socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET:\n    try: s = socket.socket(socket.AF_UNIX, kind); s.connect('\\0NAME'); s.send(b'x'); print('reached')\n    except OSError as e: print(e.errno)",
        expected: |done| says(done, "111\n111\n111\n"),
    },
    Abuse {
        name: "descriptors that somebody has left open",
        code: "import os, stat\nfound = []\nfor fd in range(1024):\n    try: mode = os.fstat(fd).st_mode\n    except OSError: continue\n    if not (fd < 3 and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))): found.append((fd, oct(mode)))\nprint(found)",
        expected: |done| says(done, "[]\n"),
    },
    Abuse {
        name: "numbers of processes used up again and again",
        code: "import os\nfor _ in range(400):\n    pid = os.fork()\n    if pid == 0: os._exit(0)\n    os.waitpid(pid, 0)\nprint('over')",
        expected: |done| says(done, "over\n"),
    },
    Abuse {
        name: "signals to whoever is above",
        code: "import os, signal\nreached = []\nfor pid in {os.getppid(), 1, 0x7fffffff} - {0}:\n    for s in signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGHUP:\n        try: os.kill(pid, s)\n        except OSError: pass\n\
               try: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGKILL)\nexcept OSError: pass\nprint('on')",
        expected: |done| says(done, "on\n"),
    },
    Abuse {
        name: "settings of one's own process",
        code: "import os\nfor name in 'uid_map', 'gid_map', 'setgroups', 'projid_map', 'timens_offsets', 'loginuid', 'attr/current', 'attr/exec':\n    try: os.write(os.open('/proc/self/' + name, os.O_WRONLY), b'0 0 1'); print(name)\n    except OSError: pass\n\
               for below, _, files in os.walk('/proc/sys'):\n    for file in files:\n        try: os.close(os.open(os.path.join(below, file), os.O_WRONLY)); print(below, file)\n        except OSError: pass\nprint('over')",
        // In a container /proc/sys is there to look at.
        expected: |done| says(done, "over\n"),
    },
    Abuse {
        name: "the pipes of the streams turned round and changed",
        code: "import fcntl, os\nfor fd in 0, 1, 2:\n    for setting in (1031, 1 << 20), (fcntl.F_SETFL, os.O_NONBLOCK | os.O_DIRECT), (fcntl.F_SETOWN, 1), (10, 9):\n        try: fcntl.fcntl(fd, *setting)\n        except OSError: pass\n\
               held = []\nfor fd in 0, 1, 2:\n    for how in os.O_RDONLY, os.O_WRONLY:\n        try: held.append(os.open(f'/proc/self/fd/{fd}', how | os.O_NONBLOCK))\n        except OSError: pass\n\
               if os.fork() == 0: os.setsid(); import time; time.sleep(1000)\nos._exit(5)",
        expected: |done| done.end.exit_code == Some(5),
    },
    Abuse {
        name: "memory in page tables",
        code: "import mmap\nm = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)\nfor place in range(0, 1 << 40, 1 << 21): m[place]",
        expected: |done| reason(done, &[Reason::Oom, Reason::ExitNonzero, Reason::Timeout]),
    },
    Abuse {
        name: "memory in System V messages",
        code: "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nbody = ctypes.create_string_buffer(b'\\1' + bytes(8200))\nqueues = 0\nwhile queues < 40000:\n    queue = libc.msgget(0, 0o1666)\n    if queue < 0: break\n    queues += 1\n    while libc.msgsnd(queue, body, 8000, 0o4000) == 0: pass\nprint('over', queues)",
        expected: |done| done.text().starts_with("over ") || reason(done, &[Reason::Oom, Reason::Timeout]),
    },
    Abuse {
        name: "memory in pending signals",
        code: "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])\nlibc = __import__('ctypes').CDLL(None)\nsent = 0\nwhile sent < 200000 and libc.sigqueue(os.getpid(), int(signal.SIGRTMIN), 0) == 0: sent += 1\nprint('over')",
        expected: |done| says(done, "over\n") || reason(done, &[Reason::Oom, Reason::Timeout]),
    },
    Abuse {
        name: "descriptors in flight",
        code: "import os, socket, array\nkept = []\ntry:\n    for _ in range(100):\n        a, b = socket.socketpair()\n        for _ in range(40): socket.send_fds(a, [b'x'], [a.fileno(), b.fileno(), os.memfd_create('x')])\nexcept OSError as e: pass\nprint('over')",
        expected: |done| says(done, "over\n") || reason(done, &[Reason::Oom, Reason::Timeout]),
    },
];

/// What a program that has got out would have changed or met.
#[derive(Debug)]
pub struct Witness {
    listener: UnixListener,
    canary: PathBuf,
    before: Vec<String>,
}

impl Witness {
    pub fn new(host: &Host) -> Self {
        let address = SocketAddr::from_abstract_name(name()).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        // Anybody who finds it may write to it.
        let canary = host.directory().join("canary");
        std::fs::write(&canary, "sings").unwrap();
        std::fs::set_permissions(&canary, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        Self { listener, canary, before: machine() }
    }

    pub fn has_seen_nothing(&self) {
        let come = self.listener.accept().unwrap_err();
        assert_eq!(come.kind(), std::io::ErrorKind::WouldBlock, "somebody has come to the machine's abstract socket");
        assert_eq!(std::fs::read_to_string(&self.canary).unwrap(), "sings");
        assert_eq!(machine(), self.before, "the machine's own settings or mounts have changed");
    }
}

/// What is the machine's and could be changed by somebody with its rights.
fn machine() -> Vec<String> {
    let settings = ["core_pattern", "hostname", "randomize_va_space", "modprobe", "overflowuid"];
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    settings.into_iter().map(read).chain(mounts()).collect()
}
