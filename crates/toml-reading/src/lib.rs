//! Files that people write in TOML, read strictly: every mistake is told, with its place, and what was probably meant.
//!
//! `coracle.toml` and `proxy.toml` are both read with this, so that a mistake looks the same in either. What the files have in
//! common beyond their grammar is here too: lengths of time, sizes, and the proxy's [middlewares](Values::middlewares).
//!
//! No file is opened here, and nothing is known about what else a file may say.

mod middlewares;
mod mistake;
pub mod quantity;
mod values;

pub use mistake::{Collector, Excerpt, Mistake, Mistakes, Place, cut};
pub use values::{Entry, Values, entries, meant, nearest, parse, quoted};
