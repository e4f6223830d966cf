//! TLS on the way to the server: whom to trust, and what to say when that is nobody.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use coracle_model::Secret;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ClientError;

/// A server that is reached over TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    url: String,
    token: Secret,
    ca: Option<PathBuf>,
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Tls {
    /// At `https://host:port`. `ca` is a file with the PEM certificates of the only authorities to trust; without it, the system's.
    pub fn new(url: impl Into<String>, token: Secret, ca: Option<PathBuf>) -> Self {
        Self { url: url.into(), token, ca, config: Arc::default() }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn token(&self) -> &Secret {
        &self.token
    }

    /// The authorities' file, where there is one.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    pub(super) async fn handshake(&self, stream: TcpStream, host: &str) -> Result<TokioIo<TlsStream<TcpStream>>, ClientError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare)
            .map_err(|_| ClientError::Endpoint(format!("{host:?} is not a name that a certificate could be for")))?;
        let connector = TlsConnector::from(self.config()?);
        let connected = connector.connect(name, stream).await.map_err(|error| self.refused(&error))?;
        Ok(TokioIo::new(connected))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, ClientError> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS);
        let builder = builder.map_err(|error| ClientError::Endpoint(error.to_string()))?;
        let mut config = builder.with_root_certificates(self.roots()?).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(self.config.get_or_init(|| Arc::new(config)).clone())
    }

    fn roots(&self) -> Result<RootCertStore, ClientError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let why = "this machine trusts no authorities (apt-get install ca-certificates), and --ca names none";
                return Err(ClientError::Endpoint(format!("{} cannot be trusted: {why}", self.url)));
            }
            return Ok(roots);
        };
        let bad = |why: String| ClientError::Endpoint(format!("{} holds no authority's certificate: {why}", path.display()));
        let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        if roots.add_parsable_certificates(found.map_err(|error| bad(error.to_string()))?).0 == 0 {
            return Err(bad("a PEM text that begins with -----BEGIN CERTIFICATE----- is wanted".to_owned()));
        }
        Ok(roots)
    }

    fn refused(&self, error: &std::io::Error) -> ClientError {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let hint = match tls {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                "nobody you trust has signed its certificate; an authority of your own is named with `coracle remote add --ca FILE`"
            }
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => "its certificate is for another name: use the name that it is for",
            Some(rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
                "its certificate has expired: `coracle certs` on the server tells why"
            }
            Some(rustls::Error::InvalidMessage(_)) => "it does not speak TLS: is it http:// at this port?",
            _ => "is this the port for HTTPS?",
        };
        ClientError::Unreachable { endpoint: self.url.clone(), cause: error.to_string(), hint: hint.to_owned() }
    }
}
