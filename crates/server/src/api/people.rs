//! People: added, given roles, keys and tokens, and removed. All of it is the administrator's.

use axum::Json as Answered;
use axum::extract::{FromRequestParts, Path, State};
use coracle_api::{
    self as api, CredentialKind, NewKey, NewPerson, NewToken, PersonList, Problem, ProblemKind, RoleChange, RoleIn, TokenRequest,
};
use coracle_model::{CredentialId, Grant, PersonName};
use coracle_ssh_door::{KeyError, PublicKey};
use coracle_store::{CredentialRecord, PersonRecord, Proof};
use http::StatusCode;
use http::request::Parts;

use super::extract::Json;
use super::{Answer, ApiError, Shared};
use crate::people::TokenError;
use crate::problems;

/// Characters of a label.
const LONGEST_LABEL: usize = 100;

/// The most keys that a person is added with.
const MOST_KEYS: usize = 100;

/// The person that the path names first.
pub(super) struct Named(PersonName);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let Path(all) = path.map_err(|error| Problem::new(ProblemKind::BadRequest, error.to_string()))?;
        let name = all.into_iter().next().map(|(_, name)| name).unwrap_or_default();
        Ok(Self(name.parse().map_err(|error| problems::name(&error))?))
    }
}

/// Everybody who may use the server besides its administrator, by name.
#[utoipa::path(get, path = "/people", tag = "people", operation_id = "list_people", responses(
    (status = 200, body = PersonList),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list(State(context): State<Shared>) -> Answer<Answered<PersonList>> {
    let people = context.store.people().await?;
    Ok(Answered(PersonList { people: people.into_iter().map(person).collect() }))
}

/// One person.
#[utoipa::path(get, path = "/people/{person}", tag = "people", operation_id = "show_person", params(("person" = String, Path)), responses(
    (status = 200, body = api::Person),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show(State(context): State<Shared>, Named(name): Named) -> Answer<Answered<api::Person>> {
    Ok(Answered(person(context.store.person(&name).await?)))
}

/// Adds a person, with roles and keys: all of it, or nothing.
#[utoipa::path(post, path = "/people", tag = "people", operation_id = "add_person", request_body = NewPerson, responses(
    (status = 201, body = api::Person),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn add(
    State(context): State<Shared>,
    Json(new): Json<NewPerson>,
) -> Answer<(StatusCode, Answered<api::Person>)> {
    if new.keys.len() > MOST_KEYS {
        return Err(Problem::new(ProblemKind::BadRequest, format!("more than {MOST_KEYS} keys at once")).into());
    }
    let keys = new.keys.iter().map(|text| PublicKey::parse(text).map_err(|error| refused(&error)));
    let keys: Vec<PublicKey> = keys.collect::<Result<_, _>>()?;
    let grants: Vec<Grant> = new.roles.into_iter().map(|RoleIn { app, role }| Grant { app, role }).collect();
    let keys: Vec<(String, String, String)> = keys.into_iter().map(|key| (key.comment, key.fingerprint, key.text)).collect();
    context.store.add_person(&new.name, &grants, &keys).await?;
    tracing::info!(person = %new.name, "added");
    Ok((StatusCode::CREATED, Answered(person(context.store.person(&new.name).await?))))
}

/// Removes a person with every role, key and token. What goes on in that name ends.
#[utoipa::path(delete, path = "/people/{person}", tag = "people", operation_id = "remove_person", params(("person" = String, Path)), responses(
    (status = 204, description = "Nobody is called so any more"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn remove(State(context): State<Shared>, Named(name): Named) -> Answer<StatusCode> {
    context.people.remove(&name).await?;
    tracing::info!(person = %name, "removed");
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a person a role in place of the one it had there, or takes it. If it is less than before, what goes on in that name ends.
#[utoipa::path(put, path = "/people/{person}/role", tag = "people", operation_id = "change_role", params(("person" = String, Path)),
    request_body = RoleChange, responses(
    (status = 200, body = api::Person),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn change_role(
    State(context): State<Shared>,
    Named(name): Named,
    Json(change): Json<RoleChange>,
) -> Answer<Answered<api::Person>> {
    context.people.change_role(&name, change.app.as_ref(), change.role).await?;
    Ok(Answered(person(context.store.person(&name).await?)))
}

/// Adds an SSH public key of a person's. A key belongs to one person.
#[utoipa::path(post, path = "/people/{person}/keys", tag = "people", operation_id = "add_key", params(("person" = String, Path)),
    request_body = NewKey, responses(
    (status = 201, body = api::Credential),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn add_key(
    State(context): State<Shared>,
    Named(name): Named,
    Json(new): Json<NewKey>,
) -> Answer<(StatusCode, Answered<api::Credential>)> {
    let PublicKey { text, fingerprint, comment } = PublicKey::parse(&new.key).map_err(|error| refused(&error))?;
    let added = context.store.add_key(&name, &comment, &fingerprint, &text).await?;
    Ok((StatusCode::CREATED, Answered(credential(added))))
}

/// Makes a token for a person. It is shown once: only its digest is kept.
#[utoipa::path(post, path = "/people/{person}/tokens", tag = "people", operation_id = "create_token", params(("person" = String, Path)),
    request_body = TokenRequest, responses(
    (status = 201, body = NewToken),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn create_token(
    State(context): State<Shared>,
    Named(name): Named,
    Json(request): Json<TokenRequest>,
) -> Answer<(StatusCode, Answered<NewToken>)> {
    let label = request.label.trim();
    if label.chars().count() > LONGEST_LABEL || label.chars().any(char::is_control) {
        let detail = format!("what a token is for is told in one line of up to {LONGEST_LABEL} characters");
        return Err(Problem::new(ProblemKind::BadRequest, detail).into());
    }
    let (kept, token) = context.people.make_token(&name, label).await.map_err(|error| match error {
        TokenError::Store(error) => problems::store(&error),
        error @ TokenError::Randomness(_) => Problem::new(ProblemKind::Internal, error.to_string()),
    })?;
    Ok((StatusCode::CREATED, Answered(NewToken { credential: credential(kept), token })))
}

/// Revokes a key or a token. What goes on by it ends.
#[utoipa::path(delete, path = "/people/{person}/credentials/{id}", tag = "people", operation_id = "revoke_credential",
    params(("person" = String, Path), ("id" = u32, Path, example = 7)), responses(
    (status = 204, description = "Nobody is let in by it any more"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn revoke(
    State(context): State<Shared>,
    Named(name): Named,
    Path(path): Path<(String, u32)>,
) -> Answer<StatusCode> {
    let (_, id) = path;
    context.people.revoke(&name, CredentialId(id)).await?;
    tracing::info!(person = %name, credential = id, "revoked");
    Ok(StatusCode::NO_CONTENT)
}

fn refused(error: &KeyError) -> Problem {
    Problem::new(ProblemKind::Invalid, error.to_string()).hint(error.hint())
}

fn person(record: PersonRecord) -> api::Person {
    api::Person {
        name: record.name,
        roles: record.grants.into_iter().map(|Grant { app, role }| RoleIn { app, role }).collect(),
        credentials: record.credentials.into_iter().map(credential).collect(),
        created_at: record.created_at,
    }
}

fn credential(record: CredentialRecord) -> api::Credential {
    let (kind, fingerprint, key) = match record.proof {
        Proof::Key { fingerprint, text } => (CredentialKind::Key, Some(fingerprint), Some(text)),
        Proof::Token { .. } => (CredentialKind::Token, None, None),
    };
    let CredentialRecord { id, label, created_at, last_used_at, .. } = record;
    api::Credential { id, kind, label, fingerprint, key, created_at, last_used_at }
}
