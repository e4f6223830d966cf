//! HTTP messages as bytes: strict parsing and framing of HTTP/1.1, heads that can be edited, the PROXY header.
//!
//! Nothing here reads or writes a socket, waits, or keeps state between messages. Nothing here repairs a message either:
//! what two readers could understand differently is refused (see [`parser`](parse_request)).

mod body_length;
mod error;
mod fields;
mod known;
mod octet;
mod parser;
mod request;
mod response;

pub use body_length::BodyLength;
pub use error::{BadField, BadHost, BadTarget, ParseError};
pub use fields::Fields;
pub use known::Known;
pub use parser::{HeadLimits, HeadSearch, Parsed, parse_request, parse_request_head, parse_response, parse_response_head};
pub use request::{RequestHead, TargetForm};
pub use response::ResponseHead;
