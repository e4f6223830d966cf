//! HTTP/2 by the `h2` crate: with clients (`downstream`, many requests at once on one connection), with targets (`upstream`,
//! over connections that requests share: `pool`), and WebSockets within it (`websocket`, RFC 8441).
//!
//! Frames, header compression and flow control are that crate's. What is decided here: how much a peer may have under way,
//! how much of what it sends may be no work at all (`meter`), and when a connection has to end. What a request means is
//! decided where HTTP/1.1 has it decided: `exchange`.

mod body;
mod downstream;
mod meter;
mod pool;
mod stream;
mod upstream;
mod websocket;

pub(crate) use downstream::serve;
pub(crate) use pool::{Pool, open};
pub(crate) use upstream::H2Upstream;
pub(crate) use websocket::Channel;

/// What a connection begins with (RFC 9113, section 3.4), as far as it looks like the head of a request.
pub(crate) const PREFACE_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// How much a peer may send on one stream before it has been used, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;
/// How much it may send on all streams of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How much of a stream may wait to be sent.
const SEND_BUFFER: usize = 64 * 1024;
