//! `coracle dial`: relays standard input and output to the API of this machine's server. It is what Coracle's client runs on a
//! server that it reaches by `ssh`, and asks no remote and no network.

use std::fs::File;
use std::io::{ErrorKind, Read, Result as IoResult, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use clap::Args;
use coracle_api::dial::greeting;

use super::{DONE, ExitCode};
use crate::address::local_socket;
use crate::context::Context;
use crate::failure::Failure;

/// Bytes that are passed on at a time.
const PIECE: usize = 64 * 1024;

/// Relay standard input and output to the API of this machine's server
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// Does it. What it waits for is either side, and whichever ends ends it.
pub(crate) fn run(_: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let path = local_socket(&context.state());
    let unreachable = |error: std::io::Error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => "only the user who runs the server may use it; log in as that user",
            _ => {
                "start it on that machine with `coracle server run`; CORACLE_STATE names its state directory if it has another one"
            }
        };
        Failure::failed(format!("cannot reach the server at {}: {error}", path.display())).hint(hint)
    };
    let broken = |error: std::io::Error| Failure::failed(format!("the relay broke off: {error}"));
    let mut api = UnixStream::connect(&path).map_err(unreachable)?;
    // The descriptors themselves: the library's own standard output keeps back what has no line end.
    let mut input = File::from(std::io::stdin().as_fd().try_clone_to_owned().map_err(broken)?);
    let mut output = File::from(std::io::stdout().as_fd().try_clone_to_owned().map_err(broken)?);
    output.write_all(greeting(env!("CARGO_PKG_VERSION")).as_bytes()).map_err(broken)?;
    let mut to_api = api.try_clone().map_err(broken)?;
    // Ends with the process, which ends when the server has said everything.
    std::thread::spawn(move || {
        let relayed = relay(&mut input, &mut to_api);
        // Whoever asked has gone, or the server has: it is told that there is no more.
        relayed.and_then(|()| to_api.shutdown(Shutdown::Write))
    });
    relay(&mut api, &mut output).map_err(broken)?;
    Ok(DONE)
}

/// Passes on what comes as it comes, to its end. (The library's `copy` splices where a
/// pipe is, which was seen to end with the first request instead.)
fn relay(from: &mut impl Read, to: &mut impl Write) -> IoResult<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&piece[..length])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_comes_through_a_pipe_goes_on_at_once() {
        let (mut from, mut asked) = std::io::pipe().unwrap();
        let (mut to, mut heard) = UnixStream::pair().unwrap();
        let relaying = std::thread::spawn(move || relay(&mut from, &mut to));
        for word in [b"one", b"two"] {
            asked.write_all(word).unwrap();
            let mut piece = [0; 3];
            heard.read_exact(&mut piece).unwrap();
            assert_eq!(&piece, word);
        }
        drop(asked);
        relaying.join().unwrap().unwrap();
        assert_eq!(heard.read(&mut [0; 1]).unwrap(), 0);
    }
}
