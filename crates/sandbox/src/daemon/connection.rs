//! A client's connection: frames in, frames out.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::wire::{self, Answer, Request, WireError};

/// How long a client may take to read an answer.
const READING: Duration = Duration::from_secs(30);

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// The client is gone, or does not read.
    #[error("the client is gone: {0}")]
    Gone(#[from] io::Error),
    /// What it sent means nothing.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A connection with what has not been read or sent yet.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    incoming: BytesMut,
    pub(super) outgoing: BytesMut,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, incoming: BytesMut::with_capacity(16 << 10), outgoing: BytesMut::with_capacity(16 << 10) }
    }

    /// Waits for the next request; `None` when the client has left.
    pub(super) async fn next(&mut self) -> Result<Option<Request>, ConnectionError> {
        loop {
            if let Some(request) = self.take()? {
                return Ok(Some(request));
            }
            self.stream.readable().await?;
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// A request that has been read already.
    pub(super) fn take(&mut self) -> Result<Option<Request>, WireError> {
        let frame = wire::take_frame(&mut self.incoming)?;
        frame.map(|(kind, payload)| Request::decode(kind, payload)).transpose()
    }

    /// Reads what is there; `false` when the client has left.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        self.incoming.reserve(16 << 10);
        match self.stream.try_read_buf(&mut self.incoming) {
            Ok(bytes) => Ok(bytes > 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Waits until the client sends something (if `reading`) or takes something (if `sending`); one of them must be.
    pub(super) async fn ready(&self, reading: bool, sending: bool) -> io::Result<()> {
        let interest = match (reading, sending) {
            (true, false) => Interest::READABLE,
            (false, _) => Interest::WRITABLE,
            (true, true) => Interest::READABLE | Interest::WRITABLE,
        };
        self.stream.ready(interest).await.map(drop)
    }

    /// Sends what the client takes at once.
    pub(super) fn push(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.try_write(&self.outgoing) {
                Ok(bytes) => drop(self.outgoing.split_to(bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends everything.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let all = async {
            self.push()?;
            while !self.outgoing.is_empty() {
                self.stream.writable().await?;
                self.push()?;
            }
            Ok(())
        };
        tokio::time::timeout(READING, all).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends one answer.
    pub(super) async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        answer.encode(&mut self.outgoing);
        self.flush().await
    }
}
