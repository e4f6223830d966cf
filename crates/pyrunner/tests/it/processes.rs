//! Three processes: who has which rights, who survives whose end, and how a server ends.

use std::io::Read;
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::json;

use crate::host::{Answer, Host, children, possible, send, until};

const SLOW: &str = "import time; print('begun', flush=True); time.sleep(8); print('done')";

/// An execution that will take a while and has begun for sure.
fn begun(server: &Host) -> TcpStream {
    let body = json!({ "code": SLOW }).to_string();
    let mut stream = server.send("POST", "/execute?stream=1", &[], body.as_bytes());
    let (mut heard, mut room) = (String::new(), [0; 512]);
    while !heard.contains("begun") {
        let bytes = stream.read(&mut room).unwrap();
        assert!(bytes > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&room[..bytes]));
    }
    stream
}

#[test]
fn the_api_is_not_privileged_and_the_daemon_has_no_secrets() {
    if !possible() {
        return;
    }
    let server = Host::start(&["--user", "54321"]);
    server.run("print(1)");
    let status = |part: &str| std::fs::read_to_string(format!("/proc/{}/status", server.part(part).unwrap())).unwrap();
    let api = status("api");
    assert!(api.contains("\nUid:\t54321\t54321\t54321\t54321") && api.contains("\nGid:\t54321\t54321\t54321\t54321"), "{api}");
    assert!(api.contains("\nGroups:\t \n") || api.contains("\nGroups:\t\n"), "{api}");
    assert!(api.contains("\nCapEff:\t0000000000000000"), "{api}");
    assert!(status("sandbox").contains("\nUid:\t0\t"));
}

#[test]
fn a_killed_daemon_ends_what_ran_and_service_returns_by_itself() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    server.run("print(1)");
    let mut waiting = begun(&server);
    let daemon = server.part("sandbox").unwrap();
    send(daemon, Signal::KILL);
    let mut rest = String::new();
    waiting.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"type\":\"error\"") && rest.contains("sandbox daemon ended during the execution"), "{rest}");
    assert!(rest.contains("\"status\":503"), "{rest}");
    assert_eq!(server.run("print(2)")["output"], "2\n");
    assert_ne!(server.part("sandbox"), Some(daemon));
}

#[test]
fn a_killed_api_ends_what_ran_and_requests_meanwhile_wait_at_the_port() {
    if !possible() {
        return;
    }
    let server = Host::start(&[]);
    server.run("print(1)");
    let _waiting = begun(&server);
    let (api, daemon) = (server.part("api").unwrap(), server.part("sandbox").unwrap());
    send(api, Signal::KILL);
    assert_eq!(server.run("print(2)")["output"], "2\n");
    assert_eq!(server.part("sandbox"), Some(daemon), "the daemon goes on");
    // The daemon, not the new API, is asked: it runs nothing any more.
    until("the program has ended", || (busy_sandboxes(daemon) == 0).then_some(()));
}

/// Sandboxes in which somebody sleeps for eight seconds: the workers whose system call is a sleep.
fn busy_sandboxes(daemon: u32) -> usize {
    let sleeping = |child: &u32| {
        let call = std::fs::read_to_string(format!("/proc/{child}/wchan")).unwrap_or_default();
        call.contains("nanosleep")
    };
    children(daemon).iter().filter(|child| sleeping(child)).count()
}

#[test]
fn nothing_outlives_a_killed_supervisor() {
    if !possible() {
        return;
    }
    let mut server = Host::start(&[]);
    server.run("print(1)");
    let parts = [server.part("api").unwrap(), server.part("sandbox").unwrap()];
    server.signal(Signal::KILL);
    server.wait();
    for part in parts {
        until("a part ends", || (!std::path::Path::new(&format!("/proc/{part}")).exists()).then_some(()));
    }
    std::fs::remove_dir_all(server.directory()).ok();
}

#[test]
fn a_server_that_is_stopped_finishes_what_it_has_begun_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut server = Host::start(&[]);
    let body = json!({ "code": "import time; time.sleep(3); print('done')" }).to_string();
    let mut waiting = server.send("POST", "/execute", &[], body.as_bytes());
    server.until_running(1);
    server.signal(Signal::TERM);
    until("new connections are refused", || TcpStream::connect(server.address).is_err().then_some(()));
    let answer = Answer::read(&mut waiting);
    assert_eq!((answer.status, answer.json()["output"].as_str()), (200, Some("done\n")), "{}", server.log());
    assert_eq!(server.wait(), 0, "{}", server.log());
    assert!(!server.directory().exists());
}

#[test]
fn a_taken_port_is_told() {
    if !possible() {
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let state = tempfile::tempdir().unwrap();
    let said = crate::host::pyrunner(&["serve", "--listen", &address], state.path());
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains(&format!("cannot listen on {address}")));
}
