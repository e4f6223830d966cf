//! Bounds on what a project may cost its reader, whatever is written in it.
//!
//! A project of a thousand services, each with everything, or of ten thousand plain ones stays below all of them; an alias bomb
//! reaches them within milliseconds.

use crate::error::{ErrorKind, Fault};
use crate::position::Mark;
use crate::warnings::Warnings;

/// The largest file that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Levels of lists and mappings within each other. The specification needs nine.
pub(crate) const MAX_DEPTH: usize = 64;
/// Nodes of all files of a project together, every copy by alias and `extends` and every short form written out counted. Measured in
/// an optimised build, whatever reaches this takes at most 0.7 s and 140 MB.
const MAX_COST: usize = 250_000;

/// What may still be spent on a project.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: MAX_COST }
    }
}

impl Budget {
    /// Takes `cost` nodes from the budget, or says that the input is too large.
    pub(crate) fn spend(&mut self, cost: usize, at: Mark) -> Result<(), Fault> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Fault::new(
                ErrorKind::Limit,
                format!("the project is larger than {MAX_COST} values, copies by alias and `extends` included"),
            )
            .at(at)),
        }
    }
}

/// What every step of a load adds to: what it cost, and what there is to be said about it.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) budget: Budget,
    pub(crate) warnings: Warnings,
}
