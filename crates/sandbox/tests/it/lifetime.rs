//! Programs that do not want to end, or want others to, and the deaths of those who watch them.

use std::time::Duration;

use coracle_sandbox::{Execution, Mode, Reason, Stdin};

use crate::host::{Host, finish, until, until_said};

fn brief(code: &str) -> Execution {
    let mut execution = Execution::new("default", code);
    execution.limits.wall = Some(Duration::from_millis(1500));
    execution
}

#[tokio::test]
async fn whatever_it_does_it_ends_and_so_does_everybody_it_started() {
    let Some(host) = Host::start(&["slots=2", "cores=1000"]).await else { return };
    for mode in [Mode::Zygote, Mode::Exec] {
        everything_ends(&host, mode).await;
    }
}

/// Programs that do not want to end, all at the same time, and harmless ones beside them.
pub async fn everything_ends(host: &Host, mode: Mode) {
    let ended = [Reason::Ok];
    let late = [Reason::Timeout];
    let ignore = "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n";
    let programs: Vec<(String, &[Reason])> = vec![
        ("while True: pass".into(), &late),
        ("import time; time.sleep(1000)".into(), &late),
        ("import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time; time.sleep(1000)\nprint('bye')".into(), &ended),
        ("import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time\\nwhile 1: time.sleep(1)'], start_new_session=True)\nprint('bye')".into(), &ended),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)".into(), &late),
        ("import os, signal; os.killpg(0, signal.SIGSTOP)".into(), &late),
        (format!("{ignore}while True: pass"), &late),
        (format!("{ignore}import os\nfor _ in range(8):\n    if os.fork() == 0: break\nwhile True: pass"), &late),
        // Everybody but PID 1 and the sender: there is nobody.
        ("import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept OSError as e: print(e.errno)\nprint('on')".into(), &ended),
        ("import os, signal\ntry: os.kill(1, signal.SIGKILL)\nexcept OSError as e: print(e.errno)\nprint('on')".into(), &ended),
        ("import os\nos.close(1); os.close(2)\nif os.fork() == 0:\n    import time; time.sleep(1000)".into(), &ended),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()".into(), &late),
        ("import atexit\n@atexit.register\ndef never():\n    while True: pass".into(), &late),
        ("class A:\n    def __del__(self):\n        while True: pass\na = A()".into(), &late),
        ("import os, pty\ntry: pty.fork()\nexcept OSError: print('no terminals')".into(), &ended),
    ];
    let mut running = Vec::new();
    for (code, reasons) in &programs {
        let mut execution = brief(code);
        execution.mode = mode;
        // What ends by itself has the time for it, however slow the machine.
        if *reasons == ended {
            execution.limits.wall = None;
        }
        running.push((code, reasons, host.sandbox.execute(&execution).await.unwrap()));
    }
    for number in 0..5_u32 {
        host.python(&format!("print({number} ** 3)")).await.says(&format!("{}\n", number.pow(3)));
    }
    for (code, reasons, running) in running {
        let done = finish(running).await;
        assert!(reasons.contains(&done.end.reason), "{mode:?} {code}: {}", done.whole());
    }
    host.quiet().await;
}

#[tokio::test]
async fn ends_are_the_kernels_word() {
    let Some(host) = Host::start(&["slots=2"]).await else { return };
    for (code, exit, signal, reason) in [
        ("import os; os._exit(0)", Some(0), None, Reason::Ok),
        ("import os; os._exit(200)", Some(200), None, Reason::ExitNonzero),
        ("import sys; sys.exit(-1)", Some(255), None, Reason::ExitNonzero),
        ("import ctypes; ctypes.string_at(0)", None, Some(11), Reason::Signal),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", None, Some(15), Reason::Signal),
        ("import os; os.kill(os.getpid(), 9)", None, Some(9), Reason::Signal),
        ("import os; os.kill(os.getpid(), 63)", None, Some(63), Reason::Signal),
    ] {
        let done = host.python(code).await;
        assert_eq!((done.end.exit_code, done.end.signal, done.end.reason), (exit, signal, reason), "{code}");
    }
}

/// A worker's last call tells the daemon the code before the process has ended. Whoever else makes that call, and whatever
/// else is in it, the word that counts is how the worker ends.
#[tokio::test]
async fn the_last_call_is_the_workers_own() {
    let Some(host) = Host::start(&["slots=2"]).await else { return };
    let call = "import ctypes, os, threading, time\nlast = 0x66617265 << 32\ndef say(code):\n    ctypes.CDLL(None).syscall(ctypes.c_long(231 if os.uname().machine == 'x86_64' else 94), ctypes.c_long(code))\n";
    for (code, exit, said) in [
        // A child that comes to the end of the program as the worker would.
        (
            "if os.fork() == 0:\n    print('child', flush=True); raise SystemExit(7)\nos.wait(); print('on'); raise SystemExit(3)",
            3,
            "child\non\n",
        ),
        (
            "for _ in range(20):\n    if os.fork() == 0: say(last | 9); os._exit(9)\nfor _ in range(20): assert os.waitstatus_to_exitcode(os.wait()[1]) == 9\nprint('on')",
            0,
            "on\n",
        ),
        // Another thread's call is refused, as nobody listens to it any more, and what it does then is its own affair.
        ("thread = threading.Thread(target=say, args=(last | 5,))\nthread.start(); thread.join(); raise SystemExit(4)", 4, ""),
        ("def end(): say(last | 5); os._exit(6)\nthreading.Thread(target=end).start()\ntime.sleep(100)", 6, ""),
        ("print('said', flush=True); say(last | 0x1234); print('never')", 0x34, "said\n"),
        ("print('half', end=''); say(5)", 5, ""),
        // What is left behind has the stream, and no say.
        ("if os.fork() == 0:\n    while True: time.sleep(1)\nprint('on'); raise SystemExit(2)", 2, "on\n"),
    ] {
        let code = format!("{call}{code}");
        let done = host.python(&code).await;
        assert_eq!(
            (done.end.exit_code, String::from_utf8_lossy(&done.out).as_ref()),
            (Some(exit), said),
            "{code}: {}",
            done.whole()
        );
    }
    host.quiet().await;
}

#[tokio::test]
async fn input_that_never_ends_does_not_keep_it_alive() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let mut execution = brief("import sys\nsys.stdin.read()");
    execution.stdin = Stdin::Interactive;
    host.run(&execution).await.is(Reason::Timeout);
    execution.code = b"print('done')".to_vec();
    host.run(&execution).await.says("done\n");
}

#[tokio::test]
async fn forged_frames_are_output() {
    let Some(host) = Host::start(&["slots=1"]).await else { return };
    let code = "import os\nframe = b'\\x30\\0\\0\\0\\x05' + bytes(60) + b'+'\nfor fd in range(256):\n    try: os.write(fd, frame)\n    except OSError: pass\n\
                open('/dev/stdout', 'wb').write(frame)\nos._exit(3)";
    let done = host.python(code).await;
    assert_eq!((done.end.reason, done.end.exit_code), (Reason::ExitNonzero, Some(3)), "{}", done.whole());
    assert_eq!((done.out.len(), done.err.len()), (132, 66), "{}", done.whole());
}

#[tokio::test]
async fn the_daemons_death_is_everybodys_and_a_new_one_serves() {
    let Some(mut host) = Host::start(&["slots=3"]).await else { return };
    host.quiet().await;
    let code = "import os, time\nif os.fork() == 0: os.setsid()\nos.fork()\nprint('on', flush=True)\nwhile True: time.sleep(1)";
    let mut running = host.sandbox.execute(&Execution::new("default", code)).await.unwrap();
    until_said(&mut running, "on").await;
    let before = host.inhabitants().iter().map(|(pid, _, _)| *pid).collect::<Vec<_>>();
    assert!(before.len() >= 3, "{before:?}");
    host.replace().await;
    // The client hears that there will be no end.
    while let Ok(event) = running.next().await {
        assert!(!matches!(event, Some(coracle_sandbox::Event::End(_)) | None), "{event:?}");
    }
    until("the old inhabitants are gone", || {
        let now = host.inhabitants();
        before.iter().all(|pid| !now.iter().any(|(one, _, state)| one == pid && *state != 'Z'))
    })
    .await;
    until("the new daemon listens", || std::os::unix::net::UnixStream::connect(host.directory().join("socket")).is_ok()).await;
    // The same client goes on.
    let done = finish(host.sandbox.execute(&Execution::new("default", "print(1)")).await.unwrap()).await;
    done.says("1\n");
    host.quiet().await;
}

#[tokio::test]
async fn a_stopped_daemon_leaves_nothing() {
    let Some(mut host) = Host::start(&["slots=3"]).await else { return };
    let code = "import time\nprint('on', flush=True)\nwhile True: time.sleep(1)";
    let mut running = host.sandbox.execute(&Execution::new("default", code)).await.unwrap();
    until_said(&mut running, "on").await;
    assert!(host.stop().await.success());
    until("nobody is left", || host.inhabitants().is_empty()).await;
    let group = coracle_sandbox::daemon::group_of(&host.directory().join("socket"));
    assert!(coracle_jail::Hierarchy::detect().find(&group).is_none(), "{group} is left");
    assert!(!host.directory().join("socket").exists());
}

#[tokio::test]
async fn a_dead_maker_ends_the_daemon_and_a_dead_zygote_is_replaced() {
    let Some(mut host) = Host::start(&["slots=2"]).await else { return };
    let children = || {
        let text = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.pid())).unwrap();
        text.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()).collect::<Vec<_>>()
    };
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let zygotes = || {
        let is = |pid: &i32| {
            let root = std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains("\nUid:\t0\t"));
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            root && line.contains("zygote.py")
        };
        children().into_iter().filter(is).collect::<Vec<_>>()
    };
    host.quiet().await;
    let old = zygotes();
    assert_eq!(old.len(), 1);
    kill(old[0]);
    for _ in 0..6 {
        host.python("print(1)").await.says("1\n");
    }
    until("there is another zygote", || zygotes().iter().any(|pid| *pid != old[0])).await;
    // The first child is the maker: it was there before any other.
    kill(children()[0]);
    let ended = host.wait().await;
    assert!(!ended.success());
    until("nobody is left", || host.inhabitants().is_empty()).await;
}

/// Wherever it was in making slots: nobody of its family stays, PID 1s of half-made slots included.
#[tokio::test]
async fn a_daemon_that_is_killed_while_it_makes_slots_leaves_nobody() {
    if !crate::host::possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let family = || {
        let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let is = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&path)
        };
        pids.filter(is).collect::<Vec<_>>()
    };
    for round in 0..30_u64 {
        let socket = directory.path().join(format!("socket{round}"));
        let mut command = std::process::Command::new(crate::host::example());
        command.arg("daemon").arg(&socket).args(["slots=8", "makers=4", "uid=1899000000"]);
        let mut daemon = command.spawn().unwrap();
        until("it listens", || socket.exists()).await;
        // A little later in each round.
        let moment = std::time::Instant::now() + Duration::from_micros(round * 1500);
        until("the moment has come", || std::time::Instant::now() >= moment).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        until("nobody is left", || family().is_empty()).await;
        let group = coracle_sandbox::daemon::group_of(&socket);
        let hierarchy = coracle_jail::Hierarchy::detect();
        for name in hierarchy.children(&group).into_iter().chain([group]) {
            if let Some(group) = hierarchy.find(&name) {
                group.remove(Duration::from_secs(10)).unwrap();
            }
        }
    }
}
