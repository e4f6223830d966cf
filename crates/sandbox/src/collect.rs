//! Bringing files back out of a sandbox whose processes are all dead.
//!
//! Everything in there was made by an adversary, so nothing is followed: each directory and file is opened by one name
//! beneath the one before, and only regular files are read. A name that is a link, a device, a FIFO or a socket is skipped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

use crate::execution::Collected;
use crate::glob;

/// How deep directories are looked into.
const DEEPEST: usize = 32;
/// How many names are looked at.
const MOST_NAMES: usize = 20_000;
/// How many files are brought back.
const MOST_FILES: usize = 256;
/// The program itself is there too, and only brought back by its name.
const MAIN: &[u8] = b"main.py";

/// Brings back the files that match one of the patterns, up to so many bytes altogether. Answers also whether something was
/// left behind that should have been taken.
pub(crate) fn collect(work: OwnedFd, patterns: &[Vec<u8>], most_bytes: u64) -> (Vec<Collected>, bool) {
    let mut search = Search { patterns, left: most_bytes, names: 0, found: Vec::new(), incomplete: false };
    search.directory(&work, &mut Vec::new(), 0);
    search.found.sort_by(|one, other| one.path.cmp(&other.path));
    (search.found, search.incomplete)
}

struct Search<'a> {
    patterns: &'a [Vec<u8>],
    left: u64,
    names: usize,
    found: Vec<Collected>,
    incomplete: bool,
}

impl Search<'_> {
    fn directory(&mut self, directory: &OwnedFd, path: &mut Vec<u8>, depth: usize) {
        let Ok(entries) = Dir::read_from(directory) else {
            self.incomplete = true;
            return;
        };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.names += 1;
            if self.names > MOST_NAMES {
                self.incomplete = true;
                return;
            }
            let before = path.len();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.entry(directory, name, path, depth);
            path.truncate(before);
        }
    }

    fn entry(&mut self, directory: &OwnedFd, name: &std::ffi::CStr, path: &mut Vec<u8>, depth: usize) {
        let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth < DEEPEST => match open(directory, name, OFlags::DIRECTORY) {
                Ok(below) => self.directory(&below, path, depth + 1),
                Err(_) => self.incomplete = true,
            },
            FileType::Directory => self.incomplete = true,
            FileType::RegularFile if self.wants(path) => match self.read(directory, name) {
                Ok(content) => self.found.push(Collected { path: path.clone(), content }),
                Err(_) => self.incomplete = true,
            },
            _ => {}
        }
    }

    fn wants(&self, path: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| if path == MAIN { pattern == MAIN } else { glob::matches(pattern, path) })
    }

    /// The whole file, or an error if there is no more room for it.
    fn read(&mut self, directory: &OwnedFd, name: &std::ffi::CStr) -> io::Result<Bytes> {
        let file = open(directory, name, OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || size > self.left || self.found.len() >= MOST_FILES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let file = std::fs::File::from(file);
        io::Read::read_to_end(&mut io::Read::take(file, size), &mut content)?;
        self.left = self.left.saturating_sub(size);
        Ok(content.into())
    }
}

fn open(directory: &OwnedFd, name: &std::ffi::CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(directory.as_fd(), name, flags, Mode::empty(), stay)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn collect_from(place: &std::path::Path, patterns: &[&str], most: u64) -> (Vec<(String, usize)>, bool) {
        let work = std::fs::File::open(place).unwrap().into();
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect();
        let (files, incomplete) = collect(work, &patterns, most);
        let named = |file: Collected| (String::from_utf8_lossy(&file.path).into_owned(), file.content.len());
        (files.into_iter().map(named).collect(), incomplete)
    }

    #[test]
    fn only_regular_files_beneath_are_brought_back() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::write(at("main.py"), "1").unwrap();
        std::fs::write(at("out.txt"), "hello").unwrap();
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/deep"), "x").unwrap();
        std::fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
        symlink(outside.path().join("secret"), at("link")).unwrap();
        symlink(outside.path(), at("directory")).unwrap();
        symlink("/", at("root")).unwrap();
        symlink(".", at("loop")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let (files, incomplete) = collect_from(root.path(), &["**"], 1000);
        let expected = [("d/deep".to_owned(), 1), ("out.txt".to_owned(), 5), ("\u{fffd}".to_owned(), 0)];
        assert_eq!((files, incomplete), (expected.to_vec(), false));
        assert_eq!(collect_from(root.path(), &["main.py"], 1000).0, [("main.py".to_owned(), 1)]);
    }

    #[test]
    fn what_has_no_room_is_told() {
        let root = tempfile::tempdir().unwrap();
        std::fs::File::create(root.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        std::fs::write(root.path().join("small"), "x").unwrap();
        assert_eq!(collect_from(root.path(), &["*"], 1000), (vec![("small".to_owned(), 1)], true));
    }

    #[test]
    fn deep_directories_end_the_search_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/".repeat(60));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(root.path().join("z"), "x").unwrap();
        assert_eq!(collect_from(root.path(), &["**"], 1000), (vec![("z".to_owned(), 1)], true));
    }
}
