//! Clients that say what a server's certificate is, trusting whatever they get or only what they are told to.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::prelude::*;

/// What a handshake ended with.
pub struct Met {
    pub stream: TlsStream<TcpStream>,
    pub names: Vec<String>,
    pub serial: String,
    pub alpn: Option<Vec<u8>>,
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

/// A client that trusts everybody.
pub fn looker(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Looker(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A client that trusts these roots alone.
pub fn truster(roots: &str) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth()
}

/// A TLS connection.
pub async fn connect(config: ClientConfig, address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// Meets a server as this client would.
pub async fn meet_with(config: ClientConfig, address: SocketAddr, name: &str) -> std::io::Result<Met> {
    let stream = connect(config, address, name).await?;
    let connection = stream.get_ref().1;
    let leaf = connection.peer_certificates().unwrap()[0].clone();
    let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.iter();
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Ok(Met {
        names: names.collect(),
        serial: parsed.raw_serial_as_string().replace(':', ""),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        stream,
    })
}

/// Meets a server as a usual client would that trusts everybody.
pub async fn meet(address: SocketAddr, name: &str) -> std::io::Result<Met> {
    meet_with(looker(rustls::ALL_VERSIONS, &[b"h2", b"http/1.1"]), address, name).await
}
