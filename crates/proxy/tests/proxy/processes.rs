//! The proxy as a process of its own, with signals, memory and a successor in another process.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use coracle_proxy::control::Client;
use coracle_proxy::table::Admission;
use rustix::process::{Pid, Signal};

use crate::backend::Backend;
use crate::env::{Wire, soon, table, until};
use crate::load::Load;
use crate::upgrade;

/// A process that is killed with the test.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    pub fn start(directory: &std::path::Path, address: &str, drain_ms: &str) -> Self {
        // Built beside this test: target/debug/deps/proxy-… and target/debug/examples/proxy.
        let deps = PathBuf::from(std::env::current_exe().unwrap().parent().unwrap());
        let child = Command::new(deps.parent().unwrap().join("examples/proxy"))
            .arg(address)
            .args([directory.join("control"), directory.join("state")])
            .arg(drain_ms)
            .arg(directory.join("access.log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn exits_well(&mut self) {
        until("it exits", async || self.0.try_wait().unwrap().is_some()).await;
        assert!(self.0.wait().unwrap().success());
    }

    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

pub async fn serves(client: &Client, pid: u32) {
    until("it serves", async || client.status().await.is_ok_and(|status| status.pid == pid)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrading_the_process_under_load_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("control"));
    let app = upgrade::echo_socket().await;
    let mut old = Process::start(directory.path(), "127.0.0.1:0", "10000");
    serves(&client, old.0.id()).await;
    client.publish(&table(&[("*", "/", "app")], &[("app", Admission::Open, &[("t", app.address)])])).await.unwrap();
    let http = client.status().await.unwrap().http[0];
    let mut socket = upgrade::open(http).await;
    let load = Load::on(http, 8);
    let until_more = async || {
        let before = load.answered.load(std::sync::atomic::Ordering::SeqCst);
        until("load", async || load.answered.load(std::sync::atomic::Ordering::SeqCst) > before + 100).await;
    };
    until_more().await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let new = Process::start(directory.path(), &http.to_string(), "10000");
        serves(&client, new.0.id()).await;
        until_more().await;
        kept.push(std::mem::replace(&mut old, new));
    }
    upgrade::echoes(&mut socket, "still here").await;
    assert!(kept[0].0.try_wait().unwrap().is_none(), "it has a WebSocket");
    drop(socket);
    for process in &mut kept {
        process.exits_well().await;
    }
    assert!(load.end().await > 300);
    old.signal(Signal::TERM);
    old.exits_well().await;
    assert!(!directory.path().join("control").exists());
}

#[tokio::test]
async fn signals_reopen_the_log_and_end_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("control"));
    let mut process = Process::start(directory.path(), "127.0.0.1:0", "60000");
    serves(&client, process.0.id()).await;
    let http = client.status().await.unwrap().http[0];
    let (log, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
    let mut wire = Wire::to(http).await;
    wire.get("/one").await;
    until("a line", async || std::fs::read_to_string(&log).unwrap().contains("/one")).await;
    std::fs::rename(&log, &moved).unwrap();
    process.signal(Signal::HUP);
    until("a new log", async || log.exists()).await;
    wire.get("/two").await;
    until("a line", async || std::fs::read_to_string(&log).unwrap().contains("/two")).await;
    assert!(!std::fs::read_to_string(&moved).unwrap().contains("/two"));
    process.signal(Signal::TERM);
    // The idle connection keeps it for as long as a minute; who asks twice does not want to wait.
    until("refused", async || tokio::net::TcpStream::connect(http).await.is_err()).await;
    assert!(process.0.try_wait().unwrap().is_none());
    process.signal(Signal::TERM);
    process.exits_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_predecessor_that_hangs_is_waited_for_once_and_takes_nobody_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("control"));
    let app = upgrade::echo_socket().await;
    let serving = |generation| {
        let mut table = table(&[("*", "/", "app")], &[("app", Admission::Open, &[("t", app.address)])]);
        table.generation = generation;
        table
    };
    let mut processes = vec![Process::start(directory.path(), "127.0.0.1:0", "60000")];
    serves(&client, processes[0].id()).await;
    client.publish(&serving(1)).await.unwrap();
    let http = client.status().await.unwrap().http[0].to_string();
    let (mut sockets, mut others) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // Each has something to stay for. Shortly after a hand-over the one before may still accept.
        let mut socket = upgrade::open(http.parse().unwrap()).await;
        while client.targets().await.unwrap().iter().all(|target| target.upgraded == 0) {
            others.push(std::mem::replace(&mut socket, upgrade::open(http.parse().unwrap()).await));
        }
        sockets.push(socket);
        let next = Process::start(directory.path(), &http, "60000");
        serves(&client, next.id()).await;
        processes.push(next);
    }
    // The oldest hangs: those between are not taken for hanging because of it, and nobody who brings a table waits for another.
    processes[0].signal(Signal::STOP);
    let publishing = tokio::spawn({
        let (client, table) = (client.clone(), serving(2));
        async move { client.publish(&table).await }
    });
    until("it serves by the table", async || client.table().await.unwrap().generation == 2).await;
    client.publish(&serving(3)).await.unwrap();
    publishing.await.unwrap().unwrap();
    assert_eq!(client.status().await.unwrap().predecessors, 1);
    upgrade::echoes(&mut sockets[1], "still here").await;
}

/// Killed without a word: the lock is free, the socket's file is stale, and the last table is served at once.
#[tokio::test]
async fn after_a_kill_the_next_process_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("control"));
    let app = Backend::saying("hello").await;
    let mut process = Process::start(directory.path(), "127.0.0.1:0", "1000");
    serves(&client, process.0.id()).await;
    client.publish(&table(&[("*", "/", "app")], &[("app", Admission::Open, &[("t", app.address)])])).await.unwrap();
    let http = client.status().await.unwrap().http[0];
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    let next = Process::start(directory.path(), &http.to_string(), "1000");
    serves(&client, next.0.id()).await;
    Wire::to(http).await.get("/").await.is(200, "hello");
}

/// The files of the table are the successor's, whatever its predecessor still does, and a file that is torn is another one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_on_disk_is_the_last_one_of_the_successor() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("control"));
    let (one, two) = (upgrade::echo_socket().await, Backend::saying("two").await);
    let table = |generation, app: &Backend| {
        let mut table = table(&[("*", "/", "app")], &[("app", Admission::Open, &[("t", app.address)])]);
        table.generation = generation;
        table
    };
    let mut first = Process::start(directory.path(), "127.0.0.1:0", "60000");
    serves(&client, first.id()).await;
    client.publish(&table(1, &one)).await.unwrap();
    let http = client.status().await.unwrap().http[0];
    let mut socket = upgrade::open(http).await;
    let mut second = Process::start(directory.path(), &http.to_string(), "60000");
    serves(&client, second.id()).await;
    assert_eq!(client.table().await.unwrap().generation, 1);
    client.publish(&table(2, &two)).await.unwrap();
    upgrade::echoes(&mut socket, "still here").await;
    drop(socket);
    first.exits_well().await;
    second.0.kill().unwrap();
    second.0.wait().unwrap();
    // One that starts alone serves by it; a torn file beside it is put aside.
    let torn = directory.path().join("state/table");
    std::fs::write(&torn, "coracle-table 1 20 00000000\n{").unwrap();
    let third = Process::start(directory.path(), &http.to_string(), "1000");
    serves(&client, third.id()).await;
    assert_eq!(client.table().await.unwrap().generation, 2);
    Wire::to(http).await.get("/").await.is(200, "two");
    assert_eq!(client.status().await.unwrap().unkept, None);
    assert_eq!(std::fs::read(torn.with_extension("bad")).unwrap(), b"coracle-table 1 20 00000000\n{");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("control"));
    let app = Backend::saying("hello").await;
    let process = Process::start(directory.path(), "127.0.0.1:0", "1000");
    serves(&client, process.0.id()).await;
    let names: Vec<_> = (0..10).map(|number| format!("app{number}.example.com")).collect();
    let routes: Vec<_> = names.iter().map(|name| (name.as_str(), "/", "app")).collect();
    client.publish(&table(&routes, &[("app", Admission::Open, &[("t", app.address)])])).await.unwrap();
    let http = client.status().await.unwrap().http[0];
    let mut wires = Vec::new();
    for name in names.iter().cycle().take(200) {
        let mut wire = Wire::to(http).await;
        wire.send(&format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).await;
        soon(wire.answer()).await.is(200, "hello");
        wires.push(wire);
    }
    drop(wires);
    until("it is small", async || process.resident_kib() < 8 * 1024).await;
    note(process.resident_kib());
}

/// For whoever runs the test with `--no-capture`.
#[allow(clippy::print_stderr, reason = "told to a person, not to a program")]
fn note(resident: u64) {
    eprintln!("resident: {resident} KiB");
}
