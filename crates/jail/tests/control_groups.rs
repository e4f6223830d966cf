//! Control groups of this machine, with real processes in them. Needs a hierarchy that may be written to.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_jail::{GroupLimits, Hierarchy};

/// The machine's hierarchy, and a name of this test's own in it; nothing where there is none.
#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
fn hierarchy(test: &str) -> Option<(Hierarchy, String)> {
    match Hierarchy::detect() {
        Hierarchy::None { why } => {
            eprintln!("SKIPPED: {why}");
            None
        }
        found => Some((found, format!("coracle-jail-test/{}-{test}", std::process::id()))),
    }
}

/// A program that waits for a line before it does anything.
fn waiting(program: &str) -> Child {
    let program = format!("input()\n{program}");
    Command::new("/usr/bin/python3").args(["-c", &program]).stdin(Stdio::piped()).spawn().unwrap()
}

fn release(child: &mut Child) {
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
}

#[test]
fn what_is_in_a_group_is_counted_killed_and_removed() {
    let Some((hierarchy, name)) = hierarchy("kill") else { return };
    let limits = GroupLimits { memory: Some(64 << 20), cpu_milli: Some(500), pids: Some(10) };
    let group = hierarchy.create(&name, &limits).unwrap();
    let mut child = waiting("");
    group.add(child.id()).unwrap();
    assert_eq!(group.pids(), [child.id()]);
    assert_eq!(group.stats().pids, 1);
    assert!(hierarchy.children("coracle-jail-test").contains(&name));
    assert!(group.remove(Duration::ZERO).is_err(), "removed with a process in it");
    assert!(hierarchy.create(&name, &limits).is_ok(), "limits may be set again");
    assert!(group.kill(Duration::from_secs(5)));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    group.remove(Duration::from_secs(5)).unwrap();
    group.remove(Duration::ZERO).unwrap();
    assert!(hierarchy.find(&name).is_none());
}

#[test]
fn a_group_with_an_empty_one_in_it_is_in_use() {
    let Some((hierarchy, name)) = hierarchy("above") else { return };
    let below = hierarchy.create(&format!("{name}/below"), &GroupLimits::default()).unwrap();
    let above = hierarchy.find(&name).unwrap();
    above.remove_if_unused();
    assert_eq!(hierarchy.children(&name), [format!("{name}/below")], "somebody is about to join it");
    below.remove_if_unused();
    above.remove_if_unused();
    assert!(hierarchy.find(&name).is_none());
}

#[test]
fn groups_are_made_while_somebody_removes_those_above_that_are_empty() {
    let Some((hierarchy, name)) = hierarchy("race") else { return };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                hierarchy.find(&name).iter().for_each(coracle_jail::Group::remove_if_unused);
            }
        });
        let made: Result<Vec<_>, _> = (0..20)
            .map(|number| {
                let group = hierarchy.create(&format!("{name}/{number}"), &GroupLimits::default())?;
                let mut child = waiting("");
                let joined = group.add(child.id());
                release(&mut child);
                child.wait().unwrap();
                group.remove(Duration::from_secs(5)).and(joined)
            })
            .collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        made.unwrap();
    });
}

#[test]
fn memory_beyond_the_limit_is_refused_by_killing_and_counted() {
    let Some((hierarchy, name)) = hierarchy("memory") else { return };
    let group = hierarchy.create(&name, &GroupLimits { memory: Some(32 << 20), ..GroupLimits::default() }).unwrap();
    let mut child = waiting("x = bytearray(100_000_000)");
    group.add(child.id()).unwrap();
    release(&mut child);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    assert!(group.stats().oom_kills > 0, "{:?}", group.stats());
    group.remove(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_fork_bomb_is_overtaken() {
    let Some((hierarchy, name)) = hierarchy("bomb") else { return };
    let group = hierarchy.create(&name, &GroupLimits { pids: Some(40), ..GroupLimits::default() }).unwrap();
    let mut child = waiting("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass");
    group.add(child.id()).unwrap();
    release(&mut child);
    let deadline = Instant::now() + Duration::from_secs(20);
    while group.stats().pids < 40 {
        assert!(Instant::now() < deadline, "{:?}", group.stats());
        std::thread::yield_now();
    }
    assert!(group.kill(Duration::from_secs(10)));
    child.wait().unwrap();
    group.remove(Duration::from_secs(5)).unwrap();
}

#[test]
fn this_process_joins_through_the_doors_of_a_group() {
    let Some((hierarchy, name)) = hierarchy("doors") else { return };
    let group = hierarchy.create(&name, &GroupLimits::default()).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    let doors: Vec<String> = group
        .doors()
        .unwrap()
        .iter()
        .map(|door| std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(door))).unwrap())
        .map(|path| path.display().to_string())
        .collect();
    let program = "import sys\nfor door in sys.argv[1:]: open(door, 'w').write('0')\nprint(open('/proc/self/cgroup').read())";
    let output = command.args(["-c", program]).args(&doors).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert_eq!(text.matches(&format!("/{name}")).count(), doors.len(), "{text}");
    group.remove(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_meter_counts_from_its_start() {
    let Some((hierarchy, name)) = hierarchy("meter") else { return };
    let group = hierarchy.create(&name, &GroupLimits::default()).unwrap();
    let mut meter = group.meter();
    let mut child = waiting("x = b'x' * 20_000_000\nfor n in range(3_000_000): pass\nprint(flush=True)\ninput()");
    group.add(child.id()).unwrap();
    meter.start();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while meter.cpu_us() < 10_000 || meter.memory_peak() < 20_000_000 {
        assert!(Instant::now() < deadline, "{meter:?} {} {}", meter.cpu_us(), meter.memory_peak());
        std::thread::yield_now();
    }
    assert_eq!(meter.oom_kills(), 0);
    let used = meter.cpu_us();
    meter.start();
    assert!(meter.cpu_us() < used, "{} and {used}", meter.cpu_us());
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap();
    group.remove(Duration::from_secs(5)).unwrap();
}
