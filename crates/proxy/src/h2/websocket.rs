//! WebSockets on a stream of HTTP/2 (RFC 8441), on either side. Between the two sides a WebSocket is as HTTP/1.1 has it, with a
//! key of this proxy's own where the client has none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_proxy_http::{Known, RequestHead, ResponseHead};
use http::StatusCode;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::{Incoming, Outgoing};
use super::meter::Meter;
use super::pool::Lane;
use crate::side::{Broken, Next};

/// RFC 6455, section 1.3.
const UNIQUE: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the target has to answer.
pub(super) struct Key {
    accept: String,
}

impl Key {
    /// Puts a new one into a request; nothing if there is no randomness to be had.
    pub(super) fn put(head: &mut RequestHead) -> Option<Self> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).ok()?;
        let key = STANDARD.encode(nonce);
        head.fields.set("Sec-WebSocket-Key", &key).ok()?;
        if !head.fields.contains("Sec-WebSocket-Version") {
            head.fields.set("Sec-WebSocket-Version", "13").ok()?;
        }
        Some(Self { accept: accept(&key) })
    }

    /// Whether the target has understood what it was asked.
    pub(super) fn fits(&self, head: &ResponseHead) -> bool {
        head.fields.get("Sec-WebSocket-Accept") == Some(self.accept.as_bytes())
    }
}

/// Whether a request is for a WebSocket.
pub(super) fn is_asked_for(head: &RequestHead) -> bool {
    head.fields.get_known(Known::Upgrade).is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// Makes what a target of HTTP/2 opens a WebSocket with into what HTTP/1.1 opens it with.
pub(super) fn as_switched(key: &str, head: &mut ResponseHead) -> Option<()> {
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.fields.set_known(Known::Connection, "upgrade").ok()?;
    head.fields.set_known(Known::Upgrade, "websocket").ok()?;
    head.fields.set("Sec-WebSocket-Accept", accept(key)).ok()
}

/// RFC 6455, section 4.2.2.
fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(UNIQUE);
    STANDARD.encode(hash.finalize())
}

/// A stream as a tunnel takes it.
pub(crate) struct Channel<'m> {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// What a client sends is looked at; a target is believed.
    pub(super) meter: Option<&'m Meter>,
    /// The place on the connection to a target. Last: the stream ends before the connection can.
    #[allow(dead_code, reason = "held for what dropping it does")]
    pub(super) lane: Option<Lane>,
}

impl Channel<'_> {
    fn count(&self, bytes: usize) {
        if let Some(meter) = self.meter {
            meter.piece(bytes);
        }
    }
}

fn broken(_: Broken) -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Channel<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if ready!(self.incoming.poll_next(cx)).map_err(broken)? == Next::Content {
            let content = self.incoming.content();
            let count = content.len().min(into.remaining());
            into.put_slice(&content[..count]);
            self.count(count);
            self.incoming.consume(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.count(0);
        self.outgoing.poll_put(cx, bytes).map_err(broken)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A client that has closed its side can still reset the stream, and nothing else would tell.
        if self.incoming.is_through() && self.outgoing.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(broken(Broken::Gone)));
        }
        Poll::Ready(self.outgoing.flush().map_err(broken))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.outgoing.end(None).map_err(broken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
