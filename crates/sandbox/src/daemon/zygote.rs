//! The daemon's side of a zygote: orders for copies, and their pids.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::maker::{DEADLINE, Maker, adopt};
use super::process::Process;
use super::watched;
use crate::maker::send_datagram;

/// A warm interpreter that copies itself. Dropping it closes its socket, at which it ends.
#[derive(Debug)]
pub(super) struct Zygote {
    socket: AsyncFd<OwnedFd>,
    /// Its name and version.
    pub(super) interpreter: String,
    copies: AtomicU32,
    waiting: Mutex<HashMap<u32, oneshot::Sender<i64>>>,
    process: Process,
    complaints: JoinHandle<()>,
}

impl Zygote {
    /// Starts one and waits until it is warm.
    pub(super) async fn start(maker: &Maker, image: u32, filter: &[u8]) -> Result<Self, String> {
        let text = |error: io::Error| format!("start a zygote: {error}");
        let (socket, its) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| text(error.into()))?;
        // Pipes, because Python's standard streams remember what kind of file they were made on.
        let (input, unused_input) = io::pipe().map_err(text)?;
        let (unused_output, output) = io::pipe().map_err(text)?;
        let (errors, error) = io::pipe().map_err(text)?;
        let process = maker.zygote(image, &[its.as_fd(), input.as_fd(), output.as_fd(), error.as_fd()]).await?;
        // What it prints while it rehearses has somewhere to go until it is ready, and is nobody's then.
        let _rehearsed = unused_output;
        drop((its, input, output, error, unused_input));
        let socket = watched::both_ways(socket).map_err(text)?;
        let errors = pipe::Receiver::from_owned_fd(errors.into()).map_err(text)?;
        let (said, complaints) = listen(errors, process.pid());
        let mut zygote = Self {
            socket,
            interpreter: String::new(),
            copies: AtomicU32::new(0),
            waiting: Mutex::default(),
            process,
            complaints,
        };
        match tokio::time::timeout(DEADLINE, zygote.greet(filter)).await {
            Ok(Ok(interpreter)) => zygote.interpreter = interpreter,
            // What it has said before it ended tells more than that it ended.
            Ok(Err(error)) => {
                let said = said.await.unwrap_or_default();
                return Err(if said.is_empty() { text(error) } else { format!("the interpreter does not start: {said}") });
            }
            Err(_) => return Err(format!("the interpreter was not ready within {} s", DEADLINE.as_secs())),
        }
        Ok(zygote)
    }

    async fn greet(&self, filter: &[u8]) -> io::Result<String> {
        self.send(filter, &[]).await?;
        let hello = self.receive().await?;
        Ok(String::from_utf8_lossy(&hello).into_owned())
    }

    pub(super) fn copies(&self) -> u32 {
        self.copies.load(Ordering::Relaxed)
    }

    /// Copies itself into a slot; the copy goes through the doors of a cgroup first. It says on its control socket when it
    /// is ready.
    pub(super) async fn copy(&self, descriptors: &[BorrowedFd<'_>]) -> Result<Process, String> {
        let id = self.copies.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.lock().insert(id, sender);
        let sent = self.send(&id.to_le_bytes(), descriptors).await;
        let answer = match sent {
            Ok(()) => tokio::time::timeout(DEADLINE, answer).await.ok().and_then(Result::ok),
            Err(_) => None,
        };
        self.lock().remove(&id);
        match answer.map(i32::try_from) {
            Some(Ok(pid)) if pid > 0 => adopt(pid).map_err(|error| format!("watch a copy of the zygote: {error}")),
            Some(Ok(errno)) => Err(format!("copy the zygote: {}", io::Error::from_raw_os_error(-errno))),
            Some(Err(_)) | None => Err("the zygote does not answer".to_owned()),
        }
    }

    /// Hands answers to those who wait for them, until the zygote is gone.
    pub(super) async fn attend(&self) {
        while let Ok(answer) = self.receive().await {
            let id = answer.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
            let pid = answer.get(4..12).and_then(|bytes| bytes.try_into().ok()).map(i64::from_le_bytes);
            let (Some(id), Some(pid)) = (id, pid) else { break };
            let waiting = self.lock().remove(&id);
            let abandoned = match waiting {
                Some(waiting) => waiting.send(pid).err(),
                None => Some(pid),
            };
            if let Some(pid) = abandoned.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0) {
                drop(adopt(pid));
            }
        }
        // Whoever still waits hears that nothing comes.
        self.lock().clear();
    }

    async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            let sent = ready.try_io(|socket| Ok(send_datagram(socket.get_ref().as_fd(), bytes, descriptors)?));
            if let Ok(sent) = sent {
                return sent;
            }
        }
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut bytes = [0_u8; 256];
        loop {
            let mut ready = self.socket.readable().await?;
            let got = ready.try_io(|socket| Ok(rustix::net::recv(socket.get_ref(), &mut bytes, RecvFlags::DONTWAIT)?.1));
            match got {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => return Ok(bytes.get(..got?).unwrap_or_default().to_vec()),
                Err(_would_block) => {}
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, oneshot::Sender<i64>>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.process.kill();
        self.complaints.abort();
    }
}

/// Logs what a zygote has to say; the last line also comes back, when it has ended.
fn listen(mut errors: pipe::Receiver, pid: i32) -> (oneshot::Receiver<String>, JoinHandle<()>) {
    let (sender, said) = oneshot::channel();
    let task = tokio::spawn(async move {
        let (mut buffer, mut last) = (vec![0_u8; 4096], String::new());
        while let Ok(bytes @ 1..) = errors.read(&mut buffer).await {
            let text = String::from_utf8_lossy(buffer.get(..bytes).unwrap_or_default()).trim_end().to_owned();
            tracing::warn!(zygote = pid, "{text}");
            last = text.lines().last().unwrap_or_default().to_owned();
        }
        sender.send(last).ok();
    });
    (said, task)
}
