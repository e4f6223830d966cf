//! The TLS client side: whom to trust, and what to show.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use crate::{CertError, files, server};

/// How a server is to prove who it is, and what it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTrust {
    /// PEM certificates of the only authorities to trust; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// A PEM chain and its key, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Takes any certificate, for any name.
    pub anybody: bool,
}

impl ClientTrust {
    /// The configuration for clients that speak HTTP/1.1. Reads files, the system's authorities among them.
    ///
    /// # Errors
    /// [`CertError`] if a file cannot be read or is not what it should be, or if there is nobody to trust.
    pub fn config(&self) -> Result<ClientConfig, CertError> {
        let builder = ClientConfig::builder_with_provider(server::provider()).with_protocol_versions(rustls::ALL_VERSIONS)?;
        let builder = if self.anybody {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody::checking_by(server::provider())))
        } else {
            builder.with_root_certificates(Arc::new(roots(self.ca_file.is_none(), self.ca_file.as_deref())?))
        };
        let mut config = match &self.identity {
            Some((chain, key)) => builder.with_client_auth_cert(certificates(chain)?, private_key(key)?)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The roots in `ca_file`, and the system's too if so said.
pub(crate) fn roots(system: bool, ca_file: Option<&Path>) -> Result<RootCertStore, CertError> {
    let mut roots = RootCertStore::empty();
    if system {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if let Some(path) = ca_file
        && roots.add_parsable_certificates(certificates(path)?).0 == 0
    {
        return Err(no_certificates(path));
    }
    if roots.is_empty() {
        return Err(CertError::NoRoots);
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let content = files::read(path)?.ok_or_else(|| no_certificates(path))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content.as_bytes()).collect();
    certificates.ok().filter(|found| !found.is_empty()).ok_or_else(|| no_certificates(path))
}

fn no_certificates(path: &Path) -> CertError {
    CertError::Content { path: path.to_owned(), reason: "no PEM certificates in it".to_owned() }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let bad = || CertError::Content { path: path.to_owned(), reason: "no PEM key in it".to_owned() };
    let content = files::read(path)?.ok_or_else(bad)?;
    PrivateKeyDer::from_pem_slice(content.as_bytes()).map_err(|_| bad())
}

/// Believes whoever is there. Signatures are checked all the same: the handshake is with whoever has shown the certificate.
#[derive(Debug)]
pub struct Anybody(Arc<CryptoProvider>);

impl Anybody {
    /// Checks signatures as this provider does.
    pub fn checking_by(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
