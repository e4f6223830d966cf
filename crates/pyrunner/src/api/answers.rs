//! How handlers answer.

use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

/// JSON with a status.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    Plain::json(status, value).into_response()
}

/// An answer that can be kept and given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plain {
    status: StatusCode,
    location: Option<String>,
    body: Bytes,
}

impl Plain {
    pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("answers are plain data"));
        Self { status, location: None, body: body.into() }
    }

    /// Adds where what was made can be found.
    pub(crate) fn at(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    /// As it is kept: status, length of the location, location, body.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let location = self.location.as_deref().unwrap_or_default();
        let mut bytes = BytesMut::with_capacity(self.body.len() + location.len() + 4);
        bytes.put_u16(self.status.as_u16());
        bytes.put_u16(u16::try_from(location.len()).unwrap_or(0));
        bytes.put_slice(location.as_bytes());
        bytes.put_slice(&self.body);
        bytes.freeze()
    }

    /// What was kept; `None` if it makes no sense.
    pub(crate) fn from_bytes(mut bytes: Bytes) -> Option<Self> {
        let head = bytes.first_chunk::<4>()?;
        let status = StatusCode::from_u16(u16::from_be_bytes([head[0], head[1]])).ok()?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if bytes.len() < 4 + length {
            return None;
        }
        let location = String::from_utf8(bytes.split_to(4 + length).split_off(4).to_vec()).ok()?;
        Some(Self { status, location: (!location.is_empty()).then_some(location), body: bytes })
    }
}

impl IntoResponse for Plain {
    fn into_response(self) -> Response {
        let mut response = self.body.into_response();
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(location) = self.location.and_then(|location| HeaderValue::try_from(location).ok()) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_is_given_again() {
        for answer in [Plain::json(StatusCode::OK, &[1]), Plain::json(StatusCode::ACCEPTED, &"x").at("/jobs/1".to_owned())] {
            assert_eq!(Plain::from_bytes(answer.to_bytes()), Some(answer));
        }
        assert_eq!(Plain::from_bytes(Bytes::from_static(b"\x00\xc8\xff\xff")), None);
    }
}
