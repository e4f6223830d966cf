//! The chunked transfer coding (RFC 9112, section 7.1), strictly.
//!
//! Every reader of a body must find the same end, so: sizes are hexadecimal digits only and fit 63 bits; lines end with CRLF
//! and nothing else; an extension begins with `;`, has no control characters, and closes the quotes that it opens, as some
//! readers look for line ends within quotes and some do not. Extensions are dropped, and so are trailer fields that could
//! change what the head has said.

use std::ops::Range;

use crate::error::ParseError;
use crate::fields::Fields;
use crate::known::{self, Known};
use crate::octet;
use crate::parser::read_fields;

/// Bytes of extensions that a whole body may have.
const MOST_EXTENSIONS: u32 = 16 * 1024;
/// Hexadecimal digits of a size.
const MOST_DIGITS: u8 = 16;
/// Bytes of a trailer section.
const MOST_TRAILER_BYTES: usize = 8 * 1024;
/// Fields of a trailer section.
const MOST_TRAILER_FIELDS: usize = 64;

/// Why a chunked body is refused. The connection is to be closed: it is unknown where the next message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// The size is missing, has other characters than hexadecimal digits, or is too large.
    #[error("a chunk size is malformed")]
    Size,
    /// An extension is malformed, or all of them are too long.
    #[error("a chunk extension is malformed or too long")]
    Extension,
    /// A line does not end with CRLF, or a chunk is not followed by it.
    #[error("a chunk does not end with CRLF")]
    LineEnd,
    /// The trailer section is malformed or too large.
    #[error("the trailer section is refused: {0}")]
    Trailers(ParseError),
}

/// What was found in some bytes of a chunked body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// How many bytes of the input are done with, the data included.
    pub consumed: usize,
    /// Where the data stands in the input; may be empty.
    pub data: Range<usize>,
    /// Whether the body has ended, trailers and all. What follows is the next message.
    pub end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// White space after a size; a `;` has to come.
    Space,
    /// After a `;`; a name has to come.
    Name,
    Extension,
    Quoted,
    Escaped,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
    End,
}

/// Finds the data in a chunked body that comes in pieces; copies none of it.
#[derive(Debug, Clone)]
pub struct ChunkedDecoder {
    state: State,
    digits: u8,
    /// The size so far, then how much of the chunk's data is to come.
    left: u64,
    extensions: u32,
    section: Vec<u8>,
    trailers: Option<Box<Fields>>,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkedDecoder {
    /// Before the first byte.
    pub fn new() -> Self {
        Self { state: State::Size, digits: 0, left: 0, extensions: 0, section: Vec::new(), trailers: None }
    }

    /// Whether the body has ended.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// The trailer fields that may be passed on, after the end, if there are any.
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_deref()
    }

    /// The trailer fields, to be kept.
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    /// Goes on with the bytes that follow those consumed so far. At most one piece of data is found at a time: call it until
    /// everything is consumed or the end has come.
    ///
    /// # Errors
    /// [`BadChunk`]; asking again is not useful then.
    #[inline]
    pub fn decode(&mut self, input: &[u8]) -> Result<Chunk, BadChunk> {
        let mut at = 0;
        loop {
            if self.state == State::Data && at < input.len() {
                let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len() - at);
                self.left -= len as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Chunk { consumed: at + len, data: at..at + len, end: false });
            }
            if self.state == State::Trailers {
                at += self.read_trailers(&input[at..])?;
            }
            if self.state == State::End || at >= input.len() {
                return Ok(Chunk { consumed: at, data: at..at, end: self.state == State::End });
            }
            self.read_frame(input[at])?;
            at += 1;
        }
    }

    /// One byte that is not data.
    fn read_frame(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size, _) => return self.read_size(byte),
            (State::Extension, b'\r') => State::SizeLf,
            (State::Space | State::Name | State::Extension | State::Quoted | State::Escaped, _) => {
                return self.read_extension(byte);
            }
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.digits = 0;
                State::Size
            }
            _ => return Err(BadChunk::LineEnd),
        };
        Ok(())
    }

    #[inline]
    fn read_size(&mut self, byte: u8) -> Result<(), BadChunk> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if self.digits == 0 => return Err(BadChunk::Size),
            b'\r' => {
                self.state = State::SizeLf;
                return Ok(());
            }
            b';' | b' ' | b'\t' => {
                self.state = State::Space;
                return self.read_extension(byte);
            }
            b'\n' => return Err(BadChunk::LineEnd),
            _ => return Err(BadChunk::Size),
        };
        if self.digits == MOST_DIGITS || self.left > (i64::MAX as u64) >> 4 {
            return Err(BadChunk::Size);
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from(digit);
        Ok(())
    }

    fn read_extension(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.extensions += 1;
        if self.extensions > MOST_EXTENSIONS || !octet::is_value(&[byte]) {
            return Err(if byte == b'\n' { BadChunk::LineEnd } else { BadChunk::Extension });
        }
        self.state = match (self.state, byte) {
            (State::Quoted, b'"') => State::Extension,
            (State::Quoted, b'\\') => State::Escaped,
            (State::Quoted | State::Escaped, _) => State::Quoted,
            (State::Extension, b'"') => State::Quoted,
            (State::Space | State::Name, b' ' | b'\t') => self.state,
            (State::Space | State::Extension, b';') => State::Name,
            (State::Name, _) if octet::is(byte, octet::TOKEN) => State::Extension,
            (State::Extension, _) => State::Extension,
            _ => return Err(BadChunk::Extension),
        };
        Ok(())
    }

    /// The lines behind the last chunk, up to the empty one.
    fn read_trailers(&mut self, input: &[u8]) -> Result<usize, BadChunk> {
        if self.section.is_empty() && input.starts_with(b"\r\n") {
            self.state = State::End;
            return Ok(2);
        }
        for (index, byte) in input.iter().enumerate() {
            if self.section.len() == MOST_TRAILER_BYTES {
                return Err(BadChunk::Trailers(ParseError::TooLarge));
            }
            self.section.push(*byte);
            if *byte != b'\n' {
                continue;
            }
            match self.section.as_slice() {
                b"\r\n" | [.., b'\r', b'\n', b'\r', b'\n'] => {
                    self.finish()?;
                    return Ok(index + 1);
                }
                [.., b'\r', b'\n'] => (),
                _ => return Err(BadChunk::LineEnd),
            }
        }
        Ok(input.len())
    }

    fn finish(&mut self) -> Result<(), BadChunk> {
        let lines = &self.section[..self.section.len() - 2];
        if !lines.is_empty() {
            let mut trailers = Box::new(Fields::new());
            read_fields(lines, MOST_TRAILER_FIELDS, &mut trailers).map_err(BadChunk::Trailers)?;
            keep_trailers(&mut trailers);
            self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        }
        self.section = Vec::new();
        // Not before: a body whose trailers are refused has no end that a next message could follow.
        self.state = State::End;
        Ok(())
    }
}

/// What the names begin with that are not known one by one: who the client is, what is asked for, what the content is.
const FORBIDDEN_STARTS: &[&str] = &[
    "access-control-",
    "authentication-",
    "cf-",
    "content-",
    "http2-",
    "if-",
    "pragma",
    "proxy-",
    "sec-",
    "true-client-",
    "x-client-",
    "x-forwarded-",
    "x-http-method",
    "x-original-",
    "x-real-",
    "x-rewrite-",
];

/// Takes the fields off a trailer section that must not stand in one (RFC 9110, section 6.5.1): those that frame, route,
/// authenticate, modify the request or describe the content, because a reader that merges trailers into the head would
/// change its mind. Such fields are the known ones, in either spelling; unknown ones, checksums and `ETag` are passed on.
pub fn keep_trailers(trailers: &mut Fields) {
    trailers.retain_known(|known, name, _| match known {
        Known::ETag => true,
        Known::Other => {
            let name = known::Folded::of(name.as_bytes());
            let forbidden = FORBIDDEN_STARTS.iter().any(|start| name.as_bytes().starts_with(start.as_bytes()));
            name.known() == Known::Other && (!forbidden || name.as_bytes() == b"content-digest")
        }
        _ => false,
    });
}

/// Writes what comes before `len` bytes of data, which must not be 0; [`CHUNK_END`] comes behind them.
pub fn write_chunk_head(len: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 16];
    let mut at = digits.len();
    let mut left = len;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(left & 0xf) as usize];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(CHUNK_END);
}

/// What comes behind the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Writes the end of a chunked body. Fields that must not stand in trailers are not this function's affair: see
/// [`keep_trailers`].
pub fn write_last_chunk(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_to(out, |_| true);
    }
    out.extend_from_slice(b"\r\n");
}
