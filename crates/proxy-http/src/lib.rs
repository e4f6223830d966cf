//! HTTP messages as bytes: strict parsing and framing of HTTP/1.1, heads that can be edited, the PROXY header.
//!
//! Nothing here reads or writes a socket, waits, or keeps state between messages. Nothing here repairs a message either:
//! what two readers could understand differently is refused (see [`parse_request`]).

mod body_length;
mod chunked;
mod encoded;
mod error;
mod fields;
mod forwarded;
mod hop;
mod http2;
mod known;
mod octet;
mod parser;
mod proxy_header;
mod request;
mod response;

pub use body_length::BodyLength;
pub use chunked::{BadChunk, CHUNK_END, Chunk, ChunkedDecoder, keep_trailers, write_chunk_head, write_last_chunk};
pub use encoded::EncodedCharacters;
pub use error::{BadField, BadHost, BadTarget, ParseError};
pub use fields::Fields;
pub use forwarded::{Arrival, BadRange, Forwarding, Trust, client_ip};
pub use hop::{Asked, strip_request, strip_response};
pub use known::Known;
pub use parser::{HeadLimits, HeadSearch, Parsed, parse_request, parse_request_head, parse_response, parse_response_head};
pub use proxy_header::{BadProxyHeader, ProxyHeader, parse_proxy_header, write_proxy_v1, write_proxy_v2};
pub use request::{RequestHead, TargetForm};
pub use response::ResponseHead;
