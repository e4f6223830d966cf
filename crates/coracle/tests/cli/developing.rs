//! `coracle dev` in real containers and with real processes.
#![allow(clippy::print_stderr)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::program::{Desk, Running};

/// Builds and starts of containers take their time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SERVER: &str = r#"
import http.server, os, signal, sys, urllib.request
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        text = "one"
        if self.path == "/beside":
            text = urllib.request.urlopen("http://neighbour:8000/").read().decode() + " beside"
        self.send_response(200); self.end_headers(); self.wfile.write(text.encode())
print("serving", flush=True)
http.server.ThreadingHTTPServer((os.environ.get("HOST", ""), int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
"#;

/// Whether containers can run here; where they must, it is an error if not.
fn has_docker(images: &[&str]) -> bool {
    let answers = Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success());
    if !answers {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no container engine");
        eprintln!("SKIPPED, NOT TESTED: no container engine");
        return false;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/base-images");
    assert!(Command::new(script).args(images).status().unwrap().success(), "no base image");
    true
}

/// Removes what a test that failed has left.
struct Cleanup<'a>(&'a Desk);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        self.0.command(&["dev", "--down", "-v"]).output().ok();
    }
}

fn docker(words: &[&str]) -> Vec<String> {
    let output = Command::new("docker").args(words).output().unwrap();
    assert!(output.status.success(), "docker {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The containers of a folder.
fn containers(desk: &Desk) -> Vec<String> {
    let folder = desk.shop().canonicalize().unwrap();
    docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &format!("label=dev.coracle.dev.folder={}", folder.display())])
}

/// Everything that bears the folder's owner in its name: containers, networks, volumes and images.
fn things(owner: &str) -> Vec<String> {
    let lists: [&[&str]; 4] = [
        &["ps", "-a", "--format", "container {{.Names}}"],
        &["network", "ls", "--format", "network {{.Name}}"],
        &["volume", "ls", "--format", "volume {{.Name}}"],
        &["images", "--format", "image {{.Repository}}"],
    ];
    lists.iter().flat_map(|list| docker(list)).filter(|name| name.contains(owner)).collect()
}

fn owner(desk: &Desk) -> String {
    let mut folders = std::fs::read_dir(desk.home.path().join("state/dev")).unwrap();
    folders.next().unwrap().unwrap().file_name().into_string().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// Asks until the answer is this one.
#[track_caller]
fn answers(port: u16, path: &str, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < deadline {
        last = get(port, path);
        if last.as_deref() == Some(wanted) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{path} never answered {wanted:?}, but {last:?}");
}

fn write(desk: &Desk, path: &str, text: &str) {
    let path = desk.shop().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// As on a terminal, where Ctrl-C reaches everything in the foreground at once.
fn in_foreground(desk: &Desk, words: &[&str]) -> Running {
    let mut command = desk.command(words);
    command.process_group(0);
    Running::start(command)
}

fn ctrl_c(running: &Running) {
    let group = Pid::from_raw(i32::try_from(running.process()).unwrap()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
}

fn compose(port: u16, greeting: &str) -> String {
    format!(
        r#"
services:
  web:
    build: .
    ports: ["{port}:8000"]
    environment: {{GREETING: {greeting}}}
    depends_on:
      neighbour: {{condition: service_healthy}}
      setup: {{condition: service_completed_successfully}}
    volumes: ["data:/data"]
    develop:
      watch:
        - {{path: ./src, target: /app, action: sync+restart, ignore: ["*.tmp"]}}
        - {{path: ./requirements.txt, action: rebuild}}
  neighbour:
    image: python:3.11-slim
    init: true
    command: ["python", "-u", "/srv/app.py"]
    volumes: ["./src:/srv:ro"]
    healthcheck: {{test: ["CMD", "python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000')"], interval: 1s}}
  setup:
    image: python:3.11-slim
    command: ["python", "-c", "print('set up', '$$HOME')"]
volumes: {{data: {{}}}}
"#
    )
}

#[test]
fn a_compose_project_is_up_follows_its_files_and_leaves_nothing_behind() {
    if !has_docker(&["python:3.11-slim"]) {
        return;
    }
    let (port, desk) = (free_port(), Desk::with_shop(&[("requirements.txt", "")]));
    let cleanup = Cleanup(&desk);
    write(&desk, "compose.yaml", &compose(port, "hello"));
    write(&desk, "src/app.py", SERVER);
    let dockerfile =
        "FROM python:3.11-slim\nWORKDIR /app\nCOPY requirements.txt .\nCOPY src .\nCMD [\"python\", \"-u\", \"app.py\"]\n";
    write(&desk, "Dockerfile", dockerfile);

    let mut dev = in_foreground(&desk, &["dev"]);
    dev.shows("everything is up; watching for changes");
    // In order, each line behind its name, without colours in a pipe.
    for line in ["setup     | set up $HOME\n", "neighbour | serving\n", &format!("web is at 127.0.0.1:{port}/tcp")] {
        assert!(dev.seen().contains(line), "{line:?} in {}", dev.seen());
    }
    assert!(!dev.seen().contains('\x1b'));
    answers(port, "/", "one");
    answers(port, "/beside", "one beside");
    assert_eq!(containers(&desk).len(), 3);
    desk.coracle(&["dev"]).code(1).err_has("coracle dev runs in").err_has(&dev.process().to_string());
    desk.coracle(&["dev", "--down"]).code(1).err_has("Ctrl-C");

    // A file that is copied, and a part that is made anew.
    write(&desk, "src/app.py", &SERVER.replace("\"one\"", "\"two\""));
    answers(port, "/", "two");
    write(&desk, "src/app.py", &SERVER.replace("\"one\"", "open('/app/requirements.txt').read()"));
    write(&desk, "requirements.txt", "# three");
    answers(port, "/", "# three");
    // The project itself: what changed is replaced, and a mistake changes nothing.
    write(&desk, "compose.yaml", &compose(port, "hello").replace("ports:", "prots:"));
    dev.complains("prots");
    answers(port, "/", "# three");
    let before = docker(&["inspect", "-f", "{{.Id}}", &format!("coracle-{}.shop.v1.neighbour.1", owner(&desk))]);
    write(&desk, "src/app.py", &SERVER.replace("\"one\"", "os.environ['GREETING']"));
    write(&desk, "compose.yaml", &compose(port, "changed"));
    answers(port, "/", "changed");
    let after = docker(&["inspect", "-f", "{{.Id}}", &format!("coracle-{}.shop.v1.neighbour.1", owner(&desk))]);
    assert_eq!(before, after, "what has not changed goes on");

    ctrl_c(&dev);
    let ended = dev.end();
    ended.code(0);
    assert_eq!(containers(&desk), Vec::<String>::new());
    let owner = owner(&desk);
    let volume = format!("volume coracle-{owner}.shop.data");
    let left: Vec<_> = things(&owner).into_iter().filter(|thing| !thing.starts_with("image")).collect();
    assert_eq!(left, [volume], "the named volume stays, and nothing else runs");
    desk.coracle(&["dev", "--down", "-v"]).code(0);
    assert_eq!(things(&owner), Vec::<String>::new());
    drop(cleanup);
}

#[test]
fn what_stands_against_a_compose_project_is_told_before_anything_starts() {
    if !has_docker(&["debian:bookworm-slim"]) {
        return;
    }
    let desk = Desk::with_shop(&[]);
    let cleanup = Cleanup(&desk);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let image = "image: debian:bookworm-slim";
    write(&desk, "compose.yaml", &format!("services:\n  web:\n    {image}\n    ports: [\"{port}:80\"]\n  other:\n    {image}\n"));
    desk.coracle(&["dev"]).code(1).err_has(&format!("port 127.0.0.1:{port}/tcp of this machine, which web publishes, is taken"));
    desk.coracle(&["dev", "othr"]).code(2).err_has("there are other, web");
    write(&desk, "compose.yaml", &format!("services:\n  web:\n    {image}\n    mac_address: \"02:42:ac:11:00:02\"\n"));
    desk.coracle(&["dev"]).code(2).err_has("compose.yaml:4:5: services.web.mac_address").err_has("--ignore-unsupported");
    assert_eq!(containers(&desk), Vec::<String>::new());
    drop(cleanup);
}

#[test]
fn services_that_end_are_told_with_their_codes_and_decide_the_exit_code() {
    if !has_docker(&["debian:bookworm-slim"]) {
        return;
    }
    let desk = Desk::with_shop(&[]);
    let cleanup = Cleanup(&desk);
    let service = |name: &str, line: &str| {
        format!("  {name}:\n    image: debian:bookworm-slim\n    command: [\"sh\", \"-c\", \"{line}\"]\n")
    };
    let (good, bad) = (service("good", "echo fine"), service("bad", "echo no >&2; exit 7"));
    write(&desk, "compose.yaml", &format!("services:\n{good}{bad}"));
    let ended = desk.coracle(&["dev"]);
    ended.code(7).out_has("good | fine").out_has("good has ended: exit code 0");
    ended.err_has("bad  | no").err_has("bad has crashed: exit code 7");
    // One that a service waits for in vain.
    write(
        &desk,
        "compose.yaml",
        &format!("services:\n{good}    depends_on: {{bad: {{condition: service_completed_successfully}}}}\n{bad}"),
    );
    desk.coracle(&["dev"]).code(1).err_has("good waits for bad, which failed: exit code 7");
    assert_eq!(containers(&desk), Vec::<String>::new());

    // A session that was killed leaves containers, which the next one or --down removes.
    write(&desk, "compose.yaml", &format!("services:\n{}    init: true\n", service("web", "echo up; exec sleep 600")));
    let mut dev = Running::start(desk.command(&["dev"]));
    dev.shows("web | up");
    kill_process(Pid::from_raw(i32::try_from(dev.process()).unwrap()).unwrap(), Signal::KILL).unwrap();
    dev.end();
    assert_eq!(containers(&desk).len(), 1);
    let mut dev = Running::start(desk.command(&["dev"]));
    dev.shows("took down what an earlier session had left");
    dev.shows("web | up");
    dev.interrupt();
    dev.end().code(0);
    assert_eq!(containers(&desk), Vec::<String>::new());
    drop(cleanup);
}

#[test]
fn a_manifest_lies_over_compose_files_or_goes_before_them_as_when_it_is_deployed() {
    if !has_docker(&["debian:bookworm-slim"]) {
        return;
    }
    let desk = Desk::with_shop(&[]);
    let cleanup = Cleanup(&desk);
    let service = "image: debian:bookworm-slim\n    command: [\"sh\", \"-c\", \"echo $$GREETING\"]\n";
    write(&desk, "compose.yaml", &format!("services:\n  hello:\n    {service}"));
    write(&desk, "coracle.toml", "[env]\nGREETING = \"ahoy\"\n[http]\nhosts = [\"shop.example\"]\n");
    desk.coracle(&["dev"]).code(0).out_has("hello | ahoy");
    write(&desk, "coracle.toml", "[processes.hello]\ncommand = \"echo by-the-manifest\"\n");
    let mut dev = Running::start(desk.command(&["dev"]));
    dev.shows("hello | by-the-manifest");
    dev.interrupt();
    dev.end().code(0);
    desk.coracle(&["dev", "-f", "compose.yaml"]).code(0).out_has("hello |");
    drop(cleanup);
}

#[test]
fn files_are_copied_into_what_runs_and_a_second_ctrl_c_kills() {
    if !has_docker(&["debian:bookworm-slim"]) {
        return;
    }
    let desk = Desk::with_shop(&[]);
    let cleanup = Cleanup(&desk);
    write(&desk, "pages/first", "1");
    write(&desk, "pages/node_modules/x", "ignored");
    let looking = "while :; do echo seen $$(ls /pages | tr '\\n' ' '); sleep 0.2; done";
    write(
        &desk,
        "compose.yaml",
        &format!(
            r#"
services:
  web:
    image: debian:bookworm-slim
    command: ["bash", "-c", "trap 'echo not yet' TERM; mkdir -p /pages; {looking}"]
    stop_grace_period: 10m
    develop:
      watch:
        - {{path: pages, target: /pages, action: sync, initial_sync: true, ignore: [node_modules/]}}
        - {{path: conf, target: /etc/shop, action: sync+exec, exec: {{command: ["cat", "/etc/shop/name"]}}}}
        - {{path: again, action: restart}}
  beside:
    image: debian:bookworm-slim
    init: true
    command: ["sh", "-c", "echo beside is up; exec sleep 600"]
    depends_on: {{web: {{condition: service_started, restart: true}}}}
"#
        ),
    );
    write(&desk, "conf/name", "one");
    write(&desk, "again", "");
    let mut dev = in_foreground(&desk, &["dev"]);
    dev.shows("web    | seen first\n");
    dev.shows("everything is up");
    write(&desk, "pages/second", "2");
    dev.shows("web    | seen first second\n");
    std::fs::remove_file(desk.shop().join("pages/first")).unwrap();
    dev.shows("web    | seen second\n");
    write(&desk, "conf/name", "what was written\n");
    dev.shows("web    | what was written\n");
    assert!(dev.seen().matches("beside is up").count() < 2, "nothing was restarted so far");

    // The first asks, the second insists.
    ctrl_c(&dev);
    dev.shows("not yet");
    ctrl_c(&dev);
    dev.end().code(130);
    assert_eq!(containers(&desk), Vec::<String>::new());

    let quick = std::fs::read_to_string(desk.shop().join("compose.yaml")).unwrap().replace("10m", "0s");
    write(&desk, "compose.yaml", &quick);
    let mut dev = in_foreground(&desk, &["dev"]);
    dev.shows("everything is up");
    dev.shows("beside is up");
    write(&desk, "again", "!");
    // Whoever wants to be restarted with another one is.
    dev.shows_times("beside is up", 2);
    ctrl_c(&dev);
    dev.end().code(0);
    drop(cleanup);
}

/// The processes whose command line or directory names this place.
fn processes_in(place: &Path) -> Vec<String> {
    let place = place.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let directory = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
            && (command.contains(place) || directory.to_string_lossy().contains(place))
        {
            found.push(command);
        }
    }
    found
}

#[test]
fn the_processes_of_a_procfile_are_reloaded_without_docker() {
    let worker = "echo \"work for $CUSTOMER\"; exec sleep 600\n";
    let procfile = "web: python3 -u app.py\nworker: sh work.sh\n";
    let desk =
        Desk::with_shop(&[("Procfile", procfile), ("app.py", SERVER), ("work.sh", worker), (".env", "CUSTOMER=\"a & b\"\n")]);
    let cleanup = Cleanup(&desk);
    // As a home is: as root, processes run as a user of their own.
    std::fs::set_permissions(desk.home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let port = free_port();
    let number = port.to_string();
    let mut dev = in_foreground(&desk, &["dev", "--port", &number]);
    dev.shows(&format!("web is at http://127.0.0.1:{port}"));
    dev.shows("worker | work for a & b");
    answers(port, "/", "one");
    assert!(!processes_in(&desk.home.path().join("state")).is_empty());

    write(&desk, "app.py", &SERVER.replace("\"one\"", "\"two\""));
    answers(port, "/", "two");
    // What does not start does not replace what runs.
    write(&desk, "app.py", "def (");
    dev.complains("SyntaxError");
    dev.complains("the old one stays");
    answers(port, "/", "two");
    write(&desk, "app.py", &SERVER.replace("\"one\"", "\"three\""));
    answers(port, "/", "three");
    // A process that the Procfile names from now on.
    write(&desk, "Procfile", &format!("{procfile}clock: sh -c 'echo tick; exec sleep 600'\n"));
    dev.shows("tick");

    ctrl_c(&dev);
    dev.end().code(0);
    assert_eq!(processes_in(&desk.home.path().join("state")), Vec::<String>::new());
    desk.coracle(&["dev", "--down", "-v"]).code(0);
    assert_eq!(crate::program::files_below(&desk.home.path().join("state")), Vec::<String>::new());
    drop(cleanup);
}
