//! The process at the other end of a Unix socket, as the kernel knows it: a number in a file may belong to somebody else by
//! now, this one does not.

use std::os::unix::net::UnixStream;

use coracle_api::Endpoint;
use rustix::net::sockopt::socket_peercred;

/// The id of the process that listens there; `None` if nobody does, or on another machine.
pub(crate) fn process_behind(endpoint: &Endpoint) -> Option<i32> {
    let Endpoint::Unix(path) = endpoint else { return None };
    let stream = UnixStream::connect(path).ok()?;
    // unix(7): for a connected stream socket, these are the credentials of whoever called listen(2).
    socket_peercred(stream).ok().map(|peer| peer.pid.as_raw_nonzero().get())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_process_behind_a_socket_is_the_one_that_listens() {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(directory.path().join("x.sock"));
        assert_eq!(process_behind(&endpoint), None);
        let _listener = std::os::unix::net::UnixListener::bind(directory.path().join("x.sock")).unwrap();
        assert_eq!(process_behind(&endpoint), Some(std::process::id().cast_signed()));
    }
}
