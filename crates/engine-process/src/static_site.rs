//! The static file server behind static sites: `coracle static --root DIR`, listening on `$PORT`.
//!
//! It serves files as they are: `index.html` for directories, `404.html` for what is not there, a stored `.br` or `.gz`
//! beside a file to clients that take it, with validators. It lists no directory, runs nothing, and serves nothing outside
//! its root, links included. Compression and TLS are the proxy's.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tower_http::services::{ServeDir, ServeFile};

/// How long requests may go on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(8);

/// Serves `root` on `address` until SIGTERM or SIGINT.
pub async fn serve(root: PathBuf, address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    serve_on(root, listener, terminated()?).await
}

/// Serves `root` on `$PORT` of the loopback address, as the hidden subcommand `coracle static --root DIR` does. Makes a
/// runtime of its own.
pub fn serve_on_port(root: PathBuf) -> io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|text| text.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("PORT is not set to a port"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    runtime.block_on(serve(root, (Ipv4Addr::LOCALHOST, port).into()))
}

/// Serves on a listener until `stop` comes true.
pub async fn serve_on(root: PathBuf, listener: TcpListener, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let root = root.canonicalize()?;
    let not_found = ServeFile::new(root.join("404.html"));
    let files = ServeDir::new(&root).precompressed_br().precompressed_gzip().not_found_service(not_found);
    let site = Router::new().fallback_service(files).layer(middleware::from_fn_with_state(root, stay_inside));
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, site).with_graceful_shutdown(async move {
        stop.await;
        stopping.send(()).ok();
    });
    let deadline = async {
        if stopped.await.is_ok() {
            tokio::time::sleep(DRAIN).await;
        } else {
            std::future::pending().await
        }
    };
    tokio::select! {
        outcome = async { server.await } => outcome,
        () = deadline => Ok(()),
    }
}

/// Refuses what leads out of the root by a link, and hidden files, which are never meant to be published; `.well-known`
/// (RFC 8615) is.
async fn stay_inside(State(root): State<PathBuf>, request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    let hidden = request.uri().path().split('/').any(|piece| {
        let piece = piece.replace("%2e", ".").replace("%2E", ".");
        piece.starts_with('.') && piece != ".well-known"
    });
    if hidden || leads_out(&root, request.uri().path()).await {
        return StatusCode::NOT_FOUND.into_response();
    }
    next.run(request).await
}

async fn leads_out(root: &Path, path: &str) -> bool {
    let Some(decoded) = decode(path) else { return true };
    let wanted = root.join(decoded.trim_start_matches('/'));
    for file in [wanted.clone(), wanted.join("index.html")] {
        if let Ok(real) = tokio::fs::canonicalize(&file).await
            && !real.starts_with(root)
        {
            return true;
        }
    }
    false
}

/// Undoes percent-encoding. `None` for what is no path.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                tail
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// Comes true at SIGTERM or SIGINT.
fn terminated() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
