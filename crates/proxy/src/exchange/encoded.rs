//! A body that is compressed on its way.

use std::task::{Context, Poll, ready};

use coracle_proxy_http::Fields;
use coracle_proxy_middleware::Encoder;

use crate::side::{Broken, Sink};

/// The encoder, and what has come out of it and has not been taken yet: no more than what one piece of content becomes.
pub(super) struct Encoding {
    /// Nothing once the body has ended.
    encoder: Option<Encoder>,
    out: Vec<u8>,
    start: usize,
    /// Something has gone in since the encoder was flushed.
    holds: bool,
    ending: Ending,
    /// How many bytes have been taken.
    pub(super) sent: u64,
}

/// How far the end of the body is.
enum Ending {
    NotYet,
    /// What has come out has to go first, and then the end with these trailers.
    Announced(Option<Box<Fields>>),
    Told,
}

impl Encoding {
    /// Of a body that begins.
    pub(super) fn new(encoder: Encoder) -> Self {
        Self { encoder: Some(encoder), out: Vec::new(), start: 0, holds: false, ending: Ending::NotYet, sent: 0 }
    }

    /// In front of where it goes.
    pub(super) fn before<'s, S>(&'s mut self, sink: &'s mut S) -> EncodedSink<'s, S> {
        EncodedSink { encoding: self, sink }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, sink: &mut impl Sink) -> Poll<Result<(), Broken>> {
        while self.start < self.out.len() {
            let count = ready!(sink.poll_put(cx, &self.out[self.start..]))?;
            self.start += count;
            self.sent += count as u64;
        }
        self.out.clear();
        self.start = 0;
        Poll::Ready(Ok(()))
    }
}

/// Takes a body and passes it on encoded. A body that pauses is passed on as far as it has come.
pub(super) struct EncodedSink<'s, S> {
    encoding: &'s mut Encoding,
    sink: &'s mut S,
}

impl<S: Sink> Sink for EncodedSink<'_, S> {
    fn poll_put(&mut self, cx: &mut Context<'_>, content: &[u8]) -> Poll<Result<usize, Broken>> {
        ready!(self.encoding.poll_drain(cx, self.sink))?;
        let encoding = &mut *self.encoding;
        let Some(encoder) = &mut encoding.encoder else { return Poll::Ready(Err(Broken::Malformed)) };
        encoder.encode(content, &mut encoding.out).map_err(|_no_memory| Broken::Gone)?;
        encoding.holds = true;
        Poll::Ready(Ok(content.len()))
    }

    fn end(&mut self, trailers: Option<&Fields>) -> Result<(), Broken> {
        let encoding = &mut *self.encoding;
        let Some(encoder) = encoding.encoder.take() else { return Ok(()) };
        encoder.finish(&mut encoding.out).map_err(|_no_memory| Broken::Gone)?;
        encoding.holds = false;
        encoding.ending = Ending::Announced(trailers.cloned().map(Box::new));
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let encoding = &mut *self.encoding;
        ready!(encoding.poll_drain(cx, self.sink))?;
        if std::mem::take(&mut encoding.holds)
            && let Some(encoder) = &mut encoding.encoder
        {
            encoder.flush(&mut encoding.out).map_err(|_no_memory| Broken::Gone)?;
            ready!(encoding.poll_drain(cx, self.sink))?;
        }
        if let Ending::Announced(trailers) = &encoding.ending {
            self.sink.end(trailers.as_deref())?;
            encoding.ending = Ending::Told;
        }
        self.sink.poll_flush(cx)
    }
}
