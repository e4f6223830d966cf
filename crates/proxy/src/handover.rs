//! One proxy takes over from another without a refused connection.
//!
//! The successor finds the lock taken and asks the one who has it for `POST /v1/handover`. The connection changes to this
//! protocol, in which each side waits for the other no longer than [`PATIENCE`]:
//!
//! 1. successor: `ready`
//! 2. predecessor: an [`Offer`], with it the listening sockets and the lock (by SCM_RIGHTS)
//! 3. successor, once it accepts connections and has the control socket's path: `taken`
//! 4. predecessor, which no longer accepts: `done`
//!
//! Until 3 the predecessor goes on as before if anything fails; the table cannot change meanwhile. Afterwards it serves
//! its last connections, by the tables that the successor passes on to it through its side door.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use coracle_proxy_table::Table;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use crate::control::PROTOCOL;
use crate::control::server::{Core, Tables, bind};
use crate::listener::Accepting;

/// What the control connection changes to.
pub(crate) const UPGRADE_TO: &str = "coracle-handover";
/// For each step of the other side.
const PATIENCE: Duration = Duration::from_secs(10);
/// The successor gives up before its predecessor does, so that not both believe to be the one.
const SUCCESSORS_PATIENCE: Duration = Duration::from_secs(5);
/// Listening sockets and the lock.
const MOST_DESCRIPTORS: usize = 64;

/// What is offered to a successor, beside the descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    protocol: u32,
    pid: u32,
    /// In the order of the sockets; the lock comes last.
    addresses: Vec<SocketAddr>,
    /// The table that is served by.
    pub(crate) table: Table,
    /// Where the predecessor can be reached afterwards.
    pub(crate) side_door: PathBuf,
}

/// Why there was no hand-over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Another proxy has the lock but does not answer, or does not hand over.
    #[error("another proxy holds {lock} but did not hand over: {cause}", lock = lock.display())]
    Refused {
        /// The lock file.
        lock: PathBuf,
        /// What it said last.
        cause: String,
    },
    /// The other proxy speaks another version of the hand-over.
    #[error("the running proxy hands over by protocol {theirs}, this one takes over by {PROTOCOL}")]
    Protocol {
        /// The running proxy's version.
        theirs: u32,
    },
    /// The connection between the two broke, or a file could not be opened.
    #[error("hand-over: {0}")]
    Io(#[from] io::Error),
}

/// How a proxy begins.
pub(crate) enum Beginning {
    /// There is no other; the lock is ours.
    Alone(OwnedFd),
    /// From a predecessor.
    Heir(Inheritance),
}

/// What a successor has got.
pub(crate) struct Inheritance {
    stream: UnixStream,
    pub(crate) offer: Offer,
    pub(crate) sockets: Vec<(SocketAddr, OwnedFd)>,
    pub(crate) lock: OwnedFd,
    until: Instant,
}

/// The lock file of a control socket.
pub(crate) fn lock_path(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Takes the lock, or else what its holder hands over. Blocks, at most for [`PATIENCE`] and a hand-over.
pub(crate) fn begin(socket: &Path) -> Result<Beginning, HandoverError> {
    let lock = lock_path(socket);
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(&lock, flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Beginning::Alone(descriptor)),
            Err(error) if error != rustix::io::Errno::WOULDBLOCK => return Err(io::Error::from(error).into()),
            Err(_) => (),
        }
        // The holder may be starting, ending, or busy with a table: all that passes.
        let cause = match ask(socket) {
            Ok(inheritance) => return Ok(Beginning::Heir(inheritance)),
            Err(error @ HandoverError::Protocol { .. }) => return Err(error),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            return Err(HandoverError::Refused { lock, cause });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ask(socket: &Path) -> Result<Inheritance, HandoverError> {
    let mut stream = UnixStream::connect(socket)?;
    let until = Instant::now() + SUCCESSORS_PATIENCE;
    stream.set_read_timeout(Some(SUCCESSORS_PATIENCE))?;
    stream.set_write_timeout(Some(SUCCESSORS_PATIENCE))?;
    write!(stream, "POST /v1/handover HTTP/1.1\r\nHost: proxy\r\nConnection: upgrade\r\nUpgrade: {UPGRADE_TO}\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let first = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        return Err(io::Error::other(format!("answered {first}")).into());
    }
    stream.write_all(b"ready\n")?;
    let (offer, mut descriptors): (Offer, _) = receive(&mut stream)?;
    if offer.protocol != PROTOCOL {
        return Err(HandoverError::Protocol { theirs: offer.protocol });
    }
    let lock = descriptors.pop().filter(|_| descriptors.len() == offer.addresses.len());
    let lock = lock.ok_or_else(|| io::Error::other("as many sockets as addresses and the lock were expected"))?;
    let sockets = offer.addresses.iter().copied().zip(descriptors).collect();
    Ok(Inheritance { stream, offer, sockets, lock, until })
}

impl Inheritance {
    /// Takes the socket that listens on `wanted`, if it was inherited. Port 0 is content with any port.
    pub(crate) fn take(&mut self, wanted: SocketAddr) -> Option<OwnedFd> {
        let fits = |has: &SocketAddr| *has == wanted || (wanted.port() == 0 && has.ip() == wanted.ip());
        let index = self.sockets.iter().position(|(has, _)| fits(has))?;
        Some(self.sockets.remove(index).1)
    }

    /// Whether there is still time to take over.
    pub(crate) fn in_time(&self) -> bool {
        Instant::now() < self.until
    }

    /// Tells the predecessor, and waits until it no longer accepts. One that has given up has closed the stream, and cannot be
    /// told; one that does not answer any more has been told, so that it is this proxy that serves.
    pub(crate) fn taken(mut self) -> io::Result<()> {
        self.stream.write_all(b"taken\n")?;
        if let Err(error) = expect(&mut self.stream, b"done\n") {
            tracing::warn!(%error, "the proxy before this one did not say that it has let go");
        }
        Ok(())
    }
}

/// The predecessor's part, on the upgraded control connection.
pub(crate) async fn give(core: Arc<Core>, mut tables: OwnedMutexGuard<Tables>, upgrade: OnUpgrade) {
    let given = match prepare(&core, upgrade).await {
        Ok((stream, side_door)) => {
            let offered = offer(&core, stream, side_door).await;
            offered.inspect_err(|_| core.close_side_door())
        }
        Err(error) => Err(error),
    };
    match given {
        Ok(mut stream) => {
            tables.keeps = false;
            core.file.leave();
            core.accepting.send_replace(Accepting::HandedOver);
            // If the successor does not hear it, it waits for a moment; it has taken over anyway.
            drop(stream.write_all(b"done\n"));
            tracing::info!("a successor has taken over");
        }
        Err(error) => {
            tracing::warn!(%error, "a successor did not take over");
            // It may have taken the control socket's path with it.
            if let Err(error) = bind(&core.socket).and_then(|door| core.open_front_door(door)) {
                tracing::error!(%error, "the control socket is lost");
            }
        }
    }
}

async fn prepare(core: &Core, upgrade: OnUpgrade) -> io::Result<(UnixStream, PathBuf)> {
    let upgraded = tokio::time::timeout(PATIENCE, upgrade).await?.map_err(io::Error::other)?;
    let parts = upgraded.downcast::<TokioIo<tokio::net::UnixStream>>();
    let parts = parts.map_err(|_other| io::Error::other("not a control connection"))?;
    if !b"ready\n".starts_with(&parts.read_buf) {
        return Err(io::Error::other("not a successor"));
    }
    let mut stream = parts.io.into_inner().into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let rest = b"ready\n"[parts.read_buf.len()..].to_vec();
    let ready = tokio::task::spawn_blocking(move || expect(&mut stream, &rest).map(|()| stream));
    let stream = ready.await.map_err(io::Error::other)??;
    Ok((stream, core.open_side_door()?))
}

async fn offer(core: &Core, mut stream: UnixStream, side_door: PathBuf) -> io::Result<UnixStream> {
    let table = Table::clone(&core.plane.snapshot().table);
    let offer = Offer { protocol: PROTOCOL, pid: std::process::id(), addresses: core.addresses.clone(), table, side_door };
    let descriptors = core.copy_estate()?;
    let offered = tokio::task::spawn_blocking(move || {
        send(&mut stream, &offer, &descriptors)?;
        expect(&mut stream, b"taken\n").map(|()| stream)
    });
    offered.await.map_err(io::Error::other)?
}

impl Core {
    fn copy_estate(&self) -> io::Result<Vec<OwnedFd>> {
        let estate = self.estate.lock().unwrap_or_else(PoisonError::into_inner);
        let estate = estate.as_ref().ok_or_else(|| io::Error::other("nothing to hand over any more"))?;
        estate.sockets.iter().chain([&estate.lock]).map(OwnedFd::try_clone).collect()
    }

    fn open_side_door(&self) -> io::Result<PathBuf> {
        let mut path = self.socket.as_os_str().to_owned();
        path.push(format!(".{:08x}", getrandom::u32().map_err(io::Error::other)?));
        let path = PathBuf::from(path);
        let open = self.open_door(bind(&path)?)?;
        *self.side_door.lock().unwrap_or_else(PoisonError::into_inner) = Some((path.clone(), open));
        Ok(path)
    }

    /// Closes the side door, if there is one.
    pub(crate) fn close_side_door(&self) {
        if let Some((path, _open)) = self.side_door.lock().unwrap_or_else(PoisonError::into_inner).take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::debug!(%error, path = %path.display(), "the side door is gone already");
        }
    }
}

fn expect(stream: &mut UnixStream, word: &[u8]) -> io::Result<()> {
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard)?;
    if heard == word { Ok(()) } else { Err(io::Error::other("something else was expected")) }
}

/// Four bytes of length, with them the descriptors; then the message.
fn send(stream: &mut UnixStream, offer: &Offer, descriptors: &[OwnedFd]) -> io::Result<()> {
    let message = serde_json::to_vec(offer)?;
    let length = u32::try_from(message.len()).map_err(io::Error::other)?.to_be_bytes();
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other(format!("more than {MOST_DESCRIPTORS} sockets cannot be handed over")));
    }
    let sent = rustix::net::sendmsg(&*stream, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent != length.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    stream.write_all(&message)
}

fn receive(stream: &mut UnixStream) -> io::Result<(Offer, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(&*stream, &mut [IoSliceMut::new(&mut length)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    stream.read_exact(&mut length[received.bytes..])?;
    let mut message = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut message)?;
    Ok((serde_json::from_slice(&message)?, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inheritance() -> (Inheritance, UnixStream) {
        let (stream, other) = UnixStream::pair().unwrap();
        let offer =
            Offer { protocol: PROTOCOL, pid: 1, addresses: Vec::new(), table: Table::default(), side_door: PathBuf::new() };
        let lock = tempfile::tempfile().unwrap().into();
        (Inheritance { stream, offer, sockets: Vec::new(), lock, until: Instant::now() }, other)
    }

    #[test]
    fn who_was_told_has_let_go_whatever_becomes_of_it() {
        let (inheritance, mut predecessor) = inheritance();
        let successor = std::thread::spawn(|| inheritance.taken());
        expect(&mut predecessor, b"taken\n").unwrap();
        drop(predecessor);
        successor.join().unwrap().unwrap();
    }

    #[test]
    fn who_has_given_up_goes_on_serving() {
        let (inheritance, predecessor) = inheritance();
        drop(predecessor);
        assert!(inheritance.taken().is_err());
    }
}
