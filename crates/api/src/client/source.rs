//! A source tree on its way to the server.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

/// A gzip-compressed tar archive that is read while it is sent.
pub struct Source {
    /// Its pieces.
    pub(super) pieces: BoxStream<'static, std::io::Result<Bytes>>,
    /// Its length in bytes, if it is known before it has been read.
    pub(super) length: Option<u64>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("length", &self.length).finish_non_exhaustive()
    }
}

/// How much is read at a time.
const PIECE: usize = 64 * 1024;

impl Source {
    /// An archive in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = Some(bytes.len() as u64);
        Self { pieces: futures::stream::once(async { Ok(bytes) }).boxed(), length }
    }

    /// An archive that is read while it is sent. With a `length`, exactly so many bytes must come.
    pub fn from_reader(reader: impl AsyncRead + Send + 'static, length: Option<u64>) -> Self {
        Self { pieces: ReaderStream::with_capacity(reader, PIECE).boxed(), length }
    }

    /// An archive made piece by piece, for instance by a thread that packs while the rest is sent.
    pub fn from_stream(pieces: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Self {
        Self { pieces: pieces.boxed(), length: None }
    }
}
