//! Which packages are needed, and under which conditions: a walk over the dependencies of a lock file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// More conditions than this for one package are not worth telling apart: it is then always installed.
const MOST_CONDITIONS: usize = 16;

/// A dependency of a package, by the name its node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) to: String,
    /// When it counts; empty: always.
    pub(super) marker: String,
}

/// Markers that must all hold.
type Condition = BTreeSet<String>;

/// The nodes that can be reached from `roots`, each with the marker under which it is needed.
pub(super) fn walk(roots: &[Edge], edges: &dyn Fn(&str) -> Vec<Edge>) -> BTreeMap<String, String> {
    let mut needed: BTreeMap<String, BTreeSet<Condition>> = BTreeMap::new();
    let mut waiting: VecDeque<(Edge, Condition)> = roots.iter().map(|edge| (edge.clone(), Condition::new())).collect();
    while let Some((edge, mut condition)) = waiting.pop_front() {
        if !edge.marker.is_empty() {
            condition.insert(edge.marker.clone());
        }
        let known = needed.entry(edge.to.clone()).or_default();
        if known.iter().any(|weaker| weaker.is_subset(&condition)) {
            continue;
        }
        if known.len() >= MOST_CONDITIONS {
            condition = Condition::new();
        }
        known.retain(|stronger| !condition.is_subset(stronger));
        known.insert(condition.clone());
        waiting.extend(edges(&edge.to).into_iter().map(|next| (next, condition.clone())));
    }
    needed.into_iter().map(|(name, conditions)| (name, marker(&conditions))).collect()
}

/// One marker for all conditions: any of them suffices.
fn marker(conditions: &BTreeSet<Condition>) -> String {
    if conditions.iter().any(BTreeSet::is_empty) {
        return String::new();
    }
    let all = |condition: &Condition| {
        let markers: Vec<String> = condition.iter().map(|marker| format!("({marker})")).collect();
        markers.join(" and ")
    };
    conditions.iter().map(all).collect::<Vec<_>>().join(" or ")
}
