//! What instances cannot do. Meaningful as root only; without root the ordinary user's tests say what is missing.

use coracle_engine::{InstanceState, PortRequest};
use coracle_model::{ByteSize, Cpus, Limits};

use crate::bench::{Bench, is_root, skipped, until};

/// Skips loudly where the means are missing.
macro_rules! needs_root {
    () => {
        if !is_root() {
            skipped("needs root");
            return;
        }
    };
}

#[tokio::test]
async fn an_instance_sees_its_own_processes_only_and_is_nobody() {
    needs_root!();
    let bench = Bench::new();
    let program = r#"
import os
print("pids", sorted(int(p) for p in os.listdir("/proc") if p.isdigit()))
print("uid", os.getuid() >= 1_900_000_000, os.getgroups())
status = open("/proc/self/status").read()
for key in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs"):
    print(key, [l.split()[1] for l in status.splitlines() if l.startswith(key)][0])
try: os.kill(1, 9); print("killed the shim")
except PermissionError: print("may not kill the shim")
try: print(open("/proc/1/environ").read())
except PermissionError: print("may not look at the shim")
"#;
    let (exit, text) = bench.run("v1.task.1", program).await;
    assert!(exit.unwrap().success(), "{text}");
    let zero = "0000000000000000";
    let expected = format!(
        "pids [1, 2]\nuid True []\nCapEff {zero}\nCapPrm {zero}\nCapBnd {zero}\nNoNewPrivs 1\nmay not kill the shim\nmay not look at the shim"
    );
    assert_eq!(text, expected);
}

#[tokio::test]
async fn an_instance_writes_nowhere_but_in_its_own_places() {
    needs_root!();
    let bench = Bench::new();
    let other = bench.python("secret = 'of the other'").await;
    let other_tree = bench.home().join("slugs").join(other.as_str()).join("tree/app.py");
    let marker = format!("/tmp/coracle-private-{}", std::process::id());
    let program = format!(
        r#"
import os
def attempt(name, act):
    try: act(); print(name, "works")
    except OSError as error: print(name, "fails")
attempt("etc", lambda: open("/etc/coracle-test", "w"))
attempt("slug", lambda: open("app.py", "a"))
attempt("beside", lambda: open("new", "w"))
attempt("tmp", lambda: open("{marker}", "w"))
attempt("shm", lambda: open("/dev/shm/coracle-test", "w"))
attempt("home", lambda: open(os.environ["HOME"] + "/x", "w"))
attempt("other slug", lambda: open("{other}"))
attempt("state", lambda: os.listdir("{home}/instances"))
attempt("task", lambda: open("{home}/instances/shop.v1.task.1/pid.json"))
attempt("users", lambda: open("{home}/users.json"))
attempt("docker", lambda: __import__("socket").socket(1).connect("/run/docker.sock"))
attempt("remount", lambda: os.system("mount -o remount,rw / 2>/dev/null") and (_ for _ in ()).throw(OSError()))
"#,
        other = other_tree.display(),
        home = bench.home().display(),
    );
    let (exit, text) = bench.run("v1.task.1", &program).await;
    assert!(exit.unwrap().success(), "{text}");
    let works: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(" works")).collect();
    assert_eq!(works, ["tmp", "shm", "home", "state"], "{text}");
    assert!(!std::path::Path::new(&marker).exists());
}

#[tokio::test]
async fn memory_beyond_the_limit_ends_the_instance_and_is_named() {
    needs_root!();
    let bench = Bench::new();
    let artifact = bench.python("x = []\nwhile True: x.append(bytearray(10_000_000))").await;
    let mut spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
    spec.limits = Limits { memory: Some(ByteSize::mib(64)), ..Limits::default() };
    let (exit, _) = bench.run_spec(&spec).await;
    let exit = exit.unwrap();
    assert!(exit.out_of_memory && exit.signal == Some(9), "{exit:?}");
}

#[tokio::test]
async fn a_fork_bomb_stays_within_its_limit_and_goes_when_stopped() {
    needs_root!();
    let bench = Bench::new();
    let program = r#"
import os, time
count = 0
try:
    while True:
        if os.fork() == 0: time.sleep(600)
        count += 1
except OSError: print("stopped at", count, flush=True)
time.sleep(600)
"#;
    let artifact = bench.python(program).await;
    let mut spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
    spec.limits = Limits { pids: 20, ..Limits::default() };
    bench.start(&spec).await;
    bench.wrote(&spec.id, "stopped at 19").await;
    assert_eq!(bench.engine.runtime.stats(&spec.id).await.unwrap().pids, 20);
    bench.stop(&spec.id).await;
}

#[tokio::test]
async fn a_delegated_cgroup_can_be_divided_but_not_made_larger() {
    needs_root!();
    let bench = Bench::new();
    let program = r#"
import os, subprocess, time
places = {}
for line in open("/proc/self/cgroup"):
    _, controllers, path = line.strip().split(":", 2)
    for mount in map(str.split, open("/proc/self/mountinfo")):
        kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
        wanted = kind == "cgroup2" if not controllers else kind == "cgroup" and controllers.split(",")[0] in options
        if wanted and os.access(mount[4] + path, os.W_OK): places[controllers] = mount[4] + path
memory = next(place for names, place in places.items() if names in ("", "memory"))
os.mkdir(memory + "/part")
child = subprocess.Popen(["sleep", "600"])
open(memory + "/part/cgroup.procs", "w").write(str(child.pid))
print("moved", str(child.pid) in open(memory + "/part/cgroup.procs").read().split())
for name in "memory.limit_in_bytes", "memory.max":
    try: open(memory + "/" + name, "w").write("1000000000"); print("raised")
    except OSError: print("its limit stays")
try: os.mkdir(os.path.dirname(memory) + "/beside"); print("made one beside")
except OSError: print("nothing beside", flush=True)
time.sleep(600)
"#;
    let artifact = bench.python(program).await;
    let mut spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
    spec.limits = Limits { memory: Some(ByteSize::mib(64)), delegate_cgroup: true, ..Limits::default() };
    bench.start(&spec).await;
    bench.wrote(&spec.id, "nothing beside").await;
    let log = bench.log(&spec.id).await;
    assert_eq!(log, ["moved True", "its limit stays", "its limit stays", "nothing beside"]);
    bench.stop(&spec.id).await;
    bench.engine.runtime.remove_app(&bench.app).await.unwrap();
    until("no cgroup is left", || bench.groups().is_empty()).await;
}

#[tokio::test]
async fn processor_time_is_capped() {
    needs_root!();
    let bench = Bench::new();
    let program = "import time\nbegin = time.monotonic()\nwhile time.monotonic() - begin < 1: pass\nprint(time.process_time())";
    let artifact = bench.python(program).await;
    let mut spec = bench.spec("v1.task.1", &artifact, &["/usr/bin/python3", "app.py"]);
    spec.limits = Limits { cpus: Some(Cpus::milli(250)), ..Limits::default() };
    let (exit, text) = bench.run_spec(&spec).await;
    assert!(exit.unwrap().success());
    let used: f64 = text.parse().unwrap();
    assert!(used < 0.6, "{used} s of processor time in a second");
}

#[tokio::test]
async fn volumes_outlive_instances_and_are_seen_where_they_are_wanted() {
    let bench = Bench::new();
    let program = "import os\npath = os.environ['CORACLE_VOLUME_DATA'] + '/count'\n\
        n = int(open(path).read()) if os.path.exists(path) else 0\nopen(path, 'w').write(str(n + 1))\nprint(path, n + 1)";
    let artifact = bench.python(program).await;
    for (round, wanted) in [(1, "/var/lib/coracle-volume-test/data"), (2, "/coracle-volume-test"), (3, "/srv")] {
        let mut spec = bench.spec("v1.task.1", &artifact, &["/usr/bin/python3", "app.py"]);
        spec.volumes = vec![format!("data:{wanted}").parse().unwrap()];
        let (exit, text) = bench.run_spec(&spec).await;
        assert!(exit.unwrap().success(), "{text}");
        let place = if is_root() { wanted.to_owned() } else { bench.home().join("volumes/shop/data").display().to_string() };
        assert_eq!(text, format!("{place}/count {round}"));
    }
    for path in ["/var/lib/coracle-volume-test", "/coracle-volume-test"] {
        assert!(!std::path::Path::new(path).exists(), "{path} was made on the machine");
    }
}

#[tokio::test]
async fn nothing_is_left_of_an_app_that_is_removed() {
    let bench = Bench::new();
    let artifact = bench.python("print('ready', flush=True)\nimport time; time.sleep(600)").await;
    for number in 1..=2 {
        let mut spec = bench.spec(&format!("v1.web.{number}"), &artifact, &["/usr/bin/python3", "app.py"]);
        spec.port = PortRequest::Listen(80);
        spec.volumes = vec!["data:/srv".parse().unwrap()];
        bench.start(&spec).await;
    }
    // Others mount and unmount meanwhile; what is theirs does not bear this place's name.
    let own = bench.dir.path().display().to_string();
    let mounts = || {
        let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().filter(|line| line.contains(&own)).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = mounts();
    bench.engine.runtime.remove_app(&bench.app).await.unwrap();
    bench.engine.builder.prune(&bench.app, &[]).await.unwrap();
    assert_eq!(mounts(), before);
    let left: Vec<_> = walkdir::WalkDir::new(bench.home())
        .into_iter()
        .filter_map(Result::ok)
        .map(|entry| entry.path().strip_prefix(bench.home()).unwrap().display().to_string())
        .filter(|path| path.contains("shop"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    until("no cgroup is left", || bench.groups().is_empty()).await;
}

#[tokio::test]
async fn the_engine_says_what_is_enforced() {
    let bench = Bench::new();
    let isolation = bench.engine.runtime.isolation();
    if is_root() {
        assert!(isolation.enforced.iter().any(|line| line == "own user"), "{isolation:?}");
        assert!(isolation.enforced.iter().any(|line| line.starts_with("memory limit (cgroup v")), "{isolation:?}");
        assert_eq!(isolation.missing.len(), 1, "{isolation:?}");
    } else {
        assert!(isolation.missing.iter().any(|line| line == "own user: needs root"), "{isolation:?}");
    }
}

#[tokio::test]
async fn a_kernel_that_kills_a_child_does_not_end_the_program() {
    needs_root!();
    // Version 2 ends the whole group; version 1 leaves the choice to the program.
    let bench = Bench::new();
    let program = r#"
import os, time
child = os.fork()
if child == 0:
    x = []
    while True: x.append(bytearray(10_000_000))
_, status = os.waitpid(child, 0)
print("child", status, flush=True)
"#;
    let artifact = bench.python(program).await;
    let mut spec = bench.spec("v1.web.1", &artifact, &["/usr/bin/python3", "app.py"]);
    spec.limits = Limits { memory: Some(ByteSize::mib(64)), ..Limits::default() };
    bench.start(&spec).await;
    let mut state = bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap().state;
    let deadline = tokio::time::Instant::now() + crate::bench::SOON;
    while !matches!(state, InstanceState::Exited(_)) {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        state = bench.engine.runtime.inspect(&spec.id).await.unwrap().unwrap().state;
    }
    let InstanceState::Exited(exit) = state else { panic!("{state:?}") };
    let by_choice = exit.code == Some(0) && !exit.out_of_memory;
    assert!(by_choice || exit.out_of_memory, "{exit:?}");
    bench.stop(&spec.id).await;
}
