//! Walking a source tree in a fixed order, without following symlinks, as tar entries.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::ignore::DockerIgnore;

/// A failure, and the file it is about.
#[derive(Debug)]
pub(crate) struct TreeError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Writes a tree into a tar stream.
pub(crate) struct TreeWriter<'a, W: Write> {
    pub(crate) root: &'a Path,
    pub(crate) ignore: &'a DockerIgnore,
    pub(crate) tar: Builder<W>,
    /// Asked about every symlink: its path and its target.
    pub(crate) check_link: fn(&str, &str) -> Result<(), &'static str>,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Whether files keep their times; without, the same contents give the same bytes.
    pub(crate) times: bool,
}

impl<'a, W: Write> TreeWriter<'a, W> {
    pub(crate) fn new(root: &'a Path, ignore: &'a DockerIgnore, writer: W) -> Self {
        Self { root, ignore, tar: Builder::new(writer), check_link: |_, _| Ok(()), entries: 0, bytes: 0, times: true }
    }

    /// Writes everything that is not ignored, in the order of the names.
    pub(crate) fn write(&mut self) -> Result<(), TreeError> {
        self.folder("", &mut Vec::new())
    }

    /// Writes what is in a folder. `pending` are ignored folders around it, written only if something in them is kept.
    fn folder(&mut self, folder: &str, pending: &mut Vec<String>) -> Result<(), TreeError> {
        let at = self.root.join(folder);
        let failed = |source| TreeError { path: at.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&at).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.into_string().map_err(|name| TreeError {
                path: at.join(name),
                source: io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8"),
            })?;
            names.push(name);
        }
        names.sort_unstable();
        for name in names {
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            self.entry(&path, pending)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, pending: &mut Vec<String>) -> Result<(), TreeError> {
        let full = self.root.join(path);
        let failed = |source| TreeError { path: full.clone(), source };
        let metadata = full.symlink_metadata().map_err(failed)?;
        let ignored = self.ignore.ignores(path);
        if metadata.is_dir() {
            if ignored && !self.ignore.may_keep_below(path) {
                return Ok(());
            }
            pending.push(path.to_owned());
            if !ignored {
                self.write_pending(pending).map_err(failed)?;
            }
            self.folder(path, pending)?;
            // Empty again if this folder or something in it was written.
            if pending.last().is_some_and(|last| last == path) {
                pending.pop();
            }
            return Ok(());
        }
        // Sockets, pipes and devices are nothing that a build could use.
        if ignored || !(metadata.is_file() || metadata.is_symlink()) {
            return Ok(());
        }
        self.write_pending(pending).map_err(failed)?;
        if metadata.is_file() { self.file(path, &full) } else { self.link(path, &full, &metadata) }.map_err(failed)
    }

    fn write_pending(&mut self, pending: &mut Vec<String>) -> io::Result<()> {
        for path in pending.drain(..) {
            let metadata = self.root.join(&path).symlink_metadata()?;
            let mut header = self.header(&metadata, EntryType::Directory);
            self.tar.append_data(&mut header, format!("{path}/"), io::empty())?;
            self.entries += 1;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, full: &Path) -> io::Result<()> {
        let file = File::open(full)?;
        // Of the open file, so that size and content belong together.
        let metadata = file.metadata()?;
        let mut header = self.header(&metadata, EntryType::Regular);
        header.set_size(metadata.len());
        self.tar.append_data(&mut header, path, Exactly { file, left: metadata.len() })?;
        self.entries += 1;
        self.bytes += metadata.len();
        Ok(())
    }

    fn link(&mut self, path: &str, full: &Path, metadata: &Metadata) -> io::Result<()> {
        let invalid = |cause: &str| io::Error::new(io::ErrorKind::InvalidData, cause);
        let target = fs::read_link(full)?;
        let target = target.to_str().ok_or_else(|| invalid("its target is not UTF-8"))?;
        (self.check_link)(path, target).map_err(invalid)?;
        let mut header = self.header(metadata, EntryType::Symlink);
        self.tar.append_link(&mut header, path, target)?;
        self.entries += 1;
        Ok(())
    }

    /// Owned by root, with the file's own permissions and time.
    fn header(&self, metadata: &Metadata, kind: EntryType) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(metadata.mode() & 0o777);
        header.set_mtime(if self.times { metadata.mtime().try_into().unwrap_or(0) } else { 0 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header
    }
}

/// Reads as many bytes as the header promised; a file that shrinks meanwhile is an error, one that grows is cut.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it shrank while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}
