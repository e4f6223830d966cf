//! Comparisons with peers, each measured beside its peer in one run: round by round in turn, so that whatever the machine
//! does meanwhile happens to both. Ratios are medians of the rounds' ratios, not ratios of medians.

#![allow(clippy::unwrap_used, clippy::panic)]

pub mod floor;
pub mod rounds;
pub mod switch;
