//! Descriptors that the runtime watches.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor of which the runtime tells when it can be read.
pub(super) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(descriptor, Interest::READABLE)
}

/// A descriptor of which the runtime tells when it can be read and written.
pub(super) fn both_ways(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(descriptor, Interest::READABLE | Interest::WRITABLE)
}

fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always answers with the same number, and owns the descriptor until the AsyncFd drops it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
