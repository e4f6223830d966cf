//! Asks for a name and a password (RFC 7617).
//!
//! A wrong name takes as long as a wrong password: then a hash of the dearest kind in use is verified all the same. Hashing
//! runs on the blocking pool, on no more threads at once than there are processors; passwords that were right are remembered as
//! keyed hashes, so that the next request costs next to nothing.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_proxy_http::{Known, RequestHead};
use coracle_proxy_table::BasicAuth as Settings;
use http::{HeaderName, StatusCode};
use tokio::sync::Semaphore;

use crate::answer::Answer;
use crate::password::Hash;
use crate::watched::Watched;
use crate::{pages, wrong};

/// Bytes of a users file.
const FILE_LIMIT: u64 = 4 << 20;
/// Passwords remembered as right.
const REMEMBERED: usize = 4096;
/// How long a request waits for its turn to be hashed.
const TURN: Duration = Duration::from_secs(10);

/// Hashing at the same time, over all middlewares.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)));

/// See [`Settings`].
pub(crate) struct BasicAuth {
    fixed: Users,
    file: Option<Watched>,
    users: RwLock<Arc<Directory>>,
    challenge: String,
    header_field: Option<String>,
    remove_header: bool,
    right: Mutex<HashSet<[u8; 32]>>,
    /// For the hashes in `right`; random, and never told.
    key: [u8; 32],
}

type Users = BTreeMap<String, Arc<Hash>>;

/// The users there are.
struct Directory {
    users: Users,
    /// What is verified for names that are not there.
    stand_in: Arc<Hash>,
}

impl std::fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicAuth").field("challenge", &self.challenge).finish_non_exhaustive()
    }
}

impl Directory {
    fn new(users: Users) -> Self {
        let dearest = users.values().max_by_key(|hash| hash.cost()).cloned();
        Self { users, stand_in: dearest.unwrap_or_else(|| Arc::new(Hash::Unknown)) }
    }
}

impl BasicAuth {
    pub(crate) fn compile(settings: &Settings) -> Result<Self, String> {
        let mut fixed = Users::new();
        for credential in &settings.users {
            let (name, hash) = parse(&credential.0).ok_or_else(|| wrong("users", "each must be \"name:hash\""))?;
            fixed.insert(name, hash);
        }
        if settings.header_field.as_ref().is_some_and(|name| name.parse::<HeaderName>().is_err()) {
            return Err(wrong("header_field", "is no name of a header field"));
        }
        let file = settings.users_file.as_ref().map(|path| Watched::new(path, FILE_LIMIT));
        let mut users = fixed.clone();
        if let Some(file) = &file {
            let content = file.read_if_changed().map_err(|error| wrong("users_file", error))?;
            let listed = listed(&content.unwrap_or_default())
                .map_err(|error| wrong("users_file", format_args!("{}: {error}", file.path().display())))?;
            users = merged(listed, &fixed);
        }
        if users.is_empty() {
            return Err(wrong("users", "at least one, here or in users_file"));
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| wrong("users", format_args!("no random numbers: {error}")))?;
        Ok(Self {
            fixed,
            file,
            users: RwLock::new(Arc::new(Directory::new(users))),
            challenge: challenge(settings.realm.as_deref().unwrap_or("coracle"))?,
            header_field: settings.header_field.clone(),
            remove_header: settings.remove_header,
            right: Mutex::default(),
            key,
        })
    }

    pub(crate) async fn request(&self, head: &mut RequestHead) -> Result<(), Answer> {
        let Some((name, password)) = credentials(head) else { return Err(self.refused(head)) };
        let directory = Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner));
        let user = directory.users.get(&name);
        let hash = user.unwrap_or(&directory.stand_in);
        let mark = self.mark(&name, hash, &password);
        if user.is_none() || !self.remembers(&mark) {
            match verified(Arc::clone(hash), password).await {
                Some(true) if user.is_some() => self.remember(mark),
                Some(_) => return Err(self.refused(head)),
                None => {
                    let busy =
                        pages::refusal(head, StatusCode::SERVICE_UNAVAILABLE, "Too many people are signing in at the moment.");
                    return Err(busy.with(Known::RetryAfter, "5"));
                }
            }
        }
        if self.remove_header {
            head.fields.remove_known(Known::Authorization);
        }
        match &self.header_field {
            // A name that is no field value cannot be told to the target, and so may not pass.
            Some(field) if head.fields.set(field, &name).is_err() => Err(self.refused(head)),
            _ => Ok(()),
        }
    }

    /// Whether there is a file to look at again.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file again if it changed. A file that cannot be read, or has nobody in it, is taken for one that is just
    /// being written: the users stay who they were. Blocks.
    pub(crate) fn look_again(&self) {
        let Some(file) = &self.file else { return };
        let users = match file.read_if_changed() {
            Ok(None) => return,
            Ok(Some(content)) => listed(&content).map_err(|error| format!("{}: {error}", file.path().display())),
            Err(error) => Err(error),
        };
        match users {
            Ok(users) if !users.is_empty() => {
                let users = Directory::new(merged(users, &self.fixed));
                *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
            }
            Ok(_) => tracing::warn!(path = %file.path().display(), "a users file has nobody in it; the users stay as they were"),
            Err(error) => tracing::warn!(error, "a users file cannot be read; the users stay as they were"),
        }
    }

    fn refused(&self, head: &RequestHead) -> Answer {
        pages::refusal(head, StatusCode::UNAUTHORIZED, "").with(Known::WwwAuthenticate, &self.challenge)
    }

    /// Stands for this name with this hash and this password. Lengths come first, so that no two take the same bytes.
    fn mark(&self, name: &str, hash: &Hash, password: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [name.as_bytes(), hash.text().as_bytes(), password] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    fn remembers(&self, mark: &[u8; 32]) -> bool {
        self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(mark)
    }

    fn remember(&self, mark: [u8; 32]) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED {
            right.clear();
        }
        right.insert(mark);
    }
}

/// Whether it is the password; nothing if its turn did not come in time.
async fn verified(hash: Arc<Hash>, password: Vec<u8>) -> Option<bool> {
    let turn = tokio::time::timeout(TURN, TURNS.acquire()).await.ok()?.ok()?;
    let verified = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        hash.verify(&password)
    });
    verified.await.ok()
}

/// What `Authorization` says: name and password.
fn credentials(head: &RequestHead) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = head.fields.get_known_str(Known::Authorization)?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&decoded[..colon]).ok()?.to_owned();
    Some((name, decoded[colon + 1..].to_vec()))
}

fn challenge(realm: &str) -> Result<String, String> {
    if realm.chars().any(char::is_control) {
        return Err(wrong("realm", "has control characters"));
    }
    Ok(format!("Basic realm=\"{}\"", realm.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// `name:hash`.
fn parse(line: &str) -> Option<(String, Arc<Hash>)> {
    let (name, hash) = line.split_once(':').filter(|(name, hash)| !name.is_empty() && !hash.is_empty())?;
    let hash = Hash::parse(hash.trim());
    if hash == Hash::Unknown {
        tracing::warn!(user = name, "this user's hash is of no known kind: no password fits");
    }
    Some((name.to_owned(), Arc::new(hash)))
}

/// The users of a file. Errors name the line, not what is on it.
fn listed(content: &[u8]) -> Result<Users, String> {
    let text = std::str::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
    let mut users = Users::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = parse(line).ok_or_else(|| format!("line {} is not \"name:hash\"", index + 1))?;
        users.insert(name, hash);
    }
    Ok(users)
}

/// The users of a file and, before them, those of the settings.
fn merged(mut users: Users, fixed: &Users) -> Users {
    users.extend(fixed.iter().map(|(name, hash)| (name.clone(), Arc::clone(hash))));
    users
}
