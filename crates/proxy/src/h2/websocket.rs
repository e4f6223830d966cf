//! WebSockets on a stream of HTTP/2 (RFC 8441). The target is asked for one as HTTP/1.1 has it, with a key of this proxy's
//! own: HTTP/2 has none.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_proxy_http::{RequestHead, ResponseHead};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::{Incoming, Outgoing};
use super::meter::Meter;
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

/// RFC 6455, section 4.2.2.
fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(UNIQUE);
    STANDARD.encode(hash.finalize())
}

/// A stream as a tunnel takes it.
pub(super) struct Channel<'m> {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) meter: &'m Meter,
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
            self.meter.piece(count);
            self.incoming.consume(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.meter.piece(0);
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
