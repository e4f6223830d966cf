//! Smooth weighted round robin: each worker takes the targets in turn, as often as their weights say, and spread as evenly as
//! their weights allow.
//!
//! Every target has a credit. At each turn all credits grow by the weight, and the target with the most pays for the turn
//! with the sum of all weights. Each worker keeps credits of its own: exact shares on each add up to exact shares.

use std::sync::{Mutex, PoisonError};

use crate::balance::Candidate;

/// The credits of a service's targets, per worker.
pub(crate) struct Rotation(Box<[Credits]>);

/// Written at every turn: on cache lines of its own.
#[repr(align(128))]
struct Credits(Mutex<Round>);

struct Round {
    credits: Vec<i128>,
    /// Whose turn comes first.
    first: Option<usize>,
}

impl Rotation {
    /// For targets of these weights. `seed` and the worker's number decide, by weight, who comes first: otherwise all workers
    /// would begin with the same target, and so would every table.
    pub(crate) fn new(workers: usize, weights: &[u32], seed: u64) -> Self {
        let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        let round = |worker| {
            let mut state = seed.wrapping_mul(workers as u64).wrapping_add(worker as u64);
            let mut left = (u128::from(mix(&mut state)) * sum) >> 64;
            let first = weights.iter().position(|weight| {
                let is_here = left < u128::from(*weight);
                left = left.saturating_sub(u128::from(*weight));
                is_here
            });
            Credits(Mutex::new(Round { credits: vec![0; weights.len()], first }))
        };
        Self((0..workers).map(round).collect())
    }

    /// Whose turn it is; its place among the candidates.
    pub(crate) fn next(&self, worker: usize, candidates: &[Candidate]) -> Option<usize> {
        let mut round = self.0[worker].0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = round.first.take();
        let mut sum = 0;
        let mut best: Option<(usize, i128)> = None;
        for (place, candidate) in candidates.iter().enumerate() {
            let credit = &mut round.credits[candidate.index];
            *credit += i128::from(candidate.weight);
            sum += i128::from(candidate.weight);
            let most = if first == Some(candidate.index) { i128::MAX } else { *credit };
            if best.is_none_or(|(_, other)| most > other) {
                best = Some((place, most));
            }
        }
        let (place, _) = best?;
        round.credits[candidates[place].index] -= sum;
        Some(place)
    }
}

/// The next of a sequence of numbers without a pattern (SplitMix64).
pub(crate) fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u64]) -> Vec<Candidate> {
        weights.iter().enumerate().map(|(index, weight)| Candidate { index, weight: *weight }).collect()
    }

    #[test]
    fn shares_are_exact_on_each_worker_and_spread_evenly() {
        for seed in 0..20 {
            let rotation = Rotation::new(2, &[5, 1, 1], seed);
            let candidates = candidates(&[5000, 1000, 1000]);
            for worker in 0..2 {
                let turns: Vec<usize> = (0..7000).map(|_| rotation.next(worker, &candidates).unwrap()).collect();
                for (index, share) in [5000_usize, 1000, 1000].into_iter().enumerate() {
                    let count = turns.iter().filter(|turn| **turn == index).count();
                    assert!(count.abs_diff(share) <= 2, "{index}: {count}");
                }
                // After the first rounds no target of weight 1 comes twice within half of one.
                let later: Vec<usize> = (14..7000).filter(|at| turns[*at] == 1).collect();
                assert!(later.windows(2).all(|pair| pair[1] - pair[0] >= 4));
            }
        }
    }

    #[test]
    fn one_who_was_away_does_not_catch_up() {
        let rotation = Rotation::new(1, &[1, 1], 0);
        let (both, one) = (candidates(&[1000, 1000]), candidates(&[1000]));
        for _ in 0..1000 {
            assert_eq!(rotation.next(0, &one), Some(0));
        }
        let turns: Vec<usize> = (0..8).map(|_| rotation.next(0, &both).unwrap()).collect();
        assert!(turns.iter().filter(|turn| **turn == 1).count() <= 6, "{turns:?}");
        assert_eq!(rotation.next(0, &[]), None);
    }

    #[test]
    fn workers_and_tables_begin_in_different_places() {
        let candidates = candidates(&[9000, 1000]);
        let first = |seed, worker| Rotation::new(2, &[9, 1], seed).next(worker, &candidates).unwrap();
        let canary: usize = (0..500).map(|seed| first(seed, 0) + first(seed, 1)).sum();
        assert!((50..=150).contains(&canary), "{canary} of 1000 first requests");
    }
}
