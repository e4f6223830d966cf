//! The API through the system's own `ssh`, with its keys, its known hosts and its configuration.
//!
//! Each connection to the API is one `ssh HOST coracle dial`, whose input and output are the connection. They share one connection
//! over the network, by OpenSSH's own means (`ControlMaster`), unless its user has configured that already. No shell runs here, a host
//! is never an option, and nothing of an address gets into the command of the far side.

use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::ClientError;
use crate::dial::{DIAL_COMMAND, greeted};

/// The port of SSH (RFC 4250 section 4.2).
const USUAL_PORT: u16 = 22;

/// How long it may take until the far side speaks: the network, the login, its shell.
const CONNECT_DEADLINE: Duration = Duration::from_secs(45);

/// How long `ssh` may take to say how it is configured.
const CONFIGURATION_DEADLINE: Duration = Duration::from_secs(10);

/// How long `ssh` may take to end, and to have said why, once it has closed its output.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Bytes that are kept of what `ssh` complains about.
const LONGEST_COMPLAINT: u64 = 16 * 1024;

/// Bytes that a login shell may write before the far side is there.
const LONGEST_NOISE: u64 = 64 * 1024;

/// Bytes of a path of a control socket: `sockaddr_un` has 108, and ssh binds it with 17 more before it moves it into place.
const LONGEST_SOCKET: usize = 107 - 17;

/// Characters of `%C`, which is a SHA-1 digest (ssh_config(5), TOKENS).
const HASH: usize = 40;

/// `ssh://user@host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// Who to log in as; by default whoever `ssh` thinks.
    pub user: Option<String>,
    /// The host, or what `~/.ssh/config` calls it. An IPv6 address stands without its brackets.
    pub host: String,
    /// The port; by default the one that `ssh` thinks.
    pub port: Option<u16>,
}

impl FromStr for SshAddress {
    type Err = ClientError;

    fn from_str(url: &str) -> Result<Self, ClientError> {
        let bad = |why: &str| ClientError::Endpoint(format!("{url:?} is not the address of a server: {why}"));
        let rest = url.strip_prefix("ssh://").ok_or_else(|| bad("use the form ssh://user@host:port"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(ClientError::Endpoint("an address over SSH has no password: keys are `ssh`'s own affair".to_owned()));
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| bad("a bracket is missing"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| bad("what is in the brackets is no IPv6 address"))?;
                (host, port)
            }
            None => place.split_at(place.find(':').unwrap_or(place.len())),
        };
        let port = match port {
            "" => None,
            text => {
                let number = text.strip_prefix(':').and_then(|text| text.parse::<u16>().ok()).filter(|port| *port > 0);
                Some(number.ok_or_else(|| bad("the port is no number from 1 to 65535"))?)
            }
        };
        if !is_word(host, b".-_:") {
            return Err(bad("the host is letters, digits, dots and hyphens, and begins with no hyphen"));
        }
        if user.is_some_and(|user| !is_word(user, b".-_")) {
            return Err(bad("the user is letters, digits, dots and hyphens, and begins with no hyphen"));
        }
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port })
    }
}

/// Nothing that `ssh` could take for an option or a `%` token, or a shell behind its `ProxyCommand` for anything but a word.
fn is_word(text: &str, beside: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || beside.contains(&byte);
    !text.is_empty() && text.len() <= 255 && !text.starts_with('-') && text.bytes().all(plain)
}

impl std::fmt::Display for SshAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.in_url())?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl SshAddress {
    /// The host as it stands in an address.
    pub fn in_url(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// How it is typed.
    fn typed(&self) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("ssh {port}{user}{}", self.host)
    }

    /// Its name in `known_hosts`.
    fn known_as(&self) -> String {
        match self.port {
            None | Some(USUAL_PORT) => self.host.clone(),
            Some(port) => format!("'[{}]:{port}'", self.host),
        }
    }

    /// The words that lead there. Options end before the host, which is no option anyway.
    fn words(&self) -> Vec<String> {
        let port = self.port.iter().flat_map(|port| ["-p".to_owned(), port.to_string()]);
        let user = self.user.iter().flat_map(|user| ["-l".to_owned(), user.clone()]);
        port.chain(user).chain(["--".to_owned(), self.host.clone()]).collect()
    }
}

/// A server that is reached through `ssh`.
#[derive(Debug, Clone)]
pub struct Ssh {
    address: SshAddress,
    sharing: Option<PathBuf>,
    /// Options that its configuration leaves to us; asked for once.
    options: Arc<OnceCell<Vec<String>>>,
}

impl Ssh {
    /// `sharing` is a directory that only this user can enter: the sockets of shared connections are kept there. Without it, or
    /// if its path is too long or strange for such sockets, each connection to the API logs in by itself.
    pub fn new(address: SshAddress, sharing: Option<PathBuf>) -> Self {
        let sharing = sharing.filter(|directory| {
            let text = directory.as_os_str().as_encoded_bytes();
            let is_plain = text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(byte));
            is_plain && text.len() + 1 + HASH <= LONGEST_SOCKET
        });
        Self { address, sharing, options: Arc::default() }
    }

    /// Where it is.
    pub fn address(&self) -> &SshAddress {
        &self.address
    }

    /// Options for what the user's own configuration says nothing about.
    async fn options(&self) -> &[String] {
        let ask = async {
            let mut command = Command::new("ssh");
            command.arg("-G").args(self.address.words()).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            let answer = timeout(CONFIGURATION_DEADLINE, command.process_group(0).output()).await;
            let said = answer.ok().and_then(Result::ok).map(|answer| answer.stdout).unwrap_or_default();
            self.left_to_us(&String::from_utf8_lossy(&said))
        };
        self.options.get_or_init(async || ask.await).await
    }

    /// Reads what `ssh -G` says: a line for each option that has a value.
    fn left_to_us(&self, configuration: &str) -> Vec<String> {
        let value = |name: &str| {
            let lines = configuration.lines().filter_map(|line| line.split_once(' '));
            lines.filter(|(key, _)| *key == name).map(|(_, value)| value).next().filter(|value| !matches!(*value, "none" | "0"))
        };
        let mut options = Vec::new();
        let mut add = |option: String| options.extend(["-o".to_owned(), option]);
        if value("connecttimeout").is_none() {
            add("ConnectTimeout=15".to_owned());
        }
        if value("serveraliveinterval").is_none() {
            add("ServerAliveInterval=15".to_owned());
            add("ServerAliveCountMax=3".to_owned());
        }
        let untouched = value("controlpath").is_none() && matches!(value("controlmaster"), None | Some("false" | "no"));
        if let Some(directory) = self.sharing.as_ref().filter(|_| untouched) {
            add("ControlMaster=auto".to_owned());
            add("ControlPersist=60".to_owned());
            add(format!("ControlPath={}/%C", directory.display()));
        }
        options
    }

    pub(super) async fn connect(&self) -> Result<SshStream, ClientError> {
        timeout(CONNECT_DEADLINE, self.dial())
            .await
            .unwrap_or_else(|_| Err(self.unreachable(&format!("nothing was heard within {CONNECT_DEADLINE:?}"), NO_ANSWER)))
    }

    async fn dial(&self) -> Result<SshStream, ClientError> {
        let mut command = Command::new("ssh");
        // Nobody can be asked: what would need an answer is a failure that says so.
        command.args(["-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]);
        // What a configuration may want for logins, and is in the way here.
        command.args(["-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no", "-o", "ClearAllForwardings=yes"]);
        command.args(self.options().await).args(self.address.words()).arg(DIAL_COMMAND);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A configuration may send variables along; this one is for nobody else.
        command.env_remove("CORACLE_TOKEN");
        // Ctrl-C is for us, who want to call off over this connection what was begun over it.
        command.process_group(0);
        let mut child = command.spawn().map_err(|error| {
            let hint = "install OpenSSH's client (apt-get install openssh-client)";
            self.unreachable(&format!("ssh cannot be started: {error}"), hint)
        })?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(self.unreachable("ssh has no input or output", NO_ANSWER));
        };
        let complaint = tokio::spawn(complaint(errors));
        let mut output = BufReader::new(output);
        match wait_for_greeting(&mut output).await {
            Ok(()) => {
                let complaint = Some(Box::pin(last_words(complaint)) as LastWords);
                Ok(SshStream { input, output, complaint, _child: child })
            }
            Err(noise) => Err(self.explain(child, complaint, &noise).await),
        }
    }

    async fn explain(&self, mut child: Child, complaint: JoinHandle<String>, noise: &str) -> ClientError {
        let status = timeout(LAST_WORDS, child.wait()).await.ok().and_then(Result::ok);
        let told = last_words(complaint).await;
        self.why(status.as_ref().and_then(ExitStatus::code), &told, noise)
    }

    /// Why the far side has not spoken. OpenSSH's messages are in one language alone, and 255 is its own exit code.
    fn why(&self, code: Option<i32>, told: &str, noise: &str) -> ClientError {
        let (typed, known_as) = (self.address.typed(), self.address.known_as());
        let last = last_line(told).unwrap_or_default();
        let says = |words: &[&str]| words.iter().any(|words| told.contains(words));
        let (cause, hint) = match code {
            Some(255) | None if says(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]) => (
                "its host key is another one than the one that is known: somebody may be in between".to_owned(),
                format!("ask whoever runs the server; if the key was really changed: ssh-keygen -R {known_as}, then `{typed}`"),
            ),
            Some(255) | None if says(&["Host key verification failed", "host key is known for"]) => (
                format!("its host key is not known ({})", or(last, "Host key verification failed")),
                format!("connect once by hand and compare the fingerprint: {typed}"),
            ),
            Some(255) | None if says(&["Permission denied", "Too many authentication failures"]) => (
                format!("it does not let you in ({last})"),
                format!(
                    "is your key on the server? does `{typed}` work? a key with a passphrase has to be in the agent (ssh-add); for \
                     Coracle's own door: coracle people key add NAME KEY.pub"
                ),
            ),
            Some(255) => (or(last, "ssh could not connect").to_owned(), format!("check the address and the port: {typed}")),
            Some(127) => (
                format!("there is no coracle on the other side ({})", or(last, "command not found")),
                "install it where a shell that is not a login finds it, as in /usr/local/bin".to_owned(),
            ),
            Some(2) if says(&["unrecognized subcommand"]) => (
                "the coracle there is too old to be reached over SSH".to_owned(),
                "bring it to this version, with the server".to_owned(),
            ),
            Some(1) if last.starts_with("error: ") || last.starts_with("next: ") => {
                let line = |mark: &str| told.lines().find_map(|line| line.strip_prefix(mark));
                let next = line("next: ").unwrap_or("start it there: `coracle server run`, as the user you log in as");
                (format!("it has no server for you: {}", line("error: ").unwrap_or(last)), next.to_owned())
            }
            Some(code) => (format!("the other side ended with {code} ({})", or(last, or(noise, "it said nothing"))), typed),
            None => (or(last, "ssh has not answered").to_owned(), NO_ANSWER.to_owned()),
        };
        self.unreachable(&cause, &hint)
    }

    fn unreachable(&self, cause: &str, hint: &str) -> ClientError {
        ClientError::Unreachable { endpoint: self.address.to_string(), cause: cause.to_owned(), hint: hint.to_owned() }
    }
}

const NO_ANSWER: &str = "is the network up, and the machine? `ssh -v` tells how far one gets";

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.trim().is_empty() { otherwise } else { text }
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().rfind(|line| !line.trim().is_empty())
}

/// A shared connection's process may hold the pipe open for longer than what is waited for.
async fn last_words(complaint: JoinHandle<String>) -> String {
    timeout(LAST_WORDS, complaint).await.ok().and_then(Result::ok).unwrap_or_default()
}

/// What `ssh`, and what it runs, says on the side, without what a terminal would obey.
async fn complaint(mut errors: ChildStderr) -> String {
    let mut said = Vec::new();
    // What cannot be read any more has been said up to there; and who says more than is kept is not cut off for it.
    let _read: std::io::Result<usize> = (&mut errors).take(LONGEST_COMPLAINT).read_to_end(&mut said).await;
    let _rest: std::io::Result<u64> = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
    plain(&said)
}

fn plain(said: &[u8]) -> String {
    String::from_utf8_lossy(said).chars().filter(|letter| *letter == '\n' || !letter.is_control()).collect()
}

/// Reads up to the greeting, or gives what came instead of it.
async fn wait_for_greeting(output: &mut BufReader<ChildStdout>) -> Result<(), String> {
    let mut noise = Vec::new();
    let mut left = LONGEST_NOISE;
    while left > 0 {
        let mut line = Vec::new();
        let read = (&mut *output).take(left).read_until(b'\n', &mut line).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        if greeted(&line).is_some() {
            return Ok(());
        }
        left = left.saturating_sub(read as u64);
        noise = line;
    }
    Err(plain(&noise))
}

/// What somebody will have said by the end.
type LastWords = Pin<Box<dyn Future<Output = String> + Send>>;

/// A connection to the API through one `ssh`, which is killed when this is dropped.
pub(super) struct SshStream {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    complaint: Option<LastWords>,
    _child: Child,
}

impl SshStream {
    /// At the end: if `ssh` has something to say about it, it is an error.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let Some(complaint) = &mut self.complaint else { return Poll::Ready(Ok(())) };
        let told = ready!(complaint.as_mut().poll(cx));
        self.complaint = None;
        match last_line(&told) {
            Some(last) => Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, format!("ssh: {last}")))),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(cx, into))?;
        if into.filled().len() == before && into.remaining() > 0 { self.poll_end(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn address(url: &str) -> SshAddress {
        url.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_and_written_the_same() {
        for url in ["ssh://box", "ssh://root@box.example.com", "ssh://root@box:2222", "ssh://[::1]:22", "ssh://a.b_c@[fe80::1]"] {
            assert_eq!(address(url).to_string(), url);
        }
        assert_eq!(address("ssh://root@box:2222/").words(), ["-p", "2222", "-l", "root", "--", "box"]);
        assert_eq!(address("ssh://[::1]:2222").words(), ["-p", "2222", "--", "::1"]);
    }

    #[test]
    fn what_could_be_an_option_or_reach_a_shell_is_no_address() {
        for bad in [
            "ssh://",
            "ssh://-oProxyCommand=id",
            "ssh://root@-oProxyCommand=id",
            "ssh://-l@box",
            "ssh://a b",
            "ssh://box;id",
            "ssh://$(id)",
            "ssh://`id`",
            "ssh://box\n",
            "ssh://%h",
            "ssh://box/path",
            "ssh://box?x",
            "ssh://box:0",
            "ssh://box:x",
            "ssh://box:70000",
            "ssh://[::1",
            "ssh://[box]",
            "ssh://[::1]x",
            "ssh://user:word@box",
            "ssh://@box",
            "ssh://a'b@box",
            "http://box",
            "box",
        ] {
            assert!(matches!(bad.parse::<SshAddress>(), Err(ClientError::Endpoint(_))), "{bad}");
        }
        let told = "ssh://user:hunter2@box".parse::<SshAddress>().unwrap_err().to_string();
        assert!(!told.contains("hunter2"), "{told}");
    }

    fn options(ssh: &Ssh, configuration: &str) -> String {
        ssh.left_to_us(configuration).join(" ")
    }

    #[test]
    fn what_is_configured_already_is_left_alone() {
        let ssh = Ssh::new(address("ssh://box"), Some("/run/user/1/coracle".into()));
        let usual = "user ana\nconnecttimeout none\nserveraliveinterval 0\ncontrolmaster false\ncontrolpersist no\n";
        assert_eq!(
            options(&ssh, usual),
            "-o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3 -o ControlMaster=auto -o ControlPersist=60 \
             -o ControlPath=/run/user/1/coracle/%C"
        );
        let own = "connecttimeout 3\nserveraliveinterval 60\ncontrolmaster auto\ncontrolpath /home/ana/.ssh/cm-%C\n";
        assert_eq!(options(&ssh, own), "");
    }

    #[test]
    fn sockets_are_kept_only_where_their_paths_are_short_and_plain() {
        for bad in ["/run/user/1000/%h", "/run/a b", &format!("/tmp/{}", "x".repeat(60))] {
            let ssh = Ssh::new(address("ssh://box"), Some(bad.into()));
            assert!(!options(&ssh, "").contains("Control"), "{bad}");
        }
    }

    #[test]
    fn each_way_of_not_getting_there_has_its_words() {
        let ssh = Ssh::new(address("ssh://ana@box:2222"), None);
        let why = |code, told: &str| {
            let error = ssh.why(code, told, "");
            (error.to_string(), error.hint().unwrap().to_owned())
        };
        for (code, told, cause, hint) in [
            (255, "Host key verification failed.\n", "host key is not known", "ssh -p 2222 ana@box"),
            (255, "@@@\nREMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.\n", "another one", "'[box]:2222'"),
            (255, "ana@box: Permission denied (publickey).\n", "does not let you in (ana@box: Permission", "ssh-add"),
            (255, "ssh: connect to host box port 2222: Connection refused\n", "Connection refused", "check the address"),
            (127, "bash: line 1: coracle: command not found\n", "no coracle on the other side", "/usr/local/bin"),
            (2, "error: unrecognized subcommand 'dial'\n", "too old", "this version"),
            (1, "error: cannot reach the server at /x: gone\n", "no server for you: cannot reach", "server run"),
            (1, "error: cannot reach the server at /x: gone\nnext: use sudo\n", "no server for you: cannot reach", "use sudo"),
            (1, "This account is currently not available.\n", "This account is currently", "ssh -p"),
        ] {
            let (is, next) = why(Some(code), told);
            assert!(is.contains(cause) && next.contains(hint), "{is}\n{next}");
        }
    }
}
