//! The proxies before this one, which still serve their last connections, and what they are asked for.
//!
//! They are asked at the same time, each within a deadline, while nobody holds a lock that others need. One that does not answer
//! is not asked again: it has ended, or hangs, and then serves nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_proxy_table::{Table, TargetId};

use super::{Client, ControlError};

/// How long one may take to follow, and for a drain longer than it was told to wait.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Those that are known.
#[derive(Default)]
pub(crate) struct Predecessors {
    known: Mutex<Vec<Arc<Predecessor>>>,
    newest: Mutex<Newest>,
}

struct Predecessor {
    client: Client,
    /// The number of the last table that it has been told. Held while it is told one, so that tables come in their order.
    told: tokio::sync::Mutex<u64>,
}

/// The newest table, and a number that counts up with each.
#[derive(Default, Clone)]
struct Newest {
    number: u64,
    table: Arc<Table>,
}

/// Stands for a table that they are to follow.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct News(u64);

/// What they are asked for.
#[derive(Clone, Copy)]
enum Favour<'f> {
    Follow(News),
    Drain(&'f [TargetId], Duration),
}

impl Predecessors {
    /// One more.
    pub(crate) fn add(&self, client: Client) {
        self.known().push(Arc::new(Predecessor { client, told: tokio::sync::Mutex::default() }));
    }

    /// How many are known.
    pub(crate) fn count(&self) -> usize {
        self.known().len()
    }

    /// Notes what they are to follow. To be called in the order in which tables are served by.
    pub(crate) fn note(&self, table: &Arc<Table>) -> News {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Newest { number: newest.number + 1, table: Arc::clone(table) };
        News(newest.number)
    }

    /// Returns when they follow that table or a later one.
    pub(crate) async fn follow(&self, news: News, grace: Duration) {
        self.ask(Favour::Follow(news), grace, grace).await;
    }

    /// Has them drain targets. Returns how many requests were cut off.
    pub(crate) async fn drain(&self, targets: &[TargetId], deadline: Duration, grace: Duration) -> usize {
        self.ask(Favour::Drain(targets, deadline), deadline.saturating_add(grace), grace).await
    }

    /// Asks all of them and adds up what they answer; forgets those that do not.
    async fn ask(&self, favour: Favour<'_>, deadline: Duration, grace: Duration) -> usize {
        let all = self.known().clone();
        let asked = all.into_iter().map(|one| self.ask_one(one, favour, deadline, grace));
        futures::future::join_all(asked).await.into_iter().sum()
    }

    async fn ask_one(&self, one: Arc<Predecessor>, favour: Favour<'_>, deadline: Duration, grace: Duration) -> usize {
        let answered = match favour {
            Favour::Follow(News(number)) => tokio::time::timeout(deadline, self.tell(&one, number, grace)).await,
            Favour::Drain(targets, at_most) => {
                let drained = async { Ok(one.client.drain_within(targets, at_most, within(grace)).await?.cut_off) };
                tokio::time::timeout(deadline, drained).await
            }
        };
        answered.unwrap_or(Err(ControlError::Timeout(deadline))).unwrap_or_else(|error| {
            self.note_failure(&one, &error);
            0
        })
    }

    /// Tells one the newest table, unless it knows that one or a later one.
    async fn tell(&self, one: &Predecessor, number: u64, grace: Duration) -> Result<usize, ControlError> {
        let mut told = one.told.lock().await;
        if *told < number {
            let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
            one.client.follow(&newest.table, within(grace)).await?;
            *told = newest.number;
        }
        Ok(0)
    }

    fn note_failure(&self, one: &Arc<Predecessor>, error: &ControlError) {
        let socket = one.client.socket().display();
        match error {
            ControlError::Refused { .. } => tracing::warn!(%error, %socket, "the proxy before this one does not follow"),
            ControlError::Timeout(_) => {
                tracing::warn!(%error, %socket, "the proxy before this one hangs and is not asked any more");
            }
            ControlError::Unreachable { .. } | ControlError::Protocol(_) => {
                tracing::debug!(%error, %socket, "a predecessor is gone")
            }
        }
        if !matches!(error, ControlError::Refused { .. }) {
            self.known().retain(|other| !Arc::ptr_eq(other, one));
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Predecessor>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What of that time one who is asked may take for asking others, so that its answer comes before it is given up.
fn within(grace: Duration) -> Duration {
    grace * 4 / 5
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn those_who_do_not_answer_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let predecessors = Predecessors::default();
        // The kernel takes connections for those who hang.
        let hanging = ["a", "b"].map(|name| UnixListener::bind(directory.path().join(name)).unwrap());
        for name in ["a", "b", "gone"] {
            predecessors.add(Client::new(directory.path().join(name)));
        }
        let news = predecessors.note(&Arc::default());
        let (grace, begun) = (Duration::from_millis(300), tokio::time::Instant::now());
        predecessors.follow(news, grace).await;
        assert!(begun.elapsed() >= grace);
        assert_eq!(predecessors.count(), 0);
        assert_eq!(predecessors.drain(&[], Duration::ZERO, grace).await, 0);
        drop(hanging);
    }
}
