//! Clients of TLS: some trust whatever they get and look at it, some trust only what they are told to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use coracle_certs::Anybody;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A client that trusts everybody, speaks these versions, and offers these protocols.
pub fn looker(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody::checking_by(provider))).with_no_client_auth();
    offering(config, alpn)
}

/// A client that trusts these roots alone (PEM), and offers these protocols.
pub fn truster(roots: &str, alpn: &[&[u8]]) -> ClientConfig {
    speaking(roots, ALL_VERSIONS, alpn)
}

/// The same, with these versions of TLS.
pub fn speaking(roots: &str, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder.with_protocol_versions(versions).unwrap().with_root_certificates(store).with_no_client_auth();
    offering(config, alpn)
}

fn offering(mut config: ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A connection after its handshake for `name`.
pub async fn connect(config: ClientConfig, address: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
    connect_over(config, TcpStream::connect(address).await?, name).await
}

/// The same over something.
pub async fn connect_over<S>(config: ClientConfig, stream: S, name: &str) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// What a client was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The DNS names of the certificate.
    pub names: Vec<String>,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// The protocol that was agreed on.
    pub alpn: Option<Vec<u8>>,
}

impl Shown {
    /// What was shown on a connection.
    pub fn on<S>(stream: &TlsStream<S>) -> Self {
        let connection = stream.get_ref().1;
        let leaf = &connection.peer_certificates().unwrap()[0];
        let (_, parsed) = X509Certificate::from_der(leaf).unwrap();
        let names = parsed.subject_alternative_name().unwrap().map_or(&[][..], |names| &names.value.general_names);
        let names = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Self {
            names: names.collect(),
            serial: parsed.raw_serial_as_string().replace(':', ""),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        }
    }
}
