//! Comparisons with peers, each measured beside its peer in one run: round by round in turn, so that whatever the machine
//! does meanwhile happens to both. Ratios are medians of the rounds' ratios, not ratios of medians.

#![allow(clippy::unwrap_used, clippy::panic)]

pub mod callers;
pub mod contenders;
pub mod exchange;
pub mod floor;
pub mod interpreters;
pub mod lineage;
pub mod load;
pub mod options;
pub mod origin;
pub mod processes;
pub mod pyrunner;
pub mod rounds;
pub mod scenarios;
pub mod scoreboard;
pub mod switch;
