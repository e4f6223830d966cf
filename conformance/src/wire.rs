//! One request on a connection of its own, which begins with the PROXY header (version 2) of a client at any address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::upstream::{MARK, Seen};

const PATIENCE: Duration = Duration::from_secs(10);
/// How long the local authority may take for a certificate, which it makes once a table wants it.
const CERTIFIED: Duration = Duration::from_secs(3);
const LARGEST: u64 = 32 << 20;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        values(&self.fields, name)
    }

    /// What an upstream saw, if one was asked.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.values(MARK).first()?;
        serde_json::from_str(&self.body).ok()
    }
}

/// The values of a field among others.
pub(crate) fn values<'a>(fields: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
}

/// Sends the bytes of a request from `client` to `address` and reads the answer; over TLS for `tls`, with this name if it
/// can be one.
pub(crate) async fn exchange(address: SocketAddr, client: IpAddr, tls: Option<&str>, request: &[u8]) -> Result<Answer> {
    let connect = async || {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&proxy_header(client)).await?;
        anyhow::Ok(stream)
    };
    let whole = async {
        match tls {
            None => talk(connect().await?, request).await,
            Some(host) => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.unwrap_or(ServerName::IpAddress(IpAddr::from([127, 0, 0, 1]).into()));
                let give_up = Instant::now() + CERTIFIED;
                let stream = loop {
                    match connector().connect(name.clone(), connect().await?).await {
                        Ok(stream) => break stream,
                        Err(error) if Instant::now() > give_up => return Err(error).context("the TLS handshake"),
                        Err(_) => sleep(Duration::from_millis(20)).await,
                    }
                };
                talk(stream, request).await
            }
        }
    };
    timeout(PATIENCE, whole).await.with_context(|| format!("no answer within {PATIENCE:?}"))?
}

/// Sends the bytes of a request to `address` and reads the answer.
pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> Result<Answer> {
    talk(TcpStream::connect(address).await?, request).await
}

/// `PROXY`, version 2, for TCP (haproxy.org, proxy-protocol.txt, section 2.2). Ports mean nothing here.
fn proxy_header(client: IpAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match client {
        IpAddr::V4(client) => {
            header.extend([0x11, 0, 12]);
            header.extend(client.octets());
            header.extend(Ipv4Addr::LOCALHOST.octets());
        }
        IpAddr::V6(client) => {
            header.extend([0x21, 0, 36]);
            header.extend(client.octets());
            header.extend(Ipv6Addr::LOCALHOST.octets());
        }
    }
    header.extend([0x30, 0x39, 0x1f, 0x90]);
    header
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Result<Answer> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!((head.len() as u64) < LARGEST, "an answer whose head has no end");
        head.push(stream.read_u8().await.context("the connection ended without an answer")?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("an answer without a status")?;
    let split = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    let fields: Vec<_> = lines.filter_map(split).collect();
    let body = if matches!(status, 204 | 304) || request.starts_with(b"HEAD ") {
        Vec::new()
    } else if let [length] = values(&fields, "Content-Length")[..] {
        let mut body = vec![0; length.parse::<usize>()?.min(LARGEST as usize)];
        stream.read_exact(&mut body).await.context("the connection ended within an answer")?;
        body
    } else if values(&fields, "Transfer-Encoding") == ["chunked"] {
        chunks(&mut stream).await?
    } else {
        let mut body = Vec::new();
        stream.take(LARGEST).read_to_end(&mut body).await?;
        body
    };
    Ok(Answer { status, fields, body: String::from_utf8_lossy(&body).into_owned() })
}

async fn chunks(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            ensure!(line.len() < 4096, "a chunk's size without an end");
            line.push(stream.read_u8().await?);
        }
        let size = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(size.trim().split(';').next().unwrap_or_default(), 16)?;
        ensure!(body.len() + size < LARGEST as usize, "too large an answer");
        let from = body.len();
        body.resize(from + size + 2, 0);
        stream.read_exact(&mut body[from..]).await?;
        body.truncate(from + size);
        if size == 0 {
            return Ok(body);
        }
    }
}

fn connector() -> TlsConnector {
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate));
    TlsConnector::from(Arc::new(config.with_no_client_auth()))
}

/// Which certificate is served for which name is not what these cases are about.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
