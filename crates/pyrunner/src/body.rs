//! Bodies of requests: JSON of a bounded size that arrives in time.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::problem::{Problem, ProblemKind};
use crate::settings::Settings;

/// The whole body, if it is JSON by its type and no larger than allowed.
pub(crate) async fn json(headers: &HeaderMap, body: axum::body::Body, settings: &Settings) -> Result<Bytes, Problem> {
    check_type(headers)?;
    whole(body, settings).await
}

/// The whole body.
pub(crate) async fn whole(body: axum::body::Body, settings: &Settings) -> Result<Bytes, Problem> {
    let most = settings.most_body;
    let too_large = || Problem::new(ProblemKind::TooLarge, format!("the body is larger than {most} bytes"));
    let announced = hyper::body::Body::size_hint(&body).lower();
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

/// JSON, uncompressed. No type at all counts as JSON; what browsers send from other sites' forms does not.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: String| {
        Problem::new(ProblemKind::UnsupportedMediaType, detail).hint("send JSON with `Content-Type: application/json`")
    };
    if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(refused(format!("the body is encoded as {encoding:?}, which is not read here")));
    }
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
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
