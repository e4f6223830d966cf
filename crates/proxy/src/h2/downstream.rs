//! A client's connection: requests come on streams and are answered at once, each by an exchange of its own. All of them
//! run within the connection's task and end with it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Duration;

use ::h2::Reason;
use ::h2::server::{Builder, Connection, SendResponse};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::meter::{Meter, Metered};
use super::stream::{self, Ended};
use super::{CONNECTION_WINDOW, SEND_BUFFER, STREAM_WINDOW};
use crate::deadline::Deadline;
use crate::exchange::Caller;
use crate::options::Limits;
use crate::worker::Counted;

/// How long a client may take to go after it was told that this is the end.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it sends on is read meanwhile.
const LINGER_BYTES: usize = 1024 * 1024;
/// So many streams more than those that were answered may be taken back before they are: whoever does more of it works to
/// keep others busy (CVE-2023-44487).
const MOST_ABANDONED: u32 = 512;
/// So many that were reset are remembered, so that what is still on its way to them is no error.
const RESETS_REMEMBERED: usize = 64;
/// So many may be reset by the client between two looks at the connection.
const RESETS_UNSEEN: usize = 64;

/// Serves a connection until it ends, by itself or because the deadline has passed. `before` has been read of it already.
/// Belongs to [`crate::deadline::Deadline::watch`], like every wait under the caller's deadline.
pub(crate) async fn serve<S>(mut stream: S, before: Vec<u8>, caller: &Caller<'_>, counted: &Counted)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    speak(&mut stream, before, caller, counted).await;
    linger(&mut stream, caller.deadline).await;
}

async fn speak<S>(stream: &mut S, before: Vec<u8>, caller: &Caller<'_>, counted: &Counted)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &caller.seat.plane.limits;
    let meter = Meter::new();
    caller.deadline.set(limits.header_read);
    let mut handshake = pin!(builder(limits).handshake::<_, Bytes>(Metered::new(stream, before, &meter)));
    let begun = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Ready(connection) => Poll::Ready(connection.ok()),
        Poll::Pending if caller.deadline.has_passed() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    });
    let Some(connection) = begun.await else { return };
    caller.deadline.clear();
    let most = limits.http2_streams as usize;
    let client = Client { connection, caller, meter: &meter, most, abandoned: 0, phase: Phase::Open };
    let (streams, meter) = (FuturesUnordered::new(), &meter);
    client.run(streams, |request, respond| stream::answer(request, respond, caller, counted, meter)).await;
}

/// Lets the client read why the connection ends: closing one that has unread bytes resets it.
async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), deadline: &Deadline) {
    deadline.set(LINGER);
    let (mut left, mut has_said_so) = (LINGER_BYTES, false);
    poll_fn(|cx| {
        if deadline.has_passed() {
            return Poll::Ready(());
        }
        if !has_said_so {
            has_said_so = ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_ok();
        }
        while has_said_so && left > 0 {
            let mut unread = [0; 4096];
            let mut unread = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut unread)) {
                Ok(()) if !unread.filled().is_empty() => left = left.saturating_sub(unread.filled().len()),
                _ => break,
            }
        }
        Poll::Ready(())
    })
    .await;
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_pending_accept_reset_streams(RESETS_UNSEEN)
        .enable_connect_protocol();
    builder
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Requests come.
    Open,
    /// The client has been told to send no more of them.
    Closing,
    /// It is over as soon as the client has been told so.
    Aborted,
}

/// One connection.
struct Client<'c, S> {
    connection: Connection<S, Bytes>,
    caller: &'c Caller<'c>,
    meter: &'c Meter,
    /// How many streams may be under way.
    most: usize,
    /// How many streams more have been taken back than answered.
    abandoned: u32,
    phase: Phase,
}

type Incoming = (Request<::h2::RecvStream>, SendResponse<Bytes>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<'_, S> {
    /// Until the connection ends. `answer` makes the futures that the streams are answered by.
    async fn run<F: Future<Output = Ended>>(
        mut self,
        mut streams: FuturesUnordered<F>,
        answer: impl Fn(Request<::h2::RecvStream>, SendResponse<Bytes>) -> F,
    ) {
        poll_fn(|cx| {
            loop {
                while let Poll::Ready(Some(ended)) = streams.poll_next_unpin(cx) {
                    self.count(ended);
                }
                match self.connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok(incoming))) => {
                        if let Some((request, respond)) = self.admit(incoming, streams.len()) {
                            streams.push(answer(request, respond));
                        }
                    }
                    Poll::Ready(Some(Err(error))) => {
                        tracing::debug!(%error, "a connection of HTTP/2 broke");
                        return Poll::Ready(());
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => match self.look(streams.is_empty()) {
                        Look::Again => (),
                        Look::Over => return Poll::Ready(()),
                        Look::Wait => return Poll::Pending,
                    },
                }
            }
        })
        .await;
    }

    fn count(&mut self, ended: Ended) {
        self.abandoned = match ended {
            Ended::Answered => self.abandoned.saturating_sub(1),
            Ended::Abandoned => self.abandoned + 1,
        };
    }

    /// Those that the client has reset may still be under way here, so that its own limit does not bound them.
    fn admit(&mut self, (request, mut respond): Incoming, under_way: usize) -> Option<Incoming> {
        if under_way >= 2 * self.most {
            respond.send_reset(Reason::REFUSED_STREAM);
            self.count(Ended::Abandoned);
            return None;
        }
        let bytes: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        self.meter.piece(bytes);
        Some((request, respond))
    }

    /// Nothing is left to be done just now: does the connection go on?
    fn look(&mut self, is_idle: bool) -> Look {
        let deadline = self.caller.deadline;
        let plane = &self.caller.seat.plane;
        if self.phase != Phase::Aborted && (self.abandoned > MOST_ABANDONED || self.meter.is_exceeded()) {
            tracing::debug!(client = %self.caller.peer.address, "a client floods its connection");
            self.phase = Phase::Aborted;
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            deadline.set(LINGER);
            return Look::Again;
        }
        if self.phase == Phase::Open && (plane.is_closing() || is_idle && deadline.has_passed()) {
            self.phase = Phase::Closing;
            self.connection.graceful_shutdown();
            deadline.clear();
            return Look::Again;
        }
        if deadline.has_passed() {
            return Look::Over;
        }
        match self.phase {
            Phase::Aborted => (),
            _ if !is_idle => deadline.clear(),
            Phase::Open => deadline.set_if_none(plane.limits.idle),
            // What has been answered may not have been taken yet.
            Phase::Closing if self.connection.has_streams() => deadline.set_if_none(plane.limits.stall),
            Phase::Closing => deadline.set_if_none(LINGER),
        }
        Look::Wait
    }
}

/// What comes next.
enum Look {
    /// There is something to be sent.
    Again,
    /// Something has to happen first.
    Wait,
    /// Nothing.
    Over,
}
