//! The ACME protocol (RFC 8555, RFC 8737, RFC 9773) as far as certificates for names need it, spoken by ourselves: the client library that
//! was at hand brings root certificates under a licence that is not ours into the lock file, whatever its features.

mod account;
mod attempt;
mod client;
mod key;
mod ledger;
mod order;
mod problem;
mod renewal;
mod transport;

pub(crate) use ledger::Ledger;
pub(crate) use order::challenge_certificate;
