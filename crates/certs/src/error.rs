//! What can go wrong outside of single certificates, whose troubles are in their status.

use std::{io, path::PathBuf};

/// Why there are no certificates at all, or why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it; never says what is in it.
        reason: String,
    },
    /// There is nobody to trust.
    #[error("this system has no root certificates; its package is mostly called ca-certificates")]
    NoRoots,
    /// The thread that keeps certificates cannot be started.
    #[error("cannot start the keeper of certificates: {0}")]
    Start(#[source] io::Error),
    /// The TLS library does not work with the options chosen here.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The local authority cannot sign.
    #[error("local authority: {0}")]
    Authority(String),
}
