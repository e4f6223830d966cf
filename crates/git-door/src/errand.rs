//! What git has this program do while it fetches: start `ssh`, with options of ours alone.
//!
//! Git is told this program's name in `GIT_SSH`, and starts it without a shell. The user's and the system's configuration, agents
//! and known hosts are not looked at.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The name that git knows this program by.
pub(crate) const NAME: &str = "coracle-ssh";

/// The variable that names the file with the key.
pub(crate) const KEY: &str = "CORACLE_SSH_KEY";

/// The variable that names the file with the keys that the host may show.
pub(crate) const KNOWN_HOSTS: &str = "CORACLE_SSH_KNOWN_HOSTS";

/// Everything that `ssh` could take from elsewhere, ask somebody, or do besides.
const OPTIONS: &[&str] = &[
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "GlobalKnownHostsFile=/dev/null",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "BatchMode=yes",
    "PreferredAuthentications=publickey",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "ControlMaster=no",
    "ConnectTimeout=20",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "LogLevel=ERROR",
];

/// Whether a program was started by git in order to start `ssh`, by the name it was started under.
pub fn is_ssh(program: &OsStr) -> bool {
    std::env::var_os(KEY).is_some() && Path::new(program).file_name().is_some_and(|name| name == NAME)
}

/// Becomes `ssh` with what git says: options, the host, and the command there. Comes back only if it cannot.
pub fn become_ssh(words: impl Iterator<Item = OsString>) -> std::io::Error {
    let (Some(key), Some(known)) = (std::env::var_os(KEY), std::env::var_os(KNOWN_HOSTS)) else {
        return std::io::Error::other("no key is named");
    };
    let mut command = Command::new("ssh");
    let mut known_hosts = OsString::from("UserKnownHostsFile=");
    known_hosts.push(known);
    command.args(["-F", "/dev/null", "-a", "-x", "-T", "-i"]).arg(key).arg("-o").arg(known_hosts);
    for option in OPTIONS {
        command.args(["-o", option]);
    }
    command.env_remove(KEY).env_remove(KNOWN_HOSTS).args(words).exec()
}
