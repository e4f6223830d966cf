//! Sending a request to one target, and waiting for the head of its answer.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_proxy_http::{ResponseHead, strip_response};
use http::StatusCode;
use tokio::time::Instant;

use super::{Exchange, Upload, Uploading};
use crate::side::{Answered, Broken, Downstream, End, Flow, Limited, NoAnswer, Upstream};
use crate::target::Target;

/// How long a target may take to tell a client to send the body; then the client is told by this proxy. Many servers read
/// on without a word.
const CONTINUE: Duration = Duration::from_millis(300);

/// So many interim answers (1xx) may come before the answer. Whoever sends them without end would fill the memory of a client
/// that does not read, here.
const MOST_INTERIM: usize = 100;

/// Why there was no answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Not a byte of it left.
    Unsent,
    /// It may have arrived; no byte of an answer has come.
    Lost,
    /// What has come is no answer.
    Garbage,
    /// The answer did not come in time.
    Late,
    /// The rest of the request did not come in time.
    SlowClient,
    /// The request's body is none.
    BadBody,
    /// The request's body is longer than it may be.
    TooLarge,
    /// The client has left.
    Gone,
    /// The target was cut off.
    CutOff,
}

impl Failure {
    /// Whether the target has to answer for it. That a connection which was `reused` has ended is nobody's fault.
    pub(super) fn is_the_targets(self, reused: bool) -> bool {
        match self {
            Self::Unsent | Self::Lost => !reused,
            Self::Garbage | Self::Late => true,
            Self::SlowClient | Self::BadBody | Self::TooLarge | Self::Gone | Self::CutOff => false,
        }
    }
}

impl<D: Downstream> Exchange<'_, D> {
    /// Sends the request, as much of it as there is, and waits for the head of an answer.
    pub(super) async fn attempt(&mut self, up: &mut impl Upstream, target: &Target) -> Result<Answered, Failure> {
        up.send(&self.pair.request, self.body);
        let deadline = self.caller.deadline;
        if self.expects {
            deadline.set(CONTINUE.min(self.timeout));
        } else if self.account.is_first_attempt() {
            deadline.set_from(self.account.began, self.timeout);
        } else {
            deadline.set(self.timeout);
        }
        let result = poll_fn(|cx| self.poll_attempt(cx, up, target)).await;
        self.account.received = self.upload.relay.bytes;
        result
    }

    fn poll_attempt(&mut self, cx: &mut Context<'_>, up: &mut impl Upstream, target: &Target) -> Poll<Result<Answered, Failure>> {
        if target.is_cut() {
            return Poll::Ready(Err(Failure::CutOff));
        }
        let waits = self.upload_some(cx, up)?;
        if let Some(turn) = &mut self.turn {
            turn.sent();
        }
        loop {
            match up.poll_answer(cx, &self.pair.request, &mut self.pair.response) {
                Poll::Ready(Ok(answered)) if is_final(self.pair.response.status) => return Poll::Ready(Ok(answered)),
                Poll::Ready(Ok(_)) => self.pass_interim(cx)?,
                Poll::Ready(Err(NoAnswer::Silence)) if up.has_sent() => return Poll::Ready(Err(Failure::Lost)),
                Poll::Ready(Err(NoAnswer::Silence)) => return Poll::Ready(Err(Failure::Unsent)),
                Poll::Ready(Err(NoAnswer::Garbage)) => return Poll::Ready(Err(Failure::Garbage)),
                Poll::Pending => break,
            }
        }
        if self.caller.deadline.has_passed() {
            self.time_is_up(cx, waits)?;
        }
        if self.upload.state != Uploading::Going && self.down.is_through() && self.down.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        Poll::Pending
    }

    /// Passes on what there is of the body. What it waits for, if it is not through.
    fn upload_some(&mut self, cx: &mut Context<'_>, up: &mut impl Upstream) -> Result<Option<End>, Failure> {
        if self.upload.state != Uploading::Going {
            return Ok(None);
        }
        let before = self.upload.relay.bytes;
        let flow = self.poll_upload(cx, up);
        let has_moved = self.upload.relay.bytes > before;
        // Every piece of a long body gives the answer time anew; and a body that comes needs not be asked for.
        let left = self.left_for(flow);
        if has_moved && (std::mem::take(&mut self.expects) || before > 0) {
            self.caller.deadline.set(left);
        }
        match flow {
            Flow::Through => self.upload.state = Uploading::Through,
            Flow::Waits(end) => return Ok(Some(end)),
            Flow::Stops(End::Source, Broken::Gone) => return Err(Failure::Gone),
            Flow::Stops(End::Source, Broken::Malformed) => return Err(Failure::BadBody),
            Flow::Stops(End::Source, Broken::TooLarge) => return Err(Failure::TooLarge),
            // It may have answered without having read everything.
            Flow::Stops(End::Sink, _) => self.upload.state = Uploading::Stopped,
        }
        Ok(None)
    }

    /// How long the next step of the upload may take.
    pub(super) fn left_for(&mut self, flow: Flow) -> Duration {
        let Upload { relay, pace, .. } = &mut self.upload;
        if flow != Flow::Waits(End::Source) {
            pace.rests();
            return self.timeout;
        }
        let limits = &self.caller.seat.plane.limits;
        pace.waits(Instant::now(), relay.bytes, limits.body_rate, limits.body_grace).min(self.timeout)
    }

    /// Passes on the body as far as it goes, and as far as it may.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>, up: &mut impl Upstream) -> Flow {
        let left = self.body_limit.saturating_sub(self.upload.relay.bytes);
        self.upload.relay.poll(cx, &mut Limited { source: self.down, left }, up)
    }

    fn pass_interim(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        self.interim += 1;
        if self.interim > MOST_INTERIM {
            return Err(Failure::Garbage);
        }
        let head = &mut self.pair.response;
        strip_response(&mut head.fields, false);
        if head.status == StatusCode::CONTINUE {
            if !std::mem::take(&mut self.expects) {
                // Nobody waits for it any more.
                return Ok(());
            }
            self.caller.deadline.set(self.timeout);
        }
        self.down.interim(head);
        self.flush_interim(cx)
    }

    fn flush_interim(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        // What is not taken at once goes out with what follows.
        match self.down.poll_flush(cx) {
            Poll::Ready(Err(_)) => Err(Failure::Gone),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// The deadline has passed while the upload waited for that end, or for none.
    fn time_is_up(&mut self, cx: &mut Context<'_>, waits: Option<End>) -> Result<(), Failure> {
        if std::mem::take(&mut self.expects) {
            self.down.interim(&ResponseHead::new(StatusCode::CONTINUE));
            self.flush_interim(cx)?;
            self.caller.deadline.set(self.timeout);
            return Ok(());
        }
        Err(if waits == Some(End::Source) { Failure::SlowClient } else { Failure::Late })
    }
}

/// Whether this is the answer, or a change of protocols, rather than a word on the way.
fn is_final(status: StatusCode) -> bool {
    !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS
}
