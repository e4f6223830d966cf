//! The less loaded of two targets that chance has chosen by their weights. Choosing the least loaded of all would send
//! everybody's requests to the same target at once; of two, the worst is avoided just as well.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use crate::balance::Candidate;
use crate::balance::rotation::mix;

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
}

/// A number below `end`, with equal chances; 0 if there is none.
pub(crate) fn below(end: u128) -> u128 {
    let mut state = STATE.get();
    let number = mix(&mut state);
    STATE.set(state);
    (u128::from(number) * end) >> 64
}

/// One by chance, but not `except`; its place among the candidates.
fn draw(candidates: &[Candidate], except: Option<usize>) -> Option<usize> {
    let others = || candidates.iter().enumerate().filter(|(place, _)| Some(*place) != except);
    let mut left = below(others().map(|(_, candidate)| u128::from(candidate.weight)).sum());
    let drawn = others().find(|(_, candidate)| {
        let weight = u128::from(candidate.weight);
        let is_here = left < weight;
        left = left.saturating_sub(weight);
        is_here
    });
    drawn.map(|(place, _)| place)
}

/// The one of two with fewer requests in flight; its place among the candidates.
pub(crate) fn less_loaded(candidates: &[Candidate], load: impl Fn(usize) -> usize) -> Option<usize> {
    let first = draw(candidates, None)?;
    let Some(second) = draw(candidates, Some(first)) else { return Some(first) };
    let load = |place: usize| load(candidates[place].index);
    Some(if load(second) < load(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_goes_by_weight_and_load_decides() {
        let weights = [7, 2, 1];
        let candidates: Vec<_> = weights.iter().enumerate().map(|(index, weight)| Candidate { index, weight: *weight }).collect();
        let mut drawn = [0; 3];
        for _ in 0..10_000 {
            drawn[draw(&candidates, None).unwrap()] += 1;
        }
        assert!((6500..7500).contains(&drawn[0]) && (800..1200).contains(&drawn[2]), "{drawn:?}");
        for _ in 0..1000 {
            assert_ne!(draw(&candidates, Some(1)), Some(1));
            assert_ne!(less_loaded(&candidates, |index| usize::from(index == 0) * 5), Some(0));
        }
        assert_eq!(less_loaded(&candidates[..1], |_| 100), Some(0));
        assert_eq!(less_loaded(&[], |_| 0), None);
    }
}
