//! Many executions of all kinds, and nothing left of them.

use coracle_sandbox::{Execution, Reason};

use crate::host::{Host, Way, finish, mounts};

#[tokio::test]
async fn many_runs_leave_nothing_behind() {
    let Some(host) = Host::start(&["slots=4", "cores=1000", "copies=200"]).await else { return };
    leave_nothing(&host, 100, 300).await;
}

#[tokio::test]
#[ignore = "soak: minutes"]
async fn ten_thousand_runs_leave_nothing_behind() {
    let Some(host) = Host::start(&["slots=4", "cores=1000", "copies=500"]).await else { return };
    leave_nothing(&host, 500, 10_000).await;
}

#[tokio::test]
async fn many_runs_of_an_ordinary_user_leave_nothing_behind() {
    if Way::all().contains(&Way::User) {
        leave_nothing(&Host::start_as(Way::User, &["slots=4", "cores=1000", "copies=50"]).await, 60, 120).await;
    }
}

#[tokio::test]
async fn many_containers_leave_nothing_behind() {
    if Way::all().contains(&Way::Docker) {
        leave_nothing(&Host::start_as(Way::Docker, &["slots=4", "cores=1000", "patience=60000"]).await, 16, 24).await;
    }
}

/// Runs some to get what stays anyway, then more, and compares.
#[expect(clippy::print_stdout, reason = "figures for whoever looks at the soak")]
async fn leave_nothing(host: &Host, first: usize, then: usize) {
    let mixed = |number: usize| {
        let (code, reason) = match number % 8 {
            0 => ("import os\nfor _ in range(20):\n    if os.fork() == 0: os.setsid(); import time; time.sleep(100)", Reason::Ok),
            1 => ("open('x', 'wb').write(bytes(1 << 20)); open('/dev/shm/x', 'w').write('x')", Reason::Ok),
            2 => ("1/0", Reason::ExitNonzero),
            3 => ("import os; os.kill(os.getpid(), 9)", Reason::Signal),
            4 => ("import time; time.sleep(100)", Reason::Timeout),
            5 => ("x = bytearray(100 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1", Reason::Oom),
            _ => ("print('x' * 3000)", Reason::Ok),
        };
        let mut execution = Execution::new("default", code);
        if reason == Reason::Timeout {
            execution.limits.wall = Some(std::time::Duration::from_millis(50));
        }
        if reason == Reason::Oom {
            execution.limits.memory_bytes = Some(30 << 20);
        }
        (execution, reason)
    };
    // The first ones make seats and connections that stay.
    let go = |from: usize, to: usize| {
        let tasks: Vec<_> = (0..4_usize)
            .map(|task| {
                let (sandbox, mine) =
                    (host.sandbox.clone(), (from..to).filter(move |number| number % 4 == task).map(mixed).collect::<Vec<_>>());
                tokio::spawn(async move {
                    for (execution, reason) in mine {
                        let done = finish(sandbox.execute(&execution).await.unwrap()).await;
                        assert_eq!(done.end.reason, reason, "{}", done.whole());
                    }
                })
            })
            .collect();
        async move {
            for task in tasks {
                task.await.unwrap();
            }
        }
    };
    go(0, first).await;
    host.quiet().await;
    let before = State::of(host);
    go(0, then).await;
    host.quiet().await;
    let after = State::of(host);
    // Seen with --no-capture, for whoever wants the figures.
    println!("after {first} runs {before:?}\nafter {then} more {after:?}");
    assert!(after.descriptors <= before.descriptors + 16, "{before:?} {after:?}");
    assert_eq!(before.mounts, after.mounts);
    assert_eq!(before.files, after.files);
    // A few groups more may be seats that were not needed before; there are no more than executions and slots at a time.
    assert!(after.groups <= 80 && after.processes <= before.processes + 2, "{before:?} {after:?}");
    // What each run leaves behind is looked for: 2 MB over 10,000 runs would be 200 bytes of each. Over a few, what the allocator
    // keeps for threads that were not needed before is more than that.
    let noise = if then < 1000 { 8 << 20 } else { 2 << 20 };
    assert!(after.memory <= before.memory + noise, "{before:?} {after:?}");
}

/// What a daemon has while it waits.
#[derive(Debug)]
struct State {
    /// Its own and its children's.
    processes: usize,
    descriptors: usize,
    mounts: Vec<String>,
    /// Directories of its groups in one hierarchy.
    groups: usize,
    files: Vec<std::ffi::OsString>,
    /// Private bytes of the daemon and of the maker, which serve all runs.
    memory: u64,
}

impl State {
    fn of(host: &Host) -> Self {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.pid())).unwrap();
        let children: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        // The first child is the maker, where there is one.
        let long = [Some(host.pid()), children.first().copied()].into_iter().flatten();
        let mut files: Vec<_> = std::fs::read_dir(host.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        let group = coracle_sandbox::daemon::group_of(&host.directory().join("socket"));
        Self {
            processes: 1 + children.len(),
            descriptors: host.descriptors(),
            mounts: mounts(),
            groups: coracle_jail::Hierarchy::detect().children(&group).len(),
            files,
            memory: long.map(private).sum(),
        }
    }
}

/// Bytes that are a process's own: what a copy shares with its original is not counted twice.
fn private(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    text.lines().filter(|line| line.starts_with("Private_")).filter_map(field).sum::<u64>() * 1024
}
