//! A root file system put together from pieces, read-only, in memory: what is not put in does not exist in there.
//!
//! Where [`crate::FileSystem`] shows the machine with some places hidden, this shows nothing except what is listed. Nothing
//! is copied but small files; directories are shown from where they are. Needs mount_setattr(2), Linux 5.12.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::file_system::{Attributes, Source, mount_tmpfs, set_attributes};
use crate::{JailError, Show, Step, User};

/// The pieces of a root. Paths are absolute, within the root where not said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Root {
    /// Files and directories of the machine, and where they are seen. All of it is read-only, without set-user-id programs
    /// and devices.
    pub show: Vec<Show>,
    /// Symbolic links: where, and what they say.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Files with their text, readable by all.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Empty directories, to be mounted upon later.
    pub places: Vec<PathBuf>,
    /// Whether there is a `/dev` with `null`, `zero`, `full`, `random`, `urandom`, links to the standard streams and an empty
    /// `shm`.
    pub devices: bool,
}

/// Where the new root is put together. Any directory does: only this mount namespace sees it.
const SITE: &str = "/tmp";

impl Root {
    /// Makes this the root of the calling process's mount namespace, which must be a new one. The old one is gone from it.
    pub fn apply(&self) -> Result<(), JailError> {
        let before = rustix::process::umask(Mode::from_raw_mode(0o022));
        let applied = self.build();
        rustix::process::umask(before);
        applied
    }

    fn build(&self) -> Result<(), JailError> {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .step(|| "make mounts private".to_owned())?;
        // All are taken before anything is covered: the site may be above one of them.
        let shown =
            self.show.iter().map(|show| Ok((show, Source::take(&show.source)?))).collect::<Result<Vec<_>, JailError>>()?;
        let site = Path::new(SITE);
        mount_tmpfs(site, c"mode=0755,size=16m")?;
        for (show, source) in shown {
            let target = inside(&show.target)?;
            let made = if source.is_directory { std::fs::create_dir_all(&target) } else { make_file(&target, b"") };
            made.step(|| format!("make the place {}", show.target.display()))?;
            source.put(&target)?;
        }
        for (place, to) in &self.links {
            let place = inside(place)?;
            parent_of(&place)
                .and_then(|()| std::os::unix::fs::symlink(to, &place))
                .step(|| format!("link {}", place.display()))?;
        }
        for (place, text) in &self.files {
            make_file(&inside(place)?, text).step(|| format!("write {}", place.display()))?;
        }
        for place in &self.places {
            std::fs::create_dir_all(inside(place)?).step(|| format!("make {}", place.display()))?;
        }
        if self.devices {
            make_devices(&site.join("dev"))?;
        }
        take_as_root(site)?;
        self.close_up()
    }

    fn close_up(&self) -> Result<(), JailError> {
        let all = Attributes::READ_ONLY.and(Attributes::NO_SUID).and(Attributes::NO_DEVICES);
        set_attributes(Path::new("/"), all, Attributes::NONE, true).step(|| "make the root read-only".to_owned())?;
        if self.devices {
            set_attributes(Path::new("/dev"), Attributes::NO_EXEC, Attributes::NO_DEVICES, true)
                .step(|| "let /dev have devices".to_owned())?;
        }
        Ok(())
    }
}

/// A writable place in memory, with bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scratch {
    /// Where; must exist.
    pub place: PathBuf,
    /// How many bytes of content it can hold.
    pub bytes: u64,
    /// How many files and directories it can hold.
    pub inodes: u64,
    /// Whom it belongs to.
    pub owner: User,
    /// Who may do what: `0o700`.
    pub mode: u32,
    /// Whether programs in it can be executed.
    pub executable: bool,
}

impl Scratch {
    /// Mounts it in this process's mount namespace.
    pub fn mount(&self) -> Result<(), JailError> {
        let step = || format!("mount {}", self.place.display());
        let User { uid, gid } = self.owner;
        let options = format!("size={},nr_inodes={},mode={:o},uid={uid},gid={gid}", self.bytes, self.inodes, self.mode);
        let options = CString::new(options).map_err(io::Error::from).step(step)?;
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
        if !self.executable {
            flags |= MountFlags::NOEXEC;
        }
        rustix::mount::mount("tmpfs", &self.place, "tmpfs", flags, options.as_c_str()).step(step)
    }
}

/// Mounts a `/proc` that shows only processes of the pid namespace that this process is in, only those of the reader's own
/// user, and nothing about the machine. Kernels before 5.8 cannot leave the machine out; there its files that tell most are
/// covered.
pub fn mount_processes_alone() -> Result<(), JailError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match rustix::mount::mount("proc", "/proc", "proc", flags, c"subset=pid,hidepid=invisible") {
        Err(rustix::io::Errno::INVAL) => {}
        answer => return answer.step(|| "mount /proc".to_owned()),
    }
    rustix::mount::mount("proc", "/proc", "proc", flags, c"hidepid=2").step(|| "mount /proc".to_owned())?;
    for telling in ["acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "sys", "tty"] {
        cover(&Path::new("/proc").join(telling), |place| mount_tmpfs(place, c"mode=0555,size=0"))?;
    }
    for telling in [
        "cmdline",
        "config.gz",
        "interrupts",
        "kallsyms",
        "kcore",
        "keys",
        "key-users",
        "modules",
        "sched_debug",
        "sysrq-trigger",
        "timer_list",
        "version",
    ] {
        cover(&Path::new("/proc").join(telling), |place| {
            rustix::mount::mount_bind("/dev/null", place).step(|| format!("cover {}", place.display()))
        })?;
    }
    Ok(())
}

fn cover(place: &Path, with: impl FnOnce(&Path) -> Result<(), JailError>) -> Result<(), JailError> {
    if place.exists() { with(place) } else { Ok(()) }
}

/// Where a path of the root is while it is being built.
fn inside(path: &Path) -> Result<PathBuf, JailError> {
    let clean = path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir);
    match path.strip_prefix("/") {
        Ok(below) if clean => Ok(Path::new(SITE).join(below)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)).step(|| format!("use {} in a root", path.display())),
    }
}

fn parent_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

fn make_file(path: &Path, text: &[u8]) -> io::Result<()> {
    parent_of(path)?;
    std::fs::write(path, text)
}

fn make_devices(place: &Path) -> Result<(), JailError> {
    let step = || "make /dev".to_owned();
    std::fs::create_dir_all(place).step(step)?;
    // Not nodev: that is what it is for.
    rustix::mount::mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"mode=0755,size=64k").step(step)?;
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let device = place.join(name);
        let number = rustix::fs::makedev(1, minor);
        match rustix::fs::mknodat(CWD, &device, FileType::CharacterDevice, Mode::from_raw_mode(0o666), number) {
            Ok(()) => std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o666)).step(step)?,
            // Root of a user namespace makes no devices, but may show those that are there.
            Err(rustix::io::Errno::PERM) => show_device(name, &device)?,
            Err(error) => return Err(error).step(|| format!("make /dev/{name}")),
        }
    }
    for (name, to) in
        [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")]
    {
        std::os::unix::fs::symlink(to, place.join(name)).step(step)?;
    }
    std::fs::create_dir(place.join("shm")).step(step)
}

fn show_device(name: &str, place: &Path) -> Result<(), JailError> {
    let step = || format!("show /dev/{name}");
    std::fs::write(place, "").step(step)?;
    rustix::mount::mount_bind(Path::new("/dev").join(name), place).step(step)
}

/// Takes off what is mounted at `place`, at once for this mount namespace, whoever still uses it.
pub fn take_off(place: &Path) -> Result<(), JailError> {
    rustix::mount::unmount(place, UnmountFlags::DETACH).step(|| format!("take off {}", place.display()))
}

/// pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one and is taken off.
pub(crate) fn take_as_root(place: &Path) -> Result<(), JailError> {
    rustix::process::chdir(place)
        .and_then(|()| rustix::process::pivot_root(".", "."))
        .and_then(|()| rustix::mount::unmount(".", UnmountFlags::DETACH))
        .and_then(|()| rustix::process::chdir("/"))
        .step(|| "change the root".to_owned())
}
