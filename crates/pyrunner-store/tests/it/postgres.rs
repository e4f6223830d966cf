//! A PostgreSQL of a test's own: a cluster in its own directory, reached by a socket in it, as an unprivileged user because
//! PostgreSQL refuses to run as root. Made once per target directory with initdb, then copied, which takes a twentieth.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) struct Cluster {
    dir: TempDir,
    server: Option<Child>,
}

impl Cluster {
    /// A cluster that does not run yet; `None` (with a remark) where PostgreSQL is not installed, unless CI insists on it.
    pub(crate) fn new() -> Option<Self> {
        if program("postgres").is_none() {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "PostgreSQL is missing: apt-get install postgresql");
            eprintln!("skipped: PostgreSQL is missing (apt-get install postgresql)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        own(dir.path());
        copy(&template(), &dir.path().join("data"));
        Some(Self { dir, server: None })
    }

    pub(crate) fn url(&self) -> String {
        let socket = self.dir.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://postgres@{socket}/postgres")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it with more settings and waits until it answers.
    pub(crate) fn start(&mut self, settings: &[&str]) {
        assert!(self.server.is_none(), "it runs");
        let log = File::create(self.dir.path().join("log")).unwrap();
        let mut command = unprivileged(&program("postgres").unwrap());
        let socket = format!("unix_socket_directories={}", self.dir.path().display());
        command.arg("-D").arg(self.dir.path().join("data")).args(["-c", &socket]);
        let always = ["listen_addresses=", "fsync=off", "shared_buffers=8MB", "max_connections=40", "shared_memory_type=mmap"];
        for setting in always.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.server = Some(server);
        let ready = || {
            // The last line of the file tells, and the socket is there before it.
            let pid = fs::read_to_string(self.dir.path().join("data/postmaster.pid")).unwrap_or_default();
            pid.lines().last().is_some_and(|line| line.trim() == "ready")
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready() {
            if let Some(status) = self.server.as_mut().unwrap().try_wait().unwrap() {
                panic!("{status}: {}", fs::read_to_string(self.dir.path().join("log")).unwrap());
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it on a port of the loopback address as well; answers which.
    pub(crate) fn start_on_tcp(&mut self, settings: &[&str]) -> u16 {
        // The port may be taken again before PostgreSQL has it; it then says so and the test fails.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port_setting = format!("port={port}");
        let more = ["listen_addresses=127.0.0.1", &port_setting];
        self.start(&[&more, settings].concat());
        port
    }

    /// Lays a certificate and its key where only PostgreSQL's user reads them, which it insists on; answers where.
    pub(crate) fn keep_private(&self, cert: &str, key: &str) -> (String, String) {
        let keep = |name: &str, content: &str| {
            let path = self.dir.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            own(&path);
            path.to_str().unwrap().to_owned()
        };
        (keep("cert.pem", cert), keep("key.pem", key))
    }

    /// A directory in that one which belongs to PostgreSQL's user.
    pub(crate) fn own_directory(&self, parent: &Path) -> String {
        own(parent);
        let dir = parent.join("space");
        fs::create_dir(&dir).unwrap();
        own(&dir);
        dir.to_str().unwrap().to_owned()
    }

    /// Stops it, breaking all connections, and waits for its end.
    pub(crate) fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let pid = rustix::process::Pid::from_child(&server);
        // "Fast shutdown": https://www.postgresql.org/docs/current/server-shutdown.html
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        server.wait().unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = rustix::process::Pid::from_child(&server);
            // "Immediate shutdown": its children end, too, which they would not at once by killing it.
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).ok();
            server.wait().ok();
        }
    }
}

/// A cluster that initdb has made, for all tests to copy.
fn template() -> PathBuf {
    let version = Command::new(program("postgres").unwrap()).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap().replace(|char: char| !char.is_ascii_alphanumeric(), "-");
    let shelf = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(shelf).unwrap();
    let template = shelf.join(format!("cluster-{version}"));
    let lock = File::create(shelf.join("cluster.lock")).unwrap();
    lock.lock().unwrap();
    if !template.exists() {
        let dir = tempfile::tempdir().unwrap();
        own(dir.path());
        let mut initdb = unprivileged(&program("initdb").unwrap());
        initdb.arg("-D").arg(dir.path().join("data"));
        initdb.args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--wal-segsize=1"]);
        let output = initdb.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let unfinished = template.with_extension("new");
        fs::remove_dir_all(&unfinished).ok();
        copy(&dir.path().join("data"), &unfinished);
        fs::rename(unfinished, &template).unwrap();
    }
    template
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A program of PostgreSQL: Debian keeps them apart by version and out of the PATH.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin"))
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .filter(|file| file.is_file())
        .collect();
    found.sort();
    found.pop()
}

/// The user PostgreSQL runs as if we are root: its own, or nobody.
fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let id_of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
        Some((fields.next()??, fields.next()??))
    };
    id_of("postgres").or_else(|| id_of("nobody")).or(Some((65534, 65534)))
}

fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((user, group)) = user() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}

fn own(path: &Path) {
    if let Some((user, group)) = user() {
        chown(path, Some(user), Some(group)).unwrap();
        assert_eq!(fs::metadata(path).unwrap().uid(), user);
    }
}
