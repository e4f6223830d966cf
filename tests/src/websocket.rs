//! A small WebSocket client (RFC 6455) for tests: one text message at a time, no extensions, no fragments.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    stream: BufReader<TcpStream>,
}

/// What the other side sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text.
    Text(String),
    /// It wants to end, with this code if it told one.
    Close(Option<u16>),
}

impl WebSocket {
    /// Connects to `address` and upgrades at `path` of `host`.
    pub async fn connect(address: SocketAddr, host: &str, path: &str) -> Result<Self> {
        timeout(PATIENCE, Self::open(address, host, path)).await.context("no upgrade in time")?
    }

    async fn open(address: SocketAddr, host: &str, path: &str) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        // The key of RFC 6455 section 1.3: a cache cannot have answered before, and that is all it is for.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < 16 << 10, "the answer's head has no end");
            head.push(stream.read_u8().await.context("the connection ended before the upgrade")?);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        ensure!(head.starts_with("http/1.1 101"), "not upgraded: {head}");
        ensure!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "the accept header is wrong: {head}");
        Ok(Self { stream })
    }

    /// Sends a text.
    pub async fn say(&mut self, text: &str) -> Result<()> {
        self.send(TEXT, text.as_bytes()).await
    }

    /// Says `text` and expects it back.
    pub async fn echoes(&mut self, text: &str) -> Result<()> {
        self.say(text).await?;
        let answer = self.next().await?;
        ensure!(answer == Message::Text(text.to_owned()), "said {text:?}, heard {answer:?}");
        Ok(())
    }

    /// The next message; fails if the connection breaks off, or nothing comes within 20 seconds.
    pub async fn next(&mut self) -> Result<Message> {
        loop {
            let (opcode, payload) = timeout(PATIENCE, self.frame()).await.context("no message in time")??;
            match opcode {
                TEXT => return Ok(Message::Text(String::from_utf8(payload)?)),
                CLOSE => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Ok(Message::Close(code));
                }
                PING => self.send(PONG, &payload).await?,
                PONG => {}
                other => bail!("a frame of kind {other:#x} is not expected here"),
            }
        }
    }

    async fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let first = self.stream.read_u8().await.context("the connection broke off")?;
        ensure!(first & 0x80 != 0, "fragments are not expected here");
        let length = match self.stream.read_u8().await? & 0x7f {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        ensure!(length <= 1 << 20, "a message of {length} bytes");
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok((first & 0x0f, payload))
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        // A client masks what it sends (section 5.3); with a mask of zeros the bytes stay what they are.
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len())? {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            long => {
                frame.push(0x80 | 126);
                frame.extend(long.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        timeout(PATIENCE, self.stream.write_all(&frame)).await.context("the other side does not read")??;
        Ok(())
    }
}
