//! Taking requests apart; whatever is wrong with one is answered as a problem.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use coracle_api::{Problem, ProblemKind};
use coracle_model::{AppName, DeploymentId};
use http::request::Parts;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::answer::ApiError;
use crate::access::Caller;
use crate::problems;

/// Bytes of a JSON body.
const LONGEST_JSON: usize = 1 << 20;

/// How long a JSON body may take to arrive.
const JSON_DEADLINE: Duration = Duration::from_secs(30);

/// The app that the path names.
pub(crate) struct App(pub AppName);

impl<S: Send + Sync> FromRequestParts<S> for App {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, state).await.map_err(bad_request)?;
        Ok(Self(name.parse().map_err(|error| problems::name(&error))?))
    }
}

/// The deployment that the path names, written `12` or `d12`.
pub(crate) struct Id(pub DeploymentId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(bad_request)?;
        Ok(Self(deployment_id(&text)?))
    }
}

/// The deployment that this names.
pub(crate) fn deployment_id(text: &str) -> Result<DeploymentId, Problem> {
    let digits = text.strip_prefix('d').unwrap_or(text);
    let number = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let shown: String = text.chars().take(80).collect();
    let wrong = || Problem::new(ProblemKind::BadRequest, format!("deployment {shown:?} is not valid: use the form d12"));
    Ok(DeploymentId(number.ok_or_else(wrong)?))
}

/// Who asks. The guard has seen to it that the route may be asked; what depends on more than the route is asked of this.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let unknown = || Problem::new(ProblemKind::Unauthorized, "it is not known who asks");
        Ok(parts.extensions.get::<Self>().cloned().ok_or_else(unknown)?)
    }
}

/// The options in the query.
pub(crate) struct Options<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Options<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(options) = Query::<T>::from_request_parts(parts, state).await.map_err(bad_request)?;
        Ok(Self(options))
    }
}

/// A JSON body.
pub(crate) struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let reading = http_body_util::Limited::new(request.into_body(), LONGEST_JSON).collect();
        let late = |_| Problem::new(ProblemKind::TimedOut, "the body did not arrive in time");
        let body = tokio::time::timeout(JSON_DEADLINE, reading).await.map_err(late)?;
        let body = body.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Problem::new(ProblemKind::TooLarge, format!("the body is larger than {LONGEST_JSON} bytes"))
            } else {
                Problem::new(ProblemKind::BadRequest, format!("the body broke off: {error}"))
            }
        })?;
        let bytes = body.to_bytes();
        let parsed = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
        Ok(Self(parsed))
    }
}

fn unreadable(error: &serde_json::Error) -> Problem {
    let detail = match error.classify() {
        serde_json::error::Category::Data => {
            format!("the body is not what is wanted here: {}", without_value(&error.to_string()))
        }
        _ => format!("the body is not JSON: line {}, column {}", error.line(), error.column()),
    };
    Problem::new(ProblemKind::BadRequest, detail).hint("GET /v1/openapi.json tells what is wanted")
}

/// What serde says, without the value it found: `invalid type: string "…", expected a boolean`. It may be a secret in the
/// wrong place.
fn without_value(message: &str) -> String {
    match (message.starts_with("invalid"), message.rfind(", expected ")) {
        (true, Some(at)) => message[at + 2..].to_owned(),
        (true, None) => "a value is not valid".to_owned(),
        (false, _) => message.to_owned(),
    }
}

fn bad_request(error: impl std::fmt::Display) -> ApiError {
    ApiError(Problem::new(ProblemKind::BadRequest, error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use coracle_api::ConfigPatch;

    #[test]
    fn what_is_wrong_with_a_body_is_told_without_its_values() {
        let told = |body: &str| unreadable(&serde_json::from_str::<ConfigPatch>(body).unwrap_err()).detail;
        let wrong = told(r#"{"changes":[{"name":"A","value":"x","secret":"hunter2, expected hunter2"}]}"#);
        assert!(!wrong.contains("hunter2") && wrong.contains("expected a boolean at line 1"), "{wrong}");
        let wrong = told(r#"{"changes":[{"name":"A","value":{"hunter2":1}}]}"#);
        assert!(!wrong.contains("hunter2"), "{wrong}");
        assert!(told(r#"{"change":[]}"#).contains("unknown field `change`"));
        assert!(told(r#"{"changes":[{"name":"a b","value":null}]}"#).contains("environment variable name"));
        assert!(told(r#"{"changes":"#).contains("not JSON"));
    }
}
