//! Clients that trust only what they are told to, and some that only look.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::env::Wire;

/// Trusts these roots alone.
pub fn truster(roots: &str) -> ClientConfig {
    speaking(roots, ALL_VERSIONS)
}

/// The same, with these versions of TLS.
pub fn speaking(roots: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder.with_protocol_versions(versions).unwrap().with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Trusts everybody, as it only wants to look.
#[derive(Debug)]
struct Looker(Arc<CryptoProvider>);

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Trusts everybody, and offers these protocols.
pub fn looker(alpn: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(ALL_VERSIONS).unwrap();
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Looker(provider))).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A connection after its handshake for `name`.
pub async fn connect(config: ClientConfig, address: SocketAddr, name: &str) -> io::Result<Wire<TlsStream<TcpStream>>> {
    connect_over(config, TcpStream::connect(address).await?, name).await
}

/// The same over something.
pub async fn connect_over<S>(config: ClientConfig, stream: S, name: &str) -> io::Result<Wire<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(name.to_owned()).unwrap();
    crate::env::soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.map(Wire::over)
}

/// The serial number of the certificate that is shown for `name`.
pub async fn look(address: SocketAddr, name: &str) -> io::Result<String> {
    let wire = connect(looker(&[b"http/1.1"]), address, name).await?;
    Ok(serial(&wire.stream))
}

/// The serial number of the certificate that was shown.
pub fn serial<S>(stream: &TlsStream<S>) -> String {
    let (_, certificate) = X509Certificate::from_der(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap();
    certificate.raw_serial_as_string()
}

/// Sends something before the first bytes, together with them.
pub struct Prefixed {
    pub stream: TcpStream,
    pub prefix: Vec<u8>,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let prefix = std::mem::take(&mut self.prefix);
        if prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let both = [&prefix, bytes].concat();
        // A socket that is new takes as much as this.
        assert_eq!(self.stream.try_write(&both)?, both.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
