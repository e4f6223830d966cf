//! A machine that people log in to: Debian's own `sshd` with a host key of its own, and OpenSSH's client with a configuration of the
//! story's own. Each connection gets an `sshd -i`, so its port is free, and how many there were can be told.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

use crate::env::Env;
use crate::program::{self, PATH, Ran};
use crate::ssh::Key;

/// Where distributions put it.
const SSHD: &str = "/usr/sbin/sshd";

/// A machine with an `sshd`, whose user is whoever runs the story.
#[derive(Debug)]
pub struct Sshd {
    address: SocketAddr,
    directory: PathBuf,
    host_key: Key,
    logins: Arc<AtomicUsize>,
    _accepting: AbortOnDropHandle<()>,
}

/// Whether the story cannot be told here, which is said aloud; in CI it is a failure.
pub fn is_missing(story: &str) -> bool {
    let missing = !Path::new(SSHD).exists();
    if missing {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{story}: there is no {SSHD} (apt-get install openssh-server)");
        eprintln!("SKIPPED {story}: there is no {SSHD}");
    }
    missing
}

impl Sshd {
    /// Starts one on which `coracle` is, or is not, and whose server is the story's.
    pub async fn start(env: &Env, name: &str, with_coracle: bool) -> Self {
        let directory = env.path(name);
        let programs = directory.join("programs");
        std::fs::create_dir_all(&programs).unwrap();
        if with_coracle {
            std::os::unix::fs::symlink(program::path(), programs.join("coracle")).unwrap();
        }
        if rustix::process::geteuid().is_root() {
            // Where its service would make it.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let host_key = env.key(&format!("{name}-host"), "ed25519").await;
        std::fs::write(directory.join("authorized_keys"), "").unwrap();
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin \
             prohibit-password\nPidFile none\nPrintMotd no\nPrintLastLog no\nLogLevel ERROR\nSetEnv PATH={}:{PATH} CORACLE_STATE={}\n",
            host_key.path.display(),
            directory.join("authorized_keys").display(),
            programs.display(),
            env.state().display(),
        );
        std::fs::write(directory.join("sshd_config"), config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, logins) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let accepting = tokio::spawn(accept(listener, directory.clone(), logins.clone()));
        Self { address, directory, host_key, logins, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Its address, for whoever runs the story.
    pub fn url(&self) -> String {
        let user = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
        format!("ssh://{}@{}", String::from_utf8_lossy(&user).trim(), self.address)
    }

    /// Connections so far.
    pub fn logins(&self) -> usize {
        self.logins.load(Ordering::SeqCst)
    }

    /// Lets in whoever has one of these keys, and nobody else.
    pub fn lets_in(&self, keys: &[&Key]) {
        let keys: String = keys.iter().map(|key| std::fs::read_to_string(key.public()).unwrap()).collect();
        std::fs::write(self.directory.join("authorized_keys"), keys).unwrap();
    }

    /// The line of `known_hosts` by which it is known.
    pub fn known(&self) -> String {
        let key = std::fs::read_to_string(self.host_key.public()).unwrap();
        format!("[{}]:{} {key}", self.address.ip(), self.address.port())
    }
}

async fn accept(listener: TcpListener, directory: PathBuf, logins: Arc<AtomicUsize>) {
    let mut running = Vec::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        logins.fetch_add(1, Ordering::SeqCst);
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let other = stream.try_clone().unwrap();
        let mut command = Command::new(SSHD);
        command.arg("-i").arg("-e").arg("-f").arg(directory.join("sshd_config"));
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(stream))).stdout(Stdio::from(std::os::fd::OwnedFd::from(other)));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("sshd.log")).unwrap();
        running.push(command.stderr(log).kill_on_drop(true).spawn().unwrap());
    }
}

/// Somebody's laptop: a home, a key, an `ssh` that knows nothing of this machine's own configuration.
#[derive(Debug)]
pub struct Laptop {
    env: Env,
    directory: PathBuf,
}

impl Laptop {
    /// One whose `ssh` offers this key.
    pub fn of(env: &Env, name: &str, key: &Key) -> Self {
        let directory = env.path(name);
        for part in ["bin", "home", "run"] {
            std::fs::create_dir_all(directory.join(part)).unwrap();
        }
        std::fs::set_permissions(directory.join("run"), PermissionsExt::from_mode(0o700)).unwrap();
        let config = format!(
            "Host *\n IdentityFile {}\n IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {}\n GlobalKnownHostsFile \
             /dev/null\n",
            key.path.display(),
            directory.join("known_hosts").display()
        );
        std::fs::write(directory.join("config"), config).unwrap();
        let ssh = directory.join("bin/ssh");
        std::fs::write(&ssh, format!("#!/bin/sh\nexec /usr/bin/ssh -F {} \"$@\"\n", directory.join("config").display())).unwrap();
        std::fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).unwrap();
        Self { env: env.clone(), directory }
    }

    /// From now on it knows these hosts, and no others.
    pub fn knows(&self, lines: &[String]) {
        std::fs::write(self.directory.join("known_hosts"), lines.join("\n") + "\n").unwrap();
    }

    /// Connections that it has open are not used any more.
    pub fn forgets_connections(&self) {
        std::fs::rename(self.directory.join("run/coracle"), self.directory.join("run/before")).unwrap();
    }

    /// The client's own configuration.
    pub fn config(&self) -> PathBuf {
        self.directory.join("home/.config/coracle/config.toml")
    }

    /// `coracle` with these words, typed in this directory. It knows nothing of the story's server.
    pub fn command(&self, directory: &Path, words: &[&str]) -> Command {
        let mut command = program::command(&program::path(), &self.directory.join("home"));
        command.env("PATH", format!("{}:{PATH}", self.directory.join("bin").display()));
        command.env("XDG_RUNTIME_DIR", self.directory.join("run")).env("TMPDIR", &self.directory);
        command.env("CORACLE_STATE", self.directory.join("no-server")).env_remove("SSH_AUTH_SOCK");
        command.current_dir(directory).args(words);
        command
    }

    /// Runs `coracle` with these words.
    pub async fn coracle(&self, words: &[&str]) -> Ran {
        Ran::to_its_end(self.command(&self.directory, words)).await
    }

    /// Runs `coracle` with these words in this directory.
    pub async fn coracle_in(&self, directory: &Path, words: &[&str]) -> Ran {
        Ran::to_its_end(self.command(directory, words)).await
    }

    /// The line of `known_hosts` of the server's own SSH door, and the door's address.
    pub async fn door(&self) -> (String, String) {
        let ssh = self.env.client().version().await.unwrap().ssh.expect("the server listens for SSH");
        let (host, port) = ssh.address.rsplit_once(':').unwrap();
        (format!("[{host}]:{port} {}", ssh.host_key), format!("ssh://coracle@{}", ssh.address))
    }
}
