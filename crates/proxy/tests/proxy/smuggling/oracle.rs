//! A second opinion: a reader of requests that shares nothing with the proxy's, and calls out whatever two servers behind it
//! might read in two ways.

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What the proxy has written: one form of everything, nothing tolerated.
    Proxy,
    /// What a client has written: as strict about framing, but with what RFC 9112 lets a client do.
    Client,
}

/// One request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Another one may follow on this connection.
    pub keeps: bool,
}

/// What bytes begin with.
#[derive(Debug)]
pub enum Read {
    /// A request of so many bytes.
    Whole(Message, usize),
    /// The beginning of one.
    Partial,
}

impl Message {
    pub fn all<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m str> {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn first(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn only(&self, name: &str) -> Result<Option<&str>, String> {
        match self.all(name).count() {
            0 | 1 => Ok(self.first(name)),
            _ => Err(format!("{name} twice")),
        }
    }
}

fn complain<T>(what: &str, bytes: &[u8]) -> Result<T, String> {
    Err(format!("{what}: {:?}", String::from_utf8_lossy(bytes)))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// The line that `bytes` begin with, without its end.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, String> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' => return complain("LF without CR", &bytes[..at]),
            b'\r' => match bytes.get(at + 1) {
                None => return Ok(None),
                Some(b'\n') => return Ok(Some(&bytes[..at])),
                Some(_) => return complain("CR without LF", &bytes[..at]),
            },
            _ => (),
        }
    }
    Ok(None)
}

/// Names and values.
type Lines = Vec<(String, String)>;

/// Field lines up to the empty one; what they take.
fn fields(bytes: &[u8], side: Side) -> Result<Option<(Lines, usize)>, String> {
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        let Some(text) = line(&bytes[at..])? else { return Ok(None) };
        at += text.len() + 2;
        if text.is_empty() {
            return Ok(Some((found, at)));
        }
        let Some(colon) = text.iter().position(|b| *b == b':') else { return complain("no colon", text) };
        let (name, value) = (&text[..colon], &text[colon + 1..]);
        if !is_token(name) {
            return complain("odd name", text);
        }
        if value.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
            return complain("control character", text);
        }
        if side == Side::Proxy && !(value.is_empty() || value.starts_with(b" ")) {
            return complain("odd space behind the colon", text);
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let value = value.iter().map(|b| char::from(*b)).collect::<String>();
        found.push((name, value.trim_matches([' ', '\t']).to_owned()));
    }
}

/// Reads the request that `bytes` begin with.
pub fn read(bytes: &[u8], side: Side) -> Result<Read, String> {
    let skipped = if side == Side::Client && bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let Some(first) = line(&bytes[skipped..])? else { return Ok(Read::Partial) };
    let mut at = skipped + first.len() + 2;
    let mut message = request_line(first, side)?;
    let old = first.ends_with(b"1.0");
    let Some((found, length)) = fields(&bytes[at..], side)? else { return Ok(Read::Partial) };
    message.fields = found;
    at += length;
    let connection: Vec<String> =
        message.all("connection").flat_map(|value| value.split(',')).map(|o| o.trim().to_ascii_lowercase()).collect();
    message.keeps = !connection.iter().any(|o| o == "close") && (!old || connection.iter().any(|o| o == "keep-alive"));
    if side == Side::Proxy {
        is_clean(&message, &connection)?;
    }
    let length = message.only("content-length")?;
    match (length, message.only("transfer-encoding")?) {
        (None, None) => (),
        (Some(_), Some(_)) => return complain("two framings", bytes),
        (Some(length), None) => {
            if !length.bytes().all(|b| b.is_ascii_digit()) || length.is_empty() {
                return complain("odd length", length.as_bytes());
            }
            let Ok(length) = length.parse::<usize>() else { return complain("long length", length.as_bytes()) };
            let Some(body) = bytes[at..].get(..length) else { return Ok(Read::Partial) };
            message.body = body.to_vec();
            at += length;
        }
        (None, Some(coding)) => {
            if old || !coding.eq_ignore_ascii_case("chunked") || side == Side::Proxy && coding != "chunked" {
                return complain("odd coding", coding.as_bytes());
            }
            let Some(length) = chunks(&bytes[at..], side, &mut message)? else { return Ok(Read::Partial) };
            at += length;
        }
    }
    Ok(Read::Whole(message, at))
}

fn request_line(text: &[u8], side: Side) -> Result<Message, String> {
    let parts: Vec<&[u8]> = text.split(|b| *b == b' ').collect();
    let &[method, target, version] = parts.as_slice() else { return complain("odd request line", text) };
    if !is_token(method) || target.is_empty() || !target.iter().all(|b| (0x21..0x7f).contains(b)) {
        return complain("odd request line", text);
    }
    if !(version == b"HTTP/1.1" || side == Side::Client && version == b"HTTP/1.0") {
        return complain("odd version", text);
    }
    let target = String::from_utf8_lossy(target).into_owned();
    let method = String::from_utf8_lossy(method).into_owned();
    if side == Side::Proxy {
        if !(target.starts_with('/') || target == "*" && method == "OPTIONS") || target.contains('#') || method == "CONNECT" {
            return complain("odd target", text);
        }
        if method.eq_ignore_ascii_case("get") && method != "GET" || method.eq_ignore_ascii_case("head") && method != "HEAD" {
            return complain("odd method", text);
        }
    }
    Ok(Message { method, target, ..Message::default() })
}

/// What a proxy must not write, whatever it was sent.
fn is_clean(message: &Message, connection: &[String]) -> Result<(), String> {
    let host = message.only("host")?.ok_or("no Host")?;
    if host.contains(['@', '/', '\\', ' ', ',', '?', '#', '\t', '"', '<', '%']) {
        return complain("odd Host", host.as_bytes());
    }
    for gone in ["keep-alive", "proxy-connection", "http2-settings", "content_length", "transfer_encoding"] {
        if message.first(gone).is_some() {
            return complain("passed on", gone.as_bytes());
        }
    }
    if message.all("te").any(|value| value != "trailers") {
        return complain("TE", message.target.as_bytes());
    }
    let upgrades = message.only("upgrade")?;
    if connection.iter().any(|option| option != "upgrade") || upgrades.is_some() != (connection.len() == 1) {
        return complain("Connection", connection.join(",").as_bytes());
    }
    if upgrades.is_some_and(|protocol| protocol.to_ascii_lowercase().contains("h2c")) {
        return complain("Upgrade", message.target.as_bytes());
    }
    if upgrades.is_some()
        && (message.first("content-length").is_some_and(|l| l != "0") || message.first("transfer-encoding").is_some())
    {
        return complain("Upgrade with a body", message.target.as_bytes());
    }
    match message.only("expect")? {
        None => Ok(()),
        Some(expect) if expect.eq_ignore_ascii_case("100-continue") => Ok(()),
        Some(expect) => complain("Expect", expect.as_bytes()),
    }
}

/// A chunked body, trailers and all; what it takes.
fn chunks(bytes: &[u8], side: Side, message: &mut Message) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(text) = line(&bytes[at..])? else { return Ok(None) };
        at += text.len() + 2;
        let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let extension = &text[digits..];
        let plain = extension.is_empty()
            || side == Side::Client
                && matches!(extension[0], b';' | b' ' | b'\t')
                && extension.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
        if digits == 0 || digits > 16 || !plain {
            return complain("odd chunk size", text);
        }
        let size = usize::from_str_radix(std::str::from_utf8(&text[..digits]).unwrap(), 16).map_err(|e| e.to_string())?;
        if size == 0 {
            let Some((trailers, length)) = fields(&bytes[at..], side)? else { return Ok(None) };
            for (name, _) in &trailers {
                let name = name.to_ascii_lowercase();
                let bad =
                    ["content-length", "transfer-encoding", "host", "authorization", "cookie", "connection", "te", "expect"];
                if side == Side::Proxy && (bad.contains(&name.as_str()) || name.starts_with("x-forwarded")) {
                    return complain("trailer", name.as_bytes());
                }
            }
            message.trailers = trailers;
            return Ok(Some(at + length));
        }
        let Some(end) = at.checked_add(size).filter(|end| *end <= bytes.len()) else { return Ok(None) };
        message.body.extend_from_slice(&bytes[at..end]);
        match &bytes[end..] {
            [b'\r', b'\n', ..] => at = end + 2,
            [] | [b'\r'] => return Ok(None),
            other => return complain("chunk without an end", &other[..other.len().min(10)]),
        }
    }
}

#[test]
fn the_second_opinion_has_one() {
    let whole = |text: &str, side| matches!(read(text.as_bytes(), side), Ok(Read::Whole(_, length)) if length == text.len());
    assert!(whole("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Side::Proxy));
    assert!(whole("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX: y\r\n\r\n", Side::Proxy));
    for odd in [
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0;x\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    ] {
        assert!(read(odd.as_bytes(), Side::Proxy).is_err(), "{odd:?}");
    }
}
