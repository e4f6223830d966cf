//! `pyrunner bench`.

use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::host::{Host, children, possible, pyrunner, send, until};

fn bench(arguments: &[&str], places: &tempfile::TempDir) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyrunner"));
    command.args(["bench", "--json"]).args(arguments).env("TMPDIR", places.path()).env("PYRUNNER_SLOTS", "2");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn told(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_server_of_its_own_is_measured_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let places = tempfile::tempdir().unwrap();
    // The server's user has to pass through.
    std::fs::set_permissions(places.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    // Nobody waits so long: it ends when it is interrupted, and tells what there is.
    let child = bench(&["--duration", "1h", "--callers", "2"], &places);
    let server = until("its server runs", || children(child.id()).first().copied());
    until("it is asked", || has_executed(server).then_some(()));
    send(child.id(), Signal::INT);
    let found = told(child);
    assert!(found["callers"] == 2 && found["failed"] == 0, "{found}");
    let times = ["p50_ms", "p90_ms", "p99_ms", "longest_ms"].map(|name| found[name].as_f64().unwrap());
    assert!(times[0] > 0.0 && times.is_sorted() && found["executions"].as_u64().unwrap() > 0, "{found}");
    assert!(!std::path::Path::new(&format!("/proc/{server}")).exists(), "its server runs on");
    assert_eq!(std::fs::read_dir(places.path()).unwrap().count(), 0);
}

/// Whether a server has executed something: what it writes about that is in its database's log.
fn has_executed(server: u32) -> bool {
    let line = std::fs::read(format!("/proc/{server}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line.split(|byte| *byte == 0).collect();
    let state = words.windows(2).find(|pair| pair[0] == b"--state").map(|pair| String::from_utf8_lossy(pair[1]).into_owned());
    let log = state.map(|state| format!("{state}/pyrunner.db-wal"));
    log.and_then(|log| std::fs::read(log).ok()).is_some_and(|log| log.windows(9).any(|window| window == b"print(42)"))
}

#[test]
fn a_running_server_is_measured_and_failures_are_counted() {
    if !possible() {
        return;
    }
    let places = tempfile::tempdir().unwrap();
    let server = Host::start(&["--rate", "3"]);
    let url = format!("http://{}", server.address);
    let found = told(bench(&[&url, "--duration", "20s"], &places));
    assert!(found["executions"] == 3 && found["failures"]["429"].as_u64().unwrap() > 0, "{found}");
    // Nobody has a call left, so there is nothing to tell.
    let refused = pyrunner(&["bench", &url], places.path());
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && why.contains("429") && why.contains("--rate 0"), "{why}");
    for wrong in ["https://example.org", "http://example.org/execute"] {
        let refused = pyrunner(&["bench", wrong], places.path());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("http://HOST:PORT"), "{wrong}: {refused:?}");
    }
}
