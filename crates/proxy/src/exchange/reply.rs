//! Answers that do not come from a target: refusals, and what middlewares answer.

use std::fs::File;
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use coracle_proxy_http::{BodyLength, Known};
use coracle_proxy_middleware::{Answer, AnswerBody, Encoder};
use http::{Method, StatusCode};

use super::{Exchange, Outcome};
use crate::date;
use crate::refusal::Refusal;
use crate::side::{Broken, Downstream, Next};

/// How much of the body of a refused request is read, so that the client gets to read the refusal.
const DISCARDED: usize = 1024 * 1024;
/// For how long it is read.
const DISCARDING: Duration = Duration::from_secs(1);
/// How much of a file is read at once, in bytes.
const PIECE: u64 = 128 * 1024;

impl<D: Downstream> Exchange<'_, D> {
    /// Answers by itself; the route's middlewares see the answer as they would see a target's.
    pub(super) async fn refuse(&mut self, refusal: &Refusal) -> Outcome {
        // Where the next request would begin is not known; and a client that reckons with a tunnel may have sent already what is
        // meant for its other end.
        self.ends = matches!(refusal, Refusal::BadBody | Refusal::Connect);
        let mut answer = refusal.answer(&self.pair.request);
        let after = if self.asks_about(answer.head.status) {
            match Box::pin(self.back_asking(&mut answer.head)).await {
                Ok(after) => after,
                Err(_gone) => return Outcome::Broken,
            }
        } else {
            Self::pass_back(self.passed.as_deref_mut(), &mut answer.head)
        };
        match after {
            after if after.replace.is_some() => answer = after.replace.unwrap_or(answer),
            after => answer.encoder = after.encoder,
        }
        self.reply(answer).await
    }

    /// Sends an answer that has passed all the middlewares that it had to.
    pub(super) async fn reply(&mut self, answer: Answer) -> Outcome {
        // Apart, so that connections do not carry its size while they wait for something else.
        Box::pin(self.send_answer(answer)).await
    }

    async fn send_answer(&mut self, answer: Answer) -> Outcome {
        // A client that waits to be told to send the body is not told; what it does then is not known.
        let through = !self.ends && (self.down.is_through() || !self.expects && self.discard().await);
        let keeps = through && !self.caller.seat.plane.is_closing();
        let Answer { mut head, body, encoder, .. } = answer;
        if !head.fields.contains_known(Known::Date) {
            date::put(&mut head.fields);
        }
        let status = head.status;
        self.account.status = status.as_u16();
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        let has_body = !bodiless && self.pair.request.method != Method::HEAD;
        let framing = match &encoder {
            _ if !has_body => BodyLength::None,
            Some(_) => BodyLength::Chunked,
            None => BodyLength::Fixed(body.len()),
        };
        self.down.begin(&self.pair.request, &mut head, framing, keeps);
        self.pair.response = head;
        let sent = if has_body { self.send_body(body, encoder).await } else { Ok(()) };
        let sent = match sent {
            Ok(()) => self.finish().await,
            Err(broken) => Err(broken),
        };
        if sent.is_err() {
            self.account.truncated = true;
            return Outcome::Broken;
        }
        Outcome::Answered
    }

    async fn send_body(&mut self, body: AnswerBody, encoder: Option<Encoder>) -> Result<(), Broken> {
        let mut encoder = encoder;
        let mut encoded = Vec::new();
        match body {
            AnswerBody::Bytes(bytes) => self.put_piece(&bytes, encoder.as_mut(), &mut encoded).await?,
            AnswerBody::File { file, mut offset, len } => {
                let (file, end) = (Arc::new(file), offset + len);
                while offset < end {
                    let piece = read_piece(&file, offset, (end - offset).min(PIECE)).await?;
                    offset += piece.len() as u64;
                    self.put_piece(&piece, encoder.as_mut(), &mut encoded).await?;
                }
            }
        }
        if let Some(encoder) = encoder {
            encoded.clear();
            encoder.finish(&mut encoded).map_err(|_no_memory| Broken::Gone)?;
            self.put(&encoded).await?;
        }
        Ok(())
    }

    async fn put_piece(&mut self, piece: &[u8], encoder: Option<&mut Encoder>, encoded: &mut Vec<u8>) -> Result<(), Broken> {
        let Some(encoder) = encoder else { return self.put(piece).await };
        encoded.clear();
        encoder.encode(piece, encoded).map_err(|_no_memory| Broken::Gone)?;
        self.put(encoded).await
    }

    /// Puts all of it, as the client takes it.
    async fn put(&mut self, mut rest: &[u8]) -> Result<(), Broken> {
        let deadline = self.caller.deadline;
        let stall = self.caller.seat.plane.limits.stall;
        deadline.set(stall);
        poll_fn(|cx| {
            while !rest.is_empty() {
                match self.down.poll_put(cx, rest) {
                    Poll::Ready(Ok(count)) => {
                        rest = &rest[count..];
                        self.account.sent += count as u64;
                        deadline.set(stall);
                    }
                    Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                    Poll::Pending if deadline.has_passed() => return Poll::Ready(Err(Broken::Gone)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    async fn finish(&mut self) -> Result<(), Broken> {
        self.down.end(None)?;
        let deadline = self.caller.deadline;
        deadline.set(self.caller.seat.plane.limits.stall);
        poll_fn(|cx| match self.down.poll_flush(cx) {
            Poll::Pending if deadline.has_passed() => Poll::Ready(Err(Broken::Gone)),
            flushed => flushed,
        })
        .await
    }

    /// Reads what the client still sends, so that it gets to read the refusal: closing a connection with unread bytes resets
    /// it. Whether the end was reached within reason.
    async fn discard(&mut self) -> bool {
        let deadline = self.caller.deadline;
        deadline.set(DISCARDING);
        let mut left = DISCARDED;
        poll_fn(|cx| {
            loop {
                match self.down.poll_next(cx) {
                    Poll::Ready(Ok(Next::End)) => return Poll::Ready(true),
                    Poll::Ready(Ok(Next::Content)) if left > 0 => {
                        let count = self.down.content().len();
                        self.down.consume(count);
                        left = left.saturating_sub(count);
                    }
                    Poll::Pending if !deadline.has_passed() => return Poll::Pending,
                    _ => return Poll::Ready(false),
                }
            }
        })
        .await
    }
}

/// Files may be on slow disks: they are read on threads that may wait.
async fn read_piece(file: &Arc<File>, offset: u64, length: u64) -> Result<Bytes, Broken> {
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let count = file.read_at(&mut piece, offset)?;
        piece.truncate(count);
        std::io::Result::Ok(piece)
    });
    match read.await {
        Ok(Ok(piece)) if !piece.is_empty() => Ok(piece.into()),
        Ok(Ok(_)) => Err(Broken::Gone),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a file cannot be read to its end");
            Err(Broken::Gone)
        }
        Err(_) => Err(Broken::Gone),
    }
}
