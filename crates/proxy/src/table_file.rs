//! The last table, kept on disk so that a proxy that starts alone knows whom to serve.
//!
//! Tables may come a hundred times a second, and to wait for a disk each time costs more than all the rest. So each is written
//! to one of two *recent* files, in turn and in place: that one outlives the proxy, since the kernel has it, and a write that
//! is cut short spoils only the older of the two. At most once a second the last one is made *durable*: it outlives the
//! machine. After a machine's crash nothing that ran on it runs any more, so a table that is a second older is as good.
//!
//! Each file is one record: a line that says its number, its length in bytes and their checksum, then the table as JSON. Of
//! those that are whole, the one with the highest number is the last table.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coracle_proxy_table::Table;
use tokio::sync::Notify;

/// What each file begins with.
const MAGIC: &str = "coracle-table";

const DURABLE: &str = "table";
const RECENT: [&str; 2] = ["table.recent-0", "table.recent-1"];

/// How often at most a table is made durable.
const PAUSE: Duration = Duration::from_secs(1);

/// The files in the state directory.
#[derive(Debug, Clone)]
pub(crate) struct TableFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    state: Mutex<State>,
    /// There is something to be made durable.
    written: Notify,
    /// The files are somebody else's. Not within the state, which is held while a disk is waited for.
    left: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last record.
    number: u64,
    /// The number of the last durable one.
    durable: u64,
    /// Opened when they are needed.
    recent: [Option<File>; RECENT.len()],
    /// Which of the two has the last record, if one has.
    last: Option<usize>,
}

/// A table, as it stands in a file.
struct Record<'r> {
    number: u64,
    json: Cow<'r, [u8]>,
}

impl TableFile {
    /// In this directory, which is made if it is missing.
    pub(crate) fn in_directory(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self(Arc::new(Inner {
            directory: directory.to_owned(),
            state: Mutex::default(),
            written: Notify::new(),
            left: AtomicBool::new(false),
        })))
    }

    /// The last table; an empty one if there is none. Files stay as they are: they may be another proxy's.
    pub(crate) fn load(&self) -> Table {
        self.look().0
    }

    /// The same for the one proxy that there is. A file that cannot be used is put aside, whether another one can be or not:
    /// serving nothing until the next table comes is better than not starting, and nobody's evidence is destroyed.
    pub(crate) fn load_alone(&self) -> Table {
        let (table, bad) = self.look();
        for (name, error) in bad {
            self.put_aside(name, &error);
        }
        table
    }

    /// The last table, and which files cannot be used.
    fn look(&self) -> (Table, Vec<(&'static str, String)>) {
        let (mut found, mut bad) = (Vec::new(), Vec::new());
        for name in RECENT.into_iter().chain([DURABLE]) {
            match self.read(name) {
                Ok(Some((number, table))) => found.push((number, name, table)),
                Ok(None) => (),
                Err(error) => bad.push((name, error.to_string())),
            }
        }
        let durable = found.iter().find(|(_, name, _)| *name == DURABLE).map(|(number, ..)| *number);
        let Some((number, name, table)) = found.into_iter().max_by_key(|(number, ..)| *number) else {
            return (Table::default(), bad);
        };
        let mut state = self.state();
        state.number = number;
        state.durable = durable.unwrap_or_default();
        state.last = RECENT.iter().position(|recent| *recent == name);
        (table, bad)
    }

    /// Puts all files aside, because the table in them cannot be served by.
    pub(crate) fn put_all_aside(&self, error: &str) {
        let mut state = self.state();
        (state.recent, state.last) = ([None, None], None);
        drop(state);
        for name in RECENT.into_iter().chain([DURABLE]).filter(|name| self.0.directory.join(name).exists()) {
            self.put_aside(name, error);
        }
    }

    /// Puts a file aside, because nothing can be done with what is in it.
    fn put_aside(&self, name: &str, error: &str) {
        let (path, aside) = (self.0.directory.join(name), self.0.directory.join(format!("{name}.bad")));
        let (from, to) = (path.display(), aside.display());
        match std::fs::rename(&path, &aside) {
            Ok(()) => tracing::error!("the routing table in {from} cannot be used ({error}) and is put aside as {to}"),
            Err(failed) => {
                tracing::error!("the routing table in {from} cannot be used ({error}) nor put aside as {to}: {failed}")
            }
        }
    }

    /// Replaces the last table, whole or not at all.
    pub(crate) fn store(&self, table: &Table) -> io::Result<()> {
        self.store_json(&serde_json::to_vec(table)?)
    }

    /// Replaces the last table by this one, as it was read.
    pub(crate) fn store_json(&self, table: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        // A clock that was set back does not matter to us, and of two proxies that had the files the later one is right.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = (state.number + 1).max(u64::try_from(now.as_micros()).unwrap_or_default());
        let next = state.last.map_or(0, |last| 1 - last);
        let file = match &mut state.recent[next] {
            Some(file) => file,
            closed => {
                let path = self.0.directory.join(RECENT[next]);
                closed.insert(OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?)
            }
        };
        file.write_all_at(&Record { number, json: Cow::Borrowed(table) }.bytes(), 0)?;
        (state.number, state.last) = (number, Some(next));
        drop(state);
        self.0.written.notify_one();
        Ok(())
    }

    /// Makes the last table outlive the machine, if it would not yet.
    pub(crate) fn make_durable(&self) -> io::Result<()> {
        let (number, record) = {
            let state = self.state();
            let Some(last) = state.last else { return Ok(()) };
            if self.0.left.load(Ordering::SeqCst) || state.durable == state.number {
                return Ok(());
            }
            // Under the lock: nobody writes to it meanwhile.
            let bytes = std::fs::read(self.0.directory.join(RECENT[last]))?;
            let record = Record::read(&bytes).ok_or_else(|| io::Error::other("the record is not whole"))?;
            (record.number, record.bytes())
        };
        let mut file = tempfile::Builder::new().prefix(".table-").tempfile_in(&self.0.directory)?;
        file.write_all(&record)?;
        file.as_file().sync_all()?;
        let mut state = self.state();
        if self.0.left.load(Ordering::SeqCst) || number <= state.durable {
            return Ok(());
        }
        file.persist(self.0.directory.join(DURABLE)).map_err(|error| error.error)?;
        state.durable = number;
        drop(state);
        File::open(&self.0.directory)?.sync_all()
    }

    /// Makes tables durable from now on, as they come. Never ends.
    pub(crate) async fn keep_durable(self) {
        loop {
            self.0.written.notified().await;
            let file = self.clone();
            let made = tokio::task::spawn_blocking(move || file.make_durable()).await.map_err(io::Error::other).flatten();
            if let Err(error) = made {
                tracing::error!(%error, "the routing table would not outlive this machine");
                // Once more after the pause, whether or not another table comes.
                self.0.written.notify_one();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Touches the files no more: they are a successor's.
    pub(crate) fn leave(&self) {
        self.0.left.store(true, Ordering::SeqCst);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a file says; nothing if there is none.
    fn read(&self, name: &str) -> io::Result<Option<(u64, Table)>> {
        let bytes = match std::fs::read(self.0.directory.join(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Record { number, json } = Record::read(&bytes).ok_or_else(|| io::Error::other("the record is not whole"))?;
        let table: Table = serde_json::from_slice(&json)?;
        table.check().map_err(io::Error::other)?;
        Ok(Some((number, table)))
    }
}

impl<'r> Record<'r> {
    /// Nothing if it is not whole. What comes after its end is left from a longer one.
    fn read(bytes: &'r [u8]) -> Option<Self> {
        let (line, rest) = bytes.split_at_checked(bytes.iter().position(|byte| *byte == b'\n')? + 1)?;
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        if words.next()? != MAGIC {
            return None;
        }
        let number = words.next()?.parse().ok()?;
        let json = rest.get(..words.next()?.parse().ok()?)?;
        let checksum = u32::from_str_radix(words.next()?, 16).ok()?;
        (crc32fast::hash(json) == checksum).then_some(Self { number, json: Cow::Borrowed(json) })
    }

    fn bytes(&self) -> Vec<u8> {
        let (length, checksum) = (self.json.len(), crc32fast::hash(&self.json));
        let mut bytes = format!("{MAGIC} {} {length} {checksum:08x}\n", self.number).into_bytes();
        bytes.extend_from_slice(&self.json);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(generation: u64) -> Table {
        Table { generation, ..Table::default() }
    }

    fn found(directory: &Path) -> Table {
        TableFile::in_directory(directory).unwrap().load()
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let file = TableFile::in_directory(&path).unwrap();
        assert_eq!(file.load(), table(0));
        for generation in [1_000_000, 7, 8] {
            file.store(&table(generation)).unwrap();
            assert_eq!(found(&path), table(generation));
        }
    }

    #[test]
    fn a_write_that_was_cut_short_costs_one_table() {
        let directory = tempfile::tempdir().unwrap();
        let file = TableFile::in_directory(directory.path()).unwrap();
        (1..=3).for_each(|generation| file.store(&table(generation)).unwrap());
        let last = directory.path().join(RECENT[0]);
        let whole = std::fs::read(&last).unwrap();
        for torn in [&whole[..whole.len() - 1], &whole[..3], b"", &[0; 200]] {
            std::fs::write(&last, torn).unwrap();
            assert_eq!(found(directory.path()), table(2));
        }
        let mut garbled = whole;
        *garbled.last_mut().unwrap() = b' ';
        std::fs::write(&last, garbled).unwrap();
        assert_eq!(found(directory.path()), table(2));
    }

    #[test]
    fn a_durable_table_needs_no_other_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = TableFile::in_directory(directory.path()).unwrap();
        file.make_durable().unwrap();
        file.store(&table(1)).unwrap();
        file.store(&table(2)).unwrap();
        file.make_durable().unwrap();
        file.store(&table(3)).unwrap();
        assert_eq!(found(directory.path()), table(3));
        RECENT.iter().for_each(|name| std::fs::write(directory.path().join(name), [0; 9]).unwrap());
        assert_eq!(found(directory.path()), table(2));
        // It goes on where it was.
        let next = TableFile::in_directory(directory.path()).unwrap();
        next.load_alone();
        next.store(&table(4)).unwrap();
        assert_eq!(found(directory.path()), table(4));
    }

    #[test]
    fn a_successor_has_the_last_word() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (TableFile::in_directory(directory.path()).unwrap(), TableFile::in_directory(directory.path()).unwrap());
        old.store(&table(1)).unwrap();
        assert_eq!(new.load(), table(1));
        new.store(&table(2)).unwrap();
        new.make_durable().unwrap();
        old.leave();
        old.make_durable().unwrap();
        assert_eq!(found(directory.path()), table(2));
        RECENT.iter().for_each(|name| std::fs::write(directory.path().join(name), "").unwrap());
        assert_eq!(found(directory.path()), table(2));
    }

    #[test]
    fn what_cannot_be_used_is_put_aside_by_who_is_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let file = TableFile::in_directory(directory.path()).unwrap();
        file.store(&table(1)).unwrap();
        file.store(&table(2)).unwrap();
        let torn = "coracle-table 1 20 00000000\n{\"generation\": 1, \"rou";
        for name in [RECENT[1], DURABLE] {
            std::fs::write(path(name), torn).unwrap();
        }
        assert_eq!(found(directory.path()), table(1));
        assert!(path(DURABLE).exists(), "it may be another proxy's");
        let file = TableFile::in_directory(directory.path()).unwrap();
        assert_eq!(file.load_alone(), table(1));
        for name in [RECENT[1], DURABLE] {
            assert_eq!(std::fs::read_to_string(path(&format!("{name}.bad"))).unwrap(), torn);
            assert!(!path(name).exists());
        }
        assert!(path(RECENT[0]).exists());
        // It goes on with what is left, and without anything.
        file.store(&table(3)).unwrap();
        assert_eq!(found(directory.path()), table(3));
        file.put_all_aside("it is too old");
        assert_eq!(file.load_alone(), table(0));
        file.store(&table(4)).unwrap();
        assert_eq!(found(directory.path()), table(4));
    }
}
