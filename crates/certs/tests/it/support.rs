//! Servers and clients for the tests.

pub mod clients;
pub mod edge;
pub mod front;

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Waits until `probe` has something, and fails with `what` if it has nothing for too long.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} has not come about");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
