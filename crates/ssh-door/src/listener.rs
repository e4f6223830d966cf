//! Taking connections, within bounds, and owning them until they end.

use std::borrow::Cow;
use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_git_door::Door;
use russh::server::{Config, run_stream};
use russh::{MethodKind, MethodSet, SshId, compression};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use crate::crowd::Crowd;
use crate::guest::Doorkeeper;
use crate::host_key::HostKey;
use crate::visit::{Presence, Visit};

/// The pause after an accept that failed because something ran out (descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that ends may take to say so.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long one connection may last, with a deployment in it.
const LONGEST: Duration = Duration::from_secs(2 * 3600 + 600);

/// What stands behind the door.
pub struct Listening {
    /// Knows people.
    pub keeper: Arc<dyn Doorkeeper>,
    /// The repositories.
    pub door: Door,
    /// What visitors know the server by.
    pub host_key: HostKey,
    /// The command by which Coracle's own client asks for the API.
    pub api_command: &'static str,
    /// Own everything that is begun here.
    pub tasks: TaskTracker,
    /// No new connections; those that are there may finish what they are at.
    pub stop: CancellationToken,
    /// Cuts off what is left.
    pub cut: CancellationToken,
}

impl Listening {
    /// Takes connections until told to stop.
    pub async fn serve(self, listener: TcpListener) {
        let Self { keeper, door, host_key, api_command, tasks, stop, cut } = self;
        let config = Arc::new(config(&host_key));
        let crowd = Arc::new(Crowd::default());
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection over SSH");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = Crowd::another(&crowd, address.ip()) else {
                tracing::debug!(%address, "too many connections over SSH");
                continue;
            };
            let (end, presence) = (cut.child_token(), Arc::new(Presence::default()));
            let visit = Visit::new(keeper.clone(), door.clone(), api_command, presence.clone(), tasks.clone(), end.clone());
            let (config, stop) = (config.clone(), stop.clone());
            tasks.spawn(async move {
                receive(config, stream, visit, &presence, end, stop).await;
                drop(place);
            });
        }
    }
}

/// One connection from its beginning to its end.
async fn receive(
    config: Arc<Config>,
    stream: TcpStream,
    visit: Visit,
    presence: &Presence,
    end: CancellationToken,
    stop: CancellationToken,
) {
    let since = Instant::now();
    let leaving = async {
        tokio::select! {
            () = presence.over(since) => {}
            () = presence.stopped(&stop) => {}
            () = tokio::time::sleep(LONGEST) => {}
            () = end.cancelled() => {}
        }
    };
    let mut leaving = std::pin::pin!(leaving);
    // What is read and written fails once the connection is over, whatever SSH's own state machine waits for.
    let severed = CancellationToken::new();
    let _sever = severed.clone().drop_guard();
    let stream = Severable { stream, severed: Box::pin(severed.cancelled_owned()) };
    let beginning = run_stream(config, stream, visit);
    let session = tokio::select! {
        session = beginning => session,
        () = &mut leaving => return,
    };
    let mut session = match session {
        Ok(session) => session,
        Err(error) => return tracing::debug!(%error, "a connection over SSH did not come about"),
    };
    let ended = tokio::select! {
        ended = &mut session => ended,
        () = &mut leaving => {
            end.cancel();
            let goodbye = session.handle();
            let saying = goodbye.disconnect(russh::Disconnect::ByApplication, "goodbye".to_owned(), String::new());
            match tokio::time::timeout(FAREWELL, async { (saying.await, (&mut session).await) }).await {
                Ok((_, ended)) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection over SSH ended early");
    }
    // What still goes on for it is left as by anybody who goes away.
    end.cancel();
}

fn config(host_key: &HostKey) -> Config {
    let mut config = Config {
        server_id: SshId::Standard(Cow::Borrowed("SSH-2.0-Coracle")),
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        // Public keys are no secrets: there is nothing to be learnt from the time that a refusal takes.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 16,
        keys: vec![host_key.private()],
        // What may be on its way to git for one channel: the window, and as many messages as wait for git to read.
        window_size: 1 << 20,
        channel_buffer_size: 16,
        event_buffer_size: 16,
        inactivity_timeout: Some(Duration::from_secs(600)),
        keepalive_interval: Some(Duration::from_secs(20)),
        keepalive_max: 3,
        nodelay: true,
        ..Config::default()
    };
    // Packs are compressed; a second time only costs, and opens the way for what unpacks to much.
    config.preferred.compression = Cow::Borrowed(&[compression::NONE]);
    config
}

/// A stream that fails from a moment on.
struct Severable<S> {
    stream: S,
    severed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S: Unpin> Severable<S> {
    fn check(&mut self, cx: &mut Context<'_>) -> Result<Pin<&mut S>, Error> {
        match self.severed.as_mut().poll(cx) {
            Poll::Ready(()) => Err(ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.check(cx)?.poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
        self.check(cx)?.poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.check(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.check(cx)?.poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
        self.check(cx)?.poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
