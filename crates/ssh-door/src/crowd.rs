//! How many connections there are, and from where: no address and no network takes every place, so that others find one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections at a time.
const CONNECTIONS: usize = 256;

/// Connections of one address at a time: whole offices come from one. Of IPv6, a /64 is one: it is what a single line is given.
const BY_ADDRESS: usize = 32;

/// Connections of one network at a time: a /24, and of IPv6 a /48, which is what a customer is given.
const BY_NETWORK: usize = 64;

/// Some addresses that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Block {
    Address(IpAddr),
    Network(IpAddr),
}

impl Block {
    /// The blocks that an address is in, with how many of each are taken.
    fn of(address: IpAddr) -> [(Self, usize); 2] {
        let (own, network): (IpAddr, IpAddr) = match address.to_canonical() {
            IpAddr::V4(own) => (own.into(), Ipv4Addr::from_bits(own.to_bits() & (!0 << 8)).into()),
            IpAddr::V6(own) => {
                let first = |bits: u32| IpAddr::from(Ipv6Addr::from_bits(own.to_bits() & (!0 << (128 - bits))));
                (first(64), first(48))
            }
        };
        [(Self::Address(own), BY_ADDRESS), (Self::Network(network), BY_NETWORK)]
    }
}

/// Who is there.
#[derive(Default)]
pub(crate) struct Crowd(Mutex<There>);

#[derive(Default)]
struct There {
    all: usize,
    of: HashMap<Block, usize>,
}

/// One who is there.
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

impl Crowd {
    /// One more of this address, if that is not too many.
    pub(crate) fn another(crowd: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut there = crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = Block::of(address);
        let is_room = |(block, most): &(Block, usize)| there.of.get(block).copied().unwrap_or_default() < *most;
        if there.all >= CONNECTIONS || !blocks.iter().all(is_room) {
            return None;
        }
        there.all += 1;
        for (block, _) in blocks {
            *there.of.entry(block).or_default() += 1;
        }
        Some(Place { crowd: crowd.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut there = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        there.all -= 1;
        for (block, _) in Block::of(self.address) {
            match there.of.get_mut(&block) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    there.of.remove(&block);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all_of(crowd: &Arc<Crowd>, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Place> {
        addresses.into_iter().flat_map(|address| std::iter::from_fn(move || Crowd::another(crowd, address))).collect()
    }

    #[test]
    fn one_address_does_not_take_every_place_and_places_are_given_back() {
        let crowd = Arc::new(Crowd::default());
        let one = IpAddr::from([127, 0, 0, 1]);
        let mut places = all_of(&crowd, [one]);
        assert_eq!(places.len(), BY_ADDRESS);
        let elsewhere = Crowd::another(&crowd, IpAddr::from([127, 0, 0, 2])).unwrap();
        places.pop();
        assert!(Crowd::another(&crowd, one).is_some());
        drop((places, elsewhere));
        let there = crowd.0.lock().unwrap();
        assert!(there.of.is_empty() && there.all == 0);
    }

    #[test]
    fn neither_does_one_network() {
        let crowd = Arc::new(Crowd::default());
        let network = all_of(&crowd, (0..=u8::MAX).map(|last| IpAddr::from([203, 0, 113, last])));
        assert_eq!(network.len(), BY_NETWORK);
        assert!(Crowd::another(&crowd, IpAddr::from([203, 0, 112, 1])).is_some());
        drop(network);
        // As many addresses as one likes: a /64 counts as one, and the /64s of a /48 together.
        let v6 = |subnet: u16, last: u16| IpAddr::from([0x2001, 0xdb8, 1, subnet, 0, 0, 0, last]);
        let line = all_of(&crowd, (0..1000).map(|last| v6(0, last)));
        assert_eq!(line.len(), BY_ADDRESS);
        let customer = all_of(&crowd, (1..1000).map(|subnet| v6(subnet, 1)));
        assert_eq!(line.len() + customer.len(), BY_NETWORK);
        // An IPv4 address is the same in IPv6's clothes.
        drop((line, customer));
        let one = all_of(&crowd, [IpAddr::from([10, 0, 0, 1]), "::ffff:10.0.0.1".parse().unwrap()]);
        assert_eq!(one.len(), BY_ADDRESS);
    }

    #[test]
    fn there_is_an_end_to_all_together() {
        let crowd = Arc::new(Crowd::default());
        let full = all_of(&crowd, (0..=u8::MAX).map(|network| IpAddr::from([10, 0, network, 1])));
        assert_eq!(full.len(), CONNECTIONS);
        assert!(Crowd::another(&crowd, IpAddr::from([127, 0, 0, 1])).is_none());
    }
}
