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
    way: Way,
    /// The cgroups that an ordinary user was given, and who he is.
    delegated: Option<Delegated>,
    pub sandbox: Sandbox,
}

/// How a daemon isolates, and as whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Zygote,
    Exec,
    Docker,
    /// As an ordinary user with cgroups of his own.
    User,
}

/// The Docker image that containers are made from.
pub const DOCKER_IMAGE: &str = "python:3.11-slim";

impl Way {
    /// Those that this machine allows; says so loudly where one is missing.
    #[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
    pub fn all() -> Vec<Self> {
        if !possible() {
            return Vec::new();
        }
        let docker = Command::new("docker").args(["image", "inspect", DOCKER_IMAGE]).output();
        let docker = docker.is_ok_and(|output| output.status.success());
        if !docker {
            eprintln!("NOT TRIED: no Docker engine with {DOCKER_IMAGE}");
        }
        let mut ways = vec![Self::Zygote, Self::Exec, Self::User];
        ways.extend(docker.then_some(Self::Docker));
        ways
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Zygote => "mode=zygote",
            Self::Exec => "mode=exec",
            Self::Docker => "mode=docker",
            Self::User => "mode=auto",
        }
    }
}

/// What an administrator gives to an ordinary user: a cgroup in each hierarchy.
#[derive(Debug)]
struct Delegated {
    uid: u32,
    places: Vec<PathBuf>,
}

impl Delegated {
    fn new(uid: u32) -> Self {
        let name = format!("coracle-test-user-{}-{uid}", std::process::id());
        coracle_jail::Hierarchy::detect().create(&name, &coracle_jail::GroupLimits::default()).unwrap();
        let mounts = ["memory", "cpu", "cpuacct", "cpu,cpuacct", "pids", "", "unified"];
        let places = mounts.map(|mount| PathBuf::from("/sys/fs/cgroup").join(mount).join(&name));
        let places: Vec<PathBuf> = places.into_iter().filter(|place| place.is_dir()).collect();
        for place in &places {
            let owner = format!("{uid}:{uid}");
            assert!(Command::new("chown").args(["-R", &owner]).arg(place).status().unwrap().success());
        }
        Self { uid, places }
    }

    /// Starts a program as the user, in his cgroups.
    fn command(&self, program: &std::path::Path) -> Command {
        let joined = self.places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(" ");
        let uid = self.uid.to_string();
        let mut command = Command::new("sh");
        command.args(["-c", "for place in $1; do echo 0 > $place/cgroup.procs; done; shift; exec \"$@\"", "sh", &joined]);
        command.args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]).arg(program);
        command
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for place in &self.places {
            // Deepest first; what is still busy is somebody's failure to clean up, which tests look for elsewhere.
            Command::new("find").arg(place).args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]).status().ok();
        }
    }
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
        Some(Self::start_as(Way::Zygote, settings).await)
    }

    /// Starts a daemon that isolates in one of the ways that are possible here.
    pub async fn start_as(way: Way, settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Each daemon has users of its own, so that a test sees only its own processes.
        let number = std::process::id() % 50_000;
        let first_uid = 1_900_000_000 + number * 1000;
        let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        settings.push(way.setting().to_owned());
        let delegated = (way == Way::User).then(|| Delegated::new(700_000 + number));
        if let Some(Delegated { uid, .. }) = &delegated {
            std::os::unix::fs::chown(directory.path(), Some(*uid), Some(*uid)).unwrap();
        }
        let daemon = start_daemon(&directory.path().join("socket"), &settings, first_uid, delegated.as_ref());
        if let Some(Delegated { uid, .. }) = &delegated {
            // A user's daemon serves that user alone: from here on, this thread connects as him.
            become_effectively(*uid);
        }
        let sandbox = connect(&directory.path().join("socket")).await;
        Self { daemon, directory, settings, first_uid, way, delegated, sandbox }
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
        // Only root can start something as somebody else.
        become_effectively(0);
        self.daemon =
            start_daemon(&self.directory.path().join("socket"), &self.settings, self.first_uid, self.delegated.as_ref());
        if let Some(Delegated { uid, .. }) = &self.delegated {
            become_effectively(*uid);
        }
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
        if self.way == Way::User {
            // They all are one user of the machine, the daemon included.
            let group = self.group();
            let is_in = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(&group));
            return processes().into_iter().filter(|(pid, _, _)| is_in(*pid)).collect();
        }
        let users = self.first_uid..self.first_uid + 1000;
        processes().into_iter().filter(|(_, uid, _)| users.contains(uid)).collect()
    }

    fn group(&self) -> String {
        coracle_sandbox::daemon::group_of(&self.directory.path().join("socket"))
    }

    /// The directories of this daemon's groups, in whichever hierarchy of the machine.
    pub fn groups_anywhere(&self) -> Vec<PathBuf> {
        let output =
            Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-path"]).arg(format!("*/{}*", self.group())).output();
        String::from_utf8_lossy(&output.unwrap().stdout).lines().map(PathBuf::from).collect()
    }

    /// Containers that the daemon has made and not removed.
    fn containers(&self) -> usize {
        let filter = format!("label=coracle.sandbox={}", self.group());
        let output = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().count()
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
        let is_busy = |name: &String| {
            hierarchy.find(name).is_some_and(|group| group.pids().iter().any(|pid| own.iter().any(|(one, _, _)| one == pid)))
        };
        let seats = families.iter().flat_map(|family| hierarchy.children(family));
        // The engine puts a group of its own below a seat's.
        seats.filter(|seat| is_busy(seat) || hierarchy.children(seat).iter().any(is_busy)).count()
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
            // In a container somebody waits for the worker.
            let each = if self.way == Way::Docker { 2 } else { 1 };
            let settled = health.running == 0 && full && inhabitants.len() == each * ready as usize && zombies == 0;
            let groups = || self.way == Way::User || self.busy_groups() == ready as usize;
            let containers = || self.way != Way::Docker || self.containers() == ready as usize;
            if settled && groups() && containers() {
                return;
            }
            let (groups, containers) = (self.busy_groups(), if self.way == Way::Docker { self.containers() } else { 0 });
            assert!(
                Instant::now() < deadline,
                "{inhabitants:?} {zombies} zombies, {groups} groups, {containers} containers, {images:?} {health:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.delegated.is_some() {
            become_effectively(0);
        }
        // A container outlives a daemon that is killed, until the next one; so this one is asked to end.
        if self.way == Way::Docker
            && let Some(pid) = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
            self.daemon.wait().ok();
        }
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

/// Makes this thread somebody else for everything that asks who one is, and keeps the way back.
fn become_effectively(uid: u32) {
    let uid = rustix::process::Uid::from_raw(uid);
    let root = rustix::process::Uid::ROOT;
    rustix::thread::set_thread_res_uid(root, uid, root).unwrap();
}

fn start_daemon(socket: &std::path::Path, settings: &[String], first_uid: u32, delegated: Option<&Delegated>) -> Child {
    let program = example();
    let mut command = match delegated {
        None => Command::new(&program),
        Some(delegated) => {
            // A copy, where the user can get at it.
            let copy = socket.with_file_name("sandbox");
            if !copy.exists() {
                std::fs::copy(&program, &copy).unwrap();
            }
            delegated.command(&copy)
        }
    };
    command
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
pub fn example() -> PathBuf {
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
pub async fn finish(running: Running) -> Done {
    finish_within(running, PATIENCE).await
}

/// The same for one that takes longer.
pub async fn finish_within(mut running: Running, patience: Duration) -> Done {
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
    let end = tokio::time::timeout(patience, all).await.expect("an execution has an end");
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
