//! The door that git comes in by over SSH.

mod key;

pub use key::{KeyError, PublicKey};
