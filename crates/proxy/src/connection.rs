//! One client connection: reading it, timing it, and ending it when it takes too long.
//!
//! hyper would start and stop a timer for each request. Here a connection has one alarm that is set again only when a
//! deadline comes nearer than the one it is set to, which for a busy connection happens about once a minute.

#![allow(unsafe_code)] // Reading into hyper's buffer and looking at what was read needs it; see `ClientIo::poll_read`.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::forward;
use crate::options::Limits;
use crate::plane::Plane;

const NEVER: u64 = u64::MAX;
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const CHANGED: u8 = 3;

/// What the parts of one connection tell each other.
pub(crate) struct Link {
    pub(crate) peer: SocketAddr,
    /// The peer's address as a header value.
    pub(crate) forwarded_for: HeaderValue,
    limits: Limits,
    since: Instant,
    /// Milliseconds after `since`.
    deadline: AtomicU64,
    phase: AtomicU8,
    late: AtomicBool,
    /// The bytes read since the last request, as far as a head may reach.
    head: Mutex<Vec<u8>>,
}

impl Link {
    fn new(peer: SocketAddr, limits: Limits) -> Self {
        let forwarded_for = HeaderValue::try_from(peer.ip().to_canonical().to_string());
        let link = Self {
            peer,
            forwarded_for: forwarded_for.unwrap_or(HeaderValue::from_static("unknown")),
            limits,
            since: Instant::now(),
            deadline: AtomicU64::new(NEVER),
            phase: AtomicU8::new(IDLE),
            late: AtomicBool::new(false),
            head: Mutex::default(),
        };
        link.rest();
        link
    }

    /// The head of a request has been read. No deadline until somebody waits for the answer.
    pub(crate) fn work(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
        self.deadline.store(NEVER, Ordering::Relaxed);
    }

    /// The request is on its way to a target: the answer's headers must come in time.
    pub(crate) fn await_answer(&self) {
        self.late.store(false, Ordering::Relaxed);
        self.set_deadline(self.limits.response_header);
    }

    /// Another piece of the request went by.
    pub(crate) fn progress(&self) {
        if self.deadline.load(Ordering::Relaxed) != NEVER {
            self.set_deadline(self.limits.response_header);
        }
    }

    /// Whether the answer did not come in time.
    pub(crate) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// The answer has begun, and may take as long as it takes.
    pub(crate) fn answered(&self) {
        self.deadline.store(NEVER, Ordering::Relaxed);
    }

    /// The answer is through: the next request may come.
    pub(crate) fn rest(&self) {
        if self.phase.load(Ordering::Relaxed) == CHANGED {
            return;
        }
        self.phase.store(IDLE, Ordering::Relaxed);
        self.set_deadline(self.limits.idle);
    }

    /// The connection speaks something else than HTTP from here on: what is read is nobody's head.
    pub(crate) fn change(&self) {
        self.phase.store(CHANGED, Ordering::Relaxed);
        self.deadline.store(NEVER, Ordering::Relaxed);
    }

    fn set_deadline(&self, after: Duration) {
        let at = self.since.elapsed() + after;
        self.deadline.store(u64::try_from(at.as_millis()).unwrap_or(NEVER), Ordering::Relaxed);
    }

    fn due(&self) -> Instant {
        match self.deadline.load(Ordering::Relaxed) {
            NEVER => Instant::now() + FAR,
            millis => self.since + Duration::from_millis(millis),
        }
    }

    fn has_read(&self, bytes: &[u8]) {
        let phase = self.phase.load(Ordering::Relaxed);
        if !matches!(phase, IDLE | HEAD) || bytes.is_empty() {
            return;
        }
        if phase == IDLE {
            self.phase.store(HEAD, Ordering::Relaxed);
            self.set_deadline(self.limits.header_read);
        }
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.limits.header_bytes.saturating_sub(head.len()).min(bytes.len());
        head.extend_from_slice(&bytes[..room]);
    }

    /// Takes the bytes of the head that has just been read, to look at with `look`.
    pub(crate) fn with_head<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let result = look(&head);
        if head.capacity() > 4096 {
            *head = Vec::new();
        } else {
            head.clear();
        }
        result
    }
}

/// Serves a connection until it ends, by itself or because a deadline has passed.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, plane: Arc<Plane>) {
    let link = Arc::new(Link::new(peer, plane.limits));
    let io = ClientIo { stream, link: Arc::clone(&link) };
    let service_link = Arc::clone(&link);
    let service = service_fn(move |request| forward::answer(Arc::clone(&plane), Arc::clone(&service_link), request));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(link.limits.header_bytes).max_header_size(link.limits.header_bytes);
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
    let mut set_to = link.due();
    let mut alarm = pin!(tokio::time::sleep_until(set_to));
    std::future::poll_fn(|cx| {
        loop {
            // How it ends concerns nobody: whoever waited for an answer is gone.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let due = link.due();
            if due < set_to {
                set_to = due;
                alarm.as_mut().reset(set_to);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let due = link.due();
            if due > Instant::now() {
                set_to = due;
            } else if matches!(link.phase.load(Ordering::Relaxed), BUSY | CHANGED) {
                link.late.store(true, Ordering::Relaxed);
                link.answered();
                set_to = Instant::now() + FAR;
            } else {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(set_to);
        }
    })
    .await;
}

/// The client's socket. Lets the link see what is read.
struct ClientIo {
    stream: TcpStream,
    link: Arc<Link>,
}

impl Read for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        // SAFETY: the bytes are only written to, by tokio's `ReadBuf`, which never makes initialised ones uninitialised.
        let mut into = ReadBuf::uninit(unsafe { buffer.as_mut() });
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut into))?;
        let filled = into.filled();
        self.link.has_read(filled);
        let count = filled.len();
        // SAFETY: `count` bytes at the beginning were filled just now.
        unsafe { buffer.advance(count) };
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }
}
