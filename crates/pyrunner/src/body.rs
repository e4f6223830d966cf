//! Bodies of requests: JSON of a bounded size that arrives in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use crate::problem::{Problem, ProblemKind};
use crate::settings::Settings;

/// How long, and how much of, a body is read that nobody wants.
const FORGETTING: Duration = Duration::from_secs(2);
const MOST_FORGOTTEN: usize = 64 << 20;

/// The whole body, if it is JSON by its type and no larger than allowed.
pub(crate) async fn json(headers: &HeaderMap, body: Body, settings: &Settings) -> Result<Bytes, Problem> {
    check_type(headers)?;
    whole(body, settings).await
}

/// The whole body.
pub(crate) async fn whole(body: Body, settings: &Settings) -> Result<Bytes, Problem> {
    let most = settings.most_body;
    let too_large = || Problem::new(ProblemKind::TooLarge, format!("the body is larger than {most} bytes"));
    let announced = body.size_hint().lower();
    if announced > most as u64 {
        return Err(too_large());
    }
    let reading = Limited::new(body, most).collect();
    let late = |_| {
        let seconds = settings.body_deadline.as_secs();
        Problem::new(ProblemKind::TimedOut, format!("the body did not arrive within {seconds} s"))
    };
    match tokio::time::timeout(settings.body_deadline, reading).await.map_err(late)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Problem::new(ProblemKind::BadRequest, format!("the body broke off: {error}"))),
    }
}

/// The body of a request as it arrives. When nobody wants the rest of it, that is read and forgotten for a while: whoever is still
/// sending when the connection is closed may lose the answer (RFC 9112 section 9.6).
pub(crate) struct Arriving {
    /// `None`: it is being forgotten.
    incoming: Option<Incoming>,
    /// Its client waits for leave to send it, and has sent nothing.
    asks_first: bool,
}

impl Arriving {
    pub(crate) fn new(headers: &HeaderMap, incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), asks_first: headers.contains_key(EXPECT) }
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Whoever is asked for it sends it.
        self.asks_first = false;
        self.incoming.as_mut().map_or(Poll::Ready(None), |incoming| Pin::new(incoming).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(hyper::body::Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let Some(mut rest) = self.incoming.take() else { return };
        if self.asks_first || rest.is_end_stream() {
            return;
        }
        // It ends by itself after a moment, and with its connection.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(FORGETTING, async move {
                let mut forgotten = 0;
                while let Some(Ok(frame)) = rest.frame().await
                    && forgotten < MOST_FORGOTTEN
                {
                    forgotten += frame.data_ref().map_or(0, Bytes::len);
                }
            }));
        }
    }
}

/// JSON, uncompressed, and said to be. What a browser sends for another site's page without asking first is of another type, or
/// of none (Fetch Standard, section 2.2.2).
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: String| {
        Problem::new(ProblemKind::UnsupportedMediaType, detail).hint("send JSON with `Content-Type: application/json`")
    };
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(refused(format!("the body is encoded as {encoding:?}, which is not read here")));
    }
    let Some(given) = headers.get(CONTENT_TYPE) else { return Err(refused("the body's type is not told".to_owned())) };
    let given = given.to_str().unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    let json = essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5
            && essence.is_char_boundary(essence.len() - 5)
            && essence[essence.len() - 5..].eq_ignore_ascii_case("+json"));
    if json {
        Ok(())
    } else {
        Err(refused(format!("the body's type is {:?}, not application/json", crate::program::cut(given, 100))))
    }
}
