//! Rounds of ours and the peer's, and what they amount to.

use std::fmt;

/// What was measured, round by round: ours and the peer's, in the same unit.
#[derive(Debug, Clone, Default)]
pub struct Rounds(Vec<(f64, f64)>);

impl Rounds {
    /// Adds a round.
    pub fn add(&mut self, ours: f64, peer: f64) {
        self.0.push((ours, peer));
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ours, at the median.
    pub fn ours(&self) -> f64 {
        median(self.0.iter().map(|(ours, _)| *ours))
    }

    /// The peer's, at the median.
    pub fn peer(&self) -> f64 {
        median(self.0.iter().map(|(_, peer)| *peer))
    }

    /// How many times the peer's ours is, at the median of the rounds.
    pub fn ratio(&self) -> f64 {
        median(self.0.iter().map(|(ours, peer)| ours / peer))
    }

    /// How much more than the peer's ours is, at the median of the rounds.
    pub fn over(&self) -> f64 {
        median(self.0.iter().map(|(ours, peer)| ours - peer))
    }

    /// How far the rounds' ratios lie apart, the best and the worst of them, as a share of their median.
    pub fn spread(&self) -> f64 {
        let ratios = self.0.iter().map(|(ours, peer)| ours / peer);
        let (least, most) = ratios.fold((f64::INFINITY, 0.0_f64), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
        (most - least) / self.ratio()
    }

    /// As a member of the result.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "ours": rounded(self.ours()), "peer": rounded(self.peer()), "ratio": rounded(self.ratio()) })
    }
}

impl FromIterator<(f64, f64)> for Rounds {
    fn from_iter<I: IntoIterator<Item = (f64, f64)>>(rounds: I) -> Self {
        Self(rounds.into_iter().collect())
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ours, peer, ratio) = (self.ours(), self.peer(), self.ratio());
        write!(f, "{ours:.2} s, its floor {peer:.2} s: {ratio:.2} times ({} rounds)", self.0.len())
    }
}

/// The value in the middle; nothing of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// To the thousandth.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[test]
fn ratios_are_taken_round_by_round() {
    let mut rounds = Rounds::default();
    for (ours, peer) in [(2.0, 1.0), (3.0, 3.0), (40.0, 10.0)] {
        rounds.add(ours, peer);
    }
    assert_eq!((rounds.ours(), rounds.peer(), rounds.ratio()), (3.0, 3.0, 2.0));
    assert_eq!((rounds.spread(), rounds.over()), (1.5, 1.0));
    assert_eq!(median([1.0, 2.0].into_iter()), 1.5);
}
