//! Asking ourselves, the way an authority would: whoever answers with what only we know is us.

use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    acme::challenge_certificate,
    challenges::{Challenges, HTTP_PATH},
    server::ACME_TLS_ALPN,
};

/// Largest answer that is read from whoever answers.
const LARGEST: usize = 4096;

/// How a probe missed.
#[derive(Debug)]
pub(crate) enum Miss {
    /// Nobody takes the connection.
    Unreachable(String),
    /// Somebody answers, but it is not us.
    SomebodyElse(String),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(reason) | Self::SomebodyElse(reason) => f.write_str(reason),
        }
    }
}

/// Asks for a random token on port 80, as HTTP-01 does.
pub(crate) async fn http(name: &str, to: SocketAddr, challenges: &Arc<Challenges>, timeout: Duration) -> Result<(), Miss> {
    let (token, answer) = (random()?, random()?);
    let _posted = challenges.post_http(name, &token, &answer);
    let stream = connect(name, to, timeout).await?;
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        // Ends with the exchange: both are polled by one task.
        let connection = async {
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        let host = if to.port() == 80 { name.to_owned() } else { format!("{name}:{}", to.port()) };
        let request = Request::get(format!("{HTTP_PATH}{token}"))
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("coracle/", env!("CARGO_PKG_VERSION"), " (checking itself)"))
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let asked = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let told = told(&response);
            let body =
                Limited::new(response.into_body(), LARGEST).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            if body == answer.as_bytes() { Ok(()) } else { Err(told) }
        };
        tokio::select! { asked = asked => asked, () = connection => Err("closed".to_owned()) }
    };
    let result = within(timeout, exchange).await;
    result.map_err(|what| Miss::SomebodyElse(format!("port {} of {} is answered by something else ({what})", to.port(), to.ip())))
}

/// What somebody else answers, for people: they may recognise it.
fn told<T>(response: &http::Response<T>) -> String {
    let mut told = format!("status {}", response.status().as_u16());
    for (name, label) in [(header::SERVER, "Server"), (header::LOCATION, "Location")] {
        if let Some(value) = response.headers().get(name).and_then(|value| value.to_str().ok()) {
            let value: String = value.chars().take(100).collect();
            told.push_str(&format!(", {label}: {value}"));
        }
    }
    told
}

/// Asks for a certificate that only we have, as TLS-ALPN-01 does.
pub(crate) async fn tls(
    name: &str,
    to: SocketAddr,
    challenges: &Arc<Challenges>,
    provider: &Arc<CryptoProvider>,
    timeout: Duration,
) -> Result<(), Miss> {
    let broken = |error: &dyn fmt::Display| Miss::Unreachable(format!("no probe can be made: {error}"));
    let certified = challenge_certificate(name, &random()?, provider).map_err(|error| broken(&error))?;
    let certified = Arc::new(certified);
    let expected = certified.cert.first().cloned().ok_or_else(|| broken(&"no certificate"))?;
    let _posted = challenges.post_tls(name, certified);
    let server_name = ServerName::try_from(name.to_owned()).map_err(|error| broken(&error))?;
    let verifier = Exactly { expected, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| broken(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ACME_TLS_ALPN.to_vec()];
    let stream = connect(name, to, timeout).await?;
    let handshake = async {
        let connection = TlsConnector::from(Arc::new(config)).connect(server_name, stream).await;
        connection.map(drop).map_err(|error| error.to_string())
    };
    let result = within(timeout, handshake).await;
    result.map_err(|what| Miss::SomebodyElse(format!("port {} of {} is answered by something else ({what})", to.port(), to.ip())))
}

async fn within(timeout: Duration, work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("nothing within {} s", timeout.as_secs())),
    }
}

async fn connect(name: &str, to: SocketAddr, timeout: Duration) -> Result<TcpStream, Miss> {
    let reason = match tokio::time::timeout(timeout, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refuses connections".to_owned(),
        Ok(Err(error)) => format!("cannot be reached: {error}"),
        Err(_) => format!("does not take a connection within {} s", timeout.as_secs()),
    };
    Err(Miss::Unreachable(format!("{name} points to {}, where port {} {reason}", to.ip(), to.port())))
}

fn random() -> Result<String, Miss> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| Miss::Unreachable(format!("no probe can be made: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Trusts one certificate alone: the one that was made for the probe.
#[derive(Debug)]
struct Exactly {
    expected: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match *end_entity == self.expected {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(Error::General("another certificate".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.3 was asked for".to_owned()))
    }

    /// Not verified: the library cannot read a certificate with this extension, and whoever has the certificate at all is us, as it
    /// was made a moment ago and goes over the wire encrypted, to whoever asks with our name.
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
