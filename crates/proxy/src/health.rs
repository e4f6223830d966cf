//! Active health checks: each target of a service that wants them is asked regularly, whoever asks it for anything else.
//!
//! A target begins healthy: whoever put it into the table has seen that it answers. Two failed checks in a row take it out,
//! two that succeed bring it back. One alone may be chance, so after a check that contradicts what is known the next one
//! follows soon, and not only after the interval. As long as a service is held or closed, its targets are not asked: they
//! may just be starting, and begin healthy when it opens.
//!
//! A check is one GET over a connection of its own. Services that speak HTTP/2 only are asked for a connection, no more.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coracle_proxy_http::{BodyLength, RequestHead, ResponseHead};
use coracle_proxy_table::{Admission, HealthCheck, Protocol, Service};
use http::Method;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::balance::chance;
use crate::dial::dial;
use crate::options::Limits;
use crate::side::{Sink, Upstream};
use crate::target::Target;
use crate::upstream::H1Upstream;
use crate::wire::head_limits;

/// So many checks in a row have to say the same.
const IN_A_ROW: u32 = 2;
/// At most so long after a check that contradicts what is known.
const SOON: Duration = Duration::from_secs(1);
/// Whatever the interval is.
const SHORTEST: Duration = Duration::from_millis(10);

/// How a service's targets are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    plan: HealthCheck,
    protocol: Protocol,
}

impl Check {
    /// What a service wants at this moment.
    pub(crate) fn of(service: &Service) -> Option<Self> {
        let plan = service.health.as_ref().filter(|_| service.admission == Admission::Open)?;
        Some(Self { plan: plan.clone(), protocol: service.protocol })
    }
}

/// All checks that go on, by the addresses of their targets in memory.
#[derive(Default)]
pub(crate) struct Checks(Mutex<HashMap<usize, Running>>);

/// The checks of one target; they end when this is dropped.
struct Running {
    target: Arc<Target>,
    check: Check,
    #[cfg_attr(not(test), expect(dead_code, reason = "it is there to be dropped"))]
    task: AbortOnDropHandle<()>,
}

impl Checks {
    /// From now on exactly these targets are asked. Whoever is asked in the same way already is not disturbed; of two ways
    /// for the same target the first one counts.
    pub(crate) fn settle<'t>(&self, wanted: impl Iterator<Item = (&'t Arc<Target>, Check)>, limits: &Limits) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *running);
        for (target, check) in wanted {
            let key = Arc::as_ptr(target) as usize;
            if running.contains_key(&key) {
                continue;
            }
            let now = match before.remove(&key) {
                Some(before) if before.check == check => before,
                _ => Running::start(target, check, *limits),
            };
            running.insert(key, now);
        }
        for ended in before.into_values() {
            // Nobody would ever find out that it is well again.
            ended.target.standing.came_up(Instant::now());
        }
    }

    /// Ends all of them.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Running {
    fn start(target: &Arc<Target>, check: Check, limits: Limits) -> Self {
        let task = tokio::spawn(watch(Arc::clone(target), check.clone(), limits));
        Self { target: Arc::clone(target), check, task: AbortOnDropHandle::new(task) }
    }
}

async fn watch(target: Arc<Target>, check: Check, limits: Limits) {
    let interval = Duration::from_millis(check.plan.interval_ms).max(SHORTEST);
    let (mut is_up, mut contradictions) = (!target.is_down(), 0);
    // Those of a large table do not begin all at once.
    let spread = chance::below(interval.min(SOON).as_micros());
    sleep(Duration::from_micros(u64::try_from(spread).unwrap_or_default())).await;
    loop {
        let result = ask(target.address, &check, &limits).await;
        if result.is_err() {
            target.standing.check_failed();
        }
        contradictions = if result.is_ok() == is_up { 0 } else { contradictions + 1 };
        if contradictions == IN_A_ROW {
            (is_up, contradictions) = (!is_up, 0);
            turn(&target, result);
        }
        sleep(if contradictions > 0 { interval.min(SOON) } else { interval }).await;
    }
}

/// Tells everybody that a target is up or down now.
fn turn(target: &Target, result: Result<(), Unhealthy>) {
    match result {
        Ok(()) => {
            target.standing.came_up(Instant::now());
            tracing::info!(target = target.id.0, address = %target.address, "a target is healthy again");
        }
        Err(error) => {
            target.standing.went_down();
            // What comes back may be another process.
            target.clear_pools();
            tracing::warn!(target = target.id.0, address = %target.address, %error, "a target is unhealthy");
        }
    }
}

/// Why a target is not well.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("no answer in time")]
    Late,
    #[error("no connection: {0}")]
    Unreachable(#[from] std::io::Error),
    #[error("no proper answer")]
    Improper,
    #[error("it answers {0}")]
    Status(u16),
    #[error("the check's path or host is none")]
    BadCheck,
}

/// Asks once.
async fn ask(address: SocketAddr, check: &Check, limits: &Limits) -> Result<(), Unhealthy> {
    let asked = async {
        let stream = dial(address).await?;
        match check.protocol {
            Protocol::Http1 => get(stream, address, &check.plan, limits).await,
            Protocol::H2c => Ok(()),
        }
    };
    timeout(Duration::from_millis(check.plan.timeout_ms), asked).await.unwrap_or(Err(Unhealthy::Late))
}

async fn get(stream: TcpStream, address: SocketAddr, plan: &HealthCheck, limits: &Limits) -> Result<(), Unhealthy> {
    let host = plan.host.clone().unwrap_or_else(|| address.to_string());
    let mut request = RequestHead::new(Method::GET, &plan.path, &host).map_err(|_bad| Unhealthy::BadCheck)?;
    for (name, value) in [("User-Agent", "coracle-proxy health check"), ("Accept", "*/*"), ("Connection", "close")] {
        request.fields.append(name, value).map_err(|_bad| Unhealthy::BadCheck)?;
    }
    let mut response = ResponseHead::default();
    let mut up = H1Upstream::new(stream, head_limits(limits));
    up.send(&request, BodyLength::None);
    std::future::poll_fn(|cx| up.poll_flush(cx)).await.map_err(|_broken| Unhealthy::Improper)?;
    loop {
        let answered = std::future::poll_fn(|cx| up.poll_answer(cx, &request, &mut response)).await;
        answered.map_err(|_none| Unhealthy::Improper)?;
        let status = response.status;
        let is_good = match plan.status {
            Some(good) => status.as_u16() == good,
            None => status.is_success() || status.is_redirection(),
        };
        match status.is_informational() && status != http::StatusCode::SWITCHING_PROTOCOLS {
            true => (),
            false if is_good => return Ok(()),
            false => return Err(Unhealthy::Status(status.as_u16())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Registry;

    fn check(interval_ms: u64) -> Check {
        let plan = HealthCheck { path: "/".into(), interval_ms, timeout_ms: 1000, status: None, host: None };
        Check { plan, protocol: Protocol::Http1 }
    }

    fn task(checks: &Checks) -> tokio::task::Id {
        let running = checks.0.lock().unwrap();
        assert_eq!(running.len(), 1);
        running.values().next().unwrap().task.as_ref().id()
    }

    #[tokio::test]
    async fn checks_go_on_across_tables_and_end_with_the_last_that_has_the_target() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = coracle_proxy_table::Target::new("t", socket.local_addr().unwrap());
        let target = Registry::new(1).obtain(&plan, Protocol::Http1);
        let (checks, limits) = (Checks::default(), Limits::default());
        let settle = |wanted: &[Check]| checks.settle(wanted.iter().map(|check| (&target, check.clone())), &limits);
        settle(&[check(10)]);
        let first = task(&checks);
        // Of two ways to ask the same target the first one counts.
        settle(&[check(10), check(30)]);
        assert_eq!(task(&checks), first);
        target.standing.went_down();
        settle(&[check(20)]);
        assert_ne!(task(&checks), first);
        assert!(target.is_down(), "another way of asking is no news");
        settle(&[]);
        assert!(!target.is_down());
        let ended = async {
            while Arc::strong_count(&target) > 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), ended).await.unwrap();
    }
}
