//! Where the table comes from if nobody tells it over the control socket: a file, in practice.

use coracle_certs::GivenFiles;
use coracle_proxy_http::Trust;
use coracle_proxy_table::{Table, TableError};

use crate::router::BadTable;

/// What may change while the proxy runs.
#[derive(Debug, Clone)]
pub struct Changes {
    /// Who is led where. Its generation is the proxy's to count.
    pub table: Table,
    /// Certificates of one's own: all of them.
    pub given: Vec<GivenFiles>,
    /// Which proxies before this one are believed about their clients, on connections that begin from now on.
    pub trust: Trust,
}

/// Says what is served by, and says it again when that changes.
pub trait Source {
    /// Waits until it may have changed. Cancel safe.
    fn changed(&mut self) -> impl Future<Output = ()>;

    /// What it says by now; nothing if that is what it has said before, or nothing that could be used.
    fn read(&mut self) -> Option<Changes>;

    /// What it said last is not served by; the table before goes on.
    fn refused(&mut self, error: &BadTable);
}

/// Says nothing: the control socket does.
pub(crate) struct Nothing;

impl Source for Nothing {
    fn changed(&mut self) -> impl Future<Output = ()> {
        std::future::pending()
    }

    fn read(&mut self) -> Option<Changes> {
        None
    }

    fn refused(&mut self, _: &BadTable) {}
}

impl BadTable {
    /// What is at fault, the closest first, as `middlewares.NAME`, `routes.NAME` or `services.NAME`.
    pub fn at_fault(&self) -> Vec<String> {
        match self {
            Self::Rule { route, .. } => vec![format!("routes.{route}")],
            Self::Middleware { route, error } => vec![format!("middlewares.{}", error.middleware.0), format!("routes.{route}")],
            Self::Contradiction(error) => match error {
                TableError::MissingService { route, .. }
                | TableError::MissingMiddleware { route, .. }
                | TableError::DuplicateRoute(route) => vec![format!("routes.{}", route.0)],
                TableError::DuplicateTarget { service, .. } => vec![format!("services.{}", service.0)],
            },
        }
    }
}

/// Why changes are not served by.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The table cannot be served by.
    #[error(transparent)]
    Table(#[from] BadTable),
    /// Another proxy has taken over, or this one has ended.
    #[error("another proxy has taken over")]
    Replaced,
}
