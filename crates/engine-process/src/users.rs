//! A user for each app: a number from a range of the server's own, kept as long as the app exists. The numbers stand in no
//! `/etc/passwd`; nobody can log in as them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use coracle_jail::User;
use coracle_model::{AppName, OwnerId};
use serde::{Deserialize, Serialize};

use crate::files::{read_json, write_json};

/// Where the ranges begin: above what people, distributions, systemd and container runtimes use (systemd's UIDS-GIDS.md),
/// below what the kernel can take for a signed number.
const FIRST: u32 = 1_900_000_000;

/// How many servers have ranges of their own, by the hash of their owner id.
const RANGES: u32 = 200_000;

/// How many apps a server can have at a time.
const RANGE: u32 = 1000;

/// The users of the apps.
pub(crate) struct Users {
    file: PathBuf,
    first: u32,
    table: Mutex<Table>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Table {
    apps: BTreeMap<AppName, u32>,
    /// The number after the one given out last: numbers are used again as late as possible.
    next: u32,
}

impl Users {
    pub(crate) fn open(file: PathBuf, owner: &OwnerId) -> io::Result<Self> {
        let hash = blake3::hash(owner.as_str().as_bytes());
        let word = hash.as_bytes().first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or_default();
        let table = read_json(&file)?.unwrap_or_default();
        Ok(Self { file, first: FIRST + (word % RANGES) * RANGE, table: Mutex::new(table) })
    }

    /// The app's user, chosen now if it has none yet.
    pub(crate) fn of(&self, app: &AppName) -> io::Result<User> {
        let mut table = self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(id) = table.apps.get(app) {
            return Ok(User { uid: *id, gid: *id });
        }
        let id = (0..RANGE)
            .map(|step| self.first + (table.next + step) % RANGE)
            .find(|id| table.apps.values().all(|taken| taken != id))
            .ok_or_else(|| io::Error::other(format!("more than {RANGE} apps")))?;
        let mut changed = table.clone();
        changed.apps.insert(app.clone(), id);
        changed.next = (id - self.first + 1) % RANGE;
        write_json(&self.file, &changed)?;
        *table = changed;
        Ok(User { uid: id, gid: id })
    }

    /// The app is gone, with all its files and processes.
    pub(crate) fn forget(&self, app: &AppName) -> io::Result<()> {
        let mut table = self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut changed = table.clone();
        if changed.apps.remove(app).is_some() {
            write_json(&self.file, &changed)?;
            *table = changed;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_app_keeps_its_user_and_no_two_have_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (file, owner) = (directory.path().join("users.json"), "0123456789ab".parse().unwrap());
        let users = Users::open(file.clone(), &owner).unwrap();
        let (shop, blog) = ("shop".parse().unwrap(), "blog".parse().unwrap());
        let (first, second) = (users.of(&shop).unwrap(), users.of(&blog).unwrap());
        assert_ne!(first, second);
        let again = Users::open(file, &owner).unwrap();
        assert_eq!(again.of(&shop).unwrap(), first);
        again.forget(&shop).unwrap();
        assert_ne!(again.of(&"wiki".parse().unwrap()).unwrap(), first, "used again at once");
    }
}
