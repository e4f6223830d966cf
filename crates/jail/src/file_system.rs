//! A private view of the file system: mostly read-only, with some places hidden, some empty and private, some writable.
//!
//! The view is made in a mount namespace of its own and changes nothing outside it. It keeps the machine's own root, so
//! that whatever is installed can run; it is meant to keep apps apart, not to hide the machine's software.
#![allow(unsafe_code)] // mount_setattr(2) has no safe binding.

mod missing;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};

use crate::{JailError, Step};

/// The view. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileSystem {
    /// Directories that become empty and private, like `/tmp`. One that does not exist is skipped.
    pub private: Vec<PathBuf>,
    /// Directories that become empty, and files and sockets that become an empty device. What does not exist is skipped.
    pub hide: Vec<PathBuf>,
    /// What is seen all the same, or somewhere else, also below what is private or hidden.
    pub show: Vec<Show>,
    /// Whether everything else is read-only.
    pub read_only: bool,
    /// Whether `/proc` shows the pid namespace that this process is in.
    pub proc: bool,
}

/// A file or directory shown at a place of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Show {
    /// Where it is.
    pub source: PathBuf,
    /// Where it is seen; made if it does not exist, in the view only.
    pub target: PathBuf,
    /// Whether it may be written to.
    pub writable: bool,
}

impl Show {
    /// Seen where it is, read-only.
    pub fn readable(path: impl Into<PathBuf>) -> Self {
        let source = path.into();
        Self { target: source.clone(), source, writable: false }
    }

    /// Seen where it is, writable.
    pub fn writable(path: impl Into<PathBuf>) -> Self {
        Self { writable: true, ..Self::readable(path) }
    }
}

impl FileSystem {
    /// Makes the view in the mount namespace of this process, which must be a new one.
    pub fn apply(&self) -> Result<(), JailError> {
        // Directories made on the way to what is shown must let others through, whatever the caller thinks of its own files.
        let before = rustix::process::umask(Mode::from_raw_mode(0o022));
        let applied = self.mount_all();
        rustix::process::umask(before);
        applied
    }

    fn mount_all(&self) -> Result<(), JailError> {
        // Neither may mounts made here appear outside, nor those made outside appear here later, writable.
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .step(|| "make mounts private".to_owned())?;
        let shown =
            self.show.iter().map(|show| Ok((show, Source::take(&show.source)?))).collect::<Result<Vec<_>, JailError>>()?;
        for place in &self.private {
            if place.is_dir() {
                mount_tmpfs(place, c"mode=1777")?;
            }
        }
        for place in &self.hide {
            hide(place)?;
        }
        for (show, source) in shown {
            missing::make_place(&show.target, source.is_directory)?;
            source.put(&show.target)?;
        }
        if self.read_only {
            self.make_read_only()?;
        }
        if self.proc {
            mount_proc()?;
        }
        Ok(())
    }

    fn make_read_only(&self) -> Result<(), JailError> {
        set_read_only(Path::new("/"), true, true)?;
        let writable = self.show.iter().filter(|show| show.writable).map(|show| &show.target);
        for place in self.private.iter().filter(|place| place.is_dir()).chain(writable) {
            set_read_only(place, false, false)?;
        }
        Ok(())
    }
}

/// A mount taken off its place, to be put somewhere else.
pub(crate) struct Source {
    tree: OwnedFd,
    pub(crate) is_directory: bool,
}

impl Source {
    pub(crate) fn take(path: &Path) -> Result<Self, JailError> {
        let is_directory = path.is_dir();
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if is_directory {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        let tree = rustix::mount::open_tree(CWD, path, flags).step(|| format!("show {}", path.display()))?;
        Ok(Self { tree, is_directory })
    }

    pub(crate) fn put(self, target: &Path) -> Result<(), JailError> {
        rustix::mount::move_mount(&self.tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .step(|| format!("show it at {}", target.display()))
    }
}

pub(crate) fn mount_tmpfs(place: &Path, options: &std::ffi::CStr) -> Result<(), JailError> {
    rustix::mount::mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options)
        .step(|| format!("mount a private {}", place.display()))
}

fn hide(place: &Path) -> Result<(), JailError> {
    let Ok(place) = place.canonicalize() else { return Ok(()) };
    if place.is_dir() {
        return mount_tmpfs(&place, c"mode=0755");
    }
    rustix::mount::mount_bind("/dev/null", &place).step(|| format!("hide {}", place.display()))
}

fn mount_proc() -> Result<(), JailError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>).step(|| "mount /proc".to_owned())
}

/// The kernel's `struct mount_attr` (mount_setattr(2)).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Attributes of a mount (mount_setattr(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes(u64);

impl Attributes {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const READ_ONLY: Self = Self(1);
    pub(crate) const NO_SUID: Self = Self(2);
    pub(crate) const NO_DEVICES: Self = Self(4);
    pub(crate) const NO_EXEC: Self = Self(8);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Sets and clears attributes of the mount at `place`, with all below it if `recursive`. Needs Linux 5.12.
pub(crate) fn set_attributes(place: &Path, set: Attributes, clear: Attributes, recursive: bool) -> io::Result<()> {
    let attr = MountAttr { set: set.0, clear: clear.0, propagation: 0, user_namespace: 0 };
    let path = CString::new(place.as_os_str().as_bytes())?;
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends in NUL and the structure has the size that is told; both live through the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_mount_setattr, CWD.as_raw_fd(), path.as_ptr(), flags, &raw const attr, size_of::<MountAttr>())
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the mount at `place` (with all below it, if `recursive`) read-only or writable.
fn set_read_only(place: &Path, read_only: bool, recursive: bool) -> Result<(), JailError> {
    let none = Attributes::NONE;
    let (set, clear) = if read_only { (Attributes::READ_ONLY, none) } else { (none, Attributes::READ_ONLY) };
    match set_attributes(place, set, clear, recursive) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => remount_one_by_one(place, read_only, recursive),
        answer => answer.step(|| format!("make {} {}", place.display(), if read_only { "read-only" } else { "writable" })),
    }
}

/// The same for kernels before 5.12: each mount by itself, with the flags it has.
fn remount_one_by_one(place: &Path, read_only: bool, recursive: bool) -> Result<(), JailError> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").step(|| "read the mounts".to_owned())?;
    for line in table.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        let point = PathBuf::from(point.replace("\\040", " "));
        if point != place && !(recursive && point.starts_with(place)) {
            continue;
        }
        let mut flags = MountFlags::BIND;
        for option in options.split(',') {
            flags |= match option {
                "nosuid" => MountFlags::NOSUID,
                "nodev" => MountFlags::NODEV,
                "noexec" => MountFlags::NOEXEC,
                "noatime" => MountFlags::NOATIME,
                "relatime" => MountFlags::RELATIME,
                _ => MountFlags::empty(),
            };
        }
        if read_only {
            flags |= MountFlags::RDONLY;
        }
        rustix::mount::mount_remount(&point, flags, "").step(|| format!("remount {}", point.display()))?;
    }
    Ok(())
}
