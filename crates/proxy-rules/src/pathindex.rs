//! Rules of one host, filed by how the path must begin.

/// Up to so many rules are gone through one by one.
const FEW: usize = 8;

/// Places of rules (their order is the order in which they count), with the beginning of the path that each needs.
#[derive(Debug)]
pub(crate) enum PathIndex {
    Few(Vec<usize>),
    Many(Vec<Node>),
}

/// The rules that need exactly this beginning. Nodes are sorted by it.
#[derive(Debug)]
pub(crate) struct Node {
    prefix: Box<[u8]>,
    /// The node with the longest beginning that this one's begins with.
    parent: Option<usize>,
    /// Ascending.
    places: Vec<usize>,
}

impl PathIndex {
    /// Takes the places of rules with the beginnings that they need; a rule given twice is filed once.
    pub(crate) fn new(mut entries: Vec<(String, usize)>) -> Self {
        if entries.len() <= FEW {
            let mut places: Vec<usize> = entries.into_iter().map(|(_, place)| place).collect();
            places.sort_unstable();
            places.dedup();
            return Self::Few(places);
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
        Self::Many(nodes)
    }

    /// The first place before `limit` that can match this path and does.
    pub(crate) fn first(&self, path: &[u8], limit: usize, matches: &impl Fn(usize) -> bool) -> Option<usize> {
        let nodes = match self {
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

fn first_of(places: &[usize], limit: usize, matches: &impl Fn(usize) -> bool) -> Option<usize> {
    places.iter().copied().take_while(|place| *place < limit).find(|place| matches(*place))
}
