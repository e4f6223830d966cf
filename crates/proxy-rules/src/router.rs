//! Finding the route among many.
//!
//! Rules are filed by the hosts that they can match: those with literal names under each of these, those with names below a
//! domain under the domain, all others in one list that every request goes through. Within such a list, if it is long, rules
//! are filed once more by how the path must begin. What is found is what going through all rules in order would find; the
//! files only leave out rules that cannot match.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::pathindex::PathIndex;
use crate::request::Request;
use crate::requirement::{self, HostKey};
use crate::{Facts, Rule};

/// Rules with what they lead to, indexed by host and path. What finding costs does not grow with the number of hosts.
#[derive(Debug)]
pub struct Router<T> {
    /// In the order in which they count; files refer to places here.
    routes: Vec<(Rule, T)>,
    exact: HostMap,
    /// By domain: rules for names below it.
    below: HostMap,
    /// Rules that name no host.
    anywhere: PathIndex,
}

type HostMap = HashMap<Box<str>, PathIndex, BuildHasherDefault<HostHasher>>;

impl<T> Router<T> {
    /// Takes rules with their priorities. Of several that match, the one with the highest priority is found; of equals, the
    /// one given first.
    pub fn new(routes: impl IntoIterator<Item = (Rule, i64, T)>) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by_key(|(_, priority, _)| Reverse(*priority));
        let routes: Vec<(Rule, T)> = routes.into_iter().map(|(rule, _, value)| (rule, value)).collect();
        let (mut exact, mut below) = (HashMap::new(), HashMap::new());
        let mut anywhere = Vec::new();
        for (place, (rule, _)) in routes.iter().enumerate() {
            let entry = (requirement::path_prefix(&rule.expression), place);
            let Some(keys) = requirement::hosts(&rule.expression) else {
                anywhere.push(entry);
                continue;
            };
            for key in keys {
                let (map, name): (&mut HashMap<_, Vec<_>>, _) = match key {
                    HostKey::Exact(name) => (&mut exact, name),
                    HostKey::Below(domain) => (&mut below, domain),
                };
                map.entry(name).or_default().push(entry.clone());
            }
        }
        let filed = |map: HashMap<String, Vec<_>>| {
            map.into_iter().map(|(name, entries)| (name.into_boxed_str(), PathIndex::new(entries))).collect()
        };
        Self { exact: filed(exact), below: filed(below), anywhere: PathIndex::new(anywhere), routes }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// All rules and what they lead to, in the order in which they count.
    pub fn iter(&self) -> impl Iterator<Item = (&Rule, &T)> {
        self.routes.iter().map(|(rule, value)| (rule, value))
    }

    /// What the first rule that matches leads to. Allocates nothing unless the path or query is percent-encoded.
    pub fn find(&self, facts: &impl Facts) -> Option<&T> {
        self.find_where(facts, |_| true)
    }

    /// What the first rule that matches and is accepted leads to. `accept` may be asked in any order, and in vain.
    pub fn find_where(&self, facts: &impl Facts, accept: impl Fn(&T) -> bool) -> Option<&T> {
        let request = Request::new(facts);
        let matches = |place: usize| {
            self.routes.get(place).is_some_and(|(rule, value)| accept(value) && rule.expression.is_match(&request))
        };
        let mut best = usize::MAX;
        let mut search = |index: &PathIndex| best = index.first(&request.path, best, &matches).unwrap_or(best);
        if let Some(index) = self.exact.get(request.host) {
            search(index);
        }
        if !self.below.is_empty() {
            let mut name = request.host;
            while let Some((_, domain)) = name.split_once('.') {
                if let Some(index) = self.below.get(domain) {
                    search(index);
                }
                name = domain;
            }
        }
        search(&self.anywhere);
        self.routes.get(best).map(|(_, value)| value)
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
