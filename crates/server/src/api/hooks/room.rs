//! Memory for bodies on their way in. It is taken as bytes arrive, so what is merely announced holds nothing. It is bounded for all
//! apps together and for each of them, so that nobody's app keeps the webhooks of others out.
//!
//! Beginnings and what goes beyond them are counted apart: most webhooks fit into a beginning, and those never wait for large ones.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use coracle_model::AppName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::LARGEST;

/// Kibibytes that a body takes when its first bytes are there, and the least that it grows by.
const BEGINNING: u32 = 128;

/// Bodies that may have begun at the same time: of all apps, and of one.
const BEGUN: usize = 128;
const BEGUN_OF_ONE: usize = 48;

/// Kibibytes that bodies may take beyond their beginnings: of all apps, and of one, whose largest body has to fit.
const BEYOND: usize = 32 << 10;
const BEYOND_OF_ONE: usize = LARGEST >> 10;

/// How long a body waits for others each time that it grows.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory that bodies may take.
pub(super) struct Rooms {
    all: Arc<Pool>,
    /// Those of apps that receive something at the moment.
    of_apps: Mutex<HashMap<AppName, Weak<Pool>>>,
}

struct Pool {
    begun: Arc<Semaphore>,
    beyond: Arc<Semaphore>,
}

/// The memory of one body, given back when this is dropped.
pub(super) struct Room {
    pools: [Arc<Pool>; 2],
    held: Vec<OwnedSemaphorePermit>,
    kibibytes: u32,
}

/// Others have taken what there is, and have not given it back in time.
#[derive(Debug)]
pub(super) struct Full;

impl Default for Rooms {
    fn default() -> Self {
        Self { all: Pool::new(BEGUN, BEYOND), of_apps: Mutex::default() }
    }
}

impl Rooms {
    /// Room for a body that is sent to an app. Nothing is taken yet.
    pub(super) fn of(&self, app: &AppName) -> Room {
        let mut pools = self.of_apps.lock().unwrap_or_else(PoisonError::into_inner);
        let share = pools.get(app).and_then(Weak::upgrade).unwrap_or_else(|| {
            let share = Pool::new(BEGUN_OF_ONE, BEYOND_OF_ONE);
            pools.retain(|_, pool| pool.strong_count() > 0);
            pools.insert(app.clone(), Arc::downgrade(&share));
            share
        });
        // The app's share comes first: whoever waits for that stands in no other app's way.
        Room { pools: [share, self.all.clone()], held: Vec::new(), kibibytes: 0 }
    }
}

impl Pool {
    fn new(begun: usize, beyond: usize) -> Arc<Self> {
        Arc::new(Self { begun: Arc::new(Semaphore::new(begun)), beyond: Arc::new(Semaphore::new(beyond)) })
    }
}

impl Room {
    /// Bytes that there is room for.
    pub(super) fn size(&self) -> usize {
        self.kibibytes as usize * 1024
    }

    /// Sees to it that this many bytes have room, which are [`LARGEST`] at most.
    pub(super) async fn hold(&mut self, bytes: usize) -> Result<(), Full> {
        while self.size() < bytes {
            self.grow().await?;
        }
        Ok(())
    }

    /// Begins, or grows by a quarter: what was received is moved a few times, and not with every piece.
    async fn grow(&mut self) -> Result<(), Full> {
        let begins = self.kibibytes == 0;
        let more = (self.kibibytes / 4).max(BEGINNING).min((LARGEST >> 10) as u32 - self.kibibytes);
        for pool in &self.pools {
            let (from, count) = if begins { (&pool.begun, 1) } else { (&pool.beyond, more) };
            let permit = tokio::time::timeout(PATIENCE, from.clone().acquire_many_owned(count)).await;
            self.held.push(permit.map_err(|_| Full)?.map_err(|_| Full)?);
        }
        self.kibibytes += more;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::Future;

    use super::*;

    /// What there is room for is there at once.
    async fn at_once<T>(holding: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(500), holding).await.ok()
    }

    #[tokio::test]
    async fn no_app_takes_what_others_need() {
        let (rooms, greedy, other) = (Rooms::default(), "greedy".parse().unwrap(), "other".parse().unwrap());
        let mut largest = rooms.of(&greedy);
        largest.hold(LARGEST).await.unwrap();
        assert_eq!(largest.size(), LARGEST);
        let mut begun = Vec::new();
        for _ in 1..BEGUN_OF_ONE {
            let mut room = rooms.of(&greedy);
            room.hold(1).await.unwrap();
            begun.push(room);
        }
        assert!(at_once(rooms.of(&greedy).hold(1)).await.is_none());
        assert!(at_once(begun[0].hold(1 << 20)).await.is_none());
        at_once(rooms.of(&other).hold(4 << 20)).await.unwrap().unwrap();
        drop((largest, begun));
        at_once(rooms.of(&greedy).hold(LARGEST)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn small_bodies_do_not_wait_for_large_ones() {
        let rooms = Rooms::default();
        let mut large = Vec::new();
        for app in ["a", "b"] {
            let mut room = rooms.of(&app.parse().unwrap());
            at_once(room.hold(LARGEST)).await;
            large.push(room);
        }
        at_once(rooms.of(&"c".parse().unwrap()).hold(BEGINNING as usize * 1024)).await.unwrap().unwrap();
        let taken: usize = large.iter().map(Room::size).sum();
        assert!(taken <= (BEYOND + 2 * BEGINNING as usize) * 1024, "{taken}");
    }
}
