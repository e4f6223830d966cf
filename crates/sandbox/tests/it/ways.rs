//! The same programs in each way of isolating that the machine allows, and the choice between them.

use std::time::{Duration, Instant};

use coracle_sandbox::{Execution, Mode, Reason, Stdin};

use crate::host::{Host, Way, finish, until_said};
use crate::{abuse, files, kernel, lifetime};

/// Each way but the usual one, which has tests of its own.
fn others() -> impl Iterator<Item = Way> {
    Way::all().into_iter().filter(|way| *way != Way::Zygote)
}

async fn with(way: Way, settings: &[&str]) -> Option<Host> {
    if Way::all().contains(&way) { Some(Host::start_as(way, settings).await) } else { None }
}

async fn basics(host: &Host, way: Way) {
    let health = host.sandbox.health().await.unwrap();
    let (isolation, weaker) = match way {
        Way::Zygote => ("zygote", 0),
        Way::Exec => ("exec", 0),
        Way::Docker => ("docker", 1),
        Way::User => ("zygote", 1),
    };
    assert_eq!(health.isolation, isolation);
    assert!(health.weaker.len() >= weaker && !health.why.is_empty(), "{health:?}");
    let mut execution = Execution::new(
        "default",
        "import os, sys\nprint(sys.argv, os.environ['NAME'], open('data/in.txt').read(), sys.stdin.read(), __name__)\n\
         open('out.txt', 'w').write('brought back')\nprint('err', file=sys.stderr)",
    );
    execution.stdin = Stdin::Bytes("zwölf\n".into());
    execution.args = vec!["a b".to_owned(), "'$(id)`".to_owned()];
    execution.env = vec![("NAME".to_owned(), "wert=1".to_owned())];
    execution.files = vec![coracle_sandbox::InputFile { path: "data/in.txt".to_owned(), content: b"content".to_vec() }];
    execution.collect = vec!["*.txt".to_owned()];
    for mode in [Mode::Zygote, Mode::Exec] {
        execution.mode = mode;
        let done = host.run(&execution).await;
        done.says("['/work/main.py', 'a b', \"'$(id)`\"] wert=1 content zwölf\n __main__\n");
        assert_eq!(done.err, b"err\n");
        assert_eq!(done.files.iter().map(|file| file.content.as_ref()).collect::<Vec<_>>(), [b"brought back"], "{done:?}");
        let used = done.end.usage;
        assert!(used.cpu > Duration::ZERO && used.wall > Duration::ZERO && used.memory_peak > 100_000, "{used:?}");
    }
    for (code, exit, signal, reason) in [
        ("import sys; sys.exit(7)", Some(7), None, Reason::ExitNonzero),
        ("1/0", Some(1), None, Reason::ExitNonzero),
        ("import os; os.kill(os.getpid(), 11)", None, Some(11), Reason::Signal),
        ("x = bytearray(400 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1", None, Some(9), Reason::Oom),
    ] {
        let done = host.python(code).await;
        assert_eq!((done.end.exit_code, done.end.signal, done.end.reason), (exit, signal, reason), "{code}: {}", done.whole());
    }
    // Limits are lowered for one, and not for the next.
    let mut execution =
        Execution::new("default", "x = bytearray(60 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\nprint('fits')");
    host.run(&execution).await.says("fits\n");
    execution.limits.memory_bytes = Some(40 << 20);
    host.run(&execution).await.is(Reason::Oom);
    let mut execution = Execution::new("default", "import time\nprint('on', flush=True)\ntime.sleep(100)");
    let mut running = host.sandbox.execute(&execution).await.unwrap();
    until_said(&mut running, "on").await;
    running.cancel().await.unwrap();
    finish(running).await.is(Reason::Cancelled);
    execution.code = b"while True: pass".to_vec();
    execution.limits.wall = Some(Duration::from_millis(300));
    let (start, done) = (Instant::now(), host.run(&execution).await);
    done.is(Reason::Timeout);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    let mut execution = Execution::new("default", "print(input().upper())");
    execution.stdin = Stdin::Interactive;
    let mut running = host.sandbox.execute(&execution).await.unwrap();
    running.write("typed\n").await.unwrap();
    finish(running).await.says("TYPED\n");
    host.quiet().await;
}

#[tokio::test]
async fn a_fresh_interpreter_for_everybody_works_as_the_usual_way_does() {
    let Some(host) = with(Way::Exec, &["slots=2", "cores=1000"]).await else { return };
    basics(&host, Way::Exec).await;
    // Nobody asked for it: it is the daemon's way.
    let code = "import sys\nprint(hash('text'), 'atexit' in sys.modules)";
    assert_ne!(host.python(code).await.text(), host.python(code).await.text());
}

#[tokio::test]
async fn containers_work_as_the_usual_way_does() {
    let Some(host) = with(Way::Docker, &["slots=2", "cores=1000"]).await else { return };
    basics(&host, Way::Docker).await;
}

#[tokio::test]
async fn an_ordinary_user_has_what_root_has() {
    let Some(host) = with(Way::User, &["slots=2", "cores=1000"]).await else { return };
    basics(&host, Way::User).await;
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn the_kernel_network_and_neighbours_are_out_of_reach_in_every_way() {
    for way in others() {
        let host = Host::start_as(way, &["slots=3", "cores=1000"]).await;
        kernel::forbidden_calls(&host).await;
        kernel::no_network(&host).await;
        if way != Way::Docker {
            kernel::neighbours(&host).await;
        }
        let status = "lines = dict(l.split(':\\t') for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)\n\
                      print(lines['CapEff'], lines['CapPrm'], lines['CapBnd'], lines['NoNewPrivs'], lines['Seccomp'])";
        let none = "0".repeat(16);
        host.python(status).await.says(&format!("{none} {none} {none} 1 2\n"));
        host.quiet().await;
    }
}

#[tokio::test]
async fn abuse_at_once_in_fresh_interpreters() {
    let Some(host) = with(Way::Exec, &["slots=4", "cores=500"]).await else { return };
    abuse::at_once(&host).await;
}

#[tokio::test]
async fn abuse_at_once_as_an_ordinary_user() {
    let Some(host) = with(Way::User, &["slots=4", "cores=500"]).await else { return };
    abuse::at_once(&host).await;
}

#[tokio::test]
async fn abuse_at_once_in_containers() {
    let Some(host) = with(Way::Docker, &["slots=4", "cores=500", "patience=60000"]).await else { return };
    abuse::at_once(&host).await;
}

#[tokio::test]
async fn endings_files_and_requests_are_the_same_in_every_way() {
    for way in others() {
        let host = Host::start_as(way, &["slots=3", "cores=1000", "patience=60000"]).await;
        lifetime::everything_ends(&host, Mode::Zygote).await;
        files::nothing_of_the_machine(&host).await;
        abuse::hostile_requests(&host, way == Way::Exec).await;
    }
}

/// An engine makes a seat's group in hierarchies that the daemon has nothing to do with.
#[tokio::test]
async fn no_control_group_is_left_in_any_hierarchy() {
    for way in Way::all() {
        let mut host = Host::start_as(way, &["slots=2", "cores=1000", "patience=60000"]).await;
        host.python("print(1)").await.says("1\n");
        host.quiet().await;
        let during = host.groups_anywhere();
        assert!(!during.is_empty(), "{way:?}: the programs' groups are to be seen");
        // Also those of a daemon that was killed.
        host.replace().await;
        crate::host::connect(&host.directory().join("socket")).await;
        host.python("print(1)").await.says("1\n");
        assert!(host.stop().await.success(), "{way:?}");
        assert_eq!(host.groups_anywhere(), Vec::<std::path::PathBuf>::new(), "{way:?}: during: {during:?}");
    }
}

/// The engine is asked each time that the daemon looks at the machine. As an ordinary user it starts itself again as root of
/// a user namespace, and takes along what it has found.
#[tokio::test]
async fn an_ordinary_users_daemon_looks_at_the_machine_once() {
    if !Way::all().contains(&Way::User) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let engine = place.path().join("engine.sock");
    let listener = tokio::net::UnixListener::bind(&engine).unwrap();
    for path in [place.path(), engine.as_path()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&asked);
    let answering = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(connection);
        }
    });
    let host = Host::start_as(Way::User, &["slots=1", &format!("docker={}", engine.display())]).await;
    host.python("print(1)").await.says("1\n");
    assert_eq!(host.sandbox.health().await.unwrap().isolation, "zygote");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    drop(host);
    answering.abort();
}

/// Takes minutes, most of them Docker's.
#[tokio::test]
#[ignore = "soak: each program alone in every way"]
async fn abuse_alone_in_every_way() {
    for way in others() {
        let host = Host::start_as(way, &["slots=2", "cores=1000", "patience=60000"]).await;
        abuse::alone(&host).await;
    }
}

#[tokio::test]
async fn a_user_without_cgroups_is_refused_unless_weak_limits_are_permitted() {
    if !Way::all().contains(&Way::User) {
        return;
    }
    // A place of this test's own that a user without anything can get at.
    let directory = tempfile::tempdir().unwrap();
    let uid = 760_000 + std::process::id() % 50_000;
    std::os::unix::fs::chown(directory.path(), Some(uid), Some(uid)).unwrap();
    let program = crate::host::example();
    let copy = directory.path().join("sandbox");
    std::fs::copy(&program, &copy).unwrap();
    let command = |settings: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups"]).arg(&copy);
        command.arg("daemon").arg(directory.path().join("socket")).args(["slots=1", "docker=/nowhere"]).args(settings);
        command
    };
    let refused = command(&[]).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && why.contains("memory cannot be bounded") && why.contains("/nowhere"), "{why}");
    let mut daemon = command(&["permit=weak-limits"]).spawn().unwrap();
    let answer = tokio::time::timeout(crate::host::PATIENCE, async {
        let client = |code: &str| {
            let file = directory.path().join("program.py");
            std::fs::write(&file, code).unwrap();
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--clear-groups"]).arg(&copy);
            command.arg("run").arg(directory.path().join("socket")).arg(&file).output().unwrap()
        };
        while !directory.path().join("socket").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        [
            client("print(6 * 7)"),
            client("x = bytearray(400 << 20)"),
            client(
                "import resource\nprint(resource.getrlimit(resource.RLIMIT_CPU)[0], resource.getrlimit(resource.RLIMIT_NPROC)[0])",
            ),
        ]
    });
    let outputs = answer.await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let [fits, too_much, limits] = outputs.unwrap();
    assert_eq!(fits.stdout, b"42\n", "{fits:?}");
    assert!(String::from_utf8_lossy(&too_much.stderr).contains("MemoryError"), "{too_much:?}");
    assert_eq!(String::from_utf8_lossy(&limits.stdout), "10 64\n", "{limits:?}");
}

#[tokio::test]
async fn without_any_sandbox_it_serves_only_if_that_is_permitted() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let command = |settings: &[&str]| {
        let mut command = std::process::Command::new(crate::host::example());
        // Docker is asked for, and is not there.
        command.arg("daemon").arg(&socket).args(["slots=1", "mode=docker", "docker=/nowhere/docker.sock"]).args(settings);
        command
    };
    let refused = command(&[]).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && why.contains("/nowhere/docker.sock"), "{why}");
    let mut daemon = command(&["permit=no-sandbox"]).spawn().unwrap();
    let sandbox = crate::host::connect(&socket).await;
    let health = sandbox.health().await.unwrap();
    let done = finish(sandbox.execute(&Execution::new("default", "print(42)\nimport sys; sys.exit(3)")).await.unwrap()).await;
    let mut endless = Execution::new("default", "import os\nos.fork()\nwhile True: pass");
    endless.limits.wall = Some(Duration::from_millis(100));
    let killed = finish(sandbox.execute(&endless).await.unwrap()).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(health.isolation, "nothing");
    assert!(health.weaker[0].contains("NOT ISOLATED"), "{health:?}");
    assert_eq!((done.text().as_str(), done.end.exit_code), ("42\n", Some(3)), "{}", done.whole());
    killed.is(Reason::Timeout);
}

#[tokio::test]
async fn nobody_looks_into_the_daemons_memory_or_environment_in_any_way() {
    for way in Way::all() {
        let host = Host::start_as(way, &["slots=1", "cores=1000"]).await;
        let code = "import os\nfound, opened = b'', []\n\
                    for pid in filter(str.isdigit, os.listdir('/proc')):\n    \
                        for name in 'environ', 'maps', 'mem', 'cmdline', 'fd', 'root', 'cwd', 'exe', 'mountinfo', 'stack', 'auxv':\n        \
                            path = f'/proc/{pid}/{name}'\n        \
                            try:\n            \
                                if name in ('environ', 'cmdline', 'mountinfo'): found += open(path, 'rb').read()\n            \
                                elif name in ('fd', 'root', 'cwd'): os.listdir(path)\n            \
                                elif name == 'exe': os.readlink(path)\n            \
                                else: open(path, 'rb').read(0)\n            \
                                if pid == '1' and name not in ('cmdline', 'mountinfo'): opened.append(name)\n        \
                            except OSError: pass\n\
                    print(b'daemon-secret' in found, opened)";
        let done = host.python(code).await;
        // PID 1 of a container is an interpreter that has nothing of the daemon's.
        let expected = if way == Way::Docker { "False " } else { "False []\n" };
        assert!(done.text().starts_with(expected), "{way:?}: {}", done.whole());
    }
}

#[tokio::test]
async fn a_new_daemon_removes_the_containers_of_a_dead_one_and_nobody_elses() {
    let Some(mut host) = with(Way::Docker, &["slots=1", "cores=1000", "patience=60000"]).await else { return };
    let other = Host::start_as(Way::Docker, &["slots=1", "cores=1000", "patience=60000"]).await;
    let code = "import time\nprint('on', flush=True)\nwhile True: time.sleep(1)";
    let mut running = host.sandbox.execute(&Execution::new("default", code)).await.unwrap();
    until_said(&mut running, "on").await;
    let mut others = other.sandbox.execute(&Execution::new("default", code)).await.unwrap();
    until_said(&mut others, "on").await;
    host.replace().await;
    while let Ok(event) = running.next().await {
        assert!(!matches!(event, Some(coracle_sandbox::Event::End(_)) | None), "{event:?}");
    }
    crate::host::connect(&host.directory().join("socket")).await;
    host.python("print(1)").await.says("1\n");
    others.cancel().await.unwrap();
    finish(others).await.is(Reason::Cancelled);
    // Both are of the same users: one must be gone before the other is counted.
    drop(other);
    host.quiet().await;
}
