//! Opening files beneath a directory, and nowhere else, whatever the path and whichever links there are.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// A directory under which files are opened.
pub(crate) struct Root(OwnedFd);

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a file or directory by a relative path, for reading. Symbolic links are followed as long as they stay beneath.
    pub(crate) fn find(&self, path: &Path) -> io::Result<(File, Metadata)> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // A pipe would otherwise keep whoever opens it waiting for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let fd = match openat2(&self.0, path, flags, Mode::empty(), resolve) {
            // Kernels before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => self.walk(path, flags)?,
            opened => opened?,
        };
        let file = File::from(fd);
        let metadata = file.metadata()?;
        Ok((file, metadata))
    }

    /// The same step by step, which cannot follow any links.
    fn walk(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut names: Vec<_> = path.components().collect();
        let Some(last) = names.pop() else { return Err(Errno::NOENT) };
        let mut held: Option<OwnedFd> = None;
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for name in names {
            let std::path::Component::Normal(name) = name else { return Err(Errno::XDEV) };
            held = Some(openat(held.as_ref().unwrap_or(&self.0), name, step, Mode::empty())?);
        }
        if matches!(last, std::path::Component::ParentDir | std::path::Component::RootDir) {
            return Err(Errno::XDEV);
        }
        openat(held.as_ref().unwrap_or(&self.0), last.as_os_str(), flags | OFlags::NOFOLLOW, Mode::empty())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn nothing_outside_is_opened_either_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/file"), "inside").unwrap();
        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("a/out")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        std::os::unix::fs::symlink("file", root.join("a/in")).unwrap();
        let opened = Root::open(&root).unwrap();
        let secret = dir.path().join("secret");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        for path in ["../secret", "a/../../secret", "a/out", "up/secret", secret.to_str().unwrap()] {
            assert!(opened.find(Path::new(path)).is_err(), "{path}");
            assert!(opened.walk(Path::new(path), flags).is_err(), "{path}");
        }
        assert!(opened.find(Path::new("a/file")).is_ok() && opened.walk(Path::new("a/file"), flags).is_ok());
        assert!(opened.find(Path::new("a/in")).is_ok() && opened.walk(Path::new("a/in"), flags).is_err());
        assert!(opened.find(Path::new("")).unwrap().1.is_dir());
    }
}
