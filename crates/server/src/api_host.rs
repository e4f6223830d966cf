//! The API, and git, under a host name of their own: the proxy takes their requests over TLS, with a certificate as any app's, and
//! hands them to the API's listener, which wants a token from everybody.
//!
//! Without TLS there is nothing under that name, not even an app that claims it: a token that somebody sends there by mistake is told
//! to nobody.

use std::net::SocketAddr;

use coracle_orchestrator::TlsOffer;
use coracle_proxy_table::{Admission, CertificateSource, Route, Service, ServiceId, Table, Target, host_and_prefix};

/// What its parts of the table are called. No app has this name.
const NAME: &str = "!api";

/// More than the route of any app has.
const PRIORITY: i64 = i64::MAX;

/// How long the head of an answer may take: a source tree is sent before, and a turn is waited for.
const PATIENCE_MS: u64 = 2 * 3600 * 1000;

/// The name, and what stands behind it.
#[derive(Debug, Clone)]
pub(crate) struct ApiHost {
    pub host: String,
    pub api: SocketAddr,
    pub tls: TlsOffer,
}

impl ApiHost {
    /// Where it is reached.
    pub(crate) fn url(&self) -> String {
        let port = self.tls.port.filter(|port| *port != 443).map(|port| format!(":{port}")).unwrap_or_default();
        format!("https://{}{port}", self.host)
    }

    /// Adds it to a table.
    pub(crate) fn join(&self, table: &mut Table) {
        let (id, rule) = (ServiceId(NAME.to_owned()), host_and_prefix(&self.host, "/"));
        let mut service = Service::new(Admission::Open, vec![Target::new(NAME, self.api)]);
        service.response_timeout_ms = Some(PATIENCE_MS);
        table.services.insert(id.clone(), service);
        let mut route = Route::new(NAME, &rule, id.clone());
        route.tls = Some(true);
        route.priority = Some(PRIORITY);
        let is_local = self.host == "localhost" || self.host.ends_with(".localhost");
        route.certificate = if self.tls.acme && !is_local { CertificateSource::Acme } else { CertificateSource::Local };
        let mut nothing = Route::new(format!("{NAME}.plain"), rule, id);
        nothing.tls = Some(false);
        nothing.priority = Some(PRIORITY);
        nothing.service = None;
        table.routes.extend([route, nothing]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn it_is_there_over_tls_alone_and_before_every_app() {
        let tls = TlsOffer { port: Some(8443), acme: false };
        let own = ApiHost { host: "coracle.example".to_owned(), api: ([127, 0, 0, 1], 9000).into(), tls };
        assert_eq!(own.url(), "https://coracle.example:8443");
        let mut table = Table::default();
        own.join(&mut table);
        table.check().unwrap();
        let [over_tls, plain] = table.routes.as_slice() else { panic!("{table:?}") };
        assert!(over_tls.tls == Some(true) && over_tls.service.is_some() && over_tls.certificate == CertificateSource::Local);
        assert!(plain.tls == Some(false) && plain.service.is_none());
        assert!(table.routes.iter().all(|route| route.priority == Some(i64::MAX)));
    }
}
