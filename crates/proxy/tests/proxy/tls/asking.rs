//! Services that are asked over TLS whether requests may pass.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use coracle_proxy::control::ControlError;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::backend::Backend;
use crate::env::{Env, until};
use crate::middlewares::{chained, through};

/// An authority whose certificates are for 127.0.0.1.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn write_root(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).unwrap();
    }

    /// A chain and its key.
    fn issue(&self, name: &str) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key)
    }
}

/// Lets everybody pass as `ann` who has come through the handshake; with `clients`, those alone who show a certificate of theirs.
async fn gate(authority: &Authority, clients: Option<&Authority>) -> (SocketAddr, JoinSet<()>) {
    let (chain, key) = authority.issue("127.0.0.1");
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = vec![tokio_rustls::rustls::pki_types::CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n").await);
                drop(stream.shutdown().await);
            });
        }
    });
    (address, tasks)
}

fn auth(address: SocketAddr, tls: &str) -> String {
    format!(
        r#"{{"forward-auth": {{"address": "https://{address}/check", "auth_response_headers": ["X-User"], "tls": {{{tls}}}}}}}"#
    )
}

#[tokio::test]
async fn only_who_is_trusted_is_believed() {
    let (ours, theirs, directory) = (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let (address, _gate) = gate(&ours, None).await;
    let root = directory.path().join("root.pem");
    let app = Backend::echo().await;
    theirs.write_root(&root);
    let named = format!("\"ca_file\": {root:?}");
    let env = through(&[&auth(address, &named)], &app).await;
    assert_eq!(env.get("h", "/").await.status, 502, "another authority's");
    // The file is read again.
    ours.write_root(&root);
    until("let in", async || env.get("h", "/").await.status == 200).await;
    assert!(env.get("h", "/").await.body.contains("x-user: ann\n"));
    let env = through(&[&auth(address, "")], &app).await;
    assert_eq!(env.get("h", "/").await.status, 502, "not one of the system's authorities");
    let env = through(&[&auth(address, "\"insecure_skip_verify\": true")], &app).await;
    assert_eq!(env.get("h", "/").await.status, 200);
}

#[tokio::test]
async fn services_may_ask_who_asks() {
    let (ours, clients, directory) = (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let (address, _gate) = gate(&ours, Some(&clients)).await;
    let path = |name: &str| directory.path().join(name);
    ours.write_root(&path("root.pem"));
    let (chain, key) = clients.issue("proxy.example");
    std::fs::write(path("own.pem"), chain).unwrap();
    std::fs::write(path("own.key"), key.serialize_pem()).unwrap();
    let app = Backend::echo().await;
    let root = format!("\"ca_file\": {:?}", path("root.pem"));
    let env = through(&[&auth(address, &root)], &app).await;
    assert_eq!(env.get("h", "/").await.status, 502);
    let own = format!("{root}, \"cert_file\": {:?}, \"key_file\": {:?}", path("own.pem"), path("own.key"));
    let env = through(&[&auth(address, &own)], &app).await;
    assert_eq!(env.get("h", "/").await.status, 200);
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_by_name() {
    let env = Env::new().await;
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (tls, word) in [
        (r#""ca_file": "/nowhere.pem""#.to_owned(), "/nowhere.pem"),
        (format!("\"ca_file\": {empty:?}"), "no PEM certificates"),
        (r#""cert_file": "/own.pem""#.to_owned(), "key_file"),
    ] {
        let table = chained(&[&auth("127.0.0.1:1".parse().unwrap(), &tls)], &[]);
        let Err(ControlError::Refused { message, .. }) = env.client().publish(&table).await else { panic!("{tls}") };
        assert!(message.contains("m0") && message.contains("tls") && message.contains(word), "{message}");
    }
    let plain = auth("127.0.0.1:1".parse().unwrap(), r#""insecure_skip_verify": true"#).replace("https", "http");
    let Err(ControlError::Refused { message, .. }) = env.client().publish(&chained(&[&plain], &[])).await else { panic!() };
    assert!(message.contains("https://"), "{message}");
}
