//! `proxy.toml`: the configuration of a proxy that is used on its own (`coracle proxy --config proxy.toml`).
//!
//! A file is read into a [`Config`]: where to listen, which certificates there are, and the routing table. Sites, the easy
//! way to say things, are only another way to write routes, services and middlewares; the table has nothing else.
//!
//! All mistakes of a file are told at once, each with its place. Every reference is followed and every rule is parsed; what
//! only the proxy can judge (regular expressions of middlewares, files of certificates) it judges itself, and can say where
//! by [`Config::places`].
//!
//! Nothing is started, bound or watched here, and no name is looked up.

mod config;
mod listeners;
mod middlewares;
mod mistake;
mod reading;
mod routes;
mod services;
mod settings;
mod sites;
mod table;
mod tls;

pub use coracle_toml_reading::{Excerpt, Mistake, Mistakes, Place};

pub use config::{AccessLog, Acme, AcmeChallenge, CertificateFiles, Config, ENCODED_CHARACTERS, Limits, Listener};
pub use mistake::ConfigError;
