//! Ports, directories and disks.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use coracle_api::Check;
use coracle_model::ByteSize;

use super::{fail, ok, warn};
use crate::state_dir;

/// Below this, builds are likely to fail.
const WANTED_SPACE: u64 = 2 << 30;

/// Below this, the server itself is in danger.
const NEEDED_SPACE: u64 = 200 << 20;

/// How long a look at a port may take.
const PORT_DEADLINE: Duration = Duration::from_secs(2);

/// Whether requests can be taken at this address. `proxy` is the version of our proxy, if it answers.
pub(super) async fn port(address: SocketAddr, proxy: Option<&str>) -> Check {
    let name = format!("port {address}");
    if let Some(version) = proxy {
        let reaching = if address.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], address.port())) } else { address };
        return match tokio::time::timeout(PORT_DEADLINE, tokio::net::TcpStream::connect(reaching)).await {
            Ok(Ok(_)) => ok(&name, format!("the proxy ({version}) takes requests")),
            Ok(Err(error)) => fail(&name, format!("the proxy runs, but {error}"), "look into proxy.log in the state directory"),
            Err(_) => fail(&name, "the proxy runs, but takes no connection", "look into proxy.log in the state directory"),
        };
    }
    match std::net::TcpListener::bind(address) {
        Ok(_) => ok(&name, "free"),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            fail(&name, "another program listens there", "`ss -ltnp` shows which; stop it, or choose another port with `--http`")
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            fail(&name, "only root may listen there", "run the server as root, or choose a port above 1023 with `--http`")
        }
        Err(error) => fail(&name, error.to_string(), "choose another address with `--http`"),
    }
}

/// Whether the state directory is there and private.
pub(super) fn state_dir(path: &Path) -> Check {
    let shown = path.display();
    match state_dir::is_open_to_others(path) {
        Ok(false) => ok("state directory", format!("{shown}, private")),
        Ok(true) => warn("state directory", format!("{shown} can be entered by other users"), "`chmod 700` it"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => ok("state directory", format!("{shown} is not there yet")),
        Err(error) => fail("state directory", format!("{shown}: {error}"), "run the server as the user whom it belongs to"),
    }
}

/// Whether there is room for builds.
pub(super) fn disk_space(path: &Path) -> Check {
    // Before the first start, the disk is that of the nearest directory that is there.
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(facts) = rustix::fs::statvfs(there) else {
        return warn("disk space", format!("{} does not tell", there.display()), "check it with `df`");
    };
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    let inodes_low = facts.f_files > 0 && facts.f_favail < 10_000;
    let detail = format!("{} free at {}", ByteSize::bytes(free), there.display());
    let hint = "remove what is not needed; `docker system df` shows what images take";
    match free {
        _ if inodes_low => fail("disk space", format!("{detail}, but only {} more files", facts.f_favail), hint),
        free if free < NEEDED_SPACE => fail("disk space", detail, hint),
        free if free < WANTED_SPACE => warn("disk space", detail, hint),
        _ => ok("disk space", detail),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use coracle_api::CheckStatus;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_state_directory_that_others_may_enter_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(state_dir(dir.path()).status, CheckStatus::Ok);
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(state_dir(dir.path()).status, CheckStatus::Warn);
    }

    #[tokio::test]
    async fn a_free_port_and_a_taken_one_are_told_apart() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(port(taken.local_addr().unwrap(), None).await.status, CheckStatus::Fail);
        assert_eq!(port(taken.local_addr().unwrap(), Some("0.1.0")).await.status, CheckStatus::Ok);
        assert_eq!(port(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.status, CheckStatus::Ok);
    }
}
