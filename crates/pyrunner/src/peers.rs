//! Connections of each address: one that opens them and says nothing must not take everybody's.

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use crate::caller::ClientId;

/// How many connections each client has. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    most: usize,
    /// Proxies, whose connections are many clients'.
    trusted: Arc<[IpNet]>,
    open: Arc<Mutex<HashMap<ClientId, usize>>>,
}

/// What a connection holds as long as it is open, whichever protocol is spoken on it. Cheap to clone; the last clone is its end.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    _counted: Arc<dyn Any + Send + Sync>,
}

impl Held {
    pub(crate) fn new(counted: impl Any + Send + Sync) -> Self {
        Self { _counted: Arc::new(counted) }
    }
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Connected {
    peers: Peers,
    /// `None`: one that is not counted.
    client: Option<ClientId>,
}

impl Peers {
    /// Lets each client have so many connections, trusted proxies as many as they like. This machine is a client too: its
    /// programs, and pages in its browsers, are not all meant well.
    pub(crate) fn new(most: usize, trusted: &[IpNet]) -> Self {
        Self { most: most.max(1), trusted: trusted.into(), open: Arc::default() }
    }

    /// How many each client may have.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Counts a connection; `None` if its client has too many.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Connected> {
        let address = address.to_canonical();
        if self.trusted.iter().any(|network| network.contains(&address)) {
            return Some(Connected { peers: self.clone(), client: None });
        }
        let client = ClientId::at(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Connected { peers: self.clone(), client: Some(client) })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let Some(client) = self.client else { return };
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_client_has_so_many_and_no_more() {
        let peers = Peers::new(2, &["10.0.0.0/8".parse().unwrap()]);
        let from = |address: &str| peers.enter(address.parse().unwrap());
        let first = from("2001:db8::1").unwrap();
        let second = from("2001:db8::2").unwrap();
        assert!(from("2001:db8::3").is_none(), "one network of IPv6 is one client");
        assert!(from("192.0.2.1").is_some());
        drop(first);
        let third = from("2001:db8::3").unwrap();
        let proxied: Vec<_> = (0..9).map(|_| from("10.1.1.1").unwrap()).collect();
        let own = [from("::ffff:127.0.0.1").unwrap(), from("127.0.0.1").unwrap()];
        assert!(from("127.0.0.1").is_none());
        drop((proxied, own, second, third));
        assert!(peers.open.lock().unwrap().is_empty());
    }
}
