//! Requests in numbers: wrk for HTTP/1.1, h2load for HTTP/2. Both ask again as soon as they have an answer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// How many different requests there are where hosts are taken by chance.
const REQUESTS: usize = 10_000;

/// What to ask.
#[derive(Debug, Clone)]
pub struct Asking {
    /// HTTP/1.1 or HTTP/2.
    pub how: How,
    /// Over TLS.
    pub tls: bool,
    /// Connections at a time.
    pub connections: usize,
    /// The path.
    pub path: &'static str,
}

/// In which words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// HTTP/1.1, all on the same connections.
    KeepAlive,
    /// HTTP/1.1, each on a connection of its own, and over TLS with a full handshake: wrk never resumes a session.
    NewConnections,
    /// HTTP/1.1, each time one of [`REQUESTS`] different requests, taken by chance, for so many hosts: `host-0.localhost`,
    /// `host-1.localhost` and so on. Whatever the number of hosts is, the client has as much to do.
    Hosts(usize),
    /// HTTP/2, with so many requests at a time on each connection.
    Http2(usize),
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answered {
    /// Requests that were answered.
    pub requests: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The median of the times to an answer, in microseconds.
    pub p50: f64,
    /// The time to an answer that 99 of 100 stayed below, in microseconds.
    pub p99: f64,
    /// Connections that failed, requests without an answer, and answers of another status than 2xx and 3xx.
    pub failed: f64,
}

impl Asking {
    /// Asks `address` for so many seconds. Puts what the clients need into `directory`.
    ///
    /// # Panics
    /// If the client is not installed or does not say how it went.
    pub async fn ask(&self, address: SocketAddr, seconds: u64, directory: &Path) -> Answered {
        match self.how {
            How::Http2(streams) => self.h2load(address, seconds, streams, directory).await,
            _ => self.wrk(address, seconds, directory).await,
        }
    }

    async fn wrk(&self, address: SocketAddr, seconds: u64, directory: &Path) -> Answered {
        let script = self.script(directory);
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--timeout", "10s", "--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{seconds}s"), "--header", "Host: localhost"]).arg("--script").arg(script);
        // By name, because a name is what goes into a TLS client's greeting.
        let scheme = if self.tls { "https" } else { "http" };
        command.arg(format!("{scheme}://localhost:{}{}", address.port(), self.path));
        let said = run(command).await;
        let numbers = said.lines().find_map(|line| line.strip_prefix("ANSWERED ")).unwrap_or_else(|| panic!("wrk: {said}"));
        let numbers: Vec<f64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        Answered { requests: numbers[0], seconds: numbers[1] / 1e6, p50: numbers[2], p99: numbers[3], failed: numbers[4] }
    }

    fn script(&self, directory: &Path) -> PathBuf {
        let asking = match self.how {
            How::NewConnections => "wrk.headers['Connection'] = 'close'\n".to_owned(),
            How::Hosts(count) => format!(
                "local requests = {{}}\n\
                 function init(arguments)\n  \
                 for i = 0, {REQUESTS} - 1 do\n    \
                 local host, number = 'host-' .. i % {count} .. '.localhost', string.format('%05d', i)\n    \
                 requests[i + 1] = wrk.format('GET', nil, {{ ['Host'] = host, ['X-Number'] = number }})\n  \
                 end\nend\n\
                 function request() return requests[math.random({REQUESTS})] end\n"
            ),
            _ => String::new(),
        };
        let done = "function done(summary, latency, requests)\n  local errors = summary.errors\n  \
                    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout\n  \
                    print(string.format('ANSWERED %d %d %d %d %d', summary.requests, summary.duration,\n    \
                    latency:percentile(50), latency:percentile(99), failed))\nend\n";
        let path = directory.join("wrk.lua");
        fs::write(&path, asking + done).unwrap();
        path
    }

    async fn h2load(&self, address: SocketAddr, seconds: u64, streams: usize, directory: &Path) -> Answered {
        let log = directory.join("h2load.log");
        drop(fs::remove_file(&log));
        let mut command = Command::new("h2load");
        command.args(["--threads", "1", "--clients", &self.connections.to_string()]);
        command.args(["--max-concurrent-streams", &streams.to_string(), "--duration", &seconds.to_string()]);
        command.args(["--connect-to", &address.to_string()]).arg("--log-file").arg(&log);
        let scheme = if self.tls { "https" } else { "http" };
        command.arg(format!("{scheme}://localhost{}", self.path));
        let said = run(command).await;
        // `requests: 2 total, 2 started, 2 done, 2 succeeded, 0 failed, 0 errored, 0 timeout`
        let count = |word: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix("requests: ")).unwrap_or_else(|| panic!("h2load: {said}"));
            let part = line.split(", ").find_map(|part| part.strip_suffix(word)).unwrap_or_else(|| panic!("h2load: {line}"));
            part.trim().parse::<f64>().unwrap()
        };
        // Each line: when it was asked, the status, and the microseconds to the answer.
        let log = fs::read_to_string(log).unwrap();
        let mut times: Vec<f64> = log.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        let failed = count(" failed") + count(" errored") + count(" timeout");
        Answered { requests: count(" done"), seconds: seconds as f64, p50: at(0.5), p99: at(0.99), failed }
    }
}

async fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
