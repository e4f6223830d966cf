//! The little of the Docker Engine API (1.41) that sandboxes need, over the engine's Unix socket.
//!
//! Requests are made one per connection, and answers are read whole: there is nothing here that needs to be quick. It
//! creates, starts and removes containers of its own and reads images; it never builds, pulls or changes anything else.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// How long the engine may take for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of an answer is read.
const LONGEST: u64 = 16 << 20;

/// An engine behind a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    socket: PathBuf,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// `20.10.24`.
    pub version: String,
    /// The runtimes that containers can be given: `runc`, `runsc`.
    pub runtimes: Vec<String>,
    /// `cgroupfs` or `systemd`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// Whether its users are not the machine's: it runs without root, or with another mapping.
    pub rootless: bool,
}

impl EngineInfo {
    /// A runtime with a kernel of its own between programs and the machine's, if there is one (gVisor).
    pub fn sandboxed_runtime(&self) -> Option<&str> {
        self.runtimes.iter().map(String::as_str).find(|name| *name == "runsc")
    }
}

impl Engine {
    /// The engine at that socket; nothing is asked of it yet.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Where engines usually listen: `DOCKER_HOST`, if it names a socket, or Docker's own place.
    pub fn usual_socket() -> PathBuf {
        let named = std::env::var("DOCKER_HOST").ok();
        let named = named.as_deref().and_then(|host| host.strip_prefix("unix://"));
        PathBuf::from(named.unwrap_or("/var/run/docker.sock"))
    }

    /// Asks what it is.
    pub fn info(&self) -> Result<EngineInfo, String> {
        let info = self.get("/info")?;
        let text = |name: &str| info.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let runtimes = info.get("Runtimes").and_then(Value::as_object);
        let options = info.get("SecurityOptions").and_then(Value::as_array);
        let is_apart = |option: &Value| option.as_str().is_some_and(|text| text.contains("rootless") || text.contains("userns"));
        Ok(EngineInfo {
            version: text("ServerVersion"),
            runtimes: runtimes.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
            cgroup_driver: text("CgroupDriver"),
            cgroup_version: text("CgroupVersion"),
            rootless: options.into_iter().flatten().any(is_apart),
        })
    }

    /// `GET`, and what it answers.
    pub(crate) fn get(&self, path: &str) -> Result<Value, String> {
        self.call("GET", path, None)
    }

    /// A request with or without a body, and the JSON that it answers; `Null` where it answers none.
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let (mut answer, _) = self.request(method, path, body, false)?;
        let mut text = Vec::new();
        (&mut answer).take(LONGEST).read_to_end(&mut text).map_err(|error| self.gone(&error))?;
        Ok(serde_json::from_slice(&text).unwrap_or(Value::Null))
    }

    /// An answer that is read as it comes.
    pub(crate) fn stream(&self, path: &str) -> Result<Box<dyn Read + Send>, String> {
        self.request("GET", path, None, false).map(|(answer, _)| answer)
    }

    /// A request after which the connection belongs to the container's streams.
    pub(crate) fn hijack(&self, path: &str) -> Result<UnixStream, String> {
        let (_, stream) = self.request("POST", path, None, true)?;
        stream.set_read_timeout(None).map_err(|error| self.gone(&error))?;
        Ok(stream)
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        upgrade: bool,
    ) -> Result<(Box<dyn Read + Send>, UnixStream), String> {
        let gone = |error: io::Error| self.gone(&error);
        let mut stream = UnixStream::connect(&self.socket).map_err(gone)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(gone)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(gone)?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let connection = if upgrade { "Connection: Upgrade\r\nUpgrade: tcp" } else { "Connection: close" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\n{connection}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).map_err(gone)?;
        let whole = stream.try_clone().map_err(gone)?;
        // A container's streams must not be read ahead: what comes after the head is theirs.
        let mut reader = BufReader::with_capacity(if upgrade { 1 } else { 64 << 10 }, stream);
        let (status, framing) = read_head(&mut reader).map_err(gone)?;
        let mut answer: Box<dyn Read + Send> = match framing {
            _ if upgrade && matches!(status, 101 | 200) => return Ok((Box::new(io::empty()), whole)),
            Framing::Length(length) => Box::new(reader.take(length)),
            Framing::Chunks => Box::new(Chunks { reader, left: 0, over: false }),
            Framing::Close => Box::new(reader),
        };
        if (200..300).contains(&status) || status == 304 {
            return Ok((answer, whole));
        }
        let mut text = String::new();
        (&mut answer).take(64 << 10).read_to_string(&mut text).ok();
        let message =
            serde_json::from_str::<Value>(&text).ok().and_then(|value| Some(value.get("message")?.as_str()?.to_owned()));
        Err(message.unwrap_or_else(|| format!("the engine answers {status} to {method} {path}")))
    }

    fn gone(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.socket.display())
    }
}

/// Where an answer ends (RFC 9112, section 6.3).
enum Framing {
    Length(u64),
    Chunks,
    Close,
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Framing)> {
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "what answers is no HTTP server");
    let mut line = String::new();
    reader.take(1024).read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(nonsense)?;
    let mut framing = Framing::Close;
    loop {
        line.clear();
        reader.take(8192).read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line.trim_end().is_empty() && !line.is_empty() {
                return Ok((status, framing));
            }
            return Err(nonsense());
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => framing = Framing::Length(value.trim().parse().map_err(|_| nonsense())?),
            "transfer-encoding" if value.trim().eq_ignore_ascii_case("chunked") => framing = Framing::Chunks,
            _ => {}
        }
    }
}

/// A body in chunks (RFC 9112, section 7.1).
struct Chunks<R> {
    reader: R,
    left: u64,
    over: bool,
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.over || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut line = String::new();
            (&mut self.reader).take(64).read_line(&mut line)?;
            if line.trim().is_empty() {
                // The end of the chunk before.
                line.clear();
                (&mut self.reader).take(64).read_line(&mut line)?;
            }
            let digits = line.trim().split(';').next().unwrap_or_default();
            self.left = u64::from_str_radix(digits, 16)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a chunk has no length"))?;
            if self.left == 0 {
                self.over = true;
                return Ok(0);
            }
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.reader.read(buffer.get_mut(..most).unwrap_or_default())?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        let mut text = String::new();
        let body: &[u8] = b"4\r\nWiki\r\n5;ext=1\r\npedia\r\n0\r\n\r\n";
        Chunks { reader: body, left: 0, over: false }.read_to_string(&mut text).unwrap();
        assert_eq!(text, "Wikipedia");
        let cut: &[u8] = b"9\r\nWiki";
        assert!(Chunks { reader: cut, left: 0, over: false }.read_to_string(&mut text).is_err());
    }

    #[test]
    fn a_head_tells_how_long_its_body_is() {
        let mut head: &[u8] = b"HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\nrest";
        let (status, framing) = read_head(&mut head).unwrap();
        assert!(matches!((status, framing), (201, Framing::Length(12))));
        assert_eq!(head, b"rest");
        let mut nonsense: &[u8] = b"SSH-2.0\r\n";
        assert!(read_head(&mut nonsense).is_err());
    }

    #[test]
    fn an_engine_that_is_not_there_is_named() {
        let why = Engine::at("/nowhere/docker.sock".into()).info().unwrap_err();
        assert!(why.contains("/nowhere/docker.sock"), "{why}");
    }
}
