//! `pyrunner keys`: API keys, straight in the database; a running server heeds changes within two seconds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use coracle_pyrunner::place::make_state_dir;
use coracle_pyrunner::settings::{User, UserError, database};
use coracle_pyrunner_store::{ApiKey, KeyLimits, NewKey, Role, Store, StoreError};
use coracle_sandbox::Limits;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::serve::LimitArguments;
use super::settings::{Homeless, some, some_time, state_dir};
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: Command,
    /// Directory of the database, unless DATABASE_URL names one
    #[arg(long, env = "PYRUNNER_STATE", value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// User that the API runs as, to whom the database belongs
    #[arg(long, env = "PYRUNNER_USER", value_name = "NAME|UID", global = true)]
    user: Option<String>,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and show it, once
    Add {
        /// Who or what uses it
        #[arg(value_parser = name)]
        name: String,
        /// Let it see everybody's executions
        #[arg(long)]
        admin: bool,
        /// Calls an hour; 0: as many as it likes [default: as everybody]
        #[arg(long, value_name = "N")]
        rate: Option<u32>,
        /// Executions at the same time [default: as everybody]
        #[arg(long, value_parser = some::<u32>(), value_name = "N")]
        concurrent: Option<u32>,
        /// A limit of its executions, lower than the server's: wall_ms, cpu_ms, memory_bytes, pids, output_bytes
        #[arg(long = "limit", value_parser = limit, value_name = "NAME=NUMBER")]
        limits: Vec<(String, u64)>,
        /// How long it is valid [default: until it is revoked]
        #[arg(long, value_parser = some_time, value_name = "TIME")]
        expires: Option<Duration>,
    },
    /// Show all keys, without their secrets
    List,
    /// End a key
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
}

/// Characters of a name.
const LONGEST_NAME: usize = 200;

/// The limits of a server with this environment.
#[derive(Debug, Parser)]
struct ServerLimits {
    #[command(flatten)]
    limits: LimitArguments,
}

/// The limits that a key can have.
const LIMITS: [&str; 5] = ["wall_ms", "cpu_ms", "memory_bytes", "pids", "output_bytes"];

fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=NUMBER")?;
    if !LIMITS.contains(&name) {
        return Err(format!("there is no limit {name:?}; there is {}", LIMITS.join(", ")));
    }
    let value: u64 = value.parse().map_err(|_| format!("{value:?} is no number"))?;
    let least = match name {
        "memory_bytes" => Limits::LEAST_MEMORY,
        "output_bytes" => 0,
        _ => 1,
    };
    if value < least {
        return Err(format!("{name} is {value}; {least} is the least"));
    }
    Ok((name.to_owned(), value))
}

/// Something that a person can tell from other keys.
fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("say who or what uses the key".to_owned());
    }
    if text.chars().count() > LONGEST_NAME || text.chars().any(char::is_control) {
        return Err(format!("a name has at most {LONGEST_NAME} characters, and no control characters"));
    }
    Ok(text.to_owned())
}

/// Limits of a key that are higher than those that a server with this environment has: the lower ones hold.
fn beyond(server: &LimitArguments, limits: &[(String, u64)]) -> Vec<String> {
    let highest = server.limits();
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let of_server = |name: &str| match name {
        "wall_ms" => milliseconds(highest.wall),
        "cpu_ms" => milliseconds(highest.cpu),
        "memory_bytes" => highest.memory_bytes,
        "pids" => u64::from(highest.pids),
        _ => highest.output_bytes,
    };
    let higher = limits.iter().filter(|(name, value)| *value > of_server(name));
    higher.map(|(name, value)| format!("{name}={value} is more than the server's {}", of_server(name))).collect()
}

/// Why a command about keys fails.
#[derive(Debug, thiserror::Error)]
enum KeysError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error("the directory of the database: {0}")]
    Directory(#[from] std::io::Error),
    #[error("a key's limits can only be lower than the server's: {0}")]
    Beyond(String),
    #[error("what the server is told cannot be read: {0}")]
    Environment(String),
    #[error(transparent)]
    Homeless(#[from] Homeless),
    #[error("that time is too far away")]
    TooLate,
    #[error("there is no key {0} that could be revoked")]
    Unknown(String),
}

pub(crate) fn run(keys: &Keys) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(KeysError::from).and_then(|runtime| runtime.block_on(carry_out(keys)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ KeysError::Unknown(_)) => output::failure(&error, Some("`pyrunner keys list` shows the keys there are")),
        Err(error @ KeysError::Beyond(_)) => {
            output::failure(&error, Some("tell here what the server is told, such as PYRUNNER_WALL=30s"))
        }
        Err(error @ KeysError::Homeless(_)) => output::failure(&error, None),
        Err(error) => output::failure(&error, Some("`--state` or DATABASE_URL says where the database is")),
    }
}

async fn carry_out(keys: &Keys) -> Result<(), KeysError> {
    if let Command::Add { limits, .. } = &keys.command {
        let server = ServerLimits::try_parse_from(["pyrunner"]).map_err(|error| KeysError::Environment(error.to_string()))?;
        let beyond = beyond(&server.limits, limits);
        if !beyond.is_empty() {
            return Err(KeysError::Beyond(beyond.join(", ")));
        }
    }
    let state = keys.state.clone().map_or_else(state_dir, Ok)?;
    let owner = rustix::process::geteuid().is_root().then(|| User::find(keys.user.as_deref())).transpose()?;
    make_state_dir(&state, owner)?;
    let store = Store::open(&database(&state)).await?;
    let done = match &keys.command {
        Command::Add { name, admin, rate, concurrent, limits, expires } => {
            let expires_at = expires.map(|after| Timestamp::now().checked_add(after)).transpose();
            let execution: Map<String, Value> = limits.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            let new = NewKey {
                name: name.clone(),
                role: if *admin { Role::Admin } else { Role::User },
                limits: KeyLimits { calls_per_hour: *rate, concurrent: *concurrent, execution },
                expires_at: expires_at.map_err(|_| KeysError::TooLate)?,
            };
            add(&store, new, keys.json).await
        }
        Command::List => list(&store, keys.json).await,
        Command::Revoke { id } => match store.revoke_key(id).await {
            Ok(true) => {
                output::note(format_args!("revoked {id}; a running server heeds it within two seconds"));
                Ok(())
            }
            Ok(false) => Err(KeysError::Unknown(id.clone())),
            Err(error) => Err(error.into()),
        },
    };
    store.close().await;
    // What root has made belongs to the API's user.
    make_state_dir(&state, owner)?;
    done
}

async fn add(store: &Store, new: NewKey, as_json: bool) -> Result<(), KeysError> {
    let (key, token) = store.add_key(new).await?;
    if as_json {
        let mut told = described(&key);
        told["token"] = json!(token.expose());
        output::result(told);
    } else {
        output::result(token.expose());
        output::note(format_args!("key {} for {}; it is shown this once and kept nowhere", key.id, key.name));
    }
    Ok(())
}

async fn list(store: &Store, as_json: bool) -> Result<(), KeysError> {
    let keys = store.keys().await?;
    if as_json {
        output::result(Value::Array(keys.iter().map(described).collect()));
        return Ok(());
    }
    for key in keys {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(moment), _) => format!("revoked {moment}"),
            (None, Some(end)) if key.has_expired(Timestamp::now()) => format!("expired {end}"),
            (None, Some(end)) => format!("valid until {end}"),
            (None, None) => "valid".to_owned(),
        };
        let used = key.last_used_at.map_or_else(|| "never used".to_owned(), |moment| format!("used {moment}"));
        output::result(format_args!("{}  {:<5}  {}  {used}  {}", key.id, key.role.as_str(), state, key.name));
    }
    Ok(())
}

fn described(key: &ApiKey) -> Value {
    let text = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
    json!({
        "id": key.id,
        "name": key.name,
        "role": key.role.as_str(),
        "limits": key.limits,
        "created_at": key.created_at.to_string(),
        "last_used_at": text(key.last_used_at),
        "expires_at": text(key.expires_at),
        "revoked_at": text(key.revoked_at),
    })
}
