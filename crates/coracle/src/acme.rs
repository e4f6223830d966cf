//! How certificates are ordered: the same arguments for a server and for a proxy on its own.

use std::path::{Path, PathBuf};

use clap::Args;

/// How certificates are ordered, if they are.
#[derive(Debug, Clone, Args)]
pub(crate) struct AcmeArguments {
    /// Order certificates for hosts that ask for them (ACME, Let's Encrypt unless --acme-directory says otherwise)
    ///
    /// Ordering means agreeing to the authority's terms. A name is ordered only once it leads to this machine.
    #[arg(long)]
    acme: bool,
    /// Where the certificate authority may write to
    #[arg(long, value_name = "ADDRESS", requires = "acme")]
    acme_email: Option<String>,
    /// Another certificate authority's directory
    #[arg(long, value_name = "URL", requires = "acme")]
    acme_directory: Option<String>,
    /// A file with the root certificate that the authority itself is trusted by, beside the system's
    #[arg(long, value_name = "PATH", requires = "acme")]
    acme_ca: Option<PathBuf>,
    /// Order without looking first whether a name leads here, for authorities of your own
    #[arg(long, requires = "acme")]
    acme_no_preflight: bool,
}

impl AcmeArguments {
    /// Whether certificates are to be ordered at all.
    pub(crate) fn orders(&self) -> bool {
        self.acme
    }

    /// The file with the authority's own root.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.acme_ca.as_deref()
    }

    /// For a proxy that is started with them.
    pub(crate) fn of_proxy(self) -> Option<coracle_proxy::certs::AcmeOptions> {
        let usual = coracle_proxy::certs::AcmeOptions::default();
        self.acme.then(|| coracle_proxy::certs::AcmeOptions {
            directory_url: self.acme_directory.unwrap_or(usual.directory_url),
            ca_file: self.acme_ca,
            email: self.acme_email,
            preflight: if self.acme_no_preflight { no_preflight() } else { usual.preflight },
            ..usual
        })
    }

    /// For a server that hands them to its proxy, which stands elsewhere: with the root's file as `ca_file`.
    pub(crate) fn of_server(&self, ca_file: Option<PathBuf>) -> Option<coracle_server::AcmeOptions> {
        self.acme.then(|| coracle_server::AcmeOptions {
            email: self.acme_email.clone(),
            directory: self.acme_directory.clone(),
            ca_file,
            skips_preflight: self.acme_no_preflight,
        })
    }
}

/// Nothing is looked at before an order is placed.
pub(crate) fn no_preflight() -> coracle_proxy::certs::PreflightOptions {
    let usual = coracle_proxy::certs::PreflightOptions::default();
    coracle_proxy::certs::PreflightOptions { public_names: false, dns: false, reachable: false, caa: false, ..usual }
}
