//! Sending a request once more because a middleware says so. Whether it may be sent once more at all is not for it to say.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::middlewares::Passed;
use super::{Exchange, Stop};
use crate::refusal::Refusal;
use crate::side::Downstream;
use crate::target::{InFlight, Target};

/// The longest wait between two times.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often a request may be repeated, and how long to wait before.
pub(super) struct Repeats {
    left: u32,
    wait: Duration,
    /// One has been taken, with its wait, and the request has not been sent again yet.
    taken: bool,
}

impl Repeats {
    /// As the route's middlewares want it; never without them.
    pub(super) fn new(passed: Option<&Passed>) -> Self {
        let retry = passed.and_then(|passed| passed.chain.retry());
        retry.map_or(Self { left: 0, wait: Duration::ZERO, taken: false }, |retry| Self {
            left: retry.attempts.saturating_sub(1),
            wait: retry.initial_interval.min(LONGEST_WAIT),
            taken: false,
        })
    }

    /// The same target is asked again.
    pub(super) fn go_on_here(&mut self) {
        self.taken = false;
    }

    pub(super) fn are_left(&self) -> bool {
        self.left > 0
    }

    /// Whether an answer is worth another try: a gateway behind says that it is not to blame.
    pub(super) fn wants(&self, status: StatusCode) -> bool {
        self.left > 0 && (502..=504).contains(&status.as_u16())
    }
}

impl<D: Downstream> Exchange<'_, D> {
    /// Takes a repeat: waits before the next time.
    pub(super) async fn pause(&mut self, repeats: &mut Repeats) -> Result<(), Stop> {
        repeats.left = repeats.left.saturating_sub(1);
        repeats.taken = true;
        let wait = repeats.wait;
        repeats.wait = (wait * 2).min(LONGEST_WAIT);
        if !wait.is_zero() {
            Box::pin(self.unless_gone(tokio::time::sleep(wait))).await?;
        }
        Ok(())
    }

    /// A target that has not been tried. When all have been, they are tried anew, if a repeat has been taken or is left.
    pub(super) async fn find_other(&mut self, tried: &mut Vec<Arc<Target>>, repeats: &mut Repeats) -> Result<InFlight, Stop> {
        let has_taken = std::mem::take(&mut repeats.taken);
        match self.find_target(tried).await {
            Err(Stop::Refuse(Refusal::BadGateway)) if has_taken || repeats.are_left() => {
                if !has_taken {
                    self.pause(repeats).await?;
                    repeats.taken = false;
                }
                tried.clear();
                self.find_target(tried).await
            }
            found => found,
        }
    }
}
