//! `HEALTHCHECK`: what Coracle asks by itself, said in the language that the image has.

use coracle_model::plan::Serving;
use serde_json::Value;

/// What can ask in an image.
#[derive(Debug, Clone, Copy)]
pub(super) enum Prober {
    /// Python.
    Python,
    /// Node.js.
    Node,
    /// bash, which opens connections.
    Bash,
    /// curl.
    Curl,
}

/// An answer of 2xx or 3xx to the health path, asked with the app's own host; without such a path, an accepted connection.
pub(super) fn check(prober: Prober, serving: &Serving, port: u16) -> String {
    let host = serving.host.as_deref().unwrap_or("localhost");
    let path = serving.health.as_deref();
    let (head, script): (&[&str], String) = match (prober, path.is_some()) {
        (Prober::Python, true) => (&["python", "-c"], PYTHON_HTTP.replace("8080", &port.to_string())),
        (Prober::Python, false) => (&["python", "-c"], PYTHON_TCP.replace("8080", &port.to_string())),
        (Prober::Node, true) => (&["node", "-e"], NODE_HTTP.replace("8080", &port.to_string())),
        (Prober::Node, false) => (&["node", "-e"], NODE_TCP.replace("8080", &port.to_string())),
        (Prober::Bash, true) => (&["bash", "-c"], format!("{}{BASH_HTTP}", bash_tcp(port))),
        (Prober::Bash, false) => (&["bash", "-c"], bash_tcp(port)),
        (Prober::Curl, _) => {
            // Any answer at all is an accepted connection.
            let demand: &[&str] = if path.is_some() { &["--fail", "--header"] } else { &[] };
            let header = format!("Host: {host}");
            let url = format!("http://127.0.0.1:{port}{}", path.unwrap_or("/"));
            let mut argv = vec!["curl", "--silent", "--globoff", "--output", "/dev/null"];
            argv.extend(demand);
            argv.extend(path.is_some().then_some(header.as_str()));
            argv.push(&url);
            return instruction(&argv);
        }
    };
    let mut argv = head.to_vec();
    argv.push(&script);
    // The first word after bash's script is what it calls itself.
    argv.extend(path.is_some_and(|_| matches!(prober, Prober::Bash)).then_some("bash"));
    argv.extend(path.into_iter().flat_map(|path| [path, host]));
    instruction(&argv)
}

fn instruction(argv: &[&str]) -> String {
    format!("HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD {}\n", Value::from(argv))
}

const PYTHON_HTTP: &str = "import http.client as http, os, sys; \
    connection = http.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8080), timeout=5); \
    connection.request('GET', sys.argv[1], headers={'Host': sys.argv[2]}); \
    sys.exit(not 200 <= connection.getresponse().status < 400)";

const PYTHON_TCP: &str = "import os, socket; socket.create_connection(('127.0.0.1', int(os.environ.get('PORT') or 8080)), 5)";

const NODE_HTTP: &str = "const [path, host] = process.argv.slice(1); \
    require('http').get({ host: '127.0.0.1', port: process.env.PORT || 8080, path, headers: { host } }, \
    (answer) => process.exit(answer.statusCode >= 200 && answer.statusCode < 400 ? 0 : 1)).on('error', () => process.exit(1))";

const NODE_TCP: &str = "require('net').connect(process.env.PORT || 8080, '127.0.0.1')\
    .on('connect', () => process.exit(0)).on('error', () => process.exit(1))";

fn bash_tcp(port: u16) -> String {
    format!("exec 3<>\"/dev/tcp/127.0.0.1/${{PORT:-{port}}}\"")
}

const BASH_HTTP: &str = " && printf 'GET %s HTTP/1.0\\r\\nHost: %s\\r\\n\\r\\n' \"$1\" \"$2\" >&3 \
    && read -r _ status _ <&3 && [[ $status == [23]* ]]";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Runs a check against a server that answers each request like this, and gives back what was asked of it.
    fn ask(prober: Prober, health: Option<&str>, answer: &'static str) -> Option<(bool, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving =
            Serving { health: health.map(str::to_owned), host: Some("shop.example.com".to_owned()), ..Serving::default() };
        let line = check(prober, &serving, port);
        let argv: Vec<String> = serde_json::from_str(line.split_once(" CMD ").unwrap().1.trim_end()).unwrap();
        let program = if argv[0] == "python" { "python3" } else { argv[0].as_str() };
        let asks = health.is_some();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 1024];
            while asks && !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut piece).unwrap();
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&piece[..read]);
            }
            if asks || matches!(prober, Prober::Curl) {
                stream.write_all(answer.as_bytes()).unwrap();
            }
            String::from_utf8(request).unwrap()
        });
        let ran = Command::new(program).args(&argv[1..]).env_remove("PORT").output();
        let Ok(ran) = ran else {
            // The program is not on this machine; the listener's thread ends with a connection of ours.
            drop(std::net::TcpStream::connect(("127.0.0.1", port)));
            drop(server.join());
            return None;
        };
        Some((ran.status.success(), server.join().unwrap()))
    }

    #[test]
    fn each_language_asks_what_coracle_asks() {
        const GOOD: &str = "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        const BAD: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let mut tried = 0;
        for prober in [Prober::Python, Prober::Node, Prober::Bash, Prober::Curl] {
            let Some((well, request)) = ask(prober, Some("/health?deep=1"), GOOD) else { continue };
            tried += 1;
            assert!(well, "{prober:?}");
            assert!(request.starts_with("GET /health?deep=1 HTTP/1."), "{prober:?}: {request}");
            assert!(request.to_lowercase().contains("host: shop.example.com\r\n"), "{prober:?}: {request}");
            assert!(!ask(prober, Some("/health"), BAD).unwrap().0, "{prober:?}");
            assert!(ask(prober, None, GOOD).unwrap().0, "{prober:?}");
        }
        assert!(tried >= 2, "Python and bash are everywhere");
    }
}
