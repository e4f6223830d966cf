//! The part of a request's body that nobody wanted.
//!
//! An answer that comes before the request has been sent in full, followed by the end of the connection, reaches its
//! sender as a broken pipe. So what a refused request still sends is read and thrown away, within bounds, before the
//! refusal is sent.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::header::EXPECT;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

/// How much of a refused request is still read.
const MOST_BYTES: usize = 64 << 20;

/// For how long.
const DEADLINE: Duration = Duration::from_secs(10);

/// Reads what the handler left over.
pub(crate) async fn read(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Whoever asks first has not sent anything yet, and is not asked to.
    let asks_first = request.headers().contains_key(EXPECT);
    let (giver, mut given_back) = oneshot::channel();
    let request = request.map(|body| Body::new(Lent { body, begun: !asks_first, giver: Some(giver) }));
    let response = next.run(request).await;
    if let Ok(rest) = given_back.try_recv()
        && tokio::time::timeout(DEADLINE, discard(rest)).await.is_err()
    {
        tracing::debug!("the sender of a refused request goes on and on");
    }
    response
}

async fn discard(body: Body) {
    let mut pieces = body.into_data_stream();
    let mut read = 0;
    while let Some(Ok(piece)) = pieces.next().await {
        read += piece.len();
        if read > MOST_BYTES {
            return;
        }
    }
}

/// A body that goes back to where it came from when it is dropped before its end.
struct Lent {
    body: Body,
    begun: bool,
    giver: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.begun = true;
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.giver = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.begun
            && !self.body.is_end_stream()
            && let Some(giver) = self.giver.take()
        {
            // If nobody waits for it any more, the connection is gone, and the rest with it.
            let _taken: Result<(), Body> = giver.send(std::mem::take(&mut self.body));
        }
    }
}
