//! Out of an archive that a stranger made, into a folder.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use flate2::read::GzDecoder;
use rustix::fs::{AtFlags, Mode, OFlags};
use tar::{Archive, Entry, EntryType};

use super::{ParcelError, ParcelFacts, ParcelLimits, join, objection};

/// What becomes of what stands where something is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It gives way, and what is laid there is open to all.
    GivesWay,
    /// It stays, and the parcel is refused. What is laid there is for its owner to write to.
    Stays,
}

/// Lays a parcel over a folder, which is there. Blocking.
///
/// # Errors
/// See [`ParcelError`]. What was laid before stays.
pub fn lay(parcel: &Path, over: &Path, standing: Standing, limits: ParcelLimits) -> Result<ParcelFacts, ParcelError> {
    lay_in(parcel, opened(over)?, over, standing, limits)
}

/// Lays a parcel over a folder that is open already, and is told to people as `over`. Blocking.
///
/// # Errors
/// See [`ParcelError`]. What was laid before stays.
pub fn lay_in(
    parcel: &Path,
    folder: OwnedFd,
    over: &Path,
    standing: Standing,
    limits: ParcelLimits,
) -> Result<ParcelFacts, ParcelError> {
    let file = File::open(parcel).map_err(ParcelError::io(parcel))?;
    let mut layer = Layer::new(folder, over, standing, limits);
    layer.all(GzDecoder::new(BufReader::new(file)), "", &|_| true)?;
    Ok(layer.facts)
}

/// Lays what is `wanted` of a tar archive over a folder, which is there: one that an engine made of a program's files. `above` goes
/// before the names in it; empty: nothing does. What is neither file nor folder is left out, and told. Blocking.
///
/// # Errors
/// See [`ParcelError`]. What was laid before stays.
pub fn sift(
    archive: &Path,
    above: &str,
    wanted: &dyn Fn(&str) -> bool,
    over: &Path,
    limits: ParcelLimits,
) -> Result<ParcelFacts, ParcelError> {
    let file = File::open(archive).map_err(ParcelError::io(archive))?;
    let mut layer = Layer::new(opened(over)?, over, Standing::GivesWay, limits);
    layer.all(BufReader::new(file), above, wanted)?;
    Ok(layer.facts)
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn opened(over: &Path) -> Result<OwnedFd, ParcelError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(over, flags, Mode::empty()).map_err(ParcelError::os(over))
}

struct Layer<'a> {
    over: &'a Path,
    top: OwnedFd,
    standing: Standing,
    limits: ParcelLimits,
    facts: ParcelFacts,
    entries: u64,
}

impl<'a> Layer<'a> {
    fn new(top: OwnedFd, over: &'a Path, standing: Standing, limits: ParcelLimits) -> Self {
        Self { over, top, standing, limits, facts: ParcelFacts::default(), entries: 0 }
    }

    fn all(&mut self, reader: impl Read, above: &str, wanted: &dyn Fn(&str) -> bool) -> Result<(), ParcelError> {
        let damaged = |error: io::Error| ParcelError::Damaged(error.to_string());
        let mut archive = Archive::new(reader);
        for entry in archive.entries().map_err(damaged)? {
            self.entry(entry.map_err(damaged)?, above, wanted)?;
        }
        Ok(())
    }

    fn entry(&mut self, mut entry: Entry<'_, impl Read>, above: &str, wanted: &dyn Fn(&str) -> bool) -> Result<(), ParcelError> {
        self.entries += 1;
        // What is passed over costs time as well.
        if self.entries > self.limits.entries.saturating_mul(10) {
            return Err(ParcelError::TooMuch(format!("{} entries", self.limits.entries * 10)));
        }
        let bytes = entry.path_bytes().into_owned();
        let Some(path) = named(&bytes, above) else {
            self.facts.leave_out(&String::from_utf8_lossy(&bytes), "its name is none");
            return Ok(());
        };
        if path.is_empty() || !wanted(&path) {
            return Ok(());
        }
        if let Some(why) = objection(&path) {
            self.facts.leave_out(&path, why);
            return Ok(());
        }
        match entry.header().entry_type() {
            EntryType::Directory => self.folder(&path).map(drop),
            EntryType::Regular => {
                let (size, mode) = (entry.size(), entry.header().mode().unwrap_or(0));
                self.file(&path, size, mode, &mut entry)
            }
            EntryType::Symlink | EntryType::Link => {
                self.facts.leave_out(&path, "a link");
                Ok(())
            }
            _ => {
                self.facts.leave_out(&path, "no plain file");
                Ok(())
            }
        }
    }

    /// Opens a folder below the top, making what is not there.
    fn folder(&mut self, path: &str) -> Result<OwnedFd, ParcelError> {
        let mut at = rustix::fs::openat(&self.top, ".", FOLDER, Mode::empty()).map_err(ParcelError::os(self.over))?;
        let mut below = String::new();
        for piece in path.split('/').filter(|piece| !piece.is_empty()) {
            below = join(&below, piece);
            let shown = self.over.join(&below);
            at = match rustix::fs::openat(&at, piece, FOLDER, Mode::empty()) {
                Ok(next) => next,
                Err(rustix::io::Errno::NOENT) => self.make(&at, piece, &shown)?,
                Err(_) if self.standing == Standing::GivesWay => {
                    rustix::fs::unlinkat(&at, piece, AtFlags::empty()).map_err(ParcelError::os(&shown))?;
                    self.make(&at, piece, &shown)?
                }
                Err(_) => return Err(ParcelError::Taken(shown.display().to_string())),
            };
        }
        Ok(at)
    }

    fn make(&mut self, at: &OwnedFd, name: &str, shown: &Path) -> Result<OwnedFd, ParcelError> {
        self.count()?;
        rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)).map_err(ParcelError::os(shown))?;
        let made = rustix::fs::openat(at, name, FOLDER, Mode::empty()).map_err(ParcelError::os(shown))?;
        if self.standing == Standing::GivesWay {
            rustix::fs::fchmod(&made, Mode::from_raw_mode(0o777)).map_err(ParcelError::os(shown))?;
        }
        Ok(made)
    }

    fn file(&mut self, path: &str, size: u64, mode: u32, content: &mut impl Read) -> Result<(), ParcelError> {
        self.count()?;
        self.facts.files += 1;
        self.facts.bytes = self.facts.bytes.saturating_add(size);
        if self.facts.bytes > self.limits.bytes {
            return Err(ParcelError::TooMuch(coracle_model::ByteSize::bytes(self.limits.bytes).to_string()));
        }
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let at = self.folder(above)?;
        let shown = self.over.join(path);
        if self.standing == Standing::GivesWay {
            self.clear(&at, name, &shown)?;
        }
        let may_run = if mode & 0o111 == 0 { 0 } else { 0o111 };
        let opened = rustix::fs::openat(&at, name, FILE, Mode::from_raw_mode(0o644 | may_run));
        let mut file = match opened {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::EXIST) => return Err(ParcelError::Taken(shown.display().to_string())),
            Err(errno) => return Err(ParcelError::os(&shown)(errno)),
        };
        let written = io::copy(&mut content.take(size), &mut file).map_err(ParcelError::io(&shown))?;
        if written != size {
            return Err(ParcelError::Damaged(format!("{path:?} ends too early")));
        }
        if self.standing == Standing::GivesWay {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o666 | may_run)).map_err(ParcelError::os(&shown))?;
        }
        Ok(())
    }

    /// Takes away what is no folder. A folder with something in it stays in the way.
    fn clear(&self, at: &OwnedFd, name: &str, shown: &Path) -> Result<(), ParcelError> {
        match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(rustix::io::Errno::ISDIR) => {
                rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR).map_err(|_| ParcelError::Taken(shown.display().to_string()))
            }
            Err(errno) => Err(ParcelError::os(shown)(errno)),
        }
    }

    fn count(&mut self) -> Result<(), ParcelError> {
        // Folders that are only implied by a path are made as well.
        self.entries += 1;
        match self.entries > self.limits.entries.saturating_mul(10) {
            true => Err(ParcelError::TooMuch(format!("{} files and folders", self.limits.entries))),
            false => Ok(()),
        }
    }
}

/// The path that an entry's name means; `None` if it leads elsewhere, or is no text.
fn named(bytes: &[u8], above: &str) -> Option<String> {
    let name = std::str::from_utf8(bytes).ok()?;
    let mut path = above.to_owned();
    for piece in Path::new(name).components() {
        match piece {
            Component::CurDir => {}
            Component::Normal(piece) => path = join(&path, piece.to_str()?),
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return None,
        }
    }
    Some(path)
}
