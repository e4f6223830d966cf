//! The proxy alone: a file that says everything, and that changes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::program::{Desk, PATIENCE, Running};

/// Answers everybody with its name, and ends with the test.
fn backend(name: &'static str) -> SocketAddr {
    answering(move |_| name.to_owned())
}

/// Answers requests with what is made of them.
fn answering(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    let body = answer(&String::from_utf8_lossy(&buffer[..read]));
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok();
                }
            });
        }
    });
    address
}

fn get(address: &str, host: &str) -> String {
    ask(address, &format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A file that leads a host to somebody.
fn file(rest: &str) -> String {
    format!("state_dir = \"state\"\nworkers = 1\n[listen]\nhttp = \"127.0.0.1:0\"\nhttps = \"127.0.0.1:0\"\n{rest}")
}

/// As programs do that care.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[test]
fn a_file_is_served_by_and_so_is_what_becomes_of_it() {
    let (one, two) = (backend("one"), backend("two"));
    let desk = Desk::new();
    let path = desk.home.path().join("proxy.toml");
    let site = |to: SocketAddr| file(&format!("[sites.\"shop.localhost\"]\nredirect = false\nto = \"{to}\"\n"));
    std::fs::write(&path, site(one)).unwrap();
    desk.coracle(&["proxy", "--config", "proxy.toml", "--check"]).code(0).out_has("proxy.toml is good");
    let mut command = desk.command(&["proxy", "--config", "proxy.toml"]);
    let log = std::fs::File::create(desk.home.path().join("log")).unwrap();
    command.stderr(log);
    let child = Guard(command.spawn().unwrap());
    let said = || std::fs::read_to_string(desk.home.path().join("log")).unwrap();
    let socket = desk.home.path().join("state/control.sock");
    let ask_it =
        |words: &[&str]| desk.coracle(&[&["proxy"], words, &["--control-socket", socket.to_str().unwrap()][..]].concat());
    until("it answers", || ask_it(&["targets"]).code == Some(0));
    let metrics = ask_it(&["metrics"]);
    metrics.code(0).out_has("coracle_proxy_table_generation");
    let addresses = listening(child.0.id());
    let http = addresses.iter().find(|address| get(address, "shop.localhost").ends_with("one")).unwrap().clone();
    ask_it(&["routes"]).code(0).out_has("shop.localhost").out_has(&one.to_string());
    ask_it(&["routes", "--json"]).code(0).json();
    until("a certificate", || ask_it(&["certificates"]).out.contains("active"));
    ask_it(&["certificates", "--authority"]).code(0).out_has("BEGIN CERTIFICATE");

    put(&path, &site(two));
    until("the other table", || get(&http, "shop.localhost").ends_with("two"));
    // A mistake of the file, and one that only the engine finds.
    let bad = [
        ("[sites.\"shop.localhost\"]\nto = 3000\nbackend = 1\n", "proxy.toml:8:1: "),
        (
            "[routes.r]\nrule = \"PathPrefix(`/`)\"\nto = 3000\nmiddlewares = \"m\"\n[middlewares.m.redirect-regex]\nregex = \"(\"\nreplacement = \"x\"\n",
            "proxy.toml:10:",
        ),
    ];
    for (rest, place) in bad {
        put(&path, &file(rest));
        until(&format!("{place} in {}", said()), || said().contains(place));
        assert!(get(&http, "shop.localhost").ends_with("two"));
        let refused = desk.coracle(&["proxy", "--config", "proxy.toml", "--check"]);
        refused.code(2).err_has(place);
    }
    // What needs a restart is said, the rest is done.
    put(&path, &site(one).replace("workers = 1", "workers = 2"));
    until("the table again", || get(&http, "shop.localhost").ends_with("one"));
    assert!(said().contains("workers has changed"), "{}", said());
    // SIGHUP does no harm.
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert!(get(&http, "shop.localhost").ends_with("one"));
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("it has ended", || !socket.exists());
}

#[test]
fn a_file_may_be_a_link_and_an_empty_one_is_not_served_by() {
    let desk = Desk::new();
    let path = |name: &str| desk.home.path().join(name);
    let (one, two, three) = (backend("one"), backend("two"), backend("three"));
    let site = |to: SocketAddr| {
        format!(
            "state_dir = \"{}\"\n[listen]\nhttp = \"127.0.0.1:0\"\n[routes.all]\nrule = \"PathPrefix(`/`)\"\nto = \"{to}\"\n",
            path("state").display()
        )
    };
    // As Kubernetes puts files there: a link to a folder that is a link.
    for (version, to) in [("..1", one), ("..2", two)] {
        std::fs::create_dir(path(version)).unwrap();
        std::fs::write(path(version).join("proxy.toml"), site(to)).unwrap();
    }
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, path("link.new")).unwrap();
        std::fs::rename(path("link.new"), path(name)).unwrap();
    };
    link("..1", "..data");
    link("..data/proxy.toml", "proxy.toml");
    let mut command = desk.command(&["proxy", "--config", "proxy.toml"]);
    command.stderr(std::fs::File::create(path("log")).unwrap());
    let child = Guard(command.spawn().unwrap());
    let said = || std::fs::read_to_string(path("log")).unwrap();
    until("it says where it listens", || said().contains("state/control.sock for control"));
    let http = listening(child.0.id()).remove(0);
    assert!(said().contains(&format!("listening on http://{http} (http)")), "{}", said());
    assert!(get(&http, "any.example").ends_with("one"));
    link("..2", "..data");
    until("the other folder", || get(&http, "any.example").ends_with("two"));
    // What is written behind the link, where nothing else happens.
    std::fs::write(path("..2").join("proxy.toml"), site(three)).unwrap();
    until("the file behind the link", || get(&http, "any.example").ends_with("three"));
    std::fs::write(path("..2").join("proxy.toml"), "").unwrap();
    until("it is told", || said().contains("neither sites nor routes"));
    assert!(get(&http, "any.example").ends_with("three"));
    std::fs::write(path("..2").join("proxy.toml"), site(one)).unwrap();
    until("what follows", || get(&http, "any.example").ends_with("one"));
}

#[test]
fn what_targets_are_told_and_what_paths_may_have_stand_in_the_file() {
    let desk = Desk::new();
    let told = "forwarded_server = \"edge-1\"\nforwarded_scheme = true\nconnection_fields = [\"X-Trace\"]\n";
    let site =
        format!("[sites.\"shop.localhost\"]\nredirect = false\nto = \"{}\"\n", answering(|head| head.to_ascii_lowercase()));
    let text = format!("{told}encoded_characters = [\"percent\"]\n{}", file(&site));
    std::fs::write(desk.home.path().join("proxy.toml"), text).unwrap();
    let child = Guard(desk.command(&["proxy", "--config", "proxy.toml"]).spawn().unwrap());
    until("it listens", || desk.home.path().join("state/control.sock").exists() && listening(child.0.id()).len() == 2);
    let addresses = listening(child.0.id());
    let get_at = |address: &str, path: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: shop.localhost\r\nX-Trace: 7\r\nX-Own: 1\r\nConnection: close, x-trace, x-own\r\n\r\n"
        );
        ask(address, &request)
    };
    // One of the two is for TLS, and answers a request that is not in its own way.
    let mut plain = None;
    until("the table", || {
        plain = addresses.iter().find(|address| get_at(address, "/").starts_with("HTTP/1.1 200"));
        plain.is_some()
    });
    let get = |path: &str| get_at(plain.unwrap(), path);
    let seen = get("/a%25b");
    for line in ["x-forwarded-server: edge-1", "x-forwarded-scheme: http", "x-trace: 7"] {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    assert!(!seen.contains("x-own"), "{seen}");
    assert!(get("/a%2Fb").starts_with("HTTP/1.1 400"));
}

struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Where a process listens, as the system knows it.
fn listening(pid: u32) -> Vec<String> {
    let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row[3] == "0A" && inodes.iter().any(|inode| inode == row[9]));
    listening.map(|row| format!("127.0.0.1:{}", u16::from_str_radix(row[1].split_once(':').unwrap().1, 16).unwrap())).collect()
}

/// A disk that is full is no reason not to serve: what is in the file is served by, and that it is not kept is told.
#[test]
fn a_full_disk_is_told_and_served_on() {
    let desk = Desk::new();
    let site = format!("[routes.all]\nrule = \"PathPrefix(`/`)\"\nto = \"{}\"\n", backend("one"));
    let text = format!("state_dir = \"state\"\nworkers = 1\n[listen]\nhttp = \"127.0.0.1:0\"\n{site}");
    std::fs::write(desk.home.path().join("proxy.toml"), text).unwrap();
    let program = desk.command(&["proxy", "--config", "proxy.toml"]);
    // A file that may not grow is what a program sees of a full disk; the signal that comes with it is not.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]).arg(program.get_program()).args(program.get_args());
    command.current_dir(program.get_current_dir().unwrap());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stderr(std::process::Stdio::piped()).stdin(std::process::Stdio::null());
    let mut child = Guard(command.spawn().unwrap());
    let said = std::io::BufReader::new(child.0.stderr.take().unwrap());
    let (told, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || std::io::BufRead::lines(said).map_while(Result::ok).for_each(|line| drop(told.send(line))));
    let mut heard = Vec::new();
    let address = loop {
        let line = hear.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{heard:?}"));
        heard.push(line.clone());
        if let Some((_, rest)) = line.split_once("listening on http://") {
            break rest.split(' ').next().unwrap().to_owned();
        }
    };
    assert!(heard.iter().any(|line| line.contains("could not be kept on disk")), "{heard:?}");
    assert!(get(&address, "any.example").ends_with("one"));
    let socket = desk.home.path().join("state/control.sock");
    let mut control = std::os::unix::net::UnixStream::connect(socket).unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    control.write_all(b"GET /v1/status HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n").unwrap();
    let mut status = String::new();
    control.read_to_string(&mut status).unwrap();
    assert!(status.contains("\"unkept\":\""), "{status}");
}

#[test]
fn a_bad_file_is_refused_at_the_start_with_its_place() {
    let desk = Desk::new();
    std::fs::write(
        desk.home.path().join("proxy.toml"),
        "[routes.api]\nto = 3000\nrule = \"Host(`a.example`) && PathPrefx(`/v1`)\"\n",
    )
    .unwrap();
    let ended = desk.coracle(&["proxy", "--config", "proxy.toml"]);
    ended.code(2).err_has("proxy.toml:3:").err_has("did you mean PathPrefix?");
    std::fs::write(desk.home.path().join("proxy.toml"), "[tls]\ncertificates = { cert = \"a.pem\", key = \"a.key\" }\n").unwrap();
    desk.coracle(&["proxy", "--config", "proxy.toml"]).code(2).err_has("proxy.toml:2:16: ").err_has("a.pem");
    desk.coracle(&["proxy", "--config", "none.toml"]).code(2).err_has("none.toml");
    desk.coracle(&["proxy", "--config", "proxy.toml", "--http", "127.0.0.1:0"]).code(2).err_has("cannot be used with");
    desk.coracle(&["proxy", "--check"]).code(2).err_has("--config");
    for words in [&["proxy"][..], &["proxy", "--http", "127.0.0.1:0"]] {
        desk.coracle(words).code(2).err_has("--control-socket").err_has("`coracle proxy --config proxy.toml`");
    }
    desk.coracle(&["proxy", "routes", "--control-socket", "nobody.sock"]).code(1).err_has("does not answer");
    drop(Running::start(desk.command(&["proxy", "--help"])));
}
