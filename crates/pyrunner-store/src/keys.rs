//! API keys: who may call, and how much.
//!
//! A token is `pyr_<id>_<secret>`; only its SHA-256 is stored. A slow password hash would protect nothing here: the secret
//! is 256 random bits, so nobody finds it by trying, however fast each try is; and a call would cost its CPU time. The id is
//! for finding the row and for people to talk about; it is no secret. Hashes are compared in constant time.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::Store;
use crate::error::StoreError;
use crate::id::hex_encode;
use crate::record::now;
use crate::session::{Row, Session, Value};

/// What every token begins with, so that scanners for leaked secrets can know one.
const PREFIX: &str = "pyr";

/// A use is written down at most this often, in microseconds: a minute.
const USE_GRAIN: i64 = 60_000_000;

/// What a key is about to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewKey {
    /// For people: who or what uses it. Need not be the only one of that name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How much it may.
    pub limits: KeyLimits,
    /// When it ends; `None`: when it is revoked.
    pub expires_at: Option<Timestamp>,
}

/// A key on record. Its secret is not in it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Twelve hexadecimal digits; the owner of what is executed with it.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// How much it may.
    pub limits: KeyLimits,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, within a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Execute, and see its own.
    User,
    /// Everything, and see everybody's.
    Admin,
}

/// How much a key may. What is absent is as for everybody.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyLimits {
    /// Calls per hour.
    pub calls_per_hour: Option<u32>,
    /// Executions at once.
    pub concurrent: Option<u32>,
    /// Limits of an execution, lowered or raised; the API's words and units.
    pub execution: serde_json::Map<String, serde_json::Value>,
}

/// A token, to be shown once. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why a token opens nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// There is no such key.
    #[error("the API key is unknown")]
    Unknown,
    /// Somebody has revoked it.
    #[error("the API key has been revoked")]
    Revoked,
    /// Its time is over.
    #[error("the API key has expired")]
    Expired,
    /// It cannot be looked up.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const SELECT: &str = "SELECT id, name, role, limits, created_at, last_used_at, expires_at, revoked_at, hash FROM pyrunner_keys";

impl Store {
    /// Makes a key. The token is nowhere else.
    pub async fn add_key(&self, new: NewKey) -> Result<(ApiKey, Token), StoreError> {
        const ACTION: &str = "add an API key";
        const INSERT: &str = "INSERT INTO pyrunner_keys (id, hash, name, role, limits, created_at, expires_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let mut random = [0; 38];
        getrandom::fill(&mut random).map_err(|error| StoreError::invalid(ACTION, error))?;
        let (id, secret) = random.split_at(6);
        let id = hex_encode(id);
        let token = Token(format!("{PREFIX}_{id}_{}", hex_encode(secret)));
        let limits = serde_json::to_string(&new.limits).map_err(|error| StoreError::invalid(ACTION, error))?;
        let created_at = now();
        let mut session = self.database().write(ACTION).await?;
        let values: [Value; 7] = [
            id.as_str().into(),
            hash(&token.0).as_slice().into(),
            new.name.as_str().into(),
            new.role.as_str().into(),
            limits.into(),
            created_at.into(),
            new.expires_at.into(),
        ];
        session.execute(INSERT, &values).await?;
        session.commit().await?;
        let NewKey { name, role, limits, expires_at } = new;
        Ok((ApiKey { id, name, role, limits, created_at, last_used_at: None, expires_at, revoked_at: None }, token))
    }

    /// The key that a token opens. One read by primary key; the caller may keep the answer for a while.
    pub async fn key_of(&self, token: &str) -> Result<ApiKey, KeyError> {
        let mut parts = token.splitn(3, '_');
        let (Some(PREFIX), Some(id), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Unknown);
        };
        if id.len() != 12 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(KeyError::Unknown);
        }
        let mut session = self.database().read("look up an API key").await?;
        let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
        let row = session.row(sql, &[id.into()]).await?.ok_or(KeyError::Unknown)?;
        if !bool::from(row.bytes(8)?.as_slice().ct_eq(hash(token).as_slice())) {
            return Err(KeyError::Unknown);
        }
        let key = api_key(&session, &row)?;
        if key.revoked_at.is_some() {
            Err(KeyError::Revoked)
        } else if key.has_expired(Timestamp::now()) {
            Err(KeyError::Expired)
        } else {
            Ok(key)
        }
    }

    /// All keys, revoked and expired ones too, oldest first.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let mut session = self.database().read("list API keys").await?;
        let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY created_at, id"));
        let rows = session.rows(sql, &[]).await?;
        rows.iter().map(|row| api_key(&session, row)).collect()
    }

    /// Revokes a key; whether there was one of that id that was not revoked yet.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        const REVOKE: &str = "UPDATE pyrunner_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
        let mut session = self.database().write("revoke an API key").await?;
        let revoked = session.execute(REVOKE, &[id.into(), now().into()]).await?;
        session.commit().await?;
        Ok(revoked > 0)
    }

    /// Writes down that a key was used at that moment, unless a use of the last minute is known: then it is only a read.
    pub async fn touch_key(&self, id: &str, moment: Timestamp) -> Result<(), StoreError> {
        const LOOK: &str = "SELECT 1 FROM pyrunner_keys WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";
        const TOUCH: &str = "UPDATE pyrunner_keys SET last_used_at = $2 WHERE id = $1";
        const ACTION: &str = "note the use of an API key";
        let before = moment.as_microsecond() - USE_GRAIN;
        let mut session = self.database().read(ACTION).await?;
        if session.row(LOOK, &[id.into(), before.into()]).await?.is_none() {
            return Ok(());
        }
        drop(session);
        let mut session = self.database().write(ACTION).await?;
        session.execute(TOUCH, &[id.into(), moment.into()]).await?;
        session.commit().await
    }
}

impl ApiKey {
    /// Whether its time is over.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

impl Role {
    /// Its name: `user` or `admin`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

impl Token {
    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn api_key(session: &Session, row: &Row) -> Result<ApiKey, StoreError> {
    let role = row.text(2)?;
    let limits = row.text(3)?;
    let moment = |microseconds| Timestamp::from_microsecond(microseconds).map_err(|error| session.unreadable(error));
    Ok(ApiKey {
        id: row.text(0)?,
        name: row.text(1)?,
        role: [Role::User, Role::Admin]
            .into_iter()
            .find(|known| known.as_str() == role)
            .ok_or_else(|| session.unreadable(format!("an API key has the role {role:?}")))?,
        limits: serde_json::from_str(&limits).map_err(|error| session.unreadable(error))?,
        created_at: moment(row.int(4)?)?,
        last_used_at: row.int_or_null(5)?.map(moment).transpose()?,
        expires_at: row.int_or_null(6)?.map(moment).transpose()?,
        revoked_at: row.int_or_null(7)?.map(moment).transpose()?,
    })
}
