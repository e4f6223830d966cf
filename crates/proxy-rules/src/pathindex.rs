//! Rules of one host, filed by how the path must begin.

/// Up to so many rules are gone through one by one.
const FEW: usize = 8;

/// Where a rule stands in the order in which rules count, and whether it needs to be asked at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) number: u32,
    /// Whoever finds it filed here has a request that it matches.
    pub(crate) settled: bool,
}

/// Places of rules, with the beginning of the path that each needs. As a rule there is one per host: it lies within the
/// index itself, since with thousands of hosts every hop through memory is one that no cache has seen lately.
#[derive(Debug)]
pub(crate) enum PathIndex {
    One(Place),
    Few(Box<[Place]>),
    Many(Box<[Node]>),
}

/// The rules that need exactly this beginning. Nodes are sorted by it.
#[derive(Debug)]
pub(crate) struct Node {
    prefix: Box<[u8]>,
    /// The node with the longest beginning that this one's begins with.
    parent: Option<usize>,
    /// Ascending.
    places: Vec<Place>,
}

impl PathIndex {
    /// Takes the places of rules with the beginnings that they need; a rule given twice is filed once.
    pub(crate) fn new(mut entries: Vec<(String, Place)>) -> Self {
        if entries.len() <= FEW {
            let mut places: Vec<Place> = entries.into_iter().map(|(_, place)| place).collect();
            places.sort_unstable();
            places.dedup();
            return match *places {
                [place] => Self::One(place),
                _ => Self::Few(places.into()),
            };
        }
        entries.sort();
        entries.dedup();
        let mut nodes: Vec<Node> = Vec::new();
        for (prefix, place) in entries {
            if let Some(last) = nodes.last_mut().filter(|last| *last.prefix == *prefix.as_bytes()) {
                last.places.push(place);
                continue;
            }
            // What this begins with stands before it, and of that the last or one that the last begins with.
            let mut parent = nodes.len().checked_sub(1);
            while let Some(at) = parent.filter(|at| !prefix.as_bytes().starts_with(&nodes[*at].prefix)) {
                parent = nodes[at].parent;
            }
            nodes.push(Node { prefix: prefix.into_bytes().into(), parent, places: vec![place] });
        }
        Self::Many(nodes.into())
    }

    /// The number of the first place before `limit` that can match this path and does.
    pub(crate) fn first(&self, path: &[u8], limit: u32, matches: &impl Fn(Place) -> bool) -> Option<u32> {
        let nodes = match self {
            Self::One(place) => return first_of(std::slice::from_ref(place), limit, matches),
            Self::Few(places) => return first_of(places, limit, matches),
            Self::Many(nodes) => nodes,
        };
        let mut found = None;
        // All beginnings of the path that there are hang together above the last node that sorts before it.
        let mut next = nodes.partition_point(|node| *node.prefix <= *path).checked_sub(1);
        while let Some(node) = next.and_then(|at| nodes.get(at)) {
            if path.starts_with(&node.prefix) {
                found = first_of(&node.places, found.unwrap_or(limit), matches).or(found);
            }
            next = node.parent;
        }
        found
    }
}

fn first_of(places: &[Place], limit: u32, matches: &impl Fn(Place) -> bool) -> Option<u32> {
    let before = places.iter().copied().take_while(|place| place.number < limit);
    before.filter(|place| matches(*place)).map(|place| place.number).next()
}
