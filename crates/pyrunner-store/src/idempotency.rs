//! Idempotency keys: a request that is sent again gets the answer of the first, and runs once, whichever process it reaches.
//!
//! After the Idempotency-Key header field (draft-ietf-httpapi-idempotency-key-header): a key belongs to its owner, comes
//! with a fingerprint of the request, and is forgotten after a while.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::Store;
use crate::error::StoreError;
use crate::session::Value;

/// What is to be done with a request that carries an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is new: run it, then [`Store::complete_request`] or [`Store::abandon_request`].
    Fresh(Turn),
    /// The same request is being run: 409.
    InProgress,
    /// It has been answered: answer the same again.
    Replay(Bytes),
    /// The key was used for another request: 422.
    Mismatch,
}

/// The right and the duty to answer a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    owner: String,
    key: Bytes,
    nonce: [u8; 16],
}

/// What tells requests with the same key apart: SHA-256 over their parts (method, path, body), each with its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of these parts, in this order.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl Store {
    /// Asks whose turn a request is. One that is begun and neither completed nor abandoned within `lease` (its process has
    /// died) may be begun again; the key is forgotten `lifetime` after it was begun.
    pub async fn begin_request(
        &self,
        owner: &str,
        key: &[u8],
        fingerprint: &Fingerprint,
        lease: Duration,
        lifetime: Duration,
    ) -> Result<Begun, StoreError> {
        const ACTION: &str = "look up an idempotency key";
        // Takes the row if there is none, or one that is forgotten, or one whose process has died before it answered.
        const TAKE: &str = "INSERT INTO pyrunner_idempotency (owner, key, nonce, request, answer, lease_until, expires_at)
            VALUES ($1, $2, $3, $4, NULL, $6, $7)
            ON CONFLICT (owner, key) DO UPDATE SET nonce = excluded.nonce, request = excluded.request, answer = NULL,
                lease_until = excluded.lease_until, expires_at = excluded.expires_at
            WHERE pyrunner_idempotency.expires_at <= $5 OR (pyrunner_idempotency.answer IS NULL
                AND pyrunner_idempotency.lease_until <= $5 AND pyrunner_idempotency.request = excluded.request)";
        const LOOK: &str = "SELECT request, answer FROM pyrunner_idempotency WHERE owner = $1 AND key = $2";
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| StoreError::invalid(ACTION, error))?;
        let mut session = self.database().write(ACTION).await?;
        let now = session.now().await?;
        let values: [Value; 7] = [
            owner.into(),
            key.into(),
            nonce.as_slice().into(),
            fingerprint.0.as_slice().into(),
            now.into(),
            later(now, lease).into(),
            later(now, lifetime).into(),
        ];
        let begun = if session.execute(TAKE, &values).await? > 0 {
            Begun::Fresh(Turn { owner: owner.to_owned(), key: Bytes::copy_from_slice(key), nonce })
        } else {
            match session.row(LOOK, &[owner.into(), key.into()]).await? {
                Some(row) if row.bytes(0)? != fingerprint.0 => Begun::Mismatch,
                Some(row) => row.bytes_or_null(1)?.map_or(Begun::InProgress, |answer| Begun::Replay(answer.into())),
                // Somebody abandoned it in this moment.
                None => Begun::InProgress,
            }
        };
        session.commit().await?;
        Ok(begun)
    }

    /// Keeps the answer of a request; whether it was still this turn's (it is not if its lease ran out and another has begun).
    pub async fn complete_request(&self, turn: &Turn, answer: Bytes) -> Result<bool, StoreError> {
        const KEEP: &str = "UPDATE pyrunner_idempotency SET answer = $4
            WHERE owner = $1 AND key = $2 AND nonce = $3 AND answer IS NULL";
        self.end_turn(turn, KEEP, Some(answer)).await
    }

    /// Forgets a request that was not run after all (refused, cancelled), so that it may be sent again.
    pub async fn abandon_request(&self, turn: &Turn) -> Result<bool, StoreError> {
        const FORGET: &str = "DELETE FROM pyrunner_idempotency WHERE owner = $1 AND key = $2 AND nonce = $3 AND answer IS NULL";
        self.end_turn(turn, FORGET, None).await
    }

    async fn end_turn(&self, turn: &Turn, sql: &'static str, answer: Option<Bytes>) -> Result<bool, StoreError> {
        let mut session = self.database().write("end an idempotent request").await?;
        let mut values: Vec<Value> = vec![turn.owner.as_str().into(), turn.key.clone().into(), turn.nonce.as_slice().into()];
        values.extend(answer.map(Value::from));
        let ended = session.execute(sql, &values).await?;
        session.commit().await?;
        Ok(ended > 0)
    }
}

/// That much after a moment, in microseconds.
pub(crate) fn later(now: i64, by: Duration) -> i64 {
    now.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX))
}
