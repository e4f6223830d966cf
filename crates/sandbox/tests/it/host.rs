//! A daemon of each test's own, and the machine's view of it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_sandbox::{Collected, End, Event, Execution, Reason, Running, Sandbox};

/// How long anything may take on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with its socket in a directory of its own.
pub struct Host {
    daemon: Child,
    directory: tempfile::TempDir,
    settings: Vec<String>,
    first_uid: u32,
    pub sandbox: Sandbox,
}

/// What came of an execution.
#[derive(Debug)]
pub struct Done {
    pub out: Vec<u8>,
    pub err: Vec<u8>,
    pub files: Vec<Collected>,
    pub end: End,
}

impl Done {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Both streams and the end, for messages.
    pub fn whole(&self) -> String {
        let cut = |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..2000).unwrap_or(bytes)).into_owned();
        format!("{:?}\nstdout: {}\nstderr: {}", self.end, cut(&self.out), cut(&self.err))
    }

    #[track_caller]
    pub fn is(&self, reason: Reason) {
        assert_eq!(self.end.reason, reason, "{}", self.whole());
    }

    #[track_caller]
    pub fn says(&self, text: &str) {
        assert!(self.end.reason == Reason::Ok && self.text() == text, "expected {text:?}: {}", self.whole());
    }
}

/// Whether sandboxes can be made here; says so loudly where they cannot.
#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
pub fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "sandboxes need root, and in CI nothing may be left untried");
        eprintln!("NOT TRIED: sandboxes need root (user namespaces alone are not built yet)");
    }
    root
}

impl Host {
    /// Starts a daemon; `None` where that is not possible.
    pub async fn start(settings: &[&str]) -> Option<Self> {
        if !possible() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        // Each daemon has users of its own, so that a test sees only its own processes.
        let first_uid = 1_900_000_000 + (std::process::id() % 50_000) * 1000;
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let daemon = start_daemon(&directory.path().join("socket"), &settings, first_uid);
        let sandbox = connect(&directory.path().join("socket")).await;
        Some(Self { daemon, directory, settings, first_uid, sandbox })
    }

    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Runs a program to its end.
    pub async fn run(&self, execution: &Execution) -> Done {
        finish(self.sandbox.execute(execution).await.unwrap()).await
    }

    pub async fn python(&self, code: &str) -> Done {
        self.run(&Execution::new("default", code)).await
    }

    /// Ends the daemon without warning and starts another one.
    pub async fn replace(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = start_daemon(&self.directory.path().join("socket"), &self.settings, self.first_uid);
    }

    /// Ends the daemon as an administrator would.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait().await
    }

    /// Waits for the daemon's end.
    pub async fn wait(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        until("the daemon has ended", || {
            status = self.daemon.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    /// The processes of the machine that belong to this daemon's sandboxes: pid, user and state.
    pub fn inhabitants(&self) -> Vec<(u32, u32, char)> {
        let users = self.first_uid..self.first_uid + 1000;
        processes().into_iter().filter(|(_, uid, _)| users.contains(uid)).collect()
    }

    /// Children of the daemon that are zombies.
    pub fn zombies(&self) -> usize {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid())).unwrap_or_default();
        let state = |pid: &str| {
            Some(std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(')')?.1.trim().chars().next()? == 'Z')
        };
        children.split_whitespace().filter(|pid| state(pid) == Some(true)).count()
    }

    /// The daemon's open files, without those that each of its seats keeps.
    pub fn descriptors(&self) -> usize {
        let group = coracle_sandbox::daemon::group_of(&self.directory.path().join("socket"));
        let seats = coracle_jail::Hierarchy::detect().children(&group).len();
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map(Iterator::count).unwrap_or(0);
        // In version 1 the doors of four hierarchies and three meters.
        open.saturating_sub(7 * seats)
    }

    /// The cgroups of this daemon's sandboxes that have a process in them.
    pub fn busy_groups(&self) -> usize {
        let hierarchy = coracle_jail::Hierarchy::detect();
        let own = self.inhabitants();
        let families = hierarchy.children("coracle-sandbox");
        let groups = families.iter().flat_map(|family| hierarchy.children(family)).filter_map(|name| hierarchy.find(&name));
        groups.filter(|group| group.pids().iter().any(|pid| own.iter().any(|(one, _, _)| one == pid))).count()
    }

    /// Waits until nothing runs but what waits for an execution: one worker in each waiting slot, asleep.
    pub async fn quiet(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = self.sandbox.health().await.unwrap();
            let images = self.sandbox.images().await.unwrap();
            let ready: u32 = images.iter().map(|image| image.ready).sum();
            let full = images.iter().all(|image| image.ready == image.slots || image.trouble.is_some());
            let (inhabitants, zombies) = (self.inhabitants(), self.zombies());
            let settled = health.running == 0 && full && inhabitants.len() == ready as usize && zombies == 0;
            if settled && self.busy_groups() == ready as usize {
                return;
            }
            assert!(Instant::now() < deadline, "{health:?} {images:?} {inhabitants:?} {zombies} zombies");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
        let hierarchy = coracle_jail::Hierarchy::detect();
        let parent = coracle_sandbox::daemon::group_of(&self.directory.path().join("socket"));
        for name in hierarchy.children(&parent).into_iter().chain([parent]) {
            if let Some(group) = hierarchy.find(&name) {
                group.kill(PATIENCE);
                group.remove(PATIENCE).ok();
            }
        }
    }
}

fn start_daemon(socket: &std::path::Path, settings: &[String], first_uid: u32) -> Child {
    let program = example();
    Command::new(&program)
        .arg("daemon")
        .arg(socket)
        .arg(format!("uid={first_uid}"))
        .args(settings)
        .env("CORACLE_TEST_SECRET", "daemon-secret")
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo build -p coracle-sandbox --examples` makes it", program.display()))
}

/// The example is built with the tests, beside them.
fn example() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(std::path::Path::parent).unwrap().join("examples/sandbox")
}

/// Connects when the daemon listens.
pub async fn connect(socket: &std::path::Path) -> Sandbox {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Sandbox::connect(socket).await {
            Ok(sandbox) => return sandbox,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads an execution to its end.
pub async fn finish(mut running: Running) -> Done {
    let (mut out, mut err, mut files) = (Vec::new(), Vec::new(), Vec::new());
    let all = async {
        while let Some(event) = running.next().await.unwrap() {
            match event {
                Event::Started { .. } => {}
                Event::Stdout(bytes) => out.extend_from_slice(&bytes),
                Event::Stderr(bytes) => err.extend_from_slice(&bytes),
                Event::File(file) => files.push(file),
                Event::End(end) => return end,
            }
        }
        panic!("no end")
    };
    let end = tokio::time::timeout(PATIENCE, all).await.expect("an execution has an end");
    Done { out, err, files, end }
}

/// Waits for standard output to contain a text.
pub async fn until_said(running: &mut Running, text: &str) {
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains(text) {
        let next = tokio::time::timeout(PATIENCE, running.next()).await.expect("something is said").unwrap();
        match next {
            Some(Event::Stdout(bytes)) => said.extend_from_slice(&bytes),
            Some(Event::End(end)) => panic!("{end:?} after {}", String::from_utf8_lossy(&said)),
            None => panic!("no end"),
            Some(_) => {}
        }
    }
}

/// Waits until something is true.
pub async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the machine has mounted where sandboxes have mounts of their own. Other places are others' affair.
pub fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = ["/", "/work", "/tmp", "/dev", "/dev/shm", "/proc", "/usr", "/etc"];
    let ours = |line: &&str| line.split(' ').nth(4).is_some_and(|place| places.contains(&place) || place.contains("coracle"));
    text.lines().filter(ours).map(str::to_owned).collect()
}

/// Every process of the machine: pid, user, state.
fn processes() -> Vec<(u32, u32, char)> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let uid = field("Uid:")?.split_whitespace().next()?.parse().ok()?;
        Some((pid, uid, field("State:")?.chars().next()?))
    })
    .collect()
}
