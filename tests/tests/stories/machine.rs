//! The machine itself gives trouble: no room on the disk, a port that is taken, Docker going away.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::engine::{can_tell, can_tell_as_root};
use coracle_tests::{Env, Settings, eventually};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let env = Env::prepare(Settings { http: Some(address), ..Settings::of(EngineKind::Process) });
    env.try_start_server().await.unwrap_err();
    let log = env.server_log();
    assert!(log.contains(&address.port().to_string()) && log.contains("in use"), "{log}");
    // And as soon as it is free, all is well.
    drop(taken);
    env.start_server().await;
    assert_eq!(env.address(), address);
}

/// A disk of its own, a small one, in memory.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: PathBuf, megabytes: usize) -> Self {
        std::fs::create_dir(&path).unwrap();
        let options = std::ffi::CString::new(format!("size={megabytes}m,mode=0755")).unwrap();
        mount("coracle-story", &path, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self { path }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.path, UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.path.display());
        }
    }
}

/// A disk that is full while a release is being made: the deployment fails with that reason, the old release serves on, and
/// with room again everything goes on.
async fn full_disk(engine: EngineKind) {
    let story = format!("machine: full disk on {engine}");
    if !can_tell(engine, &story) || !can_tell_as_root(&story) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(directory.path().join("disk"), 48);
    let env = Env::prepare(Settings { state: Some(disk.path.join("state")), ..Settings::of(engine) });
    env.start_server().await;
    let lighthouse = env.app("static");
    lighthouse.deploy_as_it_is().await.succeeds();

    lighthouse.tree.change("public/index.html", "Light v1", "Light v2");
    lighthouse.tree.write("public/picture.bin", noise(8 << 20));
    let ballast = disk.path.join("ballast");
    fill(&ballast, &disk.path, 2 << 20);
    let deployed = lighthouse.deploy_as_it_is().await;
    deployed.fails().shows("no space");
    lighthouse.get("/").await.says("Light v1 is on");

    // Not even a byte for a record is left; whatever becomes of that deployment, the app serves on.
    fill(&disk.path.join("more-ballast"), &disk.path, 0);
    assert_ne!(lighthouse.deploy_as_it_is().await.code, Some(0));
    lighthouse.get("/").await.says("Light v1 is on");

    std::fs::remove_file(ballast).unwrap();
    std::fs::remove_file(disk.path.join("more-ballast")).unwrap();
    lighthouse.deploy_as_it_is().await.succeeds();
    lighthouse.get("/").await.says("Light v2 is on");
    env.leaves_nothing().await;
    drop(env);
    drop(disk);
}

/// Bytes that no compression makes smaller.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..count / 8).flat_map(|_| next()).collect()
}

/// Writes a file so large that only so many bytes are left.
fn fill(file: &std::path::Path, disk: &std::path::Path, leave: u64) {
    let facts = rustix::fs::statvfs(disk).unwrap();
    let free = facts.f_bavail * facts.f_frsize;
    std::fs::write(file, vec![0; usize::try_from(free.saturating_sub(leave)).unwrap()]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_on_docker() {
    full_disk(EngineKind::Docker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_on_processes() {
    full_disk(EngineKind::Process).await;
}

/// A Docker Engine of one's own, which can be stopped without harm to anybody else: it has a bridge of its own and leaves
/// the machine's packet filter alone. Its containers have no way out, so what is built there must need nothing from outside.
struct PrivateDocker {
    directory: tempfile::TempDir,
    bridge: String,
    daemon: Option<Child>,
}

impl PrivateDocker {
    async fn start() -> Self {
        // Not in a story's directory: what belongs to a story is found by that path, and this does not.
        let directory = tempfile::Builder::new().prefix("coracle-docker-").tempdir().unwrap();
        let bridge = format!("cs{}", std::process::id());
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["addr", "add", "198.18.7.1/24", "dev", &bridge]);
        ip(&["link", "set", &bridge, "up"]);
        let mut docker = Self { directory, bridge, daemon: None };
        docker.start_daemon().await;
        let mut save = Command::new("docker").args(["save", "python:3.11-slim"]).stdout(Stdio::piped()).spawn().unwrap();
        let load = docker.command(&["load", "-q"]).stdin(save.stdout.take().unwrap()).output().unwrap();
        assert!(save.wait().unwrap().success() && load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
        docker
    }

    async fn start_daemon(&mut self) {
        let place = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(place("dockerd.log")).unwrap();
        // Containers outlive the daemon, as administrators set it up for upgrades.
        let daemon = Command::new("dockerd")
            .env("PATH", coracle_tests::program::PATH)
            .args([
                "--host",
                &self.host(),
                "--data-root",
                &place("data"),
                "--exec-root",
                &place("exec"),
                "--pidfile",
                &place("pid"),
            ])
            .args(["--live-restore", "--bridge", &self.bridge, "--iptables=false", "--ip6tables=false"])
            .args(["--containerd-namespace", &self.bridge, "--containerd-plugins-namespace", &format!("{}-plugins", self.bridge)])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        eventually("the private Docker answers", Duration::from_secs(60), async || {
            let log = || std::fs::read_to_string(self.directory.path().join("dockerd.log")).unwrap_or_default();
            if self.command(&["version"]).output().unwrap().status.success() { Ok(()) } else { Err(log()) }
        })
        .await;
    }

    fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.host()]).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = rustix::process::Pid::from_raw(daemon.id().cast_signed()).unwrap();
            coracle_tests::belongings::signal(pid, rustix::process::Signal::TERM);
            daemon.wait().unwrap();
        }
    }
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").env("PATH", coracle_tests::program::PATH).args(words).output().unwrap();
    assert!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for PrivateDocker {
    fn drop(&mut self) {
        let list = |words: &[&str]| {
            let output = self.command(words).output().map(|output| output.stdout).unwrap_or_default();
            String::from_utf8_lossy(&output).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let containers = list(&["ps", "-aq"]);
        if !containers.is_empty() {
            drop(self.command(&["rm", "-f"]).args(containers).output());
        }
        drop(self.command(&["network", "prune", "-f"]).output());
        self.stop();
        // Docker makes its data directory a mount point of its own, and sometimes leaves it so.
        match unmount(self.directory.path().join("data"), UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => eprintln!("the private Docker's data directory stays mounted: {error}"),
        }
        ip(&["link", "del", &self.bridge]);
    }
}

/// A shop that needs nothing but Python.
const PLAIN_SHOP: &str = r#"
import http.server, os, time

VERSION = "v1"


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"Hello from {VERSION}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


time.sleep(2)
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Shop).serve_forever()
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_going_away_in_the_middle_of_a_deployment_under_load_costs_no_request() {
    const STORY: &str = "machine: Docker going away";
    if !can_tell(EngineKind::Docker, STORY) || !can_tell_as_root(STORY) {
        return;
    }
    let mut docker = PrivateDocker::start().await;
    let env = vec![("DOCKER_HOST".to_owned(), docker.host())];
    let env = Env::prepare(Settings { env, ..Settings::of(EngineKind::Docker) });
    env.start_server().await;
    let shop = env.app("flask");
    shop.tree.write("shop.py", PLAIN_SHOP).remove("Procfile");
    shop.tree.write("Dockerfile", "FROM python:3.11-slim\nCOPY shop.py .\nEXPOSE 8080\nCMD [\"python\", \"-u\", \"shop.py\"]\n");
    shop.deploy("v1").await;
    let load = shop.load(50).only_get().start();

    shop.tree.version("v2");
    let mut deploying = shop.begin_deploy();
    assert!(deploying.reaches(coracle_api::Phase::Probe).await);
    docker.stop();
    shop.get("/").await.says("from v1");
    docker.start_daemon().await;
    let deployed = deploying.end().await;
    let version = if deployed.code == Some(0) { "from v2" } else { "from v1" };
    shop.get("/").await.says(version);
    shop.settles().await;
    shop.deploy("v3").await;
    shop.get("/").await.says("from v3");
    load.stop().await.lost_nothing();
    env.leaves_nothing().await;
    drop(env);
    drop(docker);
}
