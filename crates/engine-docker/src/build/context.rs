//! The tree on its way to the engine.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use coracle_build::tar_context;
use coracle_engine::BuildError;
use futures::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use super::Piece;
use super::dockerfile::Dockerfile;
use crate::wire::Body;

/// The size of a piece, and how many of them may wait for the engine.
const PIECE: usize = 64 * 1024;
const WAITING: usize = 4;

/// A tree that is being packed. Packing ends when the body is dropped.
pub(super) struct Sending(JoinHandle<io::Result<()>>);

impl Sending {
    /// How packing ended. An engine that has seen enough closes the body early, which is no failure.
    pub(super) async fn finish(self) -> Result<(), BuildError> {
        match self.0.await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(BuildError::CannotBuild(format!("cannot pack the source tree: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// The tree as a request body, packed while it is sent.
pub(super) fn stream(root: &Path, dockerfile: &Dockerfile) -> Result<(Body, Sending), BuildError> {
    let (sender, receiver) = mpsc::channel::<Piece>(WAITING);
    let (root, ignore, extra) = (root.to_owned(), dockerfile.ignore.clone(), dockerfile.extra());
    let packing = tokio::task::spawn_blocking(move || {
        let writer = BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        let packed = tar_context(&root, &ignore, &extra, writer).and_then(|mut writer| writer.flush());
        if let Err(error) = &packed {
            // Breaks the request off: the engine must not take half a tree for a whole one.
            let broken = io::Error::new(error.kind(), error.to_string());
            if sender.blocking_send(Err(broken)).is_err() {
                tracing::debug!("the engine had stopped listening before packing failed");
            }
        }
        packed
    });
    let body = StreamBody::new(ReceiverStream::new(receiver).map_ok(Frame::data));
    Ok((BodyExt::boxed(body), Sending(packing)))
}

/// Hands what is written to the request.
struct Pieces(mpsc::Sender<Piece>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
