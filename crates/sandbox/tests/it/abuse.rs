//! Programs that take more than they are given: one at a time, and all at once with harmless ones beside them.

use std::time::{Duration, Instant};

use coracle_sandbox::{Execution, Reason, Stdin};

use crate::attacks::{self, ATTACKS, Witness};
use crate::host::{Done, Host, finish};

/// A program and what must come of it.
pub struct Abuse {
    pub name: &'static str,
    pub code: &'static str,
    pub expected: fn(&Done) -> bool,
}

pub fn reason(done: &Done, reasons: &[Reason]) -> bool {
    reasons.contains(&done.end.reason)
}

const ABUSES: &[Abuse] = &[
    Abuse {
        name: "fork bomb",
        code: "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        expected: |done| reason(done, &[Reason::Timeout]),
    },
    Abuse {
        name: "fork bomb whose first process leaves",
        code: "import os\nfor _ in range(1000):\n    try: os.fork()\n    except OSError: break",
        expected: |done| reason(done, &[Reason::Ok, Reason::Oom, Reason::Timeout]),
    },
    Abuse {
        name: "thread bomb",
        code: "import threading, time\nn = 0\ntry:\n    while True:\n        threading.Thread(target=time.sleep, args=(100,), daemon=True).start(); n += 1\n\
               except RuntimeError: print(n < 64)",
        expected: |done| done.text() == "True\n",
    },
    Abuse {
        name: "memory bomb",
        code: "x = []\nwhile True: x.append(bytearray(1 << 20))",
        expected: |done| reason(done, &[Reason::Oom]),
    },
    Abuse {
        name: "memory bomb over children",
        code: "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        x = bytearray(30 << 20)\n        for i in range(0, len(x), 4096): x[i] = 1\n        time.sleep(100)\n\
               try:\n    while True: os.wait()\nexcept ChildProcessError: pass",
        expected: |done| reason(done, &[Reason::Oom, Reason::Timeout, Reason::Ok]),
    },
    Abuse {
        name: "memory in shared memory",
        code: "import mmap\nx = [mmap.mmap(-1, 64 << 20) for _ in range(8)]\nfor m in x:\n    for i in range(0, len(m), 4096): m[i] = 1",
        expected: |done| reason(done, &[Reason::Oom]),
    },
    Abuse { name: "memory at once", code: "x = b'x' * (1 << 45)", expected: |done| reason(done, &[Reason::ExitNonzero]) },
    Abuse {
        name: "filling every writable place",
        code: "for p in '/work', '/tmp', '/dev/shm':\n    try:\n        with open(p + '/x', 'wb') as f:\n            while True: f.write(bytes(1 << 20))\n    except OSError as e: print(e.errno)\n    import os; os.unlink(p + '/x')",
        // ENOSPC, or EFBIG where the file alone would be as large as the place.
        expected: |done| done.text().lines().count() == 3 && done.text().lines().all(|line| ["28", "27"].contains(&line)),
    },
    Abuse {
        name: "using up inodes",
        code: "import os\ntry:\n    for i in range(10**6): os.mkdir(str(i))\nexcept OSError as e: print(e.errno, i < 10000)",
        expected: |done| done.text() == "28 True\n",
    },
    Abuse { name: "output flood", code: "while True: print('x' * 100)", expected: |done| flooded(done, true, false) },
    Abuse {
        name: "error flood",
        code: "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        expected: |done| flooded(done, false, true),
    },
    Abuse {
        name: "flood on both",
        code: "import os\nwhile True: os.write(1, b'x' * 4096); os.write(2, b'y' * 4096)",
        expected: |done| flooded(done, true, true),
    },
    Abuse {
        name: "100 MB without a newline",
        code: "import sys\nfor _ in range(100): sys.stdout.write('x' * 1000000)",
        expected: |done| flooded(done, true, false),
    },
    Abuse {
        name: "sparse file of a pebibyte",
        code: "f = open('x', 'wb')\ntry: f.truncate(1 << 50)\nexcept OSError as e: print(e.errno)",
        expected: |done| done.text() == "27\n",
    },
    Abuse {
        name: "a thousand directories deep",
        code: "import os\nfor _ in range(1000): os.mkdir('a'); os.chdir('a')\nopen('t', 'w').write('t')\nprint('made')",
        expected: |done| done.text() == "made\n",
    },
    Abuse {
        name: "a hundred links, and a ring of them",
        code: "import os\nos.symlink('l99', 'l0')\nfor i in range(1, 100): os.symlink('l%d' % (i - 1), 'l%d' % i)\nfor i in range(100): os.symlink('/etc/passwd', 'p%d' % i)\n\
               try: open('l50')\nexcept OSError as e: print(e.errno, len(os.listdir('.')))",
        expected: |done| done.text() == "40 201\n",
    },
    Abuse {
        name: "names that are not text",
        code: "import os\nfor n in range(128, 256): open(bytes([n, 10, n]), 'w')\nprint(len(os.listdir('.')), '\\udc80\\n\\udc80' in os.listdir('.'))",
        expected: |done| done.text() == "129 True\n",
    },
    Abuse {
        name: "JSON a hundred thousand deep",
        code: "import json\ntry: json.loads('[' * 100000)\nexcept RecursionError: print('too deep')",
        expected: |done| done.text() == "too deep\n",
    },
    Abuse {
        name: "threads that burn stacks",
        code: "import sys, threading\nthreading.stack_size(64 << 20)\ndef f(): f()\nts = []\ntry:\n    for _ in range(100):\n        t = threading.Thread(target=f); t.start(); ts.append(t)\nexcept RuntimeError: pass\n[t.join() for t in ts]\nprint('over')",
        expected: |done| done.text() == "over\n" || reason(done, &[Reason::Oom, Reason::Timeout]),
    },
    Abuse {
        name: "memory in files of one's own",
        code: "import os\nfor p in '/work', '/tmp', '/dev/shm':\n    for i in range(100):\n        try: open(p + '/x%d' % i, 'wb').write(bytes(1 << 20))\n        except OSError: break\nprint('full')",
        // 64 MB in each of three places are more than the 128 MB that it has.
        expected: |done| reason(done, &[Reason::Oom]),
    },
    Abuse {
        name: "memory in sockets and pipes",
        code: "import os, socket\nx = []\ntry:\n    while True:\n        a, b = socket.socketpair(); a.setblocking(False); x += [a, b]\n        try:\n            while True: a.send(bytes(65536))\n        except BlockingIOError: pass\nexcept OSError as e: print(e.errno)",
        expected: |done| done.text() == "24\n" || reason(done, &[Reason::Oom]),
    },
    Abuse {
        name: "System V objects",
        code: "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.shmat.restype = ctypes.c_void_p\nn = 0\nwhile n < 64:\n    i = libc.shmget(0, 16 << 20, 0o1666)\n    if i < 0: break\n    p = libc.shmat(i, None, 0)\n    for o in range(0, 16 << 20, 4096): ctypes.memset(p + o, 1, 1)\n    n += 1\nprint('over')",
        expected: |done| reason(done, &[Reason::Oom]),
    },
    Abuse {
        name: "descriptors used up",
        code: "import os\nx = []\ntry:\n    while True: x.append(os.open('/dev/null', 0))\nexcept OSError as e: print(e.errno, len(x) < 256)",
        expected: |done| done.text() == "24 True\n",
    },
    Abuse {
        name: "regex burn",
        code: "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        expected: |done| reason(done, &[Reason::Timeout]),
    },
    Abuse {
        name: "big integers",
        code: "x = 7\nwhile True: x = x * x",
        expected: |done| reason(done, &[Reason::Timeout, Reason::Oom]),
    },
    Abuse {
        name: "python stack",
        code: "def f(): f()\nf()",
        expected: |done| reason(done, &[Reason::ExitNonzero]) && String::from_utf8_lossy(&done.err).contains("RecursionError"),
    },
    Abuse {
        name: "machine stack",
        code: "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())",
        expected: |done| done.end.signal == Some(11) && reason(done, &[Reason::Signal]),
    },
    Abuse {
        name: "core dump",
        code: "import os, resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))\nfor limit in 0, 1 << 20:\n    try: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))\n    except ValueError: print('refused')\nos.abort()",
        // A limit of 1 holds also where dumps go to a program of the machine; an ordinary user may not have even that.
        expected: |done| {
            ["(1, 1)\nrefused\nrefused\n", "(0, 0)\nrefused\nrefused\n"].contains(&done.text().as_str())
                && done.end.signal == Some(6)
        },
    },
    Abuse {
        name: "closing every descriptor",
        code: "import os\nos.closerange(0, 1000)\nwhile True: pass",
        expected: |done| reason(done, &[Reason::Timeout]),
    },
    Abuse {
        name: "zip bomb",
        code: "import io, zipfile\nb = io.BytesIO()\nwith zipfile.ZipFile(b, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('x', bytes(150 << 20))\n\
               z = zipfile.ZipFile(b)\nx = [z.read('x') for _ in range(4)]",
        expected: |done| reason(done, &[Reason::Oom, Reason::Timeout]),
    },
];

/// Cut at the limit on these streams, and ended for it or for its time.
fn flooded(done: &Done, out: bool, err: bool) -> bool {
    let right = |cut: bool, told: bool, bytes: &[u8]| cut == told && (!cut || bytes.len() == 1 << 20);
    right(out, done.end.truncated.stdout, &done.out)
        && right(err, done.end.truncated.stderr, &done.err)
        && reason(done, &[Reason::OutputLimit, Reason::Timeout])
}

fn execution(abuse: &Abuse) -> Execution {
    let mut execution = Execution::new("default", abuse.code.replace("NAME", &attacks::name()));
    execution.limits.wall = Some(Duration::from_millis(1500));
    execution.limits.memory_bytes = Some(128 << 20);
    execution
}

#[tokio::test]
async fn each_alone() {
    let Some(host) = Host::start(&["slots=2", "cores=1000"]).await else { return };
    alone(&host).await;
}

/// Each by itself, and a harmless program after it.
pub async fn alone(host: &Host) {
    let witness = Witness::new(host);
    for abuse in ABUSES.iter().chain(ATTACKS) {
        let mut execution = execution(abuse);
        let mut done = host.run(&execution).await;
        if !(abuse.expected)(&done) && reason(&done, &[Reason::Timeout]) {
            // On a busy machine it may not have got where it wanted to go.
            execution.limits.wall = None;
            done = host.run(&execution).await;
        }
        assert!((abuse.expected)(&done), "{}: {}", abuse.name, done.whole());
        host.python("print(42)").await.says("42\n");
    }
    host.quiet().await;
    witness.has_seen_nothing();
}

#[tokio::test]
async fn eight_at_once_beside_harmless_ones() {
    let Some(host) = Host::start(&["slots=4", "cores=500"]).await else { return };
    at_once(&host).await;
}

/// Eight at a time, and harmless programs beside them whose results stay right.
pub async fn at_once(host: &Host) {
    let witness = Witness::new(host);
    let all: Vec<&Abuse> = ABUSES.iter().chain(ATTACKS).collect();
    for abuses in all.chunks(8) {
        let mut running = Vec::new();
        for abuse in abuses {
            running.push((abuse, host.sandbox.execute(&execution(abuse)).await.unwrap()));
        }
        let harmless = async {
            for number in 0..10_u32 {
                let code = format!("import hashlib\nprint(hashlib.sha256(b'{number}').hexdigest()[:4], {number} ** 9)");
                let done = finish(host.sandbox.execute(&Execution::new("default", code)).await.unwrap()).await;
                assert!(done.text().ends_with(&format!(" {}\n", u64::from(number).pow(9))), "{}", done.whole());
            }
        };
        let abusive = async {
            for (abuse, running) in running {
                let done = finish(running).await;
                // A busy machine may leave some of them no time to get where they want to go.
                assert!((abuse.expected)(&done) || reason(&done, &[Reason::Timeout]), "{}: {}", abuse.name, done.whole());
            }
        };
        tokio::join!(harmless, abusive);
    }
    host.quiet().await;
    witness.has_seen_nothing();
}

#[tokio::test]
async fn huge_and_hostile_requests() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    hostile_requests(&host, false).await;
}

/// Arguments, input, variables and code that are large or make no sense.
pub async fn hostile_requests(host: &Host, fresh: bool) {
    let mut execution = Execution::new("default", "import sys\nprint(len(sys.argv[1]), len(sys.stdin.read()))");
    execution.args = vec!["a".repeat(1 << 20)];
    execution.stdin = Stdin::Bytes(vec![b'x'; 5 << 20]);
    let done = host.run(&execution).await;
    if fresh {
        // An argument of a program that is started may have 128 kB (execve(2)); a copy of an interpreter starts none.
        assert_eq!(done.end.exit_code, Some(126), "{}", done.whole());
        assert!(String::from_utf8_lossy(&done.err).contains("Argument list too long"), "{}", done.whole());
        execution.args.clear();
    } else {
        done.says("1048576 5242880\n");
    }
    // Input that is never read is no reason to wait.
    execution.code = b"print('done')".to_vec();
    host.run(&execution).await.says("done\n");
    let mut long = "x = 1\n".repeat(20_000);
    long.push_str("print(x)");
    let mut execution = Execution::new("default", long);
    execution.limits.wall = Some(Duration::from_secs(10));
    host.run(&execution).await.says("1\n");
    // An interpreter that reads a file (CPython before 3.12) takes NUL for its end.
    let done = host.python("print(1)\0").await;
    assert!(reason(&done, if fresh { &[Reason::Ok, Reason::ExitNonzero] } else { &[Reason::ExitNonzero] }), "{}", done.whole());
    host.python("(".repeat(10_000).as_str()).await.is(Reason::ExitNonzero);
    host.python("-".repeat(200_000).as_str()).await.is(Reason::ExitNonzero);
    let many = (0..2000).map(|number| (format!("V{number}"), "v".repeat(50))).collect();
    let mut execution = Execution::new("default", "import os\nprint(sum(k.startswith('V') for k in os.environ))");
    execution.env = many;
    host.run(&execution).await.says("2000\n");
    host.quiet().await;
}

#[tokio::test]
async fn limits_are_kept_to_the_mark() {
    let Some(host) = Host::start(&["slots=2", "cores=1000"]).await else { return };
    let mut execution = Execution::new("default", "while True: pass");
    execution.limits.wall = Some(Duration::from_millis(300));
    let (start, done) = (Instant::now(), host.run(&execution).await);
    done.is(Reason::Timeout);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    execution.limits.wall = None;
    execution.limits.cpu = Some(Duration::from_millis(200));
    let done = host.run(&execution).await;
    done.is(Reason::CpuLimit);
    assert!(done.end.usage.cpu >= Duration::from_millis(200), "{:?}", done.end);
    // Sleeping costs no processor time.
    execution.code = b"import time\ntime.sleep(0.5)\nprint(1)".to_vec();
    host.run(&execution).await.says("1\n");
    // Lower limits hold for one execution and not for the next one in the same seat.
    for _ in 0..4 {
        let mut execution = Execution::new("default", "x = b'x' * (40 << 20)\nprint(len(x) > 0)");
        execution.limits.memory_bytes = Some(20 << 20);
        host.run(&execution).await.is(Reason::Oom);
        host.python("x = b'x' * (40 << 20)\nprint(len(x) > 0)").await.says("True\n");
        let mut execution = Execution::new("default", "import os\ntry: os.fork()\nexcept OSError as e: print(e.errno)");
        execution.limits.pids = Some(1);
        host.run(&execution).await.says("11\n");
    }
    // Higher ones are not granted.
    let mut execution = Execution::new("default", "x = b'x' * (400 << 20)\nprint(len(x))");
    execution.limits.memory_bytes = Some(1 << 40);
    host.run(&execution).await.is(Reason::Oom);
}

/// The kernel's own files say whether swap is given beside memory.
#[tokio::test]
async fn there_is_no_swap_beside_the_memory() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    host.quiet().await;
    let group = coracle_sandbox::daemon::group_of(&host.directory().join("socket"));
    let seat = std::path::Path::new(&group).join("0");
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let version1 = std::path::Path::new("/sys/fs/cgroup/memory").join(&seat);
    let version2 = std::path::Path::new("/sys/fs/cgroup").join(&seat);
    match (read(version1.join("memory.limit_in_bytes")), read(version2.join("memory.swap.max"))) {
        (Some(memory), _) => {
            assert_eq!(memory, (256_u64 << 20).to_string());
            // A kernel that does not count swap has no such file.
            assert!(read(version1.join("memory.memsw.limit_in_bytes")).is_none_or(|both| both == memory));
        }
        (None, Some(swap)) => assert_eq!(swap, "0"),
        (None, None) => panic!("the seat's group is nowhere: {group}"),
    }
}
