//! A session over an engine that does as it is told.

#![allow(clippy::unwrap_used, clippy::panic)]

mod restarts;
