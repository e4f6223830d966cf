//! Whom the proxies ask: nginx for what is measured by requests, a WebSocket echo of our own for what is measured by
//! connections. Both answer everybody alike and must never be what a proxy waits for.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use coracle_tests::proxy::free_address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::processes::Running;

/// The size of the large body, in bytes.
pub const LARGE: usize = 1_000_000;

/// Both of them; they end with this value.
#[derive(Debug)]
pub struct Origin {
    /// Answers `/` with a few bytes and `/large` with [`LARGE`].
    pub http: SocketAddr,
    /// Turns every request into a WebSocket and echoes.
    pub sockets: SocketAddr,
    _nginx: Running,
}

impl Origin {
    /// Starts them.
    ///
    /// # Panics
    /// If something is missing on this machine.
    pub async fn start(directory: &Path) -> Self {
        fs::create_dir_all(directory.join("files")).unwrap();
        fs::write(directory.join("files/large"), vec![b'x'; LARGE]).unwrap();
        let http = free_address();
        let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
        let at = directory.display();
        let config = format!(
            "daemon off; worker_processes {workers}; pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n  access_log off; sendfile on; tcp_nopush on; default_type text/plain;\n  \
             keepalive_requests 1000000000; keepalive_timeout 1h;\n{}  \
             server {{\n    listen {http};\n    root {at}/files;\n    \
             location = /large {{ }}\n    location / {{ return 200 'the same few bytes for all\\n'; }}\n  }}\n}}\n",
            temporary_paths(directory),
        );
        fs::write(directory.join("nginx.conf"), config).unwrap();
        let nginx = Running::start(nginx(&mut Command::new("nginx"), directory));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sockets = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Ends with its connection, at the latest with the proxy that has it open.
                tokio::spawn(echo(stream));
            }
        });
        Self { http, sockets, _nginx: nginx }
    }
}

/// Makes `command` run the nginx that is configured in `directory`.
pub fn nginx<'a>(command: &'a mut Command, directory: &Path) -> &'a mut Command {
    command.arg("-c").arg(directory.join("nginx.conf")).arg("-p").arg(directory);
    command.arg("-e").arg(directory.join("error.log")).stdin(Stdio::null())
}

/// Where nginx may put files, which is where it is configured and nowhere in the system.
pub fn temporary_paths(directory: &Path) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    kinds.map(|kind| format!("  {kind}_temp_path {}/{kind};\n", directory.display())).concat()
}

/// Upgrades, and sends back what it gets: frames of less than 126 bytes, as the clients here send them.
async fn echo(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
        head.push(stream.read_u8().await.ok()?);
    }
    // The accept header of RFC 6455 section 1.3, for the key that the harness's client sends.
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.ok()?;
    loop {
        let first = stream.read_u8().await.ok()?;
        let length = stream.read_u8().await.ok()? & 0x7f;
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await.ok()?;
        let mut frame = vec![0; usize::from(length) + 2];
        (frame[0], frame[1]) = (first, length);
        stream.read_exact(&mut frame[2..]).await.ok()?;
        frame[2..].iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        stream.write_all(&frame).await.ok()?;
    }
}
