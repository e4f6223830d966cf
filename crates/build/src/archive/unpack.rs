//! The server's side: unpacking what a stranger sent.
//!
//! While files are written there is not one symlink in the directory: links are noted, and made at the very end. So no path
//! that is opened can lead anywhere but where it says.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use tar::{Archive, Entry, EntryType};

use super::{UnpackError, UnpackFacts, UnpackLimits, check_link_target};

/// Bytes of an extension header (a long name, PAX attributes).
const LONGEST_EXTENSION: u64 = 64 * 1024;
/// Bytes that may follow the end of the tar stream: padding to the block size of the packer.
const MOST_PADDING: u64 = 1 << 20;
/// Bytes of a file name (`NAME_MAX`).
const LONGEST_NAME: usize = 255;

/// Unpacks a gzip-compressed archive from a stranger into the empty directory `into`, as [`unpack_tar`] does. Blocking.
pub fn unpack<R: Read>(reader: R, into: &Path, limits: UnpackLimits) -> Result<UnpackFacts, UnpackError> {
    unpack_tar(GzDecoder::new(reader), into, limits)
}

/// Unpacks an archive from a stranger into the empty directory `into`. Blocking. Without compression around it, an archive that
/// was cut off between two entries looks whole: whoever made it has to be asked.
///
/// What is refused: names that are absolute, not UTF-8 or contain `..`; links out of the tree; entries below a link; two
/// entries of one name; devices, pipes and sparse files; more than the limits allow. Owners, setuid and the like are dropped.
/// After an error, what was unpacked so far lies in `into`, for the caller to remove, and nowhere else.
pub fn unpack_tar<R: Read>(reader: R, into: &Path, limits: UnpackLimits) -> Result<UnpackFacts, UnpackError> {
    let mut unpacker = Unpacker::new(into, limits)?;
    let mut archive = Archive::new(reader);
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        unpacker.entry(entry.map_err(damaged)?)?;
    }
    // The rest is padding and the checksum, which tells whether anything is missing.
    let mut rest = archive.into_inner().take(MOST_PADDING + 1);
    match io::copy(&mut rest, &mut io::sink()) {
        Ok(read) if read > MOST_PADDING => Err(UnpackError::Damaged("something follows its end".to_owned())),
        Ok(_) => unpacker.make_links(),
        Err(error) => Err(damaged(error)),
    }
}

fn damaged(error: io::Error) -> UnpackError {
    UnpackError::Damaged(error.to_string())
}

fn refused(entry: &str, cause: &'static str) -> UnpackError {
    UnpackError::Refused { entry: entry.chars().take(200).collect(), cause }
}

/// What was written under a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    Folder,
    File,
    Link,
}

struct Unpacker<'a> {
    into: &'a Path,
    limits: UnpackLimits,
    facts: UnpackFacts,
    made: HashMap<String, Made>,
    links: Vec<(String, String)>,
    extensions: u64,
    /// What an extension header said about the next entry.
    next_name: Option<Vec<u8>>,
    next_target: Option<Vec<u8>>,
}

impl<'a> Unpacker<'a> {
    fn new(into: &'a Path, limits: UnpackLimits) -> Result<Self, UnpackError> {
        let failed = |source| UnpackError::Io { path: into.to_owned(), source };
        if fs::read_dir(into).map_err(failed)?.next().is_some() {
            return Err(failed(io::Error::other("the directory is not empty")));
        }
        let facts = UnpackFacts::default();
        let (made, links) = (HashMap::new(), Vec::new());
        Ok(Self { into, limits, facts, made, links, extensions: 0, next_name: None, next_target: None })
    }

    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                self.next_name = Some(self.extension(&mut entry)?);
                return Ok(());
            }
            EntryType::GNULongLink => {
                self.next_target = Some(self.extension(&mut entry)?);
                return Ok(());
            }
            EntryType::XHeader => return self.pax(&mut entry),
            EntryType::XGlobalHeader => return self.extension(&mut entry).map(drop),
            _ => {}
        }
        let name = self.next_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let target = self.next_target.take().or_else(|| entry.link_name_bytes().map(|target| target.into_owned()));
        let Some(name) = self.checked_name(&name)? else { return Ok(()) };
        // It would have to be skipped, however much it is.
        if kind != EntryType::Regular && entry.size() > 0 {
            return Err(refused(&name, "it has content, but is no file"));
        }
        match kind {
            EntryType::Directory => self.folder(&name),
            EntryType::Regular => self.file(&name, &mut entry),
            EntryType::Symlink => self.link(&name, target),
            EntryType::Link => self.hard_link(&name, target),
            EntryType::Char | EntryType::Block => Err(refused(&name, "it is a device")),
            EntryType::Fifo => Err(refused(&name, "it is a pipe")),
            EntryType::GNUSparse => Err(refused(&name, "it is a sparse file")),
            _ => Err(refused(&name, "it is of an unknown kind")),
        }
    }

    /// Reads an extension header, without its trailing NUL.
    fn extension<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<Vec<u8>, UnpackError> {
        self.extensions += 1;
        // Every entry may have a name and a target of its own, and Python's tarfile writes attributes as well.
        if self.extensions > self.limits.entries.saturating_mul(3) {
            return Err(self.too_many());
        }
        if entry.size() > LONGEST_EXTENSION {
            return Err(refused("(extension header)", "it is too long"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(damaged)?;
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        Ok(bytes)
    }

    /// POSIX.1-2017, pax, "pax Extended Header".
    fn pax<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), UnpackError> {
        let bytes = self.extension(entry)?;
        for record in tar::PaxExtensions::new(&bytes) {
            let record = record.map_err(damaged)?;
            match record.key_bytes() {
                b"path" => self.next_name = Some(record.value_bytes().to_owned()),
                b"linkpath" => self.next_target = Some(record.value_bytes().to_owned()),
                b"size" => return Err(refused("(extension header)", "it changes the size of an entry")),
                key if key.starts_with(b"GNU.sparse.") => return Err(refused("(extension header)", "it is a sparse file")),
                _ => {}
            }
        }
        Ok(())
    }

    /// The name as a path below `into`, with its folders made; `None` for the root itself.
    fn checked_name(&mut self, name: &[u8]) -> Result<Option<String>, UnpackError> {
        let name = std::str::from_utf8(name).map_err(|_| refused(&String::from_utf8_lossy(name), "its name is not UTF-8"))?;
        let problem = if name.is_empty() {
            Some("it has no name")
        } else if name.len() > self.limits.path {
            Some("its name is too long")
        } else if name.starts_with('/') {
            Some("its name is absolute")
        } else if name.contains('\0') {
            Some("its name contains a NUL byte")
        } else if name.split('/').any(|piece| piece == "..") {
            Some("its name contains `..`")
        } else if name.split('/').any(|piece| piece.len() > LONGEST_NAME) {
            Some("a part of its name is too long")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(refused(name, problem));
        }
        let pieces: Vec<_> = name.split('/').filter(|piece| !matches!(*piece, "" | ".")).collect();
        let name = pieces.join("/");
        for (at, _) in name.match_indices('/') {
            self.folder(&name[..at])?;
        }
        Ok((!name.is_empty()).then_some(name))
    }

    /// Notes that an entry of this name is being made, which must be the first of it.
    fn make(&mut self, name: &str, made: Made) -> Result<(), UnpackError> {
        if self.facts.entries >= self.limits.entries {
            return Err(self.too_many());
        }
        if self.made.insert(name.to_owned(), made).is_some() {
            return Err(refused(name, "there is another entry of that name"));
        }
        self.facts.entries += 1;
        Ok(())
    }

    fn too_many(&self) -> UnpackError {
        UnpackError::TooLarge { limit: format!("{} entries", self.limits.entries) }
    }

    /// Makes a folder unless it is there. All of them are open to their owner, so that they can be filled and removed again.
    fn folder(&mut self, name: &str) -> Result<(), UnpackError> {
        match self.made.get(name) {
            Some(Made::Folder) => return Ok(()),
            Some(Made::Link) => return Err(refused(name, "it is a link, and something lies below it")),
            Some(Made::File) => return Err(refused(name, "it is a file and a folder")),
            None => self.make(name, Made::Folder)?,
        }
        let path = self.into.join(name);
        let made = fs::create_dir(&path).and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)));
        made.map_err(|error| self.failed(name, error))
    }

    fn file<R: Read>(&mut self, name: &str, entry: &mut Entry<'_, R>) -> Result<(), UnpackError> {
        self.make(name, Made::File)?;
        let size = entry.size();
        let total = self.facts.bytes.saturating_add(size);
        if total > self.limits.bytes {
            return Err(UnpackError::TooLarge { limit: format!("{} MiB", self.limits.bytes >> 20) });
        }
        let path = self.into.join(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = opened.map_err(|error| self.failed(name, error))?;
        self.copy(name, entry, &mut file, size)?;
        self.facts.bytes = total;
        // What the owner may not read could not be built, nor removed by everyone.
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777 | 0o600;
        file.set_permissions(Permissions::from_mode(mode)).map_err(|error| self.failed(name, error))?;
        if let Some(time) = entry.header().mtime().ok().and_then(modest_time) {
            file.set_modified(time).map_err(|error| self.failed(name, error))?;
        }
        Ok(())
    }

    /// Copies the content; a failure to read is the archive's, a failure to write the disk's.
    fn copy<R: Read>(&self, name: &str, from: &mut R, to: &mut File, size: u64) -> Result<(), UnpackError> {
        let mut buffer = vec![0; 64 * 1024];
        let mut left = size;
        while left > 0 {
            let read = match from.read(&mut buffer) {
                Ok(0) => return Err(UnpackError::Damaged(format!("it ends within {name}"))),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(error)),
            };
            to.write_all(&buffer[..read]).map_err(|error| self.failed(name, error))?;
            left = left.saturating_sub(read as u64);
        }
        Ok(())
    }

    fn link(&mut self, name: &str, target: Option<Vec<u8>>) -> Result<(), UnpackError> {
        let target = self.checked_target(name, target)?;
        check_link_target(name, &target).map_err(|cause| refused(name, cause))?;
        self.make(name, Made::Link)?;
        self.links.push((name.to_owned(), target));
        Ok(())
    }

    fn checked_target(&self, name: &str, target: Option<Vec<u8>>) -> Result<String, UnpackError> {
        let target = target.ok_or_else(|| refused(name, "it links to nothing"))?;
        let target = String::from_utf8(target).map_err(|_| refused(name, "its target is not UTF-8"))?;
        if target.len() > self.limits.path { Err(refused(name, "its target is too long")) } else { Ok(target) }
    }

    /// A second name for a file of this archive.
    fn hard_link(&mut self, name: &str, target: Option<Vec<u8>>) -> Result<(), UnpackError> {
        let target = self.checked_target(name, target)?;
        let pieces: Vec<_> = target.split('/').filter(|piece| !matches!(*piece, "" | ".")).collect();
        let inside = pieces.join("/");
        if target.starts_with('/') || self.made.get(&inside) != Some(&Made::File) {
            return Err(refused(name, "it is a second name for something that is no file of this archive"));
        }
        self.make(name, Made::File)?;
        fs::hard_link(self.into.join(inside), self.into.join(name)).map_err(|error| self.failed(name, error))
    }

    fn make_links(self) -> Result<UnpackFacts, UnpackError> {
        for (name, target) in &self.links {
            symlink(target, self.into.join(name)).map_err(|error| self.failed(name, error))?;
        }
        Ok(self.facts)
    }

    fn failed(&self, name: &str, source: io::Error) -> UnpackError {
        failed_at(self.into, name, source)
    }
}

/// A failure of the disk, sorted into what it means.
pub(super) fn failed_at(into: &Path, name: &str, source: io::Error) -> UnpackError {
    let path = into.join(name);
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => UnpackError::DiskFull { path },
        _ => UnpackError::Io { path, source },
    }
}

/// A time that every file system can hold: before the year 2106.
fn modest_time(seconds: u64) -> Option<SystemTime> {
    (seconds <= u64::from(u32::MAX)).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
