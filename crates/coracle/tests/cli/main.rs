//! The program as it is typed: exit codes, streams, signals. Where it talks to a server, that is a scripted one, since a real
//! one cannot be made to break off in the middle of a word; one test has a real
//! one, to see that everything is wired; whole stories stand in `tests/`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod asking;
mod developing;
mod following;
mod labelling;
mod program;
mod proxying;
mod scripted;
mod serving;
mod streams;
