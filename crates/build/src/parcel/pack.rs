//! From a folder that a stranger wrote to, into a parcel.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use tar::{Builder, EntryType, Header};

use super::{ParcelError, ParcelFacts, ParcelLimits, join, objection};

/// How many entries are looked at for each one that may be taken.
const LOOKED_AT: u64 = 10;

/// Packs what is `wanted` of a folder into the new file `to`: `roots` are the paths below which there may be anything, `.` for all.
/// A root that is not there is no mistake. Blocking.
///
/// Left out, and told: links of either kind, devices, sockets, pipes, names that are no text or would be mistaken for others. Of
/// the permissions, only being a program is kept.
///
/// # Errors
/// There is more than the limits allow, or something cannot be read or written. `to` may be there, half-written, then.
pub fn pack(
    folder: &Path,
    roots: &[String],
    wanted: &dyn Fn(&str) -> bool,
    to: &Path,
    limits: ParcelLimits,
) -> Result<ParcelFacts, ParcelError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(ParcelError::io(to))?;
    let gzip = GzEncoder::new(io::BufWriter::new(file), Compression::fast());
    let mut packer = Packer {
        folder,
        wanted,
        limits,
        to,
        tar: Builder::new(gzip),
        sum: blake3::Hasher::new(),
        facts: ParcelFacts::default(),
        entries: 0,
        seen: 0,
    };
    let top = rustix::fs::open(folder, FOLDER, Mode::empty()).map_err(ParcelError::os(folder))?;
    for root in roots {
        packer.root(&top, root)?;
    }
    packer.finish()
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A pipe that takes the place of a file must not hold us up.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

struct Packer<'a> {
    folder: &'a Path,
    wanted: &'a dyn Fn(&str) -> bool,
    limits: ParcelLimits,
    to: &'a Path,
    tar: Builder<GzEncoder<io::BufWriter<File>>>,
    sum: blake3::Hasher,
    facts: ParcelFacts,
    entries: u64,
    seen: u64,
}

impl Packer<'_> {
    /// Everything below a root, which may be a file itself.
    fn root(&mut self, top: &OwnedFd, root: &str) -> Result<(), ParcelError> {
        if root == "." {
            return self.below(top.as_fd(), "");
        }
        let (above, name) = root.rsplit_once('/').unwrap_or(("", root));
        let mut at = rustix::fs::openat(top, ".", FOLDER, Mode::empty()).map_err(ParcelError::os(self.folder))?;
        for piece in above.split('/').filter(|piece| !piece.is_empty()) {
            // What is not there, or a link, has nothing below it.
            let Ok(next) = rustix::fs::openat(&at, piece, FOLDER, Mode::empty()) else { return Ok(()) };
            at = next;
        }
        self.entry(at.as_fd(), above, name)
    }

    fn below(&mut self, at: BorrowedFd<'_>, path: &str) -> Result<(), ParcelError> {
        let shown = self.folder.join(path);
        let mut names = Vec::new();
        for entry in Dir::read_from(at).map_err(ParcelError::os(&shown))? {
            let entry = entry.map_err(ParcelError::os(&shown))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.seen += 1;
            if self.seen > self.limits.entries.saturating_mul(LOOKED_AT) {
                return Err(ParcelError::TooMuch(format!("{} files to look through", self.limits.entries * LOOKED_AT)));
            }
            match std::str::from_utf8(name) {
                Ok(name) => names.push(name.to_owned()),
                Err(_) => {
                    let name = std::ffi::OsStr::from_bytes(name).to_string_lossy();
                    self.facts.leave_out(&join(path, &name), "its name is no text");
                }
            }
        }
        names.sort_unstable();
        names.iter().try_for_each(|name| self.entry(at, path, name))
    }

    fn entry(&mut self, at: BorrowedFd<'_>, folder: &str, name: &str) -> Result<(), ParcelError> {
        let path = join(folder, name);
        let shown = self.folder.join(&path);
        let facts = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => facts,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(ParcelError::os(&shown)(errno)),
        };
        let kind = FileType::from_raw_mode(facts.st_mode);
        if let Some(why) = objection(&path) {
            self.facts.leave_out(&path, why);
            return Ok(());
        }
        if kind == FileType::Directory {
            let below = rustix::fs::openat(at, name, FOLDER, Mode::empty()).map_err(ParcelError::os(&shown))?;
            if (self.wanted)(&path) {
                self.add(&path, EntryType::Directory, 0o777, 0, &mut io::empty())?;
            }
            return self.below(below.as_fd(), &path);
        }
        if !(self.wanted)(&path) {
            return Ok(());
        }
        if kind != FileType::RegularFile {
            self.facts.leave_out(&path, if kind == FileType::Symlink { "a link" } else { "no plain file" });
            return Ok(());
        }
        self.file(at, name, &path)
    }

    fn file(&mut self, at: BorrowedFd<'_>, name: &str, path: &str) -> Result<(), ParcelError> {
        let shown = self.folder.join(path);
        let file = File::from(rustix::fs::openat(at, name, FILE, Mode::empty()).map_err(ParcelError::os(&shown))?);
        let facts = rustix::fs::fstat(&file).map_err(ParcelError::os(&shown))?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            self.facts.leave_out(path, "no plain file");
            return Ok(());
        }
        // Its other name may be that of a file which is not its writer's to read.
        if facts.st_nlink > 1 {
            self.facts.leave_out(path, "it has other names as well");
            return Ok(());
        }
        let size = u64::try_from(facts.st_size).unwrap_or(u64::MAX);
        self.facts.bytes = self.facts.bytes.saturating_add(size);
        if self.facts.bytes > self.limits.bytes {
            return Err(ParcelError::TooMuch(coracle_model::ByteSize::bytes(self.limits.bytes).to_string()));
        }
        self.facts.files += 1;
        let mode = if facts.st_mode & 0o111 == 0 { 0o666 } else { 0o777 };
        // One that grows meanwhile is cut, and one that shrinks is an error.
        self.add(path, EntryType::Regular, mode, size, &mut file.take(size))
    }

    fn add(&mut self, path: &str, kind: EntryType, mode: u32, size: u64, content: &mut dyn Read) -> Result<(), ParcelError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ParcelError::TooMuch(format!("{} files and folders", self.limits.entries)));
        }
        self.sum.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes());
        self.sum.update(&mode.to_le_bytes()).update(&[u8::from(kind == EntryType::Directory)]).update(&size.to_le_bytes());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        let summed = Summed { content, sum: &mut self.sum, left: size };
        self.tar.append_data(&mut header, path, summed).map_err(ParcelError::io(self.folder.join(path)))
    }

    fn finish(mut self) -> Result<ParcelFacts, ParcelError> {
        let unwritten = || ParcelError::io(self.to);
        let gzip = self.tar.into_inner().map_err(unwritten())?;
        let mut file = gzip.finish().map_err(unwritten())?;
        file.flush().map_err(unwritten())?;
        file.get_ref().sync_all().map_err(unwritten())?;
        self.facts.digest = self.sum.finalize().to_hex().to_string();
        Ok(self.facts)
    }
}

/// Content that is summed up while it is read, and of which there must be as much as was said.
struct Summed<'a> {
    content: &'a mut dyn Read,
    sum: &'a mut blake3::Hasher,
    left: u64,
}

impl Read for Summed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was made shorter while it was read"));
        }
        self.left = self.left.saturating_sub(read as u64);
        self.sum.update(&buffer[..read]);
        Ok(read)
    }
}
