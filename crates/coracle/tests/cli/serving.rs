//! A real server, its proxy and the process engine's helpers, all of them this one program.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::program::{Desk, PATIENCE, Running};

/// Takes down what a test that failed has left.
struct Cleanup<'a>(&'a Desk);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        for words in [&["destroy", "-y", "-a", "shop"][..], &["server", "stop", "--proxy"]] {
            self.0.command(words).output().ok();
        }
    }
}

/// The answer of the proxy, head and body.
fn get(address: &str, host: &str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_site_is_deployed_and_outlives_its_server() {
    let desk = Desk::with_shop(&[("index.html", "<h1>open</h1>\n")]);
    // As /var/lib is: as root, the site is served by a user of its own.
    std::fs::set_permissions(desk.home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let run = ["server", "run", "--engine", "process", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0", "--print-ready"];
    let mut server = Running::start(desk.command(&run));
    let cleanup = Cleanup(&desk);
    server.shows("\n");
    let ready: serde_json::Value = serde_json::from_str(server.seen()).unwrap();
    assert_eq!(ready["ready"], true);
    let address = ready["http"][0].as_str().unwrap().to_owned();

    let status = desk.coracle(&["server", "status", "--json"]).code(0).json();
    assert_eq!(status["process"], server.process());
    assert_eq!(status["server"]["http"][0], address.as_str());
    desk.coracle(&["doctor"]).out_has("✓ server");

    desk.coracle(&["deploy"]).code(0).out_has("✓ v1 of shop is live at http://shop.localhost:");
    assert!(get(&address, "shop.localhost").unwrap().ends_with("<h1>open</h1>\n"));
    desk.coracle(&["routes"]).code(0).out_has("shop  Host(`shop.localhost`)").out_has("shop.v1.web.1");
    let routes = desk.coracle(&["routes", "--json"]).code(0).json();
    assert_eq!((&routes[0]["app"], &routes[0]["targets"][0]["state"]), (&"shop".into(), &"up".into()), "{routes}");
    desk.coracle(&["routes", "-a", "other"]).code(0).err_has("no routes");
    desk.coracle(&["domains"]).code(0).out_has("shop.localhost").out_has("(local)");
    let certificates = desk.coracle(&["certs", "--json"]).code(0).json();
    let expected = serde_json::json!([["shop.localhost", ["shop"], "local"]]);
    let seen = certificates.as_array().unwrap().iter().map(|it| serde_json::json!([it["name"], it["apps"], it["source"]]));
    assert_eq!(serde_json::Value::Array(seen.collect()), expected);
    desk.coracle(&["certs", "--authority"]).code(0).out_has("BEGIN CERTIFICATE");
    desk.coracle(&["certs", "--renew", "other.example"]).code(1).err_has("no route asks for a certificate");
    desk.coracle(&["certs", "--renew", "a b"]).code(2).err_has("no name of a host");

    desk.coracle(&["server", "stop"]).code(0).out_has("the server has stopped");
    server.end().code(0);
    assert!(get(&address, "shop.localhost").unwrap().ends_with("<h1>open</h1>\n"), "the proxy goes on");
    desk.coracle(&["status"]).code(1).err_has("coracle server run");

    let mut server = Running::start(desk.command(&run));
    server.shows("\n");
    desk.coracle(&["destroy", "-y"]).code(0);
    desk.coracle(&["server", "stop", "--proxy"]).code(0).out_has("the proxy has stopped");
    server.end().code(0);
    assert!(get(&address, "shop.localhost").is_err());
    desk.coracle(&["server", "stop", "--proxy"]).code(0).out_has("no server was running").out_has("no proxy was running");
    drop(cleanup);
}

#[test]
fn over_tcp_a_token_is_wanted() {
    let desk = Desk::new();
    let run = ["server", "run", "--engine", "process", "--http", "127.0.0.1:0", "--api-tcp", "127.0.0.1:0", "--print-ready"];
    let mut server = Running::start(desk.command(&run));
    let _cleanup = Cleanup(&desk);
    server.shows("\n");
    let ready: serde_json::Value = serde_json::from_str(server.seen()).unwrap();
    let url = format!("http://{}", ready["api_tcp"].as_str().unwrap());
    let token = std::fs::read_to_string(desk.home.path().join("state/token")).unwrap();
    desk.coracle(&["apps", "--server", &url]).code(2).err_has("wants a token");
    for (token, code) in [(token.trim(), 0), ("wrong", 1)] {
        let mut command = desk.command(&["apps", "--server", &url, "--json"]);
        command.env("CORACLE_TOKEN", token);
        Running::start(command).end().code(code);
    }
    desk.coracle(&["server", "stop", "--proxy"]).code(0);
    server.end().code(0).err_has("for those who know the token in");
}

#[test]
fn a_port_that_is_taken_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let desk = Desk::new();
    let ended = desk.coracle(&["server", "run", "--engine", "process", "--http", &address]);
    ended.code(1).err_has("the server does not start").err_has(&address).err_has("--http");
}

#[test]
fn the_unit_names_this_program_and_its_state() {
    let desk = Desk::new();
    let unit = desk.coracle(&["server", "unit", "--http", "0.0.0.0:80"]);
    let program = PathBuf::from(env!("CARGO_BIN_EXE_coracle")).canonicalize().unwrap();
    unit.code(0).out_has("KillMode=process").out_has(&program.display().to_string()).out_has("--http 0.0.0.0:80");
    desk.coracle(&["server", "unit", "--acme"]).code(2).err_has("--https is not given");
    desk.coracle(&["server", "unit", "--acme-no-preflight"]).code(2).err_has("--acme");
    let orders = ["--https", "0.0.0.0:443", "--acme", "--acme-no-preflight"];
    let unit = desk.coracle(&[&["server", "unit"][..], &orders].concat());
    unit.code(0).out_has("--https 0.0.0.0:443 --acme --acme-no-preflight");
    desk.coracle(&["server", "unit", "--user", "a\nExecStartPre=/bin/false"]).code(2).err_has("not the name of a user");
}
