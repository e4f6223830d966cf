//! The last lines of an output, as evidence of what went wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// How many lines an error shows.
const MOST: usize = 20;

/// The last 20 lines of an output. Clones remember together.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    /// One more line; the oldest is forgotten if there are too many.
    pub fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == MOST {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// What is remembered, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
