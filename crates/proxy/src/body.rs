//! Bodies as they stream through: nothing is kept, everything is counted, and the end is noticed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::{Body as _, Incoming};

use crate::access_log::Record;
use crate::connection::Link;
use crate::pool::{Pool, Sender};
use crate::target::InFlight;

/// What the client gets.
pub(crate) struct Body {
    source: Source,
    record: Option<Box<Record>>,
    link: Option<Arc<Link>>,
}

enum Source {
    Nothing,
    Text(Bytes),
    Target(Streamed),
}

/// The rest of an answer that a target is giving. Holds the request in flight until its last byte.
struct Streamed {
    incoming: Incoming,
    in_flight: InFlight,
    sender: Option<Sender>,
}

impl Body {
    /// No body.
    pub(crate) fn nothing() -> Self {
        Self { source: Source::Nothing, record: None, link: None }
    }

    /// A text of our own.
    pub(crate) fn text(text: String) -> Self {
        Self { source: Source::Text(text.into()), record: None, link: None }
    }

    /// What the target sends; afterwards its connection is kept for another request.
    pub(crate) fn streamed(incoming: Incoming, in_flight: InFlight, sender: Sender) -> Self {
        let mut streamed = Streamed { incoming, in_flight, sender: Some(sender) };
        let source = if streamed.incoming.is_end_stream() {
            streamed.keep_connection();
            Source::Nothing
        } else {
            Source::Target(streamed)
        };
        Self { source, record: None, link: None }
    }

    /// Whose connection it goes to, and what to write when it is through.
    pub(crate) fn attach(&mut self, link: Arc<Link>, record: Option<Box<Record>>) {
        self.link = Some(link);
        self.record = record;
    }

    fn count(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.bytes += bytes as u64;
        }
    }
}

impl Streamed {
    fn keep_connection(&mut self) {
        if let Some(sender) = self.sender.take() {
            Pool::keep(self.in_flight.target(), sender);
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Source::Nothing => return Poll::Ready(None),
            Source::Text(text) => Some(Ok(Frame::data(std::mem::take(text)))),
            Source::Target(streamed) => {
                let frame = ready!(Pin::new(&mut streamed.incoming).poll_frame(cx));
                if frame.is_none() || streamed.incoming.is_end_stream() {
                    streamed.keep_connection();
                    this.source = Source::Nothing;
                }
                if let Some(Err(_)) = &frame {
                    this.source = Source::Nothing;
                    if let Some(record) = &mut this.record {
                        record.truncated = true;
                    }
                }
                frame
            }
        };
        if matches!(this.source, Source::Text(_)) {
            this.source = Source::Nothing;
        }
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            this.count(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Text(text) => text.is_empty(),
            Source::Target(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Text(text) => SizeHint::with_exact(text.len() as u64),
            Source::Target(streamed) => streamed.incoming.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            link.rest();
        }
        if let Some(record) = &mut self.record {
            record.truncated |= matches!(self.source, Source::Target(_));
        }
    }
}

/// What a target gets.
pub(crate) struct RequestBody(Option<(Incoming, Arc<Link>)>);

impl RequestBody {
    /// No body.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    /// What the client sends; every piece of it gives the answer time anew.
    pub(crate) fn streamed(incoming: Incoming, link: Arc<Link>) -> Self {
        Self(Some((incoming, link)))
    }
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some((incoming, link)) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        link.progress();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|(incoming, _)| incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or(SizeHint::with_exact(0), |(incoming, _)| incoming.size_hint())
    }
}
