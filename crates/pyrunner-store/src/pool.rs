//! A few connections of PostgreSQL.
//!
//! sqlx's own pool waits out its whole time-out when a server refuses connections, and hides why. Here the caller learns it
//! at once: an execution must not wait for a database that is away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::error::StoreError;

/// Connections at once; one more caller waits.
const MOST: usize = 4;

/// How long it may take to be given a connection, and to make one.
const PATIENCE: Duration = Duration::from_secs(3);

/// A connection that rested longer than this is asked whether it lives before it is given out.
const FRESH: Duration = Duration::from_millis(500);

/// A connection that rested longer than this is closed.
const RESTED: Duration = Duration::from_secs(60);

/// For how long after a failure to connect others are told the same without another try.
const REFUSING: Duration = Duration::from_millis(250);

/// The connections.
pub(crate) struct Pool {
    options: PgConnectOptions,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
    database: Arc<str>,
}

#[derive(Default)]
struct State {
    idle: Vec<(PgConnection, Instant)>,
    refused: Option<(Instant, String)>,
}

/// A connection that is given out. Dropping it closes it; [`Pooled::give_back`] keeps it for the next caller.
pub(crate) struct Pooled {
    pub(crate) connection: PgConnection,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(options: PgConnectOptions, database: Arc<str>) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { options, permits: Arc::new(Semaphore::new(MOST)), state, database })
    }

    pub(crate) async fn acquire(self: &Arc<Self>, action: &'static str) -> Result<Pooled, StoreError> {
        let database = || self.database.to_string();
        let permit = match timeout(PATIENCE, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(StoreError::database(action, &self.database, &sqlx::Error::PoolClosed)),
            Err(_) => return Err(StoreError::TimedOut { action, database: database(), patience: PATIENCE }),
        };
        let connection = match self.rested().await {
            Some(connection) => connection,
            None => {
                if let Some(cause) = self.just_refused() {
                    return Err(StoreError::Unavailable { action, database: database(), cause });
                }
                let made = timeout(PATIENCE, self.options.connect()).await;
                let error = match made {
                    Ok(Ok(connection)) => return Ok(Pooled { connection, pool: Arc::clone(self), _permit: permit }),
                    Ok(Err(error)) => StoreError::database(action, &self.database, &error),
                    Err(_) => StoreError::TimedOut { action, database: database(), patience: PATIENCE },
                };
                let cause = match &error {
                    StoreError::Unavailable { cause, .. } => cause.clone(),
                    _ => error.to_string(),
                };
                self.state().refused = Some((Instant::now(), cause));
                return Err(error);
            }
        };
        Ok(Pooled { connection, pool: Arc::clone(self), _permit: permit })
    }

    /// A connection that was used before and still lives.
    async fn rested(&self) -> Option<PgConnection> {
        loop {
            let (mut connection, since) = self.state().idle.pop()?;
            let rest = since.elapsed();
            if rest < FRESH || (rest < RESTED && matches!(timeout(PATIENCE, connection.ping()).await, Ok(Ok(())))) {
                return Some(connection);
            }
        }
    }

    fn just_refused(&self) -> Option<String> {
        let state = self.state();
        let (moment, cause) = state.refused.as_ref()?;
        (moment.elapsed() < REFUSING).then(|| cause.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what rests, and refuses from now on. Connections in use are closed when they are given back.
    pub(crate) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut self.state().idle);
        for (connection, _) in idle {
            // A server that is gone needs no farewell.
            timeout(PATIENCE, connection.close()).await.ok();
        }
    }
}

impl Pooled {
    /// Keeps the connection for the next caller. It must not be in the middle of anything.
    pub(crate) fn give_back(self) {
        if self.pool.permits.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut state = self.pool.state();
        state.refused = None;
        state.idle.retain(|(_, since)| now - *since < RESTED);
        state.idle.push((self.connection, now));
    }
}
