//! Certificates for the proxy: ACME, a local authority, given ones; storage, renewal, and choosing by SNI.
//!
//! [`Certificates`] is told which names are served ([`Certificates::set_wanted`]) and sees to it that each has a certificate:
//! read from disk, signed by the local authority, or ordered from an ACME authority. What it has is served by its
//! [resolver](Certificates::resolver) from the moment it has it; nothing needs a restart.
//!
//! One certificate is for one name. A certificate for many names is lost for all of them as soon as one stops resolving here,
//! and it tells every visitor what else is served; authorities' limits leave room for one per name.
//!
//! Before an order is placed, the name has to pass a [preflight](PreflightOptions): the authority's limits on failed validations are
//! low, and its error comes from a stranger's point of view. A name that cannot pass costs no order.
//!
//! What this crate refuses to do: it knows no routes and serves no requests (the engine asks it for
//! [answers to challenges](Certificates::http_challenge)); it orders no wildcards, as those need a hand in the zone; it never
//! overwrites a file that it cannot read, but puts it aside; it never says a private key, not in `Debug` either.

mod acme;
mod authority;
mod certificates;
mod chain;
mod challenges;
mod error;
mod files;
mod given;
mod keeper;
mod names;
mod options;
mod preflight;
mod server;
mod shelf;
mod status;
mod storage;
mod trust;

pub use certificates::Certificates;
pub use error::CertError;
pub use given::check as check_given;
pub use options::{AcmeOptions, Backoff, CertOptions, ChallengeKind, GivenFiles, LETS_ENCRYPT, PreflightOptions, Source, Wanted};
pub use server::{ACME_TLS_ALPN, UNRECOGNIZED_NAME_ALERT};
pub use status::{CertificateFacts, CertificateStatus, State};
pub use trust::{Anybody, ClientTrust};
