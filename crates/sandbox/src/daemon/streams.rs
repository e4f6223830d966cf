//! The daemon's ends of a program's standard streams. Most programs end within a moment, so the runtime watches a stream only
//! when somebody has to wait for it: being told of a line that is read anyway when the program is over costs more than reading.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use tokio::net::unix::pipe;

/// Where a program's output is read.
#[derive(Debug)]
pub(super) enum Output {
    /// Read when there is a reason to; never waits.
    Unwatched(OwnedFd),
    /// The runtime tells when there is something.
    Watched(pipe::Receiver),
    /// The runtime cannot watch it: reading it fails.
    Lost,
}

impl Output {
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self::Unwatched(pipe))
    }

    /// From now on [`readable`](Self::readable) tells.
    pub(super) fn watch(&mut self) {
        *self = match std::mem::replace(self, Self::Lost) {
            Self::Unwatched(pipe) => pipe::Receiver::from_owned_fd_unchecked(pipe).map_or(Self::Lost, Self::Watched),
            other => other,
        };
    }

    /// Waits until there is something to read, or the end; for ever if it is not watched.
    pub(super) async fn readable(&self) {
        match self {
            Self::Unwatched(_) => std::future::pending().await,
            // An error is found again by reading.
            Self::Watched(pipe) => pipe.readable().await.unwrap_or(()),
            Self::Lost => {}
        }
    }

    /// Reads what [`readable`](Self::readable) has told of.
    pub(super) fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Watched(pipe) => pipe.try_read(room),
            Self::Unwatched(_) | Self::Lost => self.read_now(room),
        }
    }

    /// Reads without asking the runtime first whether there is anything: it may not have looked yet.
    pub(super) fn read_now(&self, room: &mut [u8]) -> io::Result<usize> {
        let pipe: BorrowedFd<'_> = match self {
            Self::Unwatched(pipe) => pipe.as_fd(),
            Self::Watched(pipe) => pipe.as_fd(),
            Self::Lost => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        Ok(rustix::io::read(pipe, room)?)
    }
}

/// Where a program's input is written.
#[derive(Debug)]
pub(super) enum Input {
    /// Never waits.
    Unwatched(OwnedFd),
    /// The runtime tells when there is room.
    Watched(pipe::Sender),
    /// The runtime cannot watch it: it counts as closed.
    Lost,
}

impl Input {
    pub(super) fn new(pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self::Unwatched(pipe))
    }

    /// Writes what there is room for. When there is none, the runtime watches from then on, and [`writable`](Self::writable)
    /// tells.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::Unwatched(pipe) => rustix::io::write(pipe, bytes),
            Self::Watched(pipe) => return pipe.try_write(bytes),
            Self::Lost => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        if written == Err(Errno::WOULDBLOCK)
            && let Self::Unwatched(pipe) = std::mem::replace(self, Self::Lost)
        {
            *self = Self::Watched(pipe::Sender::from_owned_fd_unchecked(pipe)?);
        }
        Ok(written?)
    }

    /// Waits until there is room; for ever if nobody has found it full.
    pub(super) async fn writable(&self) {
        match self {
            Self::Unwatched(_) => std::future::pending().await,
            // An error is found again by writing.
            Self::Watched(pipe) => pipe.writable().await.unwrap_or(()),
            Self::Lost => {}
        }
    }
}
