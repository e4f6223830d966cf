//! Metrics over plain HTTP, for whoever scrapes them.
//!
//! Not under load, and not for the internet: few connections at a time, each for a few seconds.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::exposition;
use crate::plane::Plane;

/// Connections at a time; further ones wait.
const MOST: usize = 8;
/// How long one may last.
const LONGEST: Duration = Duration::from_secs(10);
/// After an error such as too many open files.
const BREATH: Duration = Duration::from_millis(100);

/// Opens the socket. A proxy and its successor have one each for a moment, so that no scrape is refused.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(64)?.into_std()
}

/// Answers until it is dropped.
pub(crate) async fn serve(plane: Arc<Plane>, socket: TcpListener) {
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "metrics are not served"),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept(), if connections.len() < MOST => match accepted {
                Ok((stream, _)) => drop(connections.spawn(tokio::time::timeout(LONGEST, talk(Arc::clone(&plane), stream)))),
                Err(_) => tokio::time::sleep(BREATH).await,
            },
            Some(_ended) = connections.join_next(), if !connections.is_empty() => (),
        }
    }
}

async fn talk(plane: Arc<Plane>, stream: tokio::net::TcpStream) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&plane, &request))));
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.header_read_timeout(None);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a scrape broke");
    }
}

fn answer(plane: &Plane, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => metrics(plane),
        (&Method::GET | &Method::HEAD, _) => text(StatusCode::NOT_FOUND, "metrics are at /metrics\n"),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "metrics are only read\n"),
    }
}

/// The answer to a scrape, over whatever it came.
pub(crate) fn metrics(plane: &Plane) -> Response<Full<Bytes>> {
    let Ok(rendered) = exposition::render(plane) else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n");
    };
    let mut response = Response::new(Full::from(rendered));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
