//! Starting, stopping, outliving the server, ending.

use std::time::Duration;

use coracle_engine::{EngineError, Exit, InstanceEvent, InstanceState, PortRequest};
use coracle_engine_process::IsolationMode;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, SOON, collector, until};

const SERVER: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["GREETING"].encode())
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("ready", flush=True)
server.serve_forever()
"#;

const SLEEPER: &str = "print('ready', flush=True)\nimport time; time.sleep(600)";

const BOTH: [IsolationMode; 2] = [IsolationMode::Auto, IsolationMode::None];

async fn get(address: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn what_needs_a_container_is_refused_by_its_name() {
    let bench = Bench::new();
    let artifact = bench.python("").await;
    let mut spec = bench.spec("v1.web.1", &artifact, &["true"]);
    spec.surroundings.container.cap_add = vec!["NET_ADMIN".to_owned()];
    spec.surroundings.container.shm_size = Some(coracle_model::ByteSize::mib(1));
    let Err(EngineError::CannotStart { cause, .. }) = bench.engine.runtime.start(&spec).await else { panic!("started") };
    assert!(cause.contains("cannot honour cap_add, shm_size"), "{cause}");
    *spec.surroundings.container = coracle_model::container::ContainerSettings::default();
    spec.surroundings.container.env.insert("GREETING".to_owned(), "own".into());
    spec.command = Some("sh -c 'test \"$GREETING\" = own'".parse().unwrap());
    let cancel = CancellationToken::new();
    let sink = coracle_engine::OutputSink::discard();
    let exit = bench.engine.runtime.run(&spec, &sink, Duration::from_secs(20), &cancel).await.unwrap();
    assert!(exit.success(), "{exit}");
}

#[tokio::test]
async fn an_instance_serves_on_its_port_and_outlives_the_server() {
    for mode in BOTH {
        let mut bench = Bench::with(mode);
        let artifact = bench.python(SERVER).await;
        let mut spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
        spec.port = PortRequest::Listen(8080);
        let started = bench.start(&spec).await;
        let address = started.address().unwrap();
        assert!((20_000..30_000).contains(&address.port()));
        bench.wrote(&spec.id, "ready").await;
        assert!(get(address).await.ends_with("hello"));
        bench.reopen();
        assert_eq!(bench.engine.runtime.list().await.unwrap(), std::slice::from_ref(&started));
        assert_eq!(bench.start(&spec).await, started, "started twice");
        assert!(get(address).await.ends_with("hello"));
        bench.stop(&spec.id).await;
        assert_eq!(bench.engine.runtime.list().await.unwrap(), []);
        assert!(!bench.home().join("instances").join(spec.id.to_string()).exists());
        bench.stop(&spec.id).await;
    }
}

#[tokio::test]
async fn the_environment_is_the_given_one_and_stands_in_no_argument_vector() {
    let bench = Bench::new();
    let (exit, text) = bench.run("v1.task.1", "import os\nfor k, v in sorted(os.environ.items()): print(k, v)").await;
    assert!(exit.unwrap().success());
    assert!(text.contains("GREETING hello"), "{text}");
    for foreign in ["CARGO", "NEXTEST", "RUST"] {
        assert!(!text.contains(foreign), "{foreign} leaked: {text}");
    }
    let artifact = bench.python(SLEEPER).await;
    let spec = bench.spec("v1.task.2", &artifact, &["/usr/bin/python3", "app.py"]);
    bench.start(&spec).await;
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    for process in processes {
        let argv = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        assert!(!argv.contains("hello"), "{argv}");
    }
    bench.stop(&spec.id).await;
}

#[tokio::test]
async fn variables_in_commands_are_filled_in_at_the_start() {
    let bench = Bench::new();
    let artifact = bench.python("import sys; print(sys.argv[1:])").await;
    let mut spec = bench.spec("v1.web.1", &artifact, &["x"]);
    spec.command = Some("EXTRA=$GREETING-2 python3 app.py --bind 127.0.0.1:$PORT '$GREETING'".parse().unwrap());
    spec.port = PortRequest::Listen(8080);
    let (exit, text) = bench.run_spec(&spec).await;
    assert!(exit.unwrap().success(), "{text}");
    assert!(text.starts_with("['--bind', '127.0.0.1:2") && text.ends_with("'$GREETING']"), "{text}");
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_told_with_its_cause() {
    for mode in BOTH {
        let bench = Bench::with(mode);
        let artifact = bench.python("").await;
        let spec = bench.spec("v1.web.1", &artifact, &["no-such-program"]);
        let Err(EngineError::CannotStart { cause, .. }) = bench.engine.runtime.start(&spec).await else { panic!("started") };
        assert!(cause.contains("no-such-program: no such program"), "{cause}");
        assert_eq!(bench.engine.runtime.list().await.unwrap(), []);
        assert!(!bench.home().join("instances").join(spec.id.to_string()).exists());
        let spec = bench.spec("v1.web.1", &artifact, &["./app.py"]);
        let Err(EngineError::CannotStart { cause, .. }) = bench.engine.runtime.start(&spec).await else { panic!("started") };
        assert!(cause.contains("Permission denied"), "{cause}");
    }
}

#[tokio::test]
async fn an_unknown_artifact_is_named() {
    let bench = Bench::new();
    for id in ["shop/v9-00000000", "sha256:123", "../../etc"] {
        let spec = bench.spec("v1.web.1", &coracle_model::ArtifactId::new(id), &["true"]);
        assert!(matches!(bench.engine.runtime.start(&spec).await, Err(EngineError::NoSuchArtifact(_))), "{id}");
    }
}

#[tokio::test]
async fn an_instance_that_ended_is_seen_with_its_exit_and_told_in_events() {
    for mode in BOTH {
        let bench = Bench::with(mode);
        let mut events = bench.engine.runtime.events();
        let artifact = bench.python("import sys; print('bye'); sys.exit(7)").await;
        let spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
        bench.start(&spec).await;
        let told = tokio::time::timeout(SOON, async {
            while let Some(event) = events.next().await {
                if event == InstanceEvent::Exited(spec.id.clone()) {
                    break;
                }
            }
        });
        told.await.unwrap();
        let found = bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap();
        assert_eq!(found.state, InstanceState::Exited(Exit { code: Some(7), ..Exit::default() }));
        assert_eq!(bench.log(&spec.id).await, ["bye"]);
        // A new start is a new life.
        assert!(bench.engine.runtime.start(&spec).await.is_ok());
        bench.stop(&spec.id).await;
    }
}

#[tokio::test]
async fn an_instance_of_an_earlier_server_is_told_in_events_too() {
    let mut bench = Bench::new();
    let artifact = bench.python(SLEEPER).await;
    let spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
    bench.start(&spec).await;
    bench.wrote(&spec.id, "ready").await;
    bench.reopen();
    let mut events = bench.engine.runtime.events();
    let pid = program_pid(&bench, &spec.id);
    rustix::process::kill_process(pid, rustix::process::Signal::SEGV).unwrap();
    assert_eq!(tokio::time::timeout(SOON, events.next()).await.unwrap(), Some(InstanceEvent::Exited(spec.id.clone())));
    let found = bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap();
    assert_eq!(found.state, InstanceState::Exited(Exit { signal: Some(11), ..Exit::default() }));
}

fn shim_pid(bench: &Bench, id: &coracle_model::InstanceId) -> i32 {
    let text = std::fs::read_to_string(bench.home().join("instances").join(id.to_string()).join("pid.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    i32::try_from(record["pid"].as_i64().unwrap()).unwrap()
}

fn program_pid(bench: &Bench, id: &coracle_model::InstanceId) -> rustix::process::Pid {
    let shim = shim_pid(bench, id);
    let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    rustix::process::Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
}

/// Whether any process has this in its argument vector.
fn anybody_runs(marker: &str) -> bool {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(Result::ok)
        .any(|process| std::fs::read_to_string(process.path().join("cmdline")).is_ok_and(|argv| argv.contains(marker)))
}

/// Starts a daemon in the old way: forked twice, in a session of its own, ignoring signals; then goes on.
fn daemonising(marker: &str, then: &str) -> String {
    format!(
        r#"
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", "{marker}"])
    os._exit(0)
os.wait()
print("ready", flush=True)
{then}
"#
    )
}

#[tokio::test]
async fn descendants_that_hide_go_with_the_instance() {
    for mode in BOTH {
        let bench = Bench::with(mode);
        let marker = format!("marker-{}", uuid());
        let artifact = bench.python(&daemonising(&marker, "time.sleep(600)")).await;
        let spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
        bench.start(&spec).await;
        bench.wrote(&spec.id, "ready").await;
        until("the daemon runs", || anybody_runs(&marker)).await;
        bench.stop(&spec.id).await;
        assert!(!anybody_runs(&marker), "{mode:?}");
        // And when the program ends by itself.
        let artifact = bench.python(&daemonising(&marker, "sys.exit(3)")).await;
        let (exit, _) = bench.run_spec(&bench.spec("v1.web.2", &artifact, &["/usr/bin/python3", "app.py"])).await;
        assert_eq!(exit.unwrap().code, Some(3));
        assert!(!anybody_runs(&marker), "{mode:?}");
    }
}

#[tokio::test]
async fn a_killed_shim_takes_everything_with_it() {
    for mode in BOTH {
        let bench = Bench::with(mode);
        let marker = format!("marker-{}", uuid());
        let artifact = bench.python(&daemonising(&marker, "time.sleep(600)")).await;
        let spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
        bench.start(&spec).await;
        bench.wrote(&spec.id, "ready").await;
        let (shim, program) = (shim_pid(&bench, &spec.id), program_pid(&bench, &spec.id).as_raw_pid());
        rustix::process::kill_process(rustix::process::Pid::from_raw(shim).unwrap(), rustix::process::Signal::KILL).unwrap();
        for pid in [shim, program] {
            until("it is dead", || coracle_jail::process::Stat::of(pid).is_none_or(|stat| stat.state == 'Z')).await;
        }
        let found = bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap();
        assert_eq!(found.state, InstanceState::Exited(Exit::default()));
        bench.stop(&spec.id).await;
        assert!(!anybody_runs(&marker), "{mode:?}");
    }
}

#[tokio::test]
async fn a_program_may_end_gracefully_and_is_killed_if_it_does_not() {
    let bench = Bench::new();
    let polite = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *a: (print('bye', flush=True), sys.exit(0)))\nprint('ready', flush=True)\ntime.sleep(600)";
    let rude = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(600)";
    let (polite, rude) = (bench.python(polite).await, bench.python(rude).await);
    for (name, artifact) in [("v1.web.1", polite), ("v1.web.2", rude)] {
        let spec = bench.spec(name, &artifact, &["/usr/bin/python3", "app.py"]);
        bench.start(&spec).await;
        bench.wrote(&spec.id, "ready").await;
        let begin = std::time::Instant::now();
        bench.engine.runtime.stop(&spec.id, Duration::from_millis(600)).await.unwrap();
        let took = begin.elapsed();
        assert_eq!(took >= Duration::from_millis(600), name == "v1.web.2", "{name} took {took:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
}

#[tokio::test]
async fn a_stopped_program_is_killed_all_the_same() {
    let bench = Bench::new();
    let artifact = bench.python("import os, signal\nprint('ready', flush=True)\nos.kill(os.getpid(), signal.SIGSTOP)").await;
    let spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
    bench.start(&spec).await;
    bench.wrote(&spec.id, "ready").await;
    let stopped = tokio::time::timeout(Duration::from_secs(5), bench.engine.runtime.stop(&spec.id, Duration::from_millis(100)));
    stopped.await.unwrap().unwrap();
}

#[tokio::test]
async fn no_port_is_given_out_twice_under_parallel_starts_of_two_servers() {
    let benches = [Bench::new(), Bench::new()];
    let mut starts = Vec::new();
    let artifacts = [benches[0].python(SLEEPER).await, benches[1].python(SLEEPER).await];
    for number in 1..=6 {
        for (bench, artifact) in benches.iter().zip(&artifacts) {
            let mut spec = bench.spec(&format!("v1.web.{number}"), artifact, &["/usr/bin/python3", "app.py"]);
            spec.port = PortRequest::Listen(8080);
            starts.push(async move { bench.start(&spec).await.address().unwrap().port() });
        }
    }
    let mut ports = futures::future::join_all(starts).await;
    ports.sort_unstable();
    let count = ports.len();
    ports.dedup();
    assert_eq!(ports.len(), count);
    for bench in &benches {
        for number in 1..=6 {
            bench.engine.runtime.stop(&bench.id(&format!("v1.web.{number}")), Duration::ZERO).await.unwrap();
        }
    }
}

#[tokio::test]
async fn parallel_starts_of_one_instance_start_it_once() {
    let bench = Bench::new();
    let artifact = bench.python(SLEEPER).await;
    let spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
    let all = futures::future::join_all((0..5).map(|_| bench.start(&spec))).await;
    assert!(all.iter().all(|instance| *instance == all[0]));
    bench.stop(&spec.id).await;
}

#[tokio::test]
async fn runs_end_at_their_deadline_and_when_called_off() {
    let bench = Bench::new();
    let artifact = bench.python(SLEEPER).await;
    let spec = bench.spec("v1.release.1", &artifact, &["/usr/bin/python3", "app.py"]);
    let (sink, _) = collector();
    let late = bench.engine.runtime.run(&spec, &sink, Duration::from_millis(300), &CancellationToken::new()).await;
    assert!(matches!(late, Err(EngineError::TimedOut { .. })), "{late:?}");
    let (cancel, (sink, lines)) = (CancellationToken::new(), collector());
    let run = bench.engine.runtime.run(&spec, &sink, SOON, &cancel);
    let call_off = async {
        until("it runs", || !lines.lock().unwrap().is_empty()).await;
        cancel.cancel();
    };
    let (outcome, ()) = futures::future::join(run, call_off).await;
    assert!(matches!(outcome, Err(EngineError::Cancelled)), "{outcome:?}");
    assert_eq!(bench.engine.runtime.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_reused_pid_is_not_taken_for_the_instance() {
    let bench = Bench::new();
    let artifact = bench.python(SLEEPER).await;
    let spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
    bench.start(&spec).await;
    let shim = rustix::process::Pid::from_raw(shim_pid(&bench, &spec.id)).unwrap();
    let file = bench.home().join("instances").join(spec.id.to_string()).join("pid.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["start"] = (record["start"].as_u64().unwrap() - 1).into();
    std::fs::write(&file, record.to_string()).unwrap();
    assert!(!bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap().is_running());
    record["start"] = (record["start"].as_u64().unwrap() + 1).into();
    record["boot"] = "another".into();
    std::fs::write(&file, record.to_string()).unwrap();
    assert!(!bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap().is_running());
    std::fs::write(&file, text).unwrap();
    assert!(bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap().is_running());
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn exec_runs_beside_the_program() {
    for mode in BOTH {
        let bench = Bench::with(mode);
        let artifact = bench.python(SLEEPER).await;
        let mut spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
        spec.port = PortRequest::Listen(8080);
        let port = bench.start(&spec).await.address().unwrap().port();
        let (sink, lines) = collector();
        let program = "import os; print(os.environ['GREETING'], os.environ['PORT'], os.path.exists('app.py'), os.getuid())";
        let argv = ["/usr/bin/python3", "-c", program].map(str::to_owned);
        let exit = bench.engine.runtime.exec(&spec.id, &argv, &sink, &CancellationToken::new()).await.unwrap();
        assert!(exit.success());
        let uid = std::fs::metadata(bench.home().join("instances").join(spec.id.to_string()).join("home")).unwrap();
        let uid = std::os::unix::fs::MetadataExt::uid(&uid);
        assert_eq!(lines.lock().unwrap()[0].text, format!("hello {port} True {uid}"));
        let argv = ["/usr/bin/python3", "-c", "import sys; sys.exit(9)"].map(str::to_owned);
        let exit = bench.engine.runtime.exec(&spec.id, &argv, &sink, &CancellationToken::new()).await.unwrap();
        assert_eq!(exit.code, Some(9));
        let (cancel, (sink, lines)) = (CancellationToken::new(), collector());
        let argv = ["/usr/bin/python3", "-u", "-c", "print(1); import time; time.sleep(600)"].map(str::to_owned);
        let running = bench.engine.runtime.exec(&spec.id, &argv, &sink, &cancel);
        let call_off = async {
            until("it runs", || !lines.lock().unwrap().is_empty()).await;
            cancel.cancel();
        };
        let (outcome, ()) = futures::future::join(running, call_off).await;
        assert!(matches!(outcome, Err(EngineError::Cancelled)), "{outcome:?}");
        assert!(bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap().is_running());
        bench.stop(&spec.id).await;
        let gone = bench.engine.runtime.exec(&spec.id, &argv, &sink, &CancellationToken::new()).await;
        assert!(matches!(gone, Err(EngineError::NoSuchInstance(_))), "{gone:?}");
    }
}

#[tokio::test]
async fn a_shim_is_small_and_stats_tell_what_the_program_uses() {
    for mode in BOTH {
        let bench = Bench::with(mode);
        let artifact = bench.python("x = bytearray(40_000_000)\nprint('ready', flush=True)\nimport time; time.sleep(600)").await;
        let spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
        bench.start(&spec).await;
        bench.wrote(&spec.id, "ready").await;
        let stats = bench.engine.runtime.stats(&spec.id).await.unwrap();
        assert!((40_000_000..120_000_000).contains(&stats.memory_bytes), "{stats:?}");
        assert!(stats.cpu_us > 0, "{stats:?}");
        assert_eq!(stats.pids, 1);
        let status = std::fs::read_to_string(format!("/proc/{}/status", shim_pid(&bench, &spec.id))).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kilobytes: u64 = anonymous.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        // The rest is the program's file, which all shims and the server share.
        assert!(kilobytes < 3000, "{status}");
        bench.stop(&spec.id).await;
    }
}

fn uuid() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
}
