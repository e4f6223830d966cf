//! What is written down of a project whose place is being taken, before anything is done to it: a server that dies in between
//! gives the project back, or finishes, when it starts again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use coracle_engine::Restart;
use coracle_model::{AppName, ProcessName, ReleaseNumber};
use serde::{Deserialize, Serialize};

/// A project whose place is being taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// By whom.
    pub(crate) app: AppName,
    /// The project.
    pub(crate) project: String,
    /// The release that is to take its place. Active: it has.
    pub(crate) release: Option<ReleaseNumber>,
    /// Whether the containers are removed in the end.
    pub(crate) remove_old: bool,
    /// Its containers that ran.
    pub(crate) containers: Vec<Kept>,
    /// Its ports.
    pub(crate) doors: Vec<Door>,
}

/// A container that ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The engine's id of it.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// The part of the app that it is.
    pub(crate) part: ProcessName,
    /// When the engine started it again.
    pub(crate) restart: Restart,
    /// How long it may take to end, in milliseconds.
    pub(crate) grace_ms: u64,
    /// The port inside that published ports lead to.
    pub(crate) target: Option<u16>,
    /// The listeners of those ports.
    pub(crate) listeners: Vec<String>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Door {
    /// The name of the proxy's listener.
    pub(crate) listener: String,
    /// The machine's address; `None`: all of them.
    pub(crate) address: Option<IpAddr>,
    /// The port.
    pub(crate) port: u16,
    /// Where the proxy listens while somebody else still has the port; `None`: nowhere.
    pub(crate) temporary: Option<u16>,
}

impl Record {
    /// The file of an app's record.
    pub(crate) fn path(dir: &Path, app: &AppName) -> PathBuf {
        dir.join(format!("{app}.json"))
    }

    /// Writes it, whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let (path, new) = (Self::path(dir, &self.app), dir.join(format!("{}.new", self.app)));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()
    }

    /// Forgets it.
    pub(crate) fn remove(&self, dir: &Path) -> io::Result<()> {
        match std::fs::remove_file(Self::path(dir, &self.app)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All that there are. One that cannot be read is an error: nothing may be started beside what it names.
    pub(crate) fn read_all(dir: &Path) -> io::Result<Vec<Self>> {
        let mut records = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let wrong = |error| io::Error::other(format!("{}: {error}", path.display()));
                records.push(serde_json::from_slice(&std::fs::read(&path)?).map_err(wrong)?);
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_is_there_until_it_is_removed_and_a_broken_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record {
            app: "shop".parse().unwrap(),
            project: "shop".into(),
            release: None,
            remove_old: false,
            containers: Vec::new(),
            doors: vec![Door { listener: "port-80".into(), address: None, port: 80, temporary: Some(40000) }],
        };
        record.write(dir.path()).unwrap();
        record.release = Some("1".parse().unwrap());
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read_all(dir.path()).unwrap(), [record.clone()]);
        record.remove(dir.path()).unwrap();
        record.remove(dir.path()).unwrap();
        assert!(Record::read_all(dir.path()).unwrap().is_empty());
        std::fs::write(dir.path().join("x.json"), "{").unwrap();
        assert!(Record::read_all(dir.path()).unwrap_err().to_string().contains("x.json"));
    }
}
