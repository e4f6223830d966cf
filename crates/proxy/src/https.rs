//! Whom services that are asked over TLS are trusted by: one configuration for each set of settings, so that what is asked often
//! need not be trusted anew each time. Files are read again when they change.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use coracle_certs::ClientTrust;
use coracle_proxy_table::AuthTls;
use tokio_rustls::rustls::ClientConfig;

/// Settings beyond this number push out the ones used least lately.
const MOST: usize = 64;
/// Between two looks at the files of one.
const BETWEEN: Duration = Duration::from_secs(1);

/// What has been made of settings, the ones used last at the end.
#[derive(Debug, Default)]
pub(crate) struct Trusts(Mutex<Vec<Trusted>>);

#[derive(Debug)]
struct Trusted {
    settings: AuthTls,
    config: Arc<ClientConfig>,
    looked: Instant,
    stamps: [Option<(SystemTime, u64)>; 3],
}

impl Trusts {
    /// What these settings come to.
    ///
    /// # Errors
    /// What is wrong with a file of theirs that has never been right.
    pub(crate) fn config(&self, settings: &AuthTls) -> Result<Arc<ClientConfig>, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().position(|known| known.settings == *settings).map(|place| all.remove(place));
        let trusted = match known {
            Some(known) => known.looked_after(),
            None => Trusted::new(settings)?,
        };
        let config = Arc::clone(&trusted.config);
        if all.len() == MOST {
            all.remove(0);
        }
        all.push(trusted);
        Ok(config)
    }
}

impl Trusted {
    fn new(settings: &AuthTls) -> Result<Self, String> {
        // Before they are read: what is written meanwhile is seen the next time.
        let stamps = stamps(settings);
        let config = Arc::new(trust(settings).config().map_err(|error| error.to_string())?);
        Ok(Self { settings: settings.clone(), config, looked: Instant::now(), stamps })
    }

    /// The same, or what its files say by now.
    fn looked_after(mut self) -> Self {
        if self.looked.elapsed() < BETWEEN {
            return self;
        }
        self.looked = Instant::now();
        let stamps = stamps(&self.settings);
        if stamps != self.stamps {
            match Self::new(&self.settings) {
                Ok(renewed) => return renewed,
                Err(reason) => tracing::warn!(reason, "the files for asking a service over TLS are kept as they were"),
            }
            self.stamps = stamps;
        }
        self
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

fn stamps(settings: &AuthTls) -> [Option<(SystemTime, u64)>; 3] {
    [&settings.ca_file, &settings.cert_file, &settings.key_file].map(|file| {
        let metadata = std::fs::metadata(Path::new(file.as_ref()?)).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}
