//! Whom services that are asked over TLS are trusted by: one configuration for each set of settings, so that what is asked often
//! need not be trusted anew each time.
//!
//! Files are read when a table is taken, and again when they change, by whoever calls [`Trusts::look_again`]; never by a request.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use coracle_certs::ClientTrust;
use coracle_proxy_middleware::Stamp;
use coracle_proxy_table::{AuthTls, Middleware, Table};
use tokio_rustls::rustls::ClientConfig;

/// What has been made of settings. Nobody holds the lock while a file is read.
#[derive(Debug, Default)]
pub(crate) struct Trusts(RwLock<Vec<Arc<Trusted>>>);

#[derive(Debug)]
struct Trusted {
    settings: AuthTls,
    config: Arc<ClientConfig>,
    stamps: [Option<Stamp>; 3],
}

impl Trusts {
    /// What these settings come to; nothing if no table has them, or had them just before.
    pub(crate) fn config(&self, settings: &AuthTls) -> Option<Arc<ClientConfig>> {
        self.known(settings).map(|known| Arc::clone(&known.config))
    }

    /// Reads the files of settings that are not known yet.
    ///
    /// # Errors
    /// What is wrong with a file of theirs.
    pub(crate) fn take(&self, settings: &AuthTls) -> Result<(), String> {
        if self.known(settings).is_none() {
            let trusted = Trusted::new(settings)?;
            self.write(|all| all.push(Arc::new(trusted)));
        }
        Ok(())
    }

    /// Whether there is anything of which files may change.
    pub(crate) fn has_files(&self) -> bool {
        self.all().iter().any(|known| known.settings.ca_file.is_some() || known.settings.cert_file.is_some())
    }

    /// Reads files again that have changed. What cannot be read stays as it was, and is told once.
    pub(crate) fn look_again(&self) {
        let all: Vec<_> = self.all().clone();
        for before in all {
            let stamps = stamps(&before.settings);
            if stamps == before.stamps {
                continue;
            }
            let now = Trusted::new(&before.settings).unwrap_or_else(|reason| {
                tracing::warn!(reason, "the files for asking a service over TLS are kept as they were");
                Trusted { settings: before.settings.clone(), config: Arc::clone(&before.config), stamps }
            });
            let now = Arc::new(now);
            self.write(|all| {
                all.iter_mut().filter(|known| Arc::ptr_eq(known, &before)).for_each(|known| *known = Arc::clone(&now));
            });
        }
    }

    /// Forgets what neither of two tables needs: requests may still be on their way through the middlewares of the older one.
    pub(crate) fn sweep(&self, tables: [&Table; 2]) {
        if self.all().is_empty() {
            return;
        }
        let needed: Vec<&AuthTls> = tables.into_iter().flat_map(needed).collect();
        self.write(|all| all.retain(|known| needed.contains(&&known.settings)));
    }

    fn known(&self, settings: &AuthTls) -> Option<Arc<Trusted>> {
        self.all().iter().find(|known| known.settings == *settings).cloned()
    }

    fn all(&self) -> RwLockReadGuard<'_, Vec<Arc<Trusted>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Vec<Arc<Trusted>>)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The settings of a middleware that asks over TLS.
pub(crate) fn asks_over_tls(middleware: &Middleware) -> Option<&AuthTls> {
    match middleware {
        Middleware::ForwardAuth(settings) if is_https(&settings.address) => Some(&settings.tls),
        _ => None,
    }
}

/// Whether a URL is to be asked over TLS.
pub(crate) fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

fn needed(table: &Table) -> impl Iterator<Item = &AuthTls> {
    table.middlewares.values().filter_map(asks_over_tls)
}

impl Trusted {
    fn new(settings: &AuthTls) -> Result<Self, String> {
        // Before they are read: what is written meanwhile is seen the next time.
        let stamps = stamps(settings);
        let config = Arc::new(trust(settings).config().map_err(|error| error.to_string())?);
        Ok(Self { settings: settings.clone(), config, stamps })
    }
}

fn trust(settings: &AuthTls) -> ClientTrust {
    let AuthTls { ca_file, cert_file, key_file, insecure_skip_verify } = settings;
    ClientTrust {
        ca_file: ca_file.as_ref().map(Into::into),
        identity: cert_file.as_ref().zip(key_file.as_ref()).map(|(chain, key)| (chain.into(), key.into())),
        anybody: *insecure_skip_verify,
    }
}

fn stamps(settings: &AuthTls) -> [Option<Stamp>; 3] {
    [&settings.ca_file, &settings.cert_file, &settings.key_file].map(|file| Stamp::at(Path::new(file.as_ref()?)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(ca_file: &Path) -> AuthTls {
        AuthTls { ca_file: Some(ca_file.to_string_lossy().into_owned()), ..AuthTls::default() }
    }

    fn root() -> String {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn files_are_read_when_settings_are_taken_and_when_they_are_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("root.pem");
        let (trusts, settings) = (Trusts::default(), settings(&path));
        assert!(trusts.take(&settings).unwrap_err().contains("root.pem"));
        std::fs::write(&path, root()).unwrap();
        assert!(trusts.config(&settings).is_none(), "who asks reads nothing");
        trusts.take(&settings).unwrap();
        let first = trusts.config(&settings).unwrap();
        // As long as nobody looks, and if what is there is no certificate, it stays.
        std::fs::write(&path, "no certificate").unwrap();
        trusts.take(&settings).unwrap();
        assert!(Arc::ptr_eq(&first, &trusts.config(&settings).unwrap()));
        trusts.look_again();
        assert!(Arc::ptr_eq(&first, &trusts.config(&settings).unwrap()));
        std::fs::write(&path, root() + &root()).unwrap();
        trusts.look_again();
        assert!(!Arc::ptr_eq(&first, &trusts.config(&settings).unwrap()));
        assert!(trusts.has_files());
        trusts.sweep([&Table::default(), &Table::default()]);
        assert!(trusts.config(&settings).is_none() && !trusts.has_files());
    }
}
