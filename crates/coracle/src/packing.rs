//! The source tree on its way to the server: packed by a thread while it is being sent, so neither a temporary file nor the
//! memory of this machine has to hold it.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use bytes::{Bytes, BytesMut};
use coracle_api::Source;
use coracle_build::{DockerIgnore, PackError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// How much is handed over at a time.
const PIECE: usize = 128 * 1024;

/// How many pieces may wait to be sent.
const AHEAD: usize = 8;

/// A tree that is being packed.
pub(crate) struct Packing {
    /// Dropping the receiver ends the thread.
    pieces: Option<mpsc::Receiver<io::Result<Bytes>>>,
    thread: JoinHandle<Result<(), PackError>>,
}

impl Packing {
    /// Begins to pack the tree at `root`; `by_compose` says that compose files describe it, whatever else is there.
    pub(crate) fn begin(root: &Path, by_compose: bool) -> Result<Self, Failure> {
        let rules = if by_compose { coracle_build::compose_ignore } else { coracle_build::source_ignore };
        let ignore = rules(root).map_err(|error| Failure::usage(error.to_string()))?;
        let (sender, pieces) = mpsc::channel(AHEAD);
        let root = root.to_owned();
        let thread = tokio::task::spawn_blocking(move || pack(&root, &ignore, sender));
        Ok(Self { pieces: Some(pieces), thread })
    }

    /// What is to be sent. Can be taken once; afterwards it is empty.
    pub(crate) fn source(&mut self) -> Source {
        let mut pieces = self.pieces.take().unwrap_or_else(|| mpsc::channel(1).1);
        Source::from_stream(futures::stream::poll_fn(move |context| pieces.poll_recv(context)))
    }

    /// Waits for the thread and tells whether the tree could be read. Call it when what [`Packing::source`] gave has been
    /// sent or dropped.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        drop(self.pieces);
        let packed = self.thread.await.map_err(|error| Failure::failed(format!("packing broke off: {error}")))?;
        packed.map_err(|error| Failure::failed(format!("cannot read the source tree: {error}")))
    }
}

fn pack(root: &Path, ignore: &DockerIgnore, sender: mpsc::Sender<io::Result<Bytes>>) -> Result<(), PackError> {
    let mut pieces = Pieces { sender, rest: BytesMut::with_capacity(PIECE) };
    match coracle_build::pack(root, ignore, &mut pieces) {
        Ok(_) => {
            // If nobody takes the last piece, the request has failed, and says why itself.
            pieces.hand_over().ok();
            Ok(())
        }
        Err(PackError::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            // An archive that ends early must not look complete.
            let broken = io::Error::other("the source tree cannot be read");
            pieces.sender.blocking_send(Err(broken)).ok();
            Err(error)
        }
    }
}

/// Cuts what is written into pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    rest: BytesMut,
}

impl Pieces {
    fn hand_over(&mut self) -> io::Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let piece = self.rest.split().freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        if self.rest.len() >= PIECE {
            self.hand_over()?;
        }
        Ok(bytes.len())
    }

    /// Small pieces are not worth their way: what is left goes at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
