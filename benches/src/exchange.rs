//! The least of an HTTP/1.1 client (RFC 9112), for measurements: one connection that stays open, a request in one write, an
//! answer with a length or in chunks. It blocks, because a caller that does nothing but wait sees an answer soonest.

use std::io::{self, BufRead, BufReader, Read, Write};

/// A connection on which one request is made after another.
#[derive(Debug)]
pub struct Exchange<S> {
    stream: BufReader<S>,
    host: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none, with the status and the body.
    pub fn json(&self) -> Result<serde_json::Value, String> {
        serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {}", self.told()))
    }

    /// Status and body, for people.
    pub fn told(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(self.body.get(..500).unwrap_or(&self.body)))
    }
}

impl<S: Read + Write> Exchange<S> {
    /// Over this stream, to a server of this name.
    pub fn over(stream: S, host: impl Into<String>) -> Self {
        Self { stream: BufReader::new(stream), host: host.into() }
    }

    /// The bytes of a request, so that one that is made often is put together once.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if !body.is_empty() {
            request.push_str("Content-Type: application/json\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        [request.as_bytes(), body].concat()
    }

    /// Makes a request and reads the whole answer.
    ///
    /// # Errors
    /// If the connection breaks, or what answers speaks something else.
    pub fn call(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.send(&self.request(method, path, body))?;
        self.answer()
    }

    /// Sends a request that is put together.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(request)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// If the connection breaks, or what answers speaks something else.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let status = self.line()?.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(nonsense)?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.trim().parse().map_err(|_| nonsense())?),
                "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
                _ => {}
            }
        }
        let body = match length {
            // These have no body, whatever their head says (RFC 9110 section 6.4.1).
            _ if status == 204 || status == 304 => Vec::new(),
            _ if chunked => self.chunks()?,
            Some(length) => self.bytes(length)?,
            None => return Err(nonsense()),
        };
        Ok(Answer { status, body })
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line()?.split(';').next().unwrap_or_default(), 16).map_err(|_| nonsense())?;
            body.extend(self.bytes(size)?);
            // The line that ends a chunk, or the trailers, of which nobody sends any.
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "this is no answer of an HTTP/1.1 server")
}

#[test]
fn answers_follow_each_other_on_one_connection() {
    struct Canned(io::Cursor<&'static [u8]>);
    impl Read for Canned {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let said = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42HTTP/1.1 204 No Content\r\n\r\n\
                 HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n";
    let mut exchange = Exchange::over(Canned(io::Cursor::new(said)), "localhost");
    let bodies = [(); 3].map(|()| String::from_utf8(exchange.call("GET", "/", b"").unwrap().body).unwrap());
    assert_eq!(bodies, ["42", "", "Wikipedia"]);
    assert!(exchange.call("GET", "/", b"").is_err());
}
