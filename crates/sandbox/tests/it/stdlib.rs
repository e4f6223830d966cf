//! The standard library where it needs the kernel.

use std::time::Duration;

use coracle_sandbox::{Execution, Mode};

use crate::host::Host;

const PROGRAMS: &[(&str, &str, &str)] = &[
    (
        "threads",
        "import threading, queue\nq = queue.Queue(); lock = threading.Lock(); total = 0\n\
         def work():\n    global total\n    while (n := q.get()) is not None:\n        with lock: total += n\n\
         ts = [threading.Thread(target=work) for _ in range(8)]\n[t.start() for t in ts]\n[q.put(n) for n in range(1000)]\n[q.put(None) for _ in ts]\n[t.join() for t in ts]\nprint(total)",
        "499500\n",
    ),
    (
        "thread pool",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as p: print(sum(p.map(lambda n: n * n, range(100))))",
        "328350\n",
    ),
    (
        "subprocess",
        "import subprocess, sys\nr = subprocess.run([sys.executable, '-c', 'import sys; print(sys.stdin.read().upper()); sys.exit(3)'], input='abc', capture_output=True, text=True)\nprint(r)\n\
         print(subprocess.check_output('echo $((6*7)) | cat', shell=True, text=True).strip())",
        "CompletedProcess(args=['/usr/bin/python3.11', '-c', 'import sys; print(sys.stdin.read().upper()); sys.exit(3)'], returncode=3, stdout='ABC\\n', stderr='')\n42\n",
    ),
    (
        "multiprocessing by fork",
        "import multiprocessing as m\ndef f(x): return x * x\nif __name__ == '__main__':\n    with m.get_context('fork').Pool(3) as p: print(p.map(f, range(5)))",
        "[0, 1, 4, 9, 16]\n",
    ),
    (
        "multiprocessing by spawn",
        "import multiprocessing as m\ndef f(q, v): q.put(v.value)\nif __name__ == '__main__':\n    c = m.get_context('spawn'); q = c.Queue(); v = c.Value('i', 7)\n    p = c.Process(target=f, args=(q, v)); p.start(); print(q.get()); p.join(); print(p.exitcode)",
        "7\n0\n",
    ),
    (
        "multiprocessing by forkserver",
        "import multiprocessing as m\ndef f(x): return -x\nif __name__ == '__main__':\n    with m.get_context('forkserver').Pool(2) as p: print(p.map(f, [1, 2]))",
        "[-1, -2]\n",
    ),
    (
        "managers and shared memory",
        "from multiprocessing import Manager, shared_memory\nif __name__ == '__main__':\n    with Manager() as m:\n        d = m.dict(); d['a'] = 1; print(dict(d))\n    s = shared_memory.SharedMemory(create=True, size=10); s.buf[:3] = b'abc'; print(bytes(s.buf[:3])); s.close(); s.unlink()",
        "{'a': 1}\nb'abc'\n",
    ),
    (
        "asyncio",
        "import asyncio, sys\nasync def main():\n    r = await asyncio.gather(*(asyncio.sleep(0.01, n) for n in range(5)))\n    p = await asyncio.create_subprocess_exec(sys.executable, '-c', 'print(1)', stdout=asyncio.subprocess.PIPE)\n    out, _ = await p.communicate()\n    print(r, out, p.returncode)\n    print(await asyncio.to_thread(sum, [1, 2]))\n    s = await asyncio.start_unix_server(lambda r, w: (w.write(b'hi'), w.close()), '/tmp/s')\n    r, w = await asyncio.open_unix_connection('/tmp/s'); print(await r.read()); w.close()\nasyncio.run(main())",
        "[0, 1, 2, 3, 4] b'1\\n' 0\n3\nb'hi'\n",
    ),
    (
        "tempfile",
        "import tempfile, os\nwith tempfile.TemporaryDirectory() as d:\n    open(os.path.join(d, 'x'), 'w').write('y')\n    print(os.listdir(d))\nprint(os.path.exists(d))\nwith tempfile.NamedTemporaryFile() as f: f.write(b'x'); print(f.name.startswith('/tmp/'))\nprint(tempfile.TemporaryFile().fileno() > 2)",
        "['x']\nFalse\nTrue\nTrue\n",
    ),
    (
        "zipfile and sqlite3",
        "import zipfile, sqlite3, io\nb = io.BytesIO()\nwith zipfile.ZipFile(b, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('a', 'b' * 1000)\nprint(zipfile.ZipFile(b).read('a')[:2])\nc = sqlite3.connect('db'); c.execute('create table t(x)'); c.execute('insert into t values (1)'); c.commit(); print(c.execute('select * from t').fetchall())",
        "b'bb'\n[(1,)]\n",
    ),
    (
        "signals and timers",
        "import signal, time\nhits = []\nsignal.signal(signal.SIGALRM, lambda *a: hits.append(1))\nsignal.setitimer(signal.ITIMER_REAL, 0.01)\nwhile not hits: time.sleep(0.005)\ntry: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: print('interrupted', hits)",
        "interrupted [1]\n",
    ),
    (
        "files, locks, watching and copying",
        "import fcntl, shutil, os, mmap, select\nf = open('a', 'w+b'); f.write(b'abc'); f.flush(); fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX)\nshutil.copy2('a', 'b'); print(open('b').read()); m = mmap.mmap(f.fileno(), 3); print(m[:]); os.rename('b', 'c'); shutil.rmtree('nosuch', ignore_errors=True)\nshutil.copytree('.', '/tmp/t'); print(sorted(os.listdir('/tmp/t')))\nprint(shutil.get_terminal_size(), os.isatty(0))\nr, w = os.pipe(); os.write(w, b'x'); print(select.select([r], [], [], 1)[0] == [r]); e = select.epoll(); e.register(r); print(len(e.poll(1)))\nos.statvfs('.'); os.utime('a'); os.chmod('a', 0o600); os.truncate('a', 1); print(os.path.getsize('a'))",
        "abc\nb'abc'\n['a', 'c', 'main.py']\nos.terminal_size(columns=80, lines=24) False\nTrue\n1\n1\n",
    ),
    (
        "users, hosts, time and the machine",
        "import pwd, getpass, platform, time, locale, os, resource, socket, uuid\nprint(pwd.getpwuid(os.getuid()).pw_name, getpass.getuser(), platform.node(), os.path.expanduser('~'))\ntime.sleep(0.001); time.localtime(); uuid.uuid1(); resource.getrusage(0); os.getloadavg if 0 else None; print(platform.system(), os.cpu_count() > 0, len(os.sched_getaffinity(0)) > 0)\na, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))",
        "sandbox sandbox sandbox /work\nLinux True True\nb'x'\n",
    ),
    (
        "the program's own module",
        "import pickle, inspect, sys, dataclasses, typing, traceback\n@dataclasses.dataclass\nclass P:\n    x: int\nprint(pickle.loads(pickle.dumps(P(1))), inspect.getsource(P).count('x: int'), sys.modules['__main__'].P is P, typing.get_type_hints(P))\nimport main as again\n",
        "P(x=1) 1 True {'x': <class 'int'>}\nP(x=1) 1 False {'x': <class 'int'>}\n",
    ),
    (
        "decimal, json, re, csv, statistics",
        "import decimal, json, re, csv, io, statistics, datetime, itertools, functools, heapq, collections\nprint(decimal.Decimal('0.1') + decimal.Decimal('0.2'), json.loads('[1, {\"a\": null}]'), re.findall(r'\\d+', 'a1b22'), statistics.mean([1, 2]), next(csv.reader(io.StringIO('a,b'))))",
        "0.3 [1, {'a': None}] ['1', '22'] 1.5 ['a', 'b']\n",
    ),
];

#[tokio::test]
async fn what_needs_the_kernel_works_in_both_modes() {
    let Some(host) = Host::start(&["slots=2", "cores=2000"]).await else { return };
    for (name, code, expected) in PROGRAMS {
        for mode in [Mode::Zygote, Mode::Exec] {
            let mut execution = Execution::new("default", *code);
            execution.mode = mode;
            let done = host.run(&execution).await;
            let expected = expected.replace("/usr/bin/python3.11", &interpreter());
            assert_eq!(done.text(), expected, "{name} {mode:?}: {}", done.whole());
            assert_eq!(done.end.exit_code, Some(0), "{name} {mode:?}: {}", done.whole());
        }
    }
    host.quiet().await;
}

fn interpreter() -> String {
    std::fs::canonicalize("/usr/bin/python3").unwrap().display().to_string()
}

/// What is left out of the library's own tests, and why.
const EXCEPTIONS: &str = include_str!("stdlib/exceptions.txt");

/// What runs them.
const RUNNER: &str = include_str!("stdlib/own_tests.py");

/// Tests of the library's own that run in one sandbox.
#[derive(Clone, Copy)]
struct Part {
    module: &'static str,
    /// Only what matches one of these, if there are any.
    only: &'static [&'static str],
    /// Which of how many parts of the module.
    number: usize,
    of: usize,
}

const fn whole(module: &'static str) -> Part {
    Part { module, only: &[], number: 0, of: 1 }
}

/// A module whose tests mostly wait, in parts that wait at the same time.
fn parts(module: &'static str, only: &'static [&'static str], of: usize) -> impl Iterator<Item = Part> {
    (0..of).map(move |number| Part { module, only, number, of })
}

/// What runs every time as a whole, seconds each.
const MODULES: &[Part] = &[
    whole("test_threading"),
    whole("test_zipfile"),
    whole("test_decimal"),
    whole("test_json"),
    whole("test_re"),
    whole("test_tempfile"),
];

/// Of asyncio's modules only those for Windows are missing, and those of which nothing would be left (`exceptions.txt`).
const ASYNCIO: &[&str] = &[
    "base_events",
    "unix_events",
    "buffered_proto",
    "context",
    "futures",
    "futures2",
    "locks",
    "pep492",
    "proactor_events",
    "protocols",
    "queues",
    "runners",
    "selector_events",
    "server",
    "sslproto",
    "streams",
    "taskgroups",
    "threads",
    "timeouts",
    "transports",
    "waitfor",
];

/// What of multiprocessing differs with the way in which processes are started, and costs an interpreter's start each.
const STARTED: &[&str] = &[
    "*.WithProcessesTestQueue.*",
    "*.WithProcessesTestSharedMemory.*",
    "*.WithProcessesTestValue.*",
    "*.WithManagerTestQueue.*",
    "*.TestInitializers.*",
];

/// The library's own tests (Debian: libpython3.11-testsuite), several modules at the same time, each in a sandbox.
#[tokio::test]
async fn the_librarys_own_tests_pass() {
    own_tests(MODULES.to_vec()).await;
}

#[tokio::test]
async fn the_librarys_own_tests_of_asyncio_pass() {
    own_tests(ASYNCIO.iter().map(|name| whole(format!("test_asyncio.test_{name}").leak())).collect()).await;
}

#[tokio::test]
async fn the_librarys_own_tests_of_asyncios_loops_pass() {
    let loops = parts("test_asyncio.test_events", &[], 4).chain(parts("test_asyncio.test_tasks", &[], 4));
    own_tests(loops.chain([whole("test_asyncio.test_subprocess")]).collect()).await;
}

#[tokio::test]
async fn the_librarys_own_tests_of_subprocess_pass() {
    own_tests(parts("test_subprocess", &[], 6).collect()).await;
}

#[tokio::test]
async fn the_librarys_own_tests_of_multiprocessing_by_fork_pass() {
    own_tests(parts("test_multiprocessing_fork", &[], 8).collect()).await;
}

#[tokio::test]
async fn the_librarys_own_tests_of_multiprocessing_started_otherwise_pass() {
    let served = parts("test_multiprocessing_forkserver", STARTED, 3);
    own_tests(parts("test_multiprocessing_spawn", STARTED, 3).chain(served).collect()).await;
}

#[tokio::test]
#[ignore = "soak: a minute or two of interpreters' starts"]
async fn all_of_the_librarys_own_tests_of_multiprocessing_pass() {
    let modules = ["test_multiprocessing_spawn", "test_multiprocessing_forkserver"];
    own_tests(modules.into_iter().flat_map(|module| parts(module, &[], 6)).collect()).await;
}

#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
async fn own_tests(modules: Vec<Part>) {
    // One of the tests starts a hundred interpreters at once, which is more than an execution usually may.
    let settings = ["slots=8", "cores=2000", "wall=900000", "cpu=900000", "pids=256", "memory=1073741824"];
    let Some(host) = Host::start(&settings).await else { return };
    let there = host.python("import test.test_json, test.test_threading").await;
    if there.end.exit_code != Some(0) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the interpreter's own tests are there in CI");
        eprintln!("NOT TRIED: the interpreter's own tests are not installed (Debian: libpython3.11-testsuite)");
        return;
    }
    // Eight at a time, the next one as soon as one is over.
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(8));
    let running: Vec<_> = modules
        .into_iter()
        .map(|part| {
            let (sandbox, gate) = (host.sandbox.clone(), std::sync::Arc::clone(&gate));
            let execution = Execution::new("default", program(part));
            let task = async move {
                let _turn = gate.acquire_owned().await.unwrap();
                crate::host::finish_within(sandbox.execute(&execution).await.unwrap(), Duration::from_secs(900)).await
            };
            (part, tokio::spawn(task))
        })
        .collect();
    for (Part { module, number, of, .. }, task) in running {
        let done = task.await.unwrap();
        assert_eq!(done.end.exit_code, Some(0), "{module} {number}: {:?}\n{}", done.end, String::from_utf8_lossy(&tail(&done)));
        assert!(of > 1 || !done.text().contains("ran 0 "), "{module}: {}", done.text());
    }
    host.quiet().await;
}

fn program(part: Part) -> String {
    let Part { module, only, number, of } = part;
    let prefix = format!("test.{module}.");
    // One that is for several modules has its wildcard in the module's name.
    let is_its = |pattern: &&str| {
        pattern.starts_with(&prefix)
            || module.starts_with("test_multiprocessing_") && pattern.starts_with("test.test_multiprocessing_*.")
    };
    let exceptions: Vec<&str> = exceptions().into_iter().map(|(pattern, _)| pattern).filter(is_its).collect();
    format!("NAME, ONLY, PART, EXCEPTIONS = {module:?}, {only:?}, ({number}, {of}), {exceptions:?}\n{RUNNER}")
}

/// Each pattern with its reason.
fn exceptions() -> Vec<(&'static str, &'static str)> {
    let blocks = EXCEPTIONS.split("\n\n").filter(|block| block.starts_with('['));
    let one = |block: &'static str| {
        let (reason, patterns) = block.split_once("]\n").expect("a reason in brackets");
        patterns.lines().map(move |pattern| (pattern, reason.trim_start_matches('[')))
    };
    blocks.flat_map(one).collect()
}

#[test]
fn every_exception_has_a_reason_and_names_tests() {
    let all = exceptions();
    assert!(all.len() > 30, "{}", all.len());
    for (pattern, reason) in all {
        assert!(pattern.starts_with("test.test_") && reason.len() > 20, "{pattern}: {reason}");
    }
}

/// The last of both streams, where the failures are told.
fn tail(done: &crate::host::Done) -> Vec<u8> {
    let last = |bytes: &[u8]| bytes.get(bytes.len().saturating_sub(3000)..).unwrap_or_default().to_vec();
    [last(&done.out), last(&done.err)].concat()
}
