//! The TLS server side: protocol versions, suites, tickets.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, ResolvesServerCert},
};

use crate::CertError;

/// The protocol that validators of TLS-ALPN-01 offer (RFC 8737, section 6.2). A connection that negotiated it is to be closed after the
/// handshake: nothing is spoken in it.
pub const ACME_TLS_ALPN: &[u8] = b"acme-tls/1";

/// A fatal `unrecognized_name` alert (RFC 6066, section 3) as it goes over the wire before keys are known. rustls has
/// `access_denied` for a name without a certificate; an engine that reads the ClientHello first can send this instead.
pub const UNRECOGNIZED_NAME_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// TLS 1.2 and 1.3 with rustls' suites (all of them forward secret and authenticated), no early data (it can be replayed), no client
/// certificates.
pub(crate) fn config(resolver: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, CertError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(rustls::ALL_VERSIONS)?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ACME_TLS_ALPN.to_vec()];
    // Sessions live in tickets at the clients' side, under keys that rotate; nothing is kept here for each of them. One ticket
    // per handshake is enough for a client that comes back, and is half the work of the usual two.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    // All suites are good ones, but a client may have its own wrong about which is the best.
    config.ignore_client_order = true;
    Ok(config)
}
