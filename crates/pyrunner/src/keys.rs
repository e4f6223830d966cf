//! Holders of keys: which caller a token stands for. What the database says is believed for a moment, so that not every
//! request asks it; a revoked key ends within that moment.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle_pyrunner_store::{ApiKey, KeyError, Role, Store};
use coracle_sandbox::Limits;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use jiff::Timestamp;

use crate::caller::{Caller, ClientId};
use crate::history::unavailable;
use crate::problem::{Problem, ProblemKind};
use crate::program::LimitsBody;

/// How long an answer of the database is believed.
const FRESH: Duration = Duration::from_secs(2);

/// How long it is believed while the database does not answer.
const STALE: Duration = Duration::from_secs(600);

/// How many answers are kept.
const MOST_KEPT: usize = 10_000;

/// What the database said about tokens.
pub(crate) struct Keys {
    store: Store,
    limits: Limits,
    kept: Mutex<HashMap<blake3::Hash, Kept>>,
}

#[derive(Clone)]
struct Kept {
    caller: Caller,
    expires_at: Option<Timestamp>,
    asked: Instant,
}

/// The subprotocol that is spoken over WebSockets, and how the one begins that is not spoken but carries a key.
pub(crate) const PROTOCOL: &str = "pyrunner";
const KEY_PROTOCOL: &str = "pyrunner.key.";

/// The token of a request: `Authorization: Bearer …` (RFC 6750 section 2.1), or `X-Api-Key`, or, as a browser's script can choose
/// no other field of a WebSocket's request, a subprotocol (RFC 6455 section 11.3.4).
pub(crate) fn token(headers: &HeaderMap) -> Option<Result<&str, Problem>> {
    let unreadable =
        || Problem::new(ProblemKind::Unauthenticated, "the key cannot be read").hint("send `Authorization: Bearer KEY`");
    if let Some(value) = headers.get(AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        return Some(bearer.map(|(_, token)| token.trim()).ok_or_else(unreadable));
    }
    let own = headers.get("x-api-key").map(|value| value.to_str().map_err(|_| unreadable()));
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|field| field.to_str().ok());
    own.or_else(|| offered.flat_map(|field| field.split(',')).find_map(|one| one.trim().strip_prefix(KEY_PROTOCOL)).map(Ok))
}

impl Keys {
    pub(crate) fn new(store: Store, limits: Limits) -> Self {
        Self { store, limits, kept: Mutex::default() }
    }

    /// Whom a token stands for.
    pub(crate) async fn caller(&self, token: &str) -> Result<Caller, Problem> {
        let hash = blake3::hash(token.as_bytes());
        let kept = self.lock().get(&hash).cloned();
        if let Some(kept) = &kept
            && kept.asked.elapsed() < FRESH
        {
            return kept.still_valid();
        }
        match self.store.key_of(token).await {
            Ok(key) => {
                let caller = self.of(&key);
                // When it was used is nice to know and not worth a failure.
                if let Err(error) = self.store.touch_key(&key.id, Timestamp::now()).await {
                    tracing::debug!(%error, "the use of a key is not written down");
                }
                let kept = Kept { caller: caller.clone(), expires_at: key.expires_at, asked: Instant::now() };
                self.keep(hash, kept);
                Ok(caller)
            }
            Err(KeyError::Store(error)) => match kept.filter(|kept| kept.asked.elapsed() < STALE) {
                Some(kept) => kept.still_valid(),
                None => Err(unavailable(&error)),
            },
            Err(error) => {
                self.lock().remove(&hash);
                Err(Problem::new(ProblemKind::Unauthenticated, error.to_string())
                    .hint("`pyrunner keys list` shows the keys there are"))
            }
        }
    }

    fn keep(&self, hash: blake3::Hash, kept: Kept) {
        let mut all = self.lock();
        if all.len() >= MOST_KEPT {
            all.retain(|_, kept| kept.asked.elapsed() < FRESH);
        }
        all.insert(hash, kept);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<blake3::Hash, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, key: &ApiKey) -> Caller {
        let number = u64::from_str_radix(&key.id, 16).unwrap_or(u64::MAX);
        Caller {
            client: ClientId::Key(number),
            owner: format!("key:{}", key.id),
            admin: key.role == Role::Admin,
            rate: key.limits.calls_per_hour,
            most_running: key.limits.concurrent.and_then(|most| usize::try_from(most).ok()),
            limits: lowered(&self.limits, key),
        }
    }
}

impl Kept {
    fn still_valid(&self) -> Result<Caller, Problem> {
        match self.expires_at {
            Some(end) if end <= Timestamp::now() => Err(Problem::new(ProblemKind::Unauthenticated, "the key has expired")),
            _ => Ok(self.caller.clone()),
        }
    }
}

/// The server's limits, or the key's own where they are lower: sandboxes are made with the server's, so none can be higher.
fn lowered(limits: &Limits, key: &ApiKey) -> Limits {
    let own: LimitsBody = match serde_json::from_value(serde_json::Value::Object(key.limits.execution.clone())) {
        Ok(own) => own,
        Err(error) => {
            tracing::warn!(key = key.id, %error, "a key's limits cannot be read; the server's are used");
            LimitsBody::default()
        }
    };
    limits.lowered(&own.as_requested())
}
