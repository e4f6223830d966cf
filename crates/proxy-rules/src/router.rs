//! Finding the route among many.
//!
//! Rules are filed by the hosts that they can match: those with literal names under each of these, those with names below a
//! domain under the domain, all others in one list that every request goes through. Within such a list, if it is long, rules
//! are filed once more by how the path must begin. What is found is what going through all rules in order would find; the
//! files only leave out rules that cannot match.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::pathindex::{PathIndex, Place};
use crate::request::Request;
use crate::requirement::{self, HostKey};
use crate::{Facts, Rule};

/// Rules with what they lead to, indexed by host and path. What finding costs does not grow with the number of hosts.
#[derive(Debug)]
pub struct Router<T> {
    /// In the order in which they count; files refer to places here.
    rules: Vec<Rule>,
    /// What each of them leads to. Apart, since most rules need not be looked at to be found.
    values: Vec<T>,
    exact: HostMap,
    /// By domain: rules for names below it.
    below: HostMap,
    /// Rules that name no host.
    anywhere: PathIndex,
}

type HostMap = HashSet<Filed, BuildHasherDefault<HostHasher>>;

/// The rules of one name. With thousands of names each is one that no cache has seen lately: it lies in one cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Filed {
    name: Name,
    index: PathIndex,
}

const _: () = assert!(size_of::<Filed>() == 64);

/// A name that lies where it is needed, unless it is longer than most.
#[derive(Debug)]
enum Name {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

const SHORT: usize = 30;

impl Name {
    fn new(name: &[u8]) -> Self {
        match u8::try_from(name.len()) {
            Ok(length) if name.len() <= SHORT => {
                let mut bytes = [0; SHORT];
                bytes[..name.len()].copy_from_slice(name);
                Self::Short { length, bytes }
            }
            _ => Self::Long(name.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

// In a set it is its name.
impl Borrow<[u8]> for Filed {
    fn borrow(&self) -> &[u8] {
        self.name.bytes()
    }
}

impl Hash for Filed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.bytes().hash(state);
    }
}

impl PartialEq for Filed {
    fn eq(&self, other: &Self) -> bool {
        self.name.bytes() == other.name.bytes()
    }
}

impl Eq for Filed {}

impl<T> Router<T> {
    /// Takes rules with their priorities. Of several that match, the one with the highest priority is found; of equals, the
    /// one given first.
    pub fn new(routes: impl IntoIterator<Item = (Rule, i64, T)>) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by_key(|(_, priority, _)| Reverse(*priority));
        let (rules, values): (Vec<Rule>, Vec<T>) = routes.into_iter().map(|(rule, _, value)| (rule, value)).unzip();
        let (mut exact, mut below, mut anywhere) = (Vec::new(), Vec::new(), Vec::new());
        for (number, rule) in (0..).zip(&rules) {
            let unsettled = Place { number, settled: false };
            let Some(keys) = requirement::hosts(&rule.expression) else {
                anywhere.push(unsettled);
                continue;
            };
            let by_name = Place { number, settled: requirement::is_hosts_alone(&rule.expression) };
            for key in keys {
                match key {
                    HostKey::Exact(name) => exact.push((name, by_name)),
                    HostKey::Below(domain) => below.push((domain, unsettled)),
                }
            }
        }
        let filing = Filing(&rules);
        let (exact, below, anywhere) = (filing.by_name(exact), filing.by_name(below), filing.by_path(&anywhere));
        Self { exact, below, anywhere, rules, values }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All rules and what they lead to, in the order in which they count.
    pub fn iter(&self) -> impl Iterator<Item = (&Rule, &T)> {
        self.rules.iter().zip(&self.values)
    }

    /// What the first rule that matches leads to. Allocates nothing unless the path or query is percent-encoded.
    pub fn find(&self, facts: &impl Facts) -> Option<&T> {
        self.find_where(facts, |_| true)
    }

    /// What the first rule that matches and is accepted leads to. `accept` may be asked in any order, and in vain.
    pub fn find_where(&self, facts: &impl Facts, accept: impl Fn(&T) -> bool) -> Option<&T> {
        let request = Request::new(facts);
        let value = |number: u32| self.values.get(number as usize);
        let asked = |number: u32| self.rules.get(number as usize).is_some_and(|rule| rule.expression.is_match(&request));
        let matches = |place: Place| value(place.number).is_some_and(&accept) && (place.settled || asked(place.number));
        let mut best = u32::MAX;
        let mut search = |index: &PathIndex| best = index.first(&request.path, best, &matches).unwrap_or(best);
        if let Some(filed) = self.exact.get(request.host.as_bytes()) {
            search(&filed.index);
        }
        if !self.below.is_empty() {
            let mut name = request.host;
            while let Some((_, domain)) = name.split_once('.') {
                if let Some(filed) = self.below.get(domain.as_bytes()) {
                    search(&filed.index);
                }
                name = domain;
            }
        }
        search(&self.anywhere);
        value(best)
    }
}

/// Files rules; those it is told of stand here.
struct Filing<'r>(&'r [Rule]);

impl Filing<'_> {
    /// By these names.
    fn by_name(&self, mut named: Vec<(String, Place)>) -> HostMap {
        // Neighbours are of one name then, each in the order in which they count.
        named.sort_unstable();
        let of_one_name = named.chunk_by(|one, other| one.0 == other.0);
        let filed = of_one_name.filter_map(|rules| {
            let (name, place) = rules.first()?;
            let index = match rules.len() {
                1 => PathIndex::One(*place),
                _ => self.by_path(&rules.iter().map(|(_, place)| *place).collect::<Vec<_>>()),
            };
            Some(Filed { name: Name::new(name.as_bytes()), index })
        });
        filed.collect()
    }

    /// By how the path must begin.
    fn by_path(&self, places: &[Place]) -> PathIndex {
        let prefix = |place: &Place| requirement::path_prefix(&self.0[place.number as usize].expression);
        PathIndex::new(places.iter().map(|place| (prefix(place), *place)).collect())
    }
}

/// A hash of few instructions. Its names come from the table, not from clients, so nobody can make them collide at will.
#[derive(Debug, Default)]
struct HostHasher(u64);

impl HostHasher {
    fn add(&mut self, word: u64) {
        // The constant of FxHash: the golden ratio's digits, made odd.
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for HostHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }

    fn finish(&self) -> u64 {
        // The map takes its place from the low bits, in which a product is poor.
        self.0.rotate_left(26)
    }
}
