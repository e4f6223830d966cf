//! Accepting connections to the API, and owning them until they end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a request's head may take to arrive; also how long a connection may idle between requests.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// Enough for any head, and small: a connection must not cost much.
const BUFFER: usize = 64 * 1024;

/// The pause after an accept that failed because something ran out (descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A Unix socket that only its owner can open, under its path from the moment it can be opened.
pub(crate) fn bind_private(path: &Path) -> std::io::Result<UnixListener> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}", std::process::id()));
    let staged = PathBuf::from(staged);
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&staged)?;
    std::fs::set_permissions(&staged, std::fs::Permissions::from_mode(0o600))?;
    // Replaces the socket that a killed predecessor left; the state directory's lock says that it is gone.
    std::fs::rename(&staged, path)?;
    Ok(listener)
}

/// Who owns the connections, and ends them.
pub(crate) struct Owner {
    pub tasks: TaskTracker,
    /// No new connections, no new requests; answers that are under way are finished.
    pub stop: CancellationToken,
    /// Cuts off what is left.
    pub cut: CancellationToken,
}

/// Serves connections of a Unix socket until told to stop.
pub(crate) async fn serve_unix(listener: UnixListener, router: Router, owner: Owner) {
    while let Some(accepted) = owner.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => spawn(stream, &router, &owner),
            Err(error) => accept_failed(&error).await,
        }
    }
}

/// Serves connections of a TCP socket until told to stop.
pub(crate) async fn serve_tcp(listener: TcpListener, router: Router, owner: Owner) {
    while let Some(accepted) = owner.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection to the API broke at once");
                    continue;
                }
                spawn(stream, &router, &owner);
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

async fn accept_failed(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection to the API");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn spawn<S>(stream: S, router: &Router, owner: &Owner)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (router, stop, cut) = (router.clone(), owner.stop.clone(), owner.cut.clone());
    owner.tasks.spawn(async move { cut.run_until_cancelled(serve(stream, router, &stop)).await });
}

/// Serves one connection until either side ends it. Once told to stop, it answers what is under way and takes nothing more.
pub(crate) async fn serve<S>(stream: S, router: Router, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
