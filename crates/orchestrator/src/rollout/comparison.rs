//! The watch window: how the new release answers, compared with how the old one did.

use coracle_model::{InstanceId, Strategy};
use coracle_pipeline::Watch;
use std::time::Duration;
use tokio::time::Instant;

use super::{Candidacy, Failure, Rollout};
use crate::figures::{self, Counted, Figures};

/// How often the counts are read, at most.
const EVERY: Duration = Duration::from_secs(1);

/// Where the window stands when latencies begin to count: what has just started is slow.
const WARM: f64 = 1.0 / 3.0;

/// It is looked at errors again when there is so much more to look at.
const MORE: f64 = 1.2;

/// What was counted before requests went to the new release.
pub(super) struct Before {
    watch: Watch,
    /// Of the old release's answers; `None`: that is not known.
    old: Option<Counted>,
    /// At the switch.
    then: Figures,
    since: Instant,
}

impl Before {
    /// How much of the window is left.
    pub(super) fn left(&self) -> Duration {
        self.watch.window.duration().saturating_sub(self.since.elapsed())
    }
}

impl Rollout<'_> {
    /// The counts of the app's requests, where somebody counts.
    pub(super) async fn count(&self) -> Option<Figures> {
        match self.core.traffic.figures(self.deployment.app.as_str()).await {
            Ok(figures) => figures,
            Err(error) => {
                tracing::warn!(app = %self.deployment.app, %error, "the proxy does not tell its counts");
                None
            }
        }
    }

    /// What the old release has answered, just before the switch; `None` if nothing is to be compared.
    pub(super) async fn before_switch(&self, candidacy: &Candidacy, begun: Option<Figures>) -> Option<Before> {
        // Kept whoever watches this switch: the next one may be watched.
        let then = self.count().await;
        let last = self.core.last_switch(&self.deployment.app, then.clone());
        let watch = candidacy.orders.as_ref().and_then(|orders| orders.watch())?;
        let old = candidacy.old.as_ref();
        if old.is_none() || candidacy.strategy == Strategy::Recreate {
            self.note(not_watched(old.is_none()));
            return None;
        }
        let Some(then) = then else {
            self.note("not watched after the switch: the proxy does not tell its counts");
            return None;
        };
        let enough = |counted: &Counted| counted.answered >= u64::from(watch.min_requests);
        // The last minutes tell best what to expect now; the whole life of the old release is better than nothing.
        let lately = begun.and_then(|begun| then.since(&begun));
        let old = lately.filter(enough).or_else(|| then.since(&last?)).filter(enough);
        Some(Before { watch, old, then, since: Instant::now() })
    }

    /// Compares the answers of the new release with those of the old one until the window is over.
    pub(super) async fn compare(&self, candidacy: &Candidacy, before: &Before) -> Result<(), Failure> {
        let Before { watch, old, then, since } = before;
        let window = watch.window.duration();
        self.note(watching(watch, old.as_ref()));
        let (mut warm, mut looked) = (None, 0.0);
        loop {
            let left = window.saturating_sub(since.elapsed());
            tokio::time::sleep(left.min(EVERY).min(window / 10)).await;
            let is_over = since.elapsed() >= window;
            let Some(now) = self.count().await else {
                if is_over {
                    break;
                }
                continue;
            };
            let Some(new) = now.since(then) else {
                self.note("the proxy began to count anew, so the new release is not compared any further");
                return Ok(());
            };
            let new = new.in_favour(then.in_flight);
            if is_over || new.answered as f64 >= looked * MORE {
                looked = new.answered as f64;
                if let Some(why) = figures::more_errors(watch, old.as_ref(), &new) {
                    return Err(self.is_worse(candidacy, why).await);
                }
            }
            if warm.is_none() && since.elapsed() >= window.mul_f64(WARM) {
                warm = Some(now.clone());
            }
            if is_over {
                let steady = warm.and_then(|warm| now.since(&warm)).map(|new| new.in_favour(then.in_flight));
                if let Some(why) = steady.and_then(|steady| figures::slower(watch, old.as_ref(), &steady)) {
                    return Err(self.is_worse(candidacy, why).await);
                }
                self.note(format!("watched for {}: errors in {new}", watch.window));
                return Ok(());
            }
        }
        self.note("the proxy does not tell its counts, so the new release was not compared");
        Ok(())
    }

    async fn is_worse(&self, candidacy: &Candidacy, why: String) -> Failure {
        let Candidacy { engine, release, .. } = candidacy;
        let first: Option<InstanceId> = self.instances(candidacy, |process| release.serves(process)).into_iter().next();
        let evidence = match first {
            Some(first) => self.core.evidence(engine, &first).await,
            None => Vec::new(),
        };
        Failure::Release {
            cause: format!("after the switch, which was taken back: {why}"),
            evidence,
            hint: "mend what the log shows, then `coracle deploy`; the old release serves".to_owned(),
        }
    }
}

/// Why a release is not compared with one before.
pub(super) fn not_watched(is_first: bool) -> String {
    format!("not watched after the switch: {}", nothing_to_go_back_to(is_first))
}

/// Why a switch cannot be taken back.
pub(super) fn nothing_to_go_back_to(is_first: bool) -> &'static str {
    match is_first {
        true => "there is no release before it to go back to",
        false => "under the strategy recreate the old release is gone by then",
    }
}

fn watching(watch: &Watch, old: Option<&Counted>) -> String {
    let window = watch.window;
    match (old, watch.max_error_rate) {
        (Some(old), _) => format!("watching the new release for {window}; the one before answered {old} with an error"),
        (None, Some(most)) => {
            format!(
                "watching the new release for {window}, for more than {most} of errors: too few requests came before to compare"
            )
        }
        (None, None) => {
            format!("too few requests came before to compare the new release with (fewer than {})", watch.min_requests)
        }
    }
}
