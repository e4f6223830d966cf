//! Sandboxes for untrusted Python, each used once.
//!
//! Three kinds of process take part. The **daemon** ([`daemon::run`]) is privileged and small: it owns the slots, their
//! cgroups and their end, and of what a user sends it reads nothing but lengths. The **maker**, forked off before the daemon
//! does anything else, is the only one that makes namespaces. A **zygote** per image is a warm CPython that copies itself
//! into slots. A **slot** is made ahead: PID 1 in namespaces of its own, a worker copied from the zygote waiting on a socket.
//! An execution takes one, hands it the program, watches it and throws it away.
//!
//! [`Sandbox`] is how an unprivileged program talks to the daemon. The two survive each other: an execution whose client goes
//! away is ended, and a client finds a restarted daemon at its next call.
//!
//! The crate knows programs and limits. It does not know who sent a program, keeps no history, speaks no HTTP, and gives no
//! network to anybody.

mod client;
mod collect;
pub mod daemon;
pub mod docker;
mod execution;
mod glob;
mod image;
mod isolation;
pub mod library;
mod maker;
pub mod probe;
pub mod seccomp;
pub mod wire;

pub use client::{ClientError, Running, Sandbox};
pub use execution::{
    Collected, End, Event, Execution, Health, ImageInfo, InputFile, Limits, Mode, Reason, RequestedLimits, Stdin, Truncated,
    Usage,
};
pub use image::{Image, ImageError, Source};
pub use isolation::{Isolation, Permitted, Wanted};
pub use library::{Library, LibraryError, Manifest, Recipe};
