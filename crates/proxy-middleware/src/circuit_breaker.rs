//! Stops asking a service that fails.
//!
//! Closed, everything passes and is measured. When the condition holds, it opens for a while, and everybody is answered at once.
//! Then it recovers: the share of requests that pass grows from none to all, unless the condition holds again.

mod condition;
mod window;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use condition::Condition;
use coracle_proxy_http::{Known, RequestHead};
use coracle_proxy_table::CircuitBreaker as Settings;
use http::StatusCode;
use window::Window;

use crate::answer::Answer;
use crate::{pages, wrong};

/// See [`Settings`].
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    condition: Condition,
    check_period: Duration,
    fallback: Duration,
    recovery: Duration,
    status: StatusCode,
    born: Instant,
    circuit: Mutex<Circuit>,
}

#[derive(Debug)]
struct Circuit {
    state: State,
    window: Window,
    checked: Instant,
}

/// An answer that has been counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    second: u64,
    status: u16,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Instant },
    Recovering { since: Instant, asked: u64, passed: u64 },
}

impl CircuitBreaker {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        let status = StatusCode::from_u16(settings.response_code).ok().filter(|status| status.as_u16() >= 200);
        let now = Instant::now();
        Ok(Self {
            condition: Condition::parse(&settings.expression).map_err(|error| wrong("expression", error))?,
            check_period: Duration::from_millis(settings.check_period_ms),
            fallback: Duration::from_millis(settings.fallback_duration_ms),
            recovery: Duration::from_millis(settings.recovery_duration_ms),
            status: status.ok_or_else(|| wrong("response_code", "is no HTTP status"))?,
            born: now,
            circuit: Mutex::new(Circuit { state: State::Closed, window: Window::default(), checked: now }),
        })
    }

    /// The moment at which the request went on, for [`CircuitBreaker::response`].
    pub(crate) fn request(&self, head: &RequestHead) -> Result<Instant, Answer> {
        let now = Instant::now();
        self.pass(now).map(|()| now).map_err(|wait| {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            pages::refusal(head, self.status, "").with(Known::RetryAfter, seconds.max(1).to_string())
        })
    }

    /// Counts an answer by its head; what was counted, for [`CircuitBreaker::broke`].
    pub(crate) fn response(&self, began: Instant, status: StatusCode) -> Option<Counted> {
        self.record(began, Instant::now(), status.as_u16())
    }

    /// An answer broke off after its head: it was no answer, and counts as 502.
    pub(crate) fn broke(&self, counted: Counted) {
        let mut circuit = self.lock();
        if !matches!(circuit.state, State::Open { .. }) {
            circuit.window.correct(counted.second, counted.status, StatusCode::BAD_GATEWAY.as_u16());
            self.check(&mut circuit, Instant::now());
        }
    }

    /// Whether a request may pass now; otherwise, how long it is until some may.
    fn pass(&self, now: Instant) -> Result<(), Duration> {
        let mut circuit = self.lock();
        if let State::Open { until } = circuit.state {
            if now < until {
                return Err(until - now);
            }
            circuit.state = State::Recovering { since: now, asked: 0, passed: 0 };
        }
        if let State::Recovering { since, asked, passed } = circuit.state {
            let share = now.saturating_duration_since(since).as_secs_f64() / self.recovery.as_secs_f64();
            if share.is_nan() || share >= 1.0 {
                circuit.state = State::Closed;
                return Ok(());
            }
            let passes = (passed as f64) < (asked + 1) as f64 * share;
            circuit.state = State::Recovering { since, asked: asked + 1, passed: passed + u64::from(passes) };
            if !passes {
                return Err(Duration::from_secs(1));
            }
        }
        Ok(())
    }

    fn record(&self, began: Instant, now: Instant, status: u16) -> Option<Counted> {
        let mut circuit = self.lock();
        if matches!(circuit.state, State::Open { .. }) {
            // It began before the circuit opened, and says nothing of how the service is once it closes.
            return None;
        }
        let second = self.second(now);
        let latency = u64::try_from(now.saturating_duration_since(began).as_micros()).unwrap_or(u64::MAX);
        circuit.window.record(second, status, latency);
        self.check(&mut circuit, now);
        Some(Counted { second, status })
    }

    /// Opens the circuit if it is time to look, and the condition holds.
    fn check(&self, circuit: &mut Circuit, now: Instant) {
        if now.saturating_duration_since(circuit.checked) < self.check_period {
            return;
        }
        circuit.checked = now;
        let second = self.second(now);
        if self.condition.holds(&|measure| circuit.window.measure(second, measure)) {
            circuit.state = State::Open { until: now + self.fallback };
            circuit.window = Window::default();
            tracing::warn!("a circuit breaker opens");
        }
    }

    /// The window's name for a moment.
    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_secs() + window_offset()
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A window that has seen nothing says it saw second 0; so the first second is a later one.
fn window_offset() -> u64 {
    60
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> CircuitBreaker {
        let mut settings = Settings::new("ResponseCodeRatio(500, 600, 0, 600) > 0.5");
        settings.check_period_ms = 0;
        CircuitBreaker::compile(&settings).unwrap()
    }

    #[test]
    fn it_opens_recovers_little_by_little_and_closes() {
        let breaker = breaker();
        let start = Instant::now();
        for status in [200, 200, 500] {
            breaker.pass(start).unwrap();
            breaker.record(start, start, status);
        }
        breaker.pass(start).unwrap();
        for _ in 0..2 {
            breaker.record(start, start, 500);
        }
        assert_eq!(breaker.pass(start + SECOND), Err(9 * SECOND));
        // What began before does not count any more.
        breaker.record(start, start + SECOND, 500);
        let passed = |at: Duration| (0..100).filter(|_| breaker.pass(start + at).is_ok()).count();
        assert_eq!(passed(10 * SECOND), 0);
        let (early, late) = (passed(12 * SECOND), passed(19 * SECOND));
        assert!(0 < early && early < 50 && 50 < late && late <= 100, "{early} {late}");
        assert_eq!(passed(20 * SECOND), 100);
    }

    #[test]
    fn it_opens_again_if_it_fails_while_it_recovers() {
        let breaker = breaker();
        let start = Instant::now();
        breaker.record(start, start, 500);
        let later = start + 15 * SECOND;
        assert!((0..10).any(|_| breaker.pass(later - SECOND).is_ok()) || breaker.pass(later).is_ok());
        breaker.record(later, later, 503);
        assert!(breaker.pass(later + 9 * SECOND).is_err());
    }

    #[test]
    fn what_it_cannot_do_is_refused() {
        let mut settings = Settings::new("NetworkErrorRatio() >");
        assert_eq!(CircuitBreaker::compile(&settings).unwrap_err(), "expression: expected a number at 21");
        settings = Settings { response_code: 42, ..Settings::new("NetworkErrorRatio() > 1") };
        assert!(CircuitBreaker::compile(&settings).unwrap_err().starts_with("response_code"));
    }
}
