//! Who it is that uses the API over TCP: whoever knows the server's token administers it, and a person is known by a token of
//! that person's. (Over the Unix socket: whoever can open it administers the server.) What they may do is [`crate::access`]'s.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use coracle_api::{Problem, ProblemKind};
use coracle_model::Secret;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use subtle::ConstantTimeEq;

use crate::access::Caller;
use crate::api::{ApiError, git};
use crate::people::People;
use crate::problems;

/// Digest of the token: what a request shows is hashed and compared in constant time, so neither the time it takes nor
/// its length tells anything.
#[derive(Clone)]
pub(crate) struct TokenGuard {
    digest: [u8; 32],
    people: People,
}

impl TokenGuard {
    pub(crate) fn new(token: &Secret, people: People) -> Self {
        Self { digest: blake3::hash(token.expose().as_bytes()).into(), people }
    }

    async fn caller(&self, shown: &[u8]) -> Result<Option<Caller>, Problem> {
        if self.admits(shown) {
            return Ok(Some(Caller::Administrator));
        }
        let person = self.people.by_token(shown).await.map_err(|error| problems::store(&error))?;
        Ok(person.map(Caller::Person))
    }

    fn admits(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = blake3::hash(shown).into();
        self.digest.ct_eq(&shown).into()
    }
}

/// Reads the token from `path`, or makes one (256 bits, 0600).
pub(crate) fn read_or_create(path: &Path) -> std::io::Result<Secret> {
    match std::fs::File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(4096).read_to_string(&mut text)?;
            let token = text.trim();
            if token.len() < 32 {
                let why = "it is shorter than 32 characters; remove the file to have a new one made";
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
            }
            Ok(Secret::new(token))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(path),
        Err(error) => Err(error),
    }
}

fn create(path: &Path) -> std::io::Result<Secret> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let dir = path.parent().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
    writeln!(file, "{token}")?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(Secret::new(token))
}

/// What a request shows: a bearer token (RFC 6750 section 2.1); for git, which knows no such, also a password, or a user name
/// without one (RFC 7617).
fn shown(request: &Request) -> Option<Vec<u8>> {
    let value = request.headers().get(AUTHORIZATION)?.as_bytes();
    let credentials = |scheme: &[u8]| {
        let (shown, rest) = value.split_at_checked(scheme.len())?;
        shown.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    if let Some(token) = credentials(b"Bearer ") {
        return Some(token.to_owned());
    }
    let pair = credentials(b"Basic ").filter(|_| git::is_git(request.uri()))?;
    let pair = base64::engine::general_purpose::STANDARD.decode(pair).ok()?;
    let at = pair.iter().position(|byte| *byte == b':')?;
    let (user, password) = (&pair[..at], &pair[at + 1..]);
    Some(if password.is_empty() { user } else { password }.to_owned())
}

/// Lets a request through if it shows a token, and says whose.
pub(crate) async fn require(State(guard): State<TokenGuard>, mut request: Request, next: Next) -> Response {
    let shown = shown(&request);
    let caller = match &shown {
        Some(token) => guard.caller(token).await,
        None => Ok(None),
    };
    match caller {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Ok(None) => {}
        Err(problem) => return ApiError(problem).into_response(),
    }
    if git::is_git(request.uri()) {
        return git::unauthorized();
    }
    let detail = match shown {
        Some(_) => "this token is not known here, or was revoked",
        None => "over TCP, the API wants the server's token, or one of a person's",
    };
    let problem = Problem::new(ProblemKind::Unauthorized, detail)
        .hint("the server's is in the file `token` of its state directory, `coracle people token create` makes others; set CORACLE_TOKEN");
    let mut response = ApiError(problem).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_token_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let people = People::new(coracle_store::Store::open(&dir.path().join("state")).await.unwrap());
        let path = dir.path().join("token");
        let token = read_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_or_create(&path).unwrap(), token);
        let guard = TokenGuard::new(&token, people);
        assert!(guard.admits(token.expose().as_bytes()));
        assert!(!guard.admits(b""));
        assert!(!guard.admits(&token.expose().as_bytes()[..63]));
    }

    #[test]
    fn an_empty_token_file_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_or_create(&path).is_err());
    }
}
