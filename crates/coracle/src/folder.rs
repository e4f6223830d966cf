//! Writing into folders that somebody else may have prepared: no symbolic link is followed on the way, and none is written through.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::failure::Failure;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    handle: OwnedFd,
    /// As it is told to people.
    path: PathBuf,
}

/// Why a file was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// Something has this name already.
    Taken,
    /// Another reason.
    Failed(Failure),
}

impl Folder {
    /// One that is there. Links in its path are followed.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let handle = openat(CWD, path, FOLDER, Mode::empty()).map_err(|errno| failed("open", path, errno))?;
        // Names in it are told without `./`.
        let path = if path == Path::new(".") { PathBuf::new() } else { path.to_owned() };
        Ok(Self { handle, path })
    }

    /// One that is made if it is not there, with those above it. A relative path leads through no link; an absolute one does not end
    /// with one.
    pub(crate) fn make(path: &Path) -> Result<Self, Failure> {
        let (above, below) = match (path.is_absolute(), path.parent()) {
            (true, Some(above)) => {
                std::fs::create_dir_all(above)
                    .map_err(|error| Failure::failed(format!("cannot make {}: {error}", above.display())))?;
                (above, path.strip_prefix(above).unwrap_or(path))
            }
            (true, None) => (path, Path::new("")),
            (false, _) => (Path::new("."), path),
        };
        Self::open(above)?.below(below)
    }

    /// The folder at a path from this one, made if it is not there. The path leads through no link.
    pub(crate) fn below(self, path: &Path) -> Result<Self, Failure> {
        path.components().filter(|piece| *piece != Component::CurDir).try_fold(self, |at, piece| at.next(Path::new(&piece)))
    }

    fn next(self, name: &Path) -> Result<Self, Failure> {
        let path = self.path.join(name);
        match mkdirat(&self.handle, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("make", &path, errno)),
        }
        match openat(&self.handle, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(handle) => Ok(Self { handle, path }),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(self.in_the_way(name)),
            Err(errno) => Err(failed("open", &path, errno)),
        }
    }

    /// Writes a file that is not there; or, with `replaces`, also in the place of a regular file, as a whole.
    pub(crate) fn write(&self, name: &str, text: &str, replaces: bool) -> Result<PathBuf, Unwritten> {
        let path = self.path.join(name);
        if !replaces {
            self.create(name, text).map_err(|errno| match errno {
                Errno::EXIST => Unwritten::Taken,
                errno => Unwritten::Failed(failed("write", &path, errno)),
            })?;
            return Ok(path);
        }
        match self.kind_of(name) {
            None | Some(FileType::RegularFile) => {}
            Some(_) => return Err(Unwritten::Failed(self.in_the_way(Path::new(name)))),
        }
        // Renamed into its place, it changes neither what a link leads to nor what has the same content by another name.
        let staged = format!(".{name}.{}", std::process::id());
        let written = self.create(&staged, text).and_then(|()| renameat(&self.handle, &staged, &self.handle, name));
        if written.is_err() {
            unlinkat(&self.handle, &staged, AtFlags::empty()).ok();
        }
        written.map(|()| path.clone()).map_err(|errno| Unwritten::Failed(failed("write", &path, errno)))
    }

    /// The open folder, and how it is told to people.
    pub(crate) fn into_parts(self) -> (OwnedFd, PathBuf) {
        (self.handle, self.path)
    }

    fn create(&self, name: &str, text: &str) -> rustix::io::Result<()> {
        let mut file = File::from(openat(&self.handle, name, NEW, Mode::from_raw_mode(0o666))?);
        file.write_all(text.as_bytes()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn kind_of(&self, name: impl rustix::path::Arg) -> Option<FileType> {
        let found = statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(found.st_mode))
    }

    fn in_the_way(&self, name: &Path) -> Failure {
        let path = self.path.join(name);
        match self.kind_of(name) {
            Some(FileType::Symlink) => {
                Failure::failed(format!("{} is a symbolic link, and nothing is written through one", path.display()))
                    .hint(format!("look where it leads: readlink {}; take it away, or name another place", path.display()))
            }
            _ => Failure::failed(format!("{} stands where something else is to be", path.display()))
                .hint("take it away, or name another place"),
        }
    }
}

fn failed(what: &str, path: &Path, errno: Errno) -> Failure {
    Failure::failed(format!("cannot {what} {}: {}", path.display(), std::io::Error::from(errno)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn message(unwritten: Unwritten) -> String {
        match unwritten {
            Unwritten::Taken => "taken".to_owned(),
            Unwritten::Failed(failure) => failure.told(),
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let outer = tempfile::tempdir().unwrap();
        let at = |name: &str| outer.path().join(name);
        for folder in ["elsewhere", "tree/workflows"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("elsewhere/kept"), "kept").unwrap();
        symlink(at("elsewhere/kept"), at("tree/workflows/x.yml")).unwrap();
        symlink(at("elsewhere"), at("tree/linked")).unwrap();
        symlink(at("nowhere"), at("tree/dangling")).unwrap();

        let tree = || Folder::open(&at("tree")).unwrap();
        let workflows = tree().below(Path::new("workflows")).unwrap();
        let told = message(workflows.write("x.yml", "new", true).unwrap_err());
        assert!(told.ends_with("x.yml is a symbolic link, and nothing is written through one"), "{told}");
        assert_eq!(workflows.write("x.yml", "new", false), Err(Unwritten::Taken));
        for link in ["linked", "dangling", "linked/deeper"] {
            let told = tree().below(Path::new(link)).unwrap_err().told();
            assert!(told.contains("is a symbolic link"), "{link}: {told}");
            assert!(Folder::make(&at("tree").join(link)).is_err() || link == "linked/deeper");
        }
        assert_eq!(std::fs::read_to_string(at("elsewhere/kept")).unwrap(), "kept");
        assert!(!at("nowhere").exists());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_alone() {
        let tree = tempfile::tempdir().unwrap();
        let folder = Folder::make(&tree.path().join("a/b")).unwrap();
        let path = folder.write("x.yml", "first", false).unwrap();
        std::fs::hard_link(&path, tree.path().join("same")).unwrap();
        folder.write("x.yml", "second", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(std::fs::read_to_string(tree.path().join("same")).unwrap(), "first");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
