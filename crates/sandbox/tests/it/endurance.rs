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
    let state = || (host.descriptors(), mounts(), resident(host.pid()));
    let before = state();
    go(0, then).await;
    host.quiet().await;
    let after = state();
    assert!(after.0 <= before.0 + 16, "descriptors: {} then {}", before.0, after.0);
    assert_eq!(before.1, after.1, "mounts");
    assert!(after.2 <= before.2 + (2 << 20), "memory of the daemon: {} then {}", before.2, after.2);
}

/// Resident bytes.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
