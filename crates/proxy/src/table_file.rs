//! The last table, kept on disk so that a proxy that starts alone knows whom to serve.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use coracle_proxy_table::Table;

const NAME: &str = "table.json";

/// The file in the state directory.
#[derive(Debug, Clone)]
pub(crate) struct TableFile {
    directory: PathBuf,
}

impl TableFile {
    /// In this directory, which is made if it is missing.
    pub(crate) fn in_directory(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// The last table; an empty one if there is none. One that cannot be read is put aside, because serving nothing until
    /// the next table comes is better than not starting, and nobody's evidence is destroyed.
    pub(crate) fn load(&self) -> io::Result<Table> {
        let path = self.directory.join(NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::default()),
            Err(error) => return Err(error),
        };
        let table: Result<Table, String> = serde_json::from_slice(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|table: Table| table.check().map(|()| table).map_err(|error| error.to_string()));
        table.or_else(|error| self.put_aside(&error).map(|()| Table::default()))
    }

    /// Puts the last table aside, because nothing can be done with it.
    pub(crate) fn put_aside(&self, error: &str) -> io::Result<()> {
        let aside = self.directory.join(format!("{NAME}.unreadable"));
        tracing::error!(error, aside = %aside.display(), "the last routing table cannot be used; serving nothing until the next one");
        std::fs::rename(self.directory.join(NAME), &aside)
    }

    /// Replaces the last table, whole or not at all.
    pub(crate) fn store(&self, table: &Table) -> io::Result<()> {
        self.store_json(&serde_json::to_vec(table)?)
    }

    /// Replaces the last table by this one, as it was read.
    pub(crate) fn store_json(&self, table: &[u8]) -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".table-").tempfile_in(&self.directory)?;
        file.write_all(table)?;
        file.as_file().sync_all()?;
        file.persist(self.directory.join(NAME)).map_err(|error| error.error)?;
        std::fs::File::open(&self.directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let file = TableFile::in_directory(&directory.path().join("state")).unwrap();
        assert_eq!(file.load().unwrap(), Table::default());
        let table = Table { generation: 7, ..Table::default() };
        file.store(&table).unwrap();
        assert_eq!(file.load().unwrap(), table);
        assert_eq!(std::fs::read_dir(directory.path().join("state")).unwrap().count(), 1);
    }

    #[test]
    fn an_unreadable_table_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let file = TableFile::in_directory(directory.path()).unwrap();
        std::fs::write(directory.path().join(NAME), "{\"generation\": 1, \"rou").unwrap();
        assert_eq!(file.load().unwrap(), Table::default());
        assert!(directory.path().join("table.json.unreadable").exists());
        assert!(!directory.path().join(NAME).exists());
    }
}
