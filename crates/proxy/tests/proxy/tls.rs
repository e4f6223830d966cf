//! TLS, by clients that check what they are shown.

mod acme;
mod asking;
mod clients;
mod handshakes;
mod sessions;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use coracle_proxy::certs::GivenFiles;
use coracle_proxy::table::{Admission, CertificateSource, Table};
use coracle_proxy::{ListenerOptions, ProxyOptions};
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::env::{Env, table};

/// Listens for TLS as well.
pub fn with_tls(options: &mut ProxyOptions) {
    options.listeners.push(ListenerOptions::https("127.0.0.1:0".parse().unwrap()));
    options.certificates.poll = std::time::Duration::from_millis(50);
}

pub fn https(env: &Env) -> SocketAddr {
    env.proxy.as_ref().unwrap().addresses()[1]
}

/// What certificates of the proxy's own authority are to be trusted by.
pub fn local_root(env: &Env) -> String {
    let text = std::fs::read_to_string(env.options.certificates.directory.join("local/authority.pem")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    text[..text.find(end).unwrap() + end.len()].to_owned()
}

/// Leads each host to the same target, with a certificate of the local authority.
pub fn local(hosts: &[&str], target: SocketAddr) -> Table {
    let routes: Vec<_> = hosts.iter().map(|host| (*host, "/", "app")).collect();
    let mut table = table(&routes, &[("app", Admission::Open, &[("t", target)])]);
    for (route, host) in table.routes.iter_mut().zip(hosts) {
        route.certificate = CertificateSource::Local;
        route.rule = format!("Host(`{host}`)");
    }
    table
}

/// Publishes a table and waits until its certificates are there.
pub async fn publish(env: &mut Env, table: Table) {
    let names: Vec<_> = table.routes.iter().map(|route| route.rule.split('`').nth(1).unwrap().replace('*', "any")).collect();
    env.publish(table).await;
    for name in names {
        let https = https(env);
        crate::env::until(&format!("a certificate for {name}"), async || clients::look(https, &name).await.is_ok()).await;
    }
}

/// A certificate as somebody would give it, and the root it is to be trusted by.
pub struct Given {
    pub files: GivenFiles,
    pub root: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Given {
    pub fn new(directory: &Path, names: &[&str], default: bool) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let path = |ending: &str| -> PathBuf { directory.join(format!("{}.{ending}", names[0].replace('*', "star"))) };
        let given = Self { files: GivenFiles { cert: path("pem"), key: path("key"), default }, root: issuer.pem(), issuer };
        given.renew(names);
        given
    }

    /// Writes another certificate.
    pub fn renew(&self, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(&self.files.key, key.serialize_pem()).unwrap();
        std::fs::write(&self.files.cert, certificate.pem()).unwrap();
    }
}
