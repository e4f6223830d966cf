//! What was measured beside what is wanted.

use std::fmt;

use serde_json::{Map, Value};

use crate::rounds::Rounds;

/// What a ratio has to be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At most so many times the peer's.
    RatioAtMost(f64),
    /// At least so many times the peer's.
    RatioAtLeast(f64),
    /// At most so much, whatever the peer has.
    AtMost(f64),
    /// At least so much, whatever the peer has.
    AtLeast(f64),
    /// At most so much more than the peer's.
    OverAtMost(f64),
    /// For information.
    Nothing,
}

impl Goal {
    fn reached(self, rounds: &Rounds) -> Option<bool> {
        match self {
            Self::RatioAtMost(goal) => Some(rounds.ratio() <= goal),
            Self::RatioAtLeast(goal) => Some(rounds.ratio() >= goal),
            Self::AtMost(goal) => Some(rounds.ours() <= goal),
            Self::AtLeast(goal) => Some(rounds.ours() >= goal),
            Self::OverAtMost(goal) => Some(rounds.over() <= goal),
            Self::Nothing => None,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::RatioAtMost(goal) => format!("≤ {goal} ×"),
            Self::RatioAtLeast(goal) => format!("≥ {goal} ×"),
            Self::AtMost(goal) => format!("≤ {goal}"),
            Self::AtLeast(goal) => format!("≥ {goal}"),
            Self::OverAtMost(goal) => format!("≤ + {goal}"),
            Self::Nothing => String::new(),
        };
        f.pad(&text)
    }
}

/// One line.
#[derive(Debug)]
struct Score {
    name: String,
    meaning: String,
    rounds: Rounds,
    goal: Goal,
}

/// All lines, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Scoreboard(Vec<Score>);

impl Scoreboard {
    /// Adds a line, if it was measured at all.
    pub fn add(&mut self, name: &str, meaning: &str, rounds: Rounds, goal: Goal) {
        if !rounds.is_empty() {
            self.0.push(Score { name: name.to_owned(), meaning: meaning.to_owned(), rounds, goal });
        }
    }

    /// For machines.
    pub fn json(&self) -> Value {
        Value::Object(self.0.iter().map(|score| (score.name.clone(), score.rounds.json())).collect::<Map<_, _>>())
    }
}

impl fmt::Display for Scoreboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<22}{:>10}{:>10}{:>8}{:>8}  {:<9}{:<8}", "", "ours", "peer", "ratio", "spread", "goal", "")?;
        for Score { name, meaning, rounds, goal } in &self.0 {
            let verdict = match goal.reached(rounds) {
                Some(true) => "reached",
                Some(false) => "MISSED",
                None => "",
            };
            let (ours, peer, ratio, spread) = (rounds.ours(), rounds.peer(), rounds.ratio(), rounds.spread() * 100.0);
            writeln!(f, "{name:<22}{ours:>10.2}{peer:>10.2}{ratio:>8.3}{spread:>7.0}%  {goal:<9}{verdict:<8} {meaning}")?;
        }
        Ok(())
    }
}
