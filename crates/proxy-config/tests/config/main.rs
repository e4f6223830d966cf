//! Files as people write them, and what becomes of them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod mistakes;
mod reference;
mod robustness;
mod settings;
mod sites;
mod tables;

use std::path::Path;

use coracle_proxy_config::{Config, Mistakes};
use coracle_proxy_table::{Middleware, MiddlewareId, Route};

/// Reads a text that is right.
#[track_caller]
fn read(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/proxy")).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// Reads a text that is wrong.
#[track_caller]
fn refused(text: &str) -> Mistakes {
    Config::parse(text, Path::new("/etc/proxy")).expect_err(text)
}

#[track_caller]
fn route<'c>(config: &'c Config, id: &str) -> &'c Route {
    let ids = || config.table.routes.iter().map(|route| &route.id.0).collect::<Vec<_>>();
    config.table.routes.iter().find(|route| route.id.0 == id).unwrap_or_else(|| panic!("no {id} in {:?}", ids()))
}

/// The middlewares of a route, in their order.
fn middlewares<'c>(config: &'c Config, id: &str) -> Vec<&'c Middleware> {
    let of = |id: &MiddlewareId| config.table.middlewares.get(id).unwrap();
    route(config, id).middlewares.iter().map(of).collect()
}

fn kinds(config: &Config, id: &str) -> Vec<&'static str> {
    middlewares(config, id).into_iter().map(Middleware::kind).collect()
}
