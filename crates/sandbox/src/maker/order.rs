//! What the daemon asks of the maker and what it hears back, as datagrams.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// Something to be made. `id` comes back with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// PID 1 of a slot of this image, for this seat.
    Slot { id: u32, image: u32, seat: u32 },
    /// A zygote of this image. Descriptors: its socket, its standard input, output, and error.
    Zygote { id: u32, image: u32 },
}

impl Order {
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::Slot { id, .. } | Self::Zygote { id, .. } => id,
        }
    }

    fn encode(self) -> [u8; 16] {
        let words = match self {
            Self::Slot { id, image, seat } => [1, id, image, seat],
            Self::Zygote { id, image } => [2, id, image, 0],
        };
        let mut bytes = [0; 16];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| bytes.get(index * 4..index * 4 + 4)?.try_into().ok().map(u32::from_le_bytes);
        match word(0)? {
            1 => Some(Self::Slot { id: word(1)?, image: word(2)?, seat: word(3)? }),
            2 => Some(Self::Zygote { id: word(1)?, image: word(2)? }),
            _ => None,
        }
    }
}

/// Sends an order with descriptors; `Errno::AGAIN` if the socket is full.
pub(crate) fn send(socket: BorrowedFd<'_>, order: Order, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    send_with(socket, &order.encode(), descriptors)
}

/// Sends one datagram with descriptors, without waiting.
pub(crate) fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags).map(|_| ())
}

/// Waits for an order; `None` when the daemon is gone.
pub(super) fn receive(socket: &OwnedFd) -> Result<Option<(Order, Vec<OwnedFd>)>, Errno> {
    let mut bytes = [0_u8; 64];
    let (got, descriptors) = receive_with(socket.as_fd(), &mut bytes)?;
    Ok(bytes.get(..got).and_then(Order::decode).map(|order| (order, descriptors)))
}

/// Takes what a socket has, and the descriptors that came with it.
pub(crate) fn receive_with(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let into = &mut [IoSliceMut::new(bytes)];
        match rustix::net::recvmsg(socket, into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            got => break got?,
        }
    };
    let descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((got.bytes, descriptors))
}

/// What has become of an order, or of an image at the start (`id` is its number then).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// It runs, as this process.
    Started { id: u32, pid: i32 },
    /// It is ready for what it was made for.
    Ready { id: u32 },
    /// It could not be made.
    Failed { id: u32, why: String },
}

impl Report {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, id, rest): (u32, u32, &[u8]) = match self {
            Self::Started { id, pid } => (1, *id, &pid.to_le_bytes()),
            Self::Ready { id } => (2, *id, &[]),
            Self::Failed { id, why } => (3, *id, why.as_bytes().get(..2000).unwrap_or(why.as_bytes())),
        };
        [&kind.to_le_bytes(), &id.to_le_bytes(), rest].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| bytes.get(index * 4..index * 4 + 4)?.try_into().ok().map(u32::from_le_bytes);
        let id = word(1)?;
        match word(0)? {
            1 => Some(Self::Started { id, pid: word(2)?.cast_signed() }),
            2 => Some(Self::Ready { id }),
            3 => Some(Self::Failed { id, why: String::from_utf8_lossy(bytes.get(8..)?).into_owned() }),
            _ => None,
        }
    }
}
