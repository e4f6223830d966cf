//! Images: the root file system that a sandbox sees and the interpreter in it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coracle_jail::{Root, Show};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

/// What containers are made from where nothing else is said.
const DOCKER_IMAGE: &str = "python:3.11-slim";

/// Where the zygote's script is in every root.
pub(crate) const ZYGOTE: &str = "/.coracle/zygote.py";

/// Below this are the packages.
const PACKAGES: &str = "/.coracle/packages";

/// Where the machine's `/proc` is seen until a slot has its own: the kernel lets root of a user namespace mount one only
/// where there is one already.
pub(crate) const MACHINES_PROC: &str = "/.coracle/proc";

const SCRIPT: &str = concat!(include_str!("worker.py"), include_str!("zygote.py"));

/// The script of an interpreter that is not a zygote's copy.
pub(crate) const ALONE: &str = concat!(include_str!("worker.py"), include_str!("alone.py"));

/// Where the root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The machine's own Python and its libraries, and nothing else of the machine.
    Host {
        /// The interpreter; `None` looks for one.
        python: Option<PathBuf>,
    },
    /// A directory with a whole root file system, such as an exported Docker image. It is never written to.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The interpreter, as seen in there; `None` looks for one.
        python: Option<PathBuf>,
    },
}

/// A named root with an interpreter that was found in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// What executions call it.
    pub name: String,
    /// How many slots wait at any time.
    pub slots: usize,
    /// Modules that are imported ahead. Each makes every slot a little larger and every program that uses it quicker.
    pub preload: Vec<String>,
    /// Directories of the machine with packages that programs can import, such as `pip install --target` makes. They are
    /// seen read-only, and come before the interpreter's own.
    pub packages: Vec<PathBuf>,
    /// The image of a Docker engine that containers are made from, where programs are isolated by one.
    pub docker: Option<String>,
    source: Source,
    python: PathBuf,
    /// Directories of the interpreter outside `/usr`.
    prefixes: Vec<PathBuf>,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no interpreter, or none that runs.
    #[error("image {image}: no usable Python ({tried}); name the interpreter's path")]
    NoPython {
        /// The image.
        image: String,
        /// What was tried, and what came of it.
        tried: String,
    },
    /// A part of the root cannot be read.
    #[error("image {image}: {path}: {source}")]
    Unreadable {
        /// The image.
        image: String,
        /// The part.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Image {
    /// Finds the interpreter of an image. Runs it, where it is the machine's own; a directory's is not run before it is in a
    /// jail.
    pub fn find(name: &str, source: Source, slots: usize) -> Result<Self, ImageError> {
        let mut image = Self {
            name: name.to_owned(),
            slots,
            preload: Vec::new(),
            packages: Vec::new(),
            docker: None,
            source,
            python: PathBuf::new(),
            prefixes: Vec::new(),
        };
        match image.source.clone() {
            Source::Host { python } => image.find_on_host(python)?,
            Source::Directory { path, python } => image.find_in_directory(&path, python)?,
        }
        Ok(image)
    }

    /// The Docker image of it.
    pub(crate) fn docker(&self) -> &str {
        self.docker.as_deref().unwrap_or(DOCKER_IMAGE)
    }

    /// The interpreter, as seen inside.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// A launcher such as pyenv's takes longer than the program it starts, so the interpreter itself is asked where it is.
    fn find_on_host(&mut self, given: Option<PathBuf>) -> Result<(), ImageError> {
        let usual = ["/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let named = std::env::split_paths(&path).map(|place| place.join("python3")).collect::<Vec<_>>();
        let candidates = given.map_or_else(|| usual.into_iter().chain(named).collect(), |given| vec![given]);
        let mut tried = Vec::new();
        for candidate in candidates.into_iter().filter(|candidate| candidate.is_absolute() && candidate.exists()) {
            match ask(&candidate) {
                Ok(mut answers) if answers.len() == 3 => {
                    self.python = answers.remove(0);
                    answers.retain(|prefix| !prefix.starts_with("/usr"));
                    answers.dedup();
                    self.prefixes = answers;
                    return Ok(());
                }
                Ok(_) => tried.push(format!("{}: answers nonsense", candidate.display())),
                Err(error) => tried.push(format!("{}: {error}", candidate.display())),
            }
        }
        let tried = if tried.is_empty() { "none found".to_owned() } else { tried.join("; ") };
        Err(ImageError::NoPython { image: self.name.clone(), tried })
    }

    fn find_in_directory(&mut self, path: &Path, given: Option<PathBuf>) -> Result<(), ImageError> {
        let unreadable = |source| ImageError::Unreadable { image: self.name.clone(), path: path.to_owned(), source };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?;
        let usual = ["/usr/local/bin/python3", "/usr/bin/python3"].map(PathBuf::from);
        let candidates = given.map_or_else(|| usual.to_vec(), |given| vec![given]);
        let exists = |candidate: &PathBuf| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            rustix::fs::openat2(&root, candidate, flags, Mode::empty(), ResolveFlags::IN_ROOT).is_ok()
        };
        match candidates.iter().find(|candidate| exists(candidate)) {
            Some(found) => {
                self.python.clone_from(found);
                Ok(())
            }
            None => {
                let tried = candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
                Err(ImageError::NoPython { image: self.name.clone(), tried: format!("not there: {tried}") })
            }
        }
    }

    /// Where the packages are seen, in their order.
    pub(crate) fn package_places(&self) -> Vec<PathBuf> {
        (0..self.packages.len()).map(|number| PathBuf::from(format!("{PACKAGES}/{number}"))).collect()
    }

    /// The variable by which the interpreter finds them, if there are any.
    pub(crate) fn package_variable(&self) -> Option<String> {
        let places: Vec<String> = self.package_places().iter().map(|place| place.display().to_string()).collect();
        (!places.is_empty()).then(|| format!("PYTHONPATH={}", places.join(":")))
    }

    /// The pieces of the root.
    pub(crate) fn root(&self, rootless: bool) -> Result<Root, ImageError> {
        let mut root = Root { devices: true, ..Root::default() };
        root.places.extend(["/proc", "/work", "/tmp"].map(PathBuf::from));
        root.files.push((PathBuf::from(ZYGOTE), SCRIPT.as_bytes().to_vec()));
        match &self.source {
            Source::Host { .. } => self.add_host(&mut root)?,
            Source::Directory { path, .. } => self.add_directory(path, &mut root)?,
        }
        let packages = self.packages.iter().zip(self.package_places());
        root.show.extend(packages.map(|(source, target)| Show { source: source.clone(), target, writable: false }));
        if rootless {
            root.show.push(Show { source: "/proc".into(), target: MACHINES_PROC.into(), writable: false });
        }
        Ok(root)
    }

    fn add_host(&self, root: &mut Root) -> Result<(), ImageError> {
        for name in ["bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr"] {
            self.add_entry(&Path::new("/").join(name), &Path::new("/").join(name), root)?;
        }
        root.show.extend(self.prefixes.iter().map(Show::readable));
        for name in ["/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types"] {
            if Path::new(name).exists() {
                root.show.push(Show::readable(name));
            }
        }
        let configured = std::fs::read_dir("/etc").into_iter().flatten().filter_map(Result::ok);
        let pythons = configured.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
        root.show.extend(pythons.map(|entry| Show::readable(entry.path())));
        root.files.extend(accounts());
        Ok(())
    }

    /// Everything of the directory but what a slot has of its own.
    fn add_directory(&self, path: &Path, root: &mut Root) -> Result<(), ImageError> {
        let unreadable = |source| ImageError::Unreadable { image: self.name.clone(), path: path.to_owned(), source };
        let own = ["dev", "proc", "sys", "tmp", "work", ".coracle", "run"];
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if !own.iter().any(|own| name == *own) {
                self.add_entry(&entry.path(), &Path::new("/").join(&name), root)?;
            }
        }
        Ok(())
    }

    /// A directory or file is shown, a link is repeated, and what does not exist is left out.
    fn add_entry(&self, source: &Path, target: &Path, root: &mut Root) -> Result<(), ImageError> {
        let Ok(kind) = source.symlink_metadata().map(|data| data.file_type()) else { return Ok(()) };
        if kind.is_symlink() {
            let unreadable = |error| ImageError::Unreadable { image: self.name.clone(), path: source.to_owned(), source: error };
            root.links.push((target.to_owned(), std::fs::read_link(source).map_err(unreadable)?));
        } else {
            root.show.push(Show { source: source.to_owned(), target: target.to_owned(), writable: false });
        }
        Ok(())
    }
}

/// The files that programs look up users and hosts in.
fn accounts() -> Vec<(PathBuf, Vec<u8>)> {
    [
        ("/etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\nsandbox:x:1000:1000:sandbox:/work:/bin/sh\n"),
        ("/etc/group", "root:x:0:\nsandbox:x:1000:\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 sandbox\n"),
        ("/etc/hostname", "sandbox\n"),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
        ("/etc/resolv.conf", ""),
    ]
    .map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()))
    .to_vec()
}

/// The real interpreter behind a command, and its two prefixes.
fn ask(python: &Path) -> io::Result<Vec<PathBuf>> {
    let program = "import sys, os\n\
                   real = getattr(sys, '_base_executable', None) or sys.executable\n\
                   print(os.path.realpath(real), sys.base_prefix, sys.base_exec_prefix, sep='\\n')";
    let output = Command::new(python).args(["-I", "-S", "-c", program]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(text.lines().last().unwrap_or("it failed").to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect())
}
