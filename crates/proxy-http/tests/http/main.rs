//! What is refused and what is passed on, byte by byte.

#![allow(clippy::unwrap_used, clippy::panic)]

mod requests;
