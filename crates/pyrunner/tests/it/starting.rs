//! Servers and runs that cannot start, that are told nonsense, or that were killed.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;

use crate::host::{Host, children, possible, pyrunner, send, until};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn serve(arguments: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    pyrunner(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat(), state.path())
}

#[test]
fn who_cannot_start_says_why_and_never_that_it_listens() {
    if !possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let nobody = directory.path().join("nobody.sock");
    for (arguments, told) in [
        (["--python", "/no/such/python"], ["--python", "there is no such file"]),
        (["--state", "/proc/self/nothing"], ["/proc/self/nothing", "`--state` names another"]),
        (["--docker-socket", nobody.to_str().unwrap()], ["a safe way to run programs", "--allow-weak-limits"]),
        (["--user", "root"], ["must not run as root", "another user"]),
    ] {
        let mut arguments = arguments.to_vec();
        if arguments[0] == "--docker-socket" {
            arguments.extend(["--isolation", "docker"]);
        }
        let said = serve(&arguments);
        let text = text(&said);
        assert!(!said.status.success() && told.iter().all(|told| text.contains(told)), "{arguments:?}: {text}");
        assert!(!text.contains("listens on"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_part_that_never_comes_up_is_not_started_forever() {
    if !possible() {
        return;
    }
    // An engine that does not answer is waited for, and whoever waits is killed each time.
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let _silent = UnixListener::bind(&socket).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrunner"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--isolation", "docker", "--docker-socket"]).arg(&socket);
    command.arg("--state").arg(directory.path().join("state")).env_remove("DATABASE_URL").env_remove("PORT");
    let mut server = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("it gives up", || {
        let daemons = children(server.id()).into_iter().filter(|child| {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"--part=sandbox")
        });
        daemons.for_each(|daemon| send(daemon, Signal::KILL));
        server.try_wait().unwrap()
    });
    let said = server.wait_with_output().unwrap();
    assert!(
        text(&said).contains("the sandbox daemon ended 5 times before the server was up, at last with SIGKILL"),
        "{}",
        text(&said)
    );
}

#[test]
fn nonsense_is_refused_before_anything_starts() {
    for (arguments, told) in [
        (["serve", "--concurrency", "0"], "--concurrency"),
        (["serve", "--client-concurrency", "0"], "--client-concurrency"),
        (["serve", "--slots", "0"], "--slots"),
        (["serve", "--connections", "0"], "--connections"),
        (["serve", "--cores", "0"], "0.01 to 1024"),
        (["serve", "--wall", "0s"], "at least 1ms"),
        (["serve", "--python", "python3"], "whole path"),
        (["run", "--memory=1", "x.py"], "8MiB is the least"),
        (["run", "--pids=0", "x.py"], "--pids"),
        (["run", "--python=/no/such/python", "x.py"], "there is no such file"),
        (["keys", "add", ""], "who or what uses the key"),
        (["keys", "add", "a\nb"], "control characters"),
    ] {
        let state = tempfile::tempdir().unwrap();
        let said = pyrunner(&arguments, state.path());
        assert!(said.status.code() == Some(2) && text(&said).contains(told), "{arguments:?}: {}", text(&said));
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0, "{arguments:?}");
    }
    let state = tempfile::tempdir().unwrap();
    let add = |limit: &str| pyrunner(&["keys", "add", "x", "--limit", limit], state.path());
    for (limit, told) in
        [("wall_ms=0", "1 is the least"), ("memory_bytes=1", "is the least"), ("wall_ms=10001", "the server's 10000")]
    {
        let said = add(limit);
        assert!(!said.status.success() && text(&said).contains(told), "{limit}: {}", text(&said));
    }
    assert!(text(&add("wall_ms=10001")).contains("PYRUNNER_WALL"));
}

#[test]
fn the_apis_home_is_its_own() {
    if !possible() {
        return;
    }
    let server = Host::start_with(&[], &[("HOME", "/root")]);
    let variables = std::fs::read(format!("/proc/{}/environ", server.part("api").unwrap())).unwrap();
    let own = format!("HOME={}", server.state.path().join("state").display());
    assert!(variables.split(|byte| *byte == 0).any(|one| one == own.as_bytes()), "{}", String::from_utf8_lossy(&variables));
}

#[test]
fn what_a_killed_server_leaves_is_removed_by_the_next_one() {
    if !possible() {
        return;
    }
    let mut killed = Host::start(&[]);
    let (place, daemon) = (killed.directory(), killed.part("sandbox").unwrap());
    killed.signal(Signal::KILL);
    killed.wait();
    until("its daemon ends", || (!PathBuf::from(format!("/proc/{daemon}")).exists()).then_some(()));
    let next = Host::start(&[]);
    assert!(next.directory().join("process").exists() && (next.address == killed.address || !place.exists()));
    let place = next.directory();
    assert_eq!(next.stop(), 0);
    assert!(!place.exists());
}

#[test]
fn what_a_killed_run_leaves_is_removed_by_the_next_one() {
    if !possible() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, code: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, code).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrunner"));
    command.args(["run", &file("long.py", "import time; print('on', flush=True); time.sleep(9)")]);
    let mut killed = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Read::read_exact(killed.stdout.as_mut().unwrap(), &mut [0; 2]).unwrap();
    let place = PathBuf::from(format!("/run/pyrunner/run-{}", killed.id()));
    let daemon = children(killed.id());
    assert!(place.exists() && daemon.len() == 1, "{place:?} {daemon:?}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    until("its daemon ends", || (!PathBuf::from(format!("/proc/{}", daemon[0])).exists()).then_some(()));
    // Nobody is left to remove it but the next one; any of them, of other tests too.
    let mut next = Command::new(env!("CARGO_BIN_EXE_pyrunner"));
    let done = next.args(["run", &file("short.py", "print(1)")]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "1\n", "{}", text(&done));
    assert!(!place.exists());
}
