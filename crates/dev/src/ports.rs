//! Ports of the machine: whether they are free, before anything is started.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use coracle_model::container::{PublishedPort, Transport};

use crate::error::DevError;
use crate::stack::Stack;

/// Whether nothing else has the port. Where that cannot be found out (a port below 1024 without the right to it, a protocol
/// without sockets here), the engine will say.
pub(crate) fn is_free(port: &PublishedPort) -> bool {
    let Some(number) = port.host else { return true };
    let address = SocketAddr::new(port.address.unwrap_or(Ipv4Addr::LOCALHOST.into()), number);
    let bound = match port.protocol {
        Transport::Tcp => TcpListener::bind(address).map(drop),
        Transport::Udp => UdpSocket::bind(address).map(drop),
        Transport::Sctp => return true,
    };
    !bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Sees to it that every port of the machine that a stack wants is free.
pub(crate) fn check(stack: &Stack) -> Result<(), DevError> {
    for (name, part) in &stack.spec.processes {
        if let Some(port) = part.container.ports.iter().find(|port| !is_free(port)) {
            return Err(DevError::PortTaken { port: said(port), part: stack.title(name) });
        }
    }
    Ok(())
}

/// `127.0.0.1:8080/tcp`.
pub(crate) fn said(port: &PublishedPort) -> String {
    let address: IpAddr = port.address.unwrap_or(Ipv4Addr::LOCALHOST.into());
    format!("{}/{}", SocketAddr::new(address, port.host.unwrap_or(0)), port.protocol)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let port = PublishedPort { target: 80, protocol: Transport::Tcp, host: Some(number), address: None };
        assert!(!is_free(&port));
        assert!(!is_free(&PublishedPort { address: Some("0.0.0.0".parse().unwrap()), ..port.clone() }));
        assert!(is_free(&PublishedPort { protocol: Transport::Udp, ..port.clone() }));
        drop(listener);
        assert!(is_free(&port));
        assert_eq!(said(&port), format!("127.0.0.1:{number}/tcp"));
    }
}
