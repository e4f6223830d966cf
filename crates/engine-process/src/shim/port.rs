//! Ports for instances: on the loopback address, outside the range that the kernel gives to outgoing connections, and never
//! one for two instances, whichever server they belong to.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// The ports that are given out.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A port that stays ours as long as this value (in the shim: as the shim) lives.
pub(super) struct ReservedPort {
    /// The port.
    pub(super) port: u16,
    /// An abstract socket named after the port: the kernel lets one process on the machine have it, and takes it back when
    /// that process ends, however it ends.
    _claim: UnixListener,
}

/// Finds a port that nobody has claimed and nobody listens on.
pub(super) fn reserve() -> Result<ReservedPort, String> {
    let count = PORTS.len();
    // Where to begin differs from shim to shim, so that a port is not given out again as soon as it is free.
    let begin = usize::try_from(now_nanos() / 1000).unwrap_or(0) % count;
    (0..count)
        .filter_map(|step| u16::try_from((begin + step) % count).ok())
        .find_map(|offset| claim(PORTS.start + offset))
        .ok_or_else(|| format!("no free port between {} and {}", PORTS.start, PORTS.end - 1))
}

fn claim(port: u16) -> Option<ReservedPort> {
    let name = SocketAddr::from_abstract_name(format!("coracle-port-{port}")).ok()?;
    let claim = UnixListener::bind_addr(&name).ok()?;
    // A foreign program may listen there without knowing of claims, on this address or on all.
    let free = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED].iter().all(|address| TcpListener::bind((*address, port)).is_ok());
    free.then_some(ReservedPort { port, _claim: claim })
}

fn now_nanos() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map(|time| time.as_nanos()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_is_claimed_once_until_it_is_let_go() {
        let first = reserve().unwrap();
        assert!(PORTS.contains(&first.port));
        assert!(claim(first.port).is_none());
        let port = first.port;
        drop(first);
        assert!(claim(port).is_some());
    }

    #[test]
    fn a_port_that_a_stranger_listens_on_is_not_given_out() {
        let (port, _listener) =
            PORTS.rev().find_map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok().map(|l| (port, l))).unwrap();
        assert!(claim(port).is_none());
    }
}
