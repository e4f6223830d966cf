//! Somebody who sits between us and pebble, and does to requests what a test wants to happen to them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use coracle_lab::{
    clients::{connect, looker},
    pebble::Lab,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

const PORT: u16 = 14443;

/// Ends with its owner.
pub struct Front {
    pub directory_url: String,
    script: Arc<Mutex<Script>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Script {
    /// Answers that do not come from pebble, by the beginning of their paths: status line, more headers, body.
    answers: HashMap<String, (String, String, String)>,
    /// Replaced in pebble's answers.
    replace: Option<(String, String)>,
    /// Method and path of everything that was asked.
    seen: Vec<String>,
}

impl Front {
    pub async fn start(lab: &Lab) -> Self {
        let (cert, key) = lab.https_certificate();
        let chain = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((lab.address, PORT)).await.unwrap();
        let (script, pebble) = (Arc::new(Mutex::new(Script::default())), lab.pebble());
        let mut task = JoinSet::new();
        let shared = script.clone();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, script) = (acceptor.clone(), shared.clone());
                connections.spawn(async move { drop(carry(stream, &acceptor, &script, pebble).await) });
            }
        });
        Self { directory_url: format!("https://{}:{PORT}/dir", lab.address), script, _task: task }
    }

    /// Answers paths that begin like this itself.
    pub fn answer(&self, path: &str, status: &str, headers: &str, body: &str) {
        let answer = (status.to_owned(), headers.to_owned(), body.to_owned());
        self.script.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// No more answers of its own.
    pub fn relent(&self) {
        self.script.lock().unwrap().answers.clear();
    }

    /// Replaces text in what pebble answers.
    pub fn replace(&self, from: &str, to: &str) {
        self.script.lock().unwrap().replace = Some((from.to_owned(), to.to_owned()));
    }

    /// How many requests began like this.
    pub fn seen(&self, beginning: &str) -> usize {
        self.script.lock().unwrap().seen.iter().filter(|seen| seen.starts_with(beginning)).count()
    }
}

/// One request per connection.
async fn carry(stream: TcpStream, acceptor: &TlsAcceptor, script: &Mutex<Script>, pebble: SocketAddr) -> std::io::Result<()> {
    let mut client = BufReader::new(acceptor.accept(stream).await?);
    let (head, body) = message(&mut client).await?;
    let line = head.lines().next().unwrap_or_default().to_owned();
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let own = {
        let mut script = script.lock().unwrap();
        script.seen.push(line);
        script.answers.iter().find(|(beginning, _)| path.starts_with(*beginning)).map(|(_, answer)| answer.clone())
    };
    let (head, body) = match own {
        Some((status, headers, body)) => (format!("HTTP/1.1 {status}\r\n{headers}"), body.into_bytes()),
        None => {
            let mut upstream =
                BufReader::new(connect(looker(rustls::ALL_VERSIONS, &[]), pebble, &pebble.ip().to_string()).await?);
            let request = format!("{}Connection: close\r\nContent-Length: {}\r\n\r\n", plain(&head), body.len());
            upstream.write_all(request.as_bytes()).await?;
            upstream.write_all(&body).await?;
            let (head, body) = if path == "/dir" || !request.starts_with("HEAD") {
                message(&mut upstream).await?
            } else {
                (headers(&mut upstream).await?, Vec::new())
            };
            let replace = script.lock().unwrap().replace.clone();
            let body = match replace {
                Some((from, to)) => String::from_utf8(body).unwrap().replace(&from, &to).into_bytes(),
                None => body,
            };
            (plain(&head), body)
        }
    };
    let head = format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).await?;
    client.write_all(&body).await?;
    client.shutdown().await
}

/// A head without what is only between two neighbours.
fn plain(head: &str) -> String {
    let between = |line: &&str| {
        let line = line.to_ascii_lowercase();
        !["connection:", "content-length:", "transfer-encoding:"].iter().any(|name| line.starts_with(name)) && !line.is_empty()
    };
    head.lines().filter(between).map(|line| format!("{line}\r\n")).collect()
}

async fn headers(stream: &mut BufReader<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

async fn message(stream: &mut BufReader<impl AsyncRead + Unpin>) -> std::io::Result<(String, Vec<u8>)> {
    let head = headers(stream).await?;
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    match lower.lines().find_map(|line| line.strip_prefix("content-length:")) {
        Some(length) => {
            body.resize(length.trim().parse().unwrap(), 0);
            stream.read_exact(&mut body).await?;
        }
        None if lower.contains("transfer-encoding: chunked") => loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let length = usize::from_str_radix(line.trim(), 16).unwrap();
            let from = body.len();
            body.resize(from + length + 2, 0);
            stream.read_exact(&mut body[from..]).await?;
            body.truncate(from + length);
            if length == 0 {
                break;
            }
        },
        None => {}
    }
    Ok((head, body))
}
