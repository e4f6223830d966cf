//! Images that an operator has made: packages installed for the machine's Python, root file systems of Docker images, and
//! directories, each under a name.
//!
//! An image is a directory below the library's. It is made beside its place and moved there when it is whole, so that a name
//! means a whole image or none. What programs are shown of it belongs to whoever made it and can be written by nobody else.
//! Nothing is downloaded but what an operator asks for, and what is downloaded is not run as root.

mod export;
mod packages;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::image::{Image, ImageError, Source};

/// The file that describes an image.
const MANIFEST: &str = "image.json";
/// The packages below an image.
const PACKAGES: &str = "packages";
/// The root file system below an image.
const ROOT: &str = "root";

/// A directory with images.
#[derive(Debug, Clone)]
pub struct Library {
    place: PathBuf,
}

/// What an image is, as it is written beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Where it comes from.
    pub base: Base,
    /// The version that its interpreter had when it was made: `3.11`.
    pub python: String,
    /// Modules that are imported ahead.
    pub preload: Vec<String>,
    /// BLAKE3 of the requirements that its packages were installed from, in hexadecimal; empty where there are none.
    pub requirements: String,
    /// The packages that were installed, with their versions.
    pub installed: Vec<String>,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// The machine's Python, with packages of the image's own.
    Host {
        /// The interpreter.
        python: PathBuf,
    },
    /// A Docker image, exported.
    Docker {
        /// How the engine called it.
        reference: String,
        /// Its digest.
        id: String,
    },
    /// A directory of the machine with a root file system.
    Directory {
        /// Which.
        path: PathBuf,
    },
}

/// What an image is to be made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What it starts from.
    pub from: From,
    /// Modules to import ahead.
    pub preload: Vec<String>,
}

/// What an image starts from.
#[derive(Debug, Clone)]
pub enum From {
    /// The machine's Python and the packages of a requirements file.
    Requirements {
        /// The file.
        file: PathBuf,
        /// The interpreter; `None` looks for one.
        python: Option<PathBuf>,
        /// Whether packages may be built from source, which runs their code, as an unprivileged user and with a network.
        source: bool,
    },
    /// A Docker image that an engine has.
    Docker {
        /// Its name: `python:3.12-slim`.
        reference: String,
        /// The engine's socket; `None` is the usual one.
        socket: Option<PathBuf>,
    },
    /// A directory with a root file system, which stays where it is.
    Directory(PathBuf),
}

/// Why an image cannot be made, found or used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The name cannot be one.
    #[error(
        "{0:?} is no name for an image: use up to 40 small letters, digits, '-', '_' and '.', starting with a letter or digit"
    )]
    Name(String),
    /// There is none of that name.
    #[error("there is no image {name} in {library}; {have}")]
    Missing {
        /// The name.
        name: String,
        /// The library.
        library: PathBuf,
        /// Which there are.
        have: String,
    },
    /// It is there, and something about it is wrong.
    #[error("image {name} is broken: {why}; make it again with `pyrunner image build` or remove it")]
    Broken {
        /// The name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The packages could not be installed.
    #[error("the packages could not be installed: {0}")]
    Install(String),
    /// The Docker image could not be exported.
    #[error("the Docker image {reference} could not be exported: {why}")]
    Export {
        /// Its name.
        reference: String,
        /// Why.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no interpreter in it.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// The name of an image, and what it is or what is wrong with it.
pub type Entry = (String, Result<Manifest, LibraryError>);

/// Images that can be served; and the names of those that cannot, with the reason.
pub type Opened = (Vec<Image>, Vec<(String, String)>);

fn at(path: &Path) -> impl FnOnce(io::Error) -> LibraryError {
    let path = path.to_owned();
    move |source| LibraryError::Io { path, source }
}

impl Library {
    /// The library in that directory, which need not exist yet.
    pub fn at(place: impl Into<PathBuf>) -> Self {
        Self { place: place.into() }
    }

    /// The names of its images, sorted, each with what it is or what is wrong with it.
    pub fn list(&self) -> Result<Vec<Entry>, LibraryError> {
        let entries = match std::fs::read_dir(&self.place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(at(&self.place))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| check_name(name).is_ok()).collect();
        names.sort();
        Ok(names.into_iter().map(|name| (name.clone(), self.manifest(&name))).collect())
    }

    /// What the image of that name is.
    pub fn manifest(&self, name: &str) -> Result<Manifest, LibraryError> {
        check_name(name)?;
        let path = self.place.join(name).join(MANIFEST);
        let broken = |why: String| LibraryError::Broken { name: name.to_owned(), why };
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| broken(format!("{}: {error}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.place.join(name).exists() => Err(self.missing(name)),
            Err(error) => Err(broken(format!("{}: {error}", path.display()))),
        }
    }

    /// The image of that name, to be served with so many slots. Fails where it is not whole, or no longer fits the machine.
    pub fn open(&self, name: &str, slots: usize) -> Result<Image, LibraryError> {
        let manifest = self.manifest(name)?;
        let broken = |why: String| LibraryError::Broken { name: name.to_owned(), why };
        let place = self.place.join(name);
        let source = match &manifest.base {
            Base::Host { python } => Source::Host { python: Some(python.clone()) },
            Base::Docker { .. } => Source::Directory { path: place.join(ROOT), python: None },
            Base::Directory { path } => Source::Directory { path: path.clone(), python: None },
        };
        let mut image = Image::find(name, source, slots).map_err(|error| broken(error.to_string()))?;
        if let Base::Host { python } = &manifest.base {
            let now = packages::version(python).map_err(broken)?;
            if now != manifest.python {
                let why = format!("its packages are for Python {}, and {} is {now} now", manifest.python, python.display());
                return Err(broken(why));
            }
            let packages = place.join(PACKAGES);
            std::fs::read_dir(&packages).map_err(|error| broken(format!("{}: {error}", packages.display())))?;
            image.packages = vec![packages];
        }
        if let Base::Docker { reference, .. } = manifest.base {
            image.docker = Some(reference);
        }
        image.preload = manifest.preload;
        Ok(image)
    }

    /// All images, each to be served with so many slots, and the names of those that cannot be, with the reason.
    pub fn open_all(&self, slots: usize) -> Result<Opened, LibraryError> {
        let (mut images, mut broken) = (Vec::new(), Vec::new());
        for (name, _) in self.list()? {
            match self.open(&name, slots) {
                Ok(image) => images.push(image),
                Err(error) => broken.push((name, error.to_string())),
            }
        }
        Ok((images, broken))
    }

    /// Makes an image, in the place of one with the same name if there is one. Says what it is doing, line by line.
    pub fn build(&self, name: &str, recipe: &Recipe, tell: &mut dyn FnMut(&str)) -> Result<Manifest, LibraryError> {
        check_name(name)?;
        std::fs::create_dir_all(&self.place).map_err(at(&self.place))?;
        let staging = Staging::make(&self.place, name)?;
        let mut manifest = match &recipe.from {
            From::Requirements { file, python, source } => packages::install(file, python.clone(), *source, &staging.0, tell)?,
            From::Docker { reference, socket } => export::export(reference, socket.clone(), &staging.0, tell)?,
            From::Directory(path) => from_directory(name, path)?,
        };
        manifest.preload.clone_from(&recipe.preload);
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| at(&staging.0)(error.into()))?;
        let path = staging.0.join(MANIFEST);
        std::fs::write(&path, text).map_err(at(&path))?;
        close_up(&staging.0)?;
        staging.put(&self.place, name)?;
        // As it will be opened, so that what cannot work is known now.
        self.open(name, 1)?;
        Ok(manifest)
    }

    /// Removes an image. Slots that were made from it go on until their daemon ends.
    pub fn remove(&self, name: &str) -> Result<(), LibraryError> {
        check_name(name)?;
        let place = self.place.join(name);
        if !place.exists() {
            return Err(self.missing(name));
        }
        // Out of sight at once, however long it takes.
        let aside = self.place.join(format!(".{name}.{}.gone", std::process::id()));
        std::fs::rename(&place, &aside).map_err(at(&place))?;
        std::fs::remove_dir_all(&aside).map_err(at(&aside))
    }

    fn missing(&self, name: &str) -> LibraryError {
        let names = self.list().unwrap_or_default().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let have = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        LibraryError::Missing { name: name.to_owned(), library: self.place.clone(), have }
    }
}

/// A name becomes a directory, and a word of a request.
fn check_name(name: &str) -> Result<(), LibraryError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    let starts = name.as_bytes().first().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    if starts && name.len() <= 40 && name.bytes().all(good) { Ok(()) } else { Err(LibraryError::Name(name.to_owned())) }
}

fn from_directory(name: &str, path: &Path) -> Result<Manifest, LibraryError> {
    let path = std::fs::canonicalize(path).map_err(at(path))?;
    let image = Image::find(name, Source::Directory { path: path.clone(), python: None }, 1)?;
    // It is not run here, outside of any jail, so its version is not known.
    let python = image.python().display().to_string();
    Ok(Manifest {
        base: Base::Directory { path },
        python,
        preload: Vec::new(),
        requirements: String::new(),
        installed: Vec::new(),
    })
}

/// A directory in which an image is made; gone if it does not become one.
struct Staging(PathBuf);

impl Staging {
    fn make(library: &Path, name: &str) -> Result<Self, LibraryError> {
        let place = library.join(format!(".{name}.{}.new", std::process::id()));
        std::fs::remove_dir_all(&place)
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
            .map_err(at(&place))?;
        std::fs::create_dir(&place).map_err(at(&place))?;
        Ok(Self(place))
    }

    /// Moves it to its place; what was there before goes.
    fn put(self, library: &Path, name: &str) -> Result<(), LibraryError> {
        let (place, aside) = (library.join(name), library.join(format!(".{name}.{}.old", std::process::id())));
        let replaced = match std::fs::rename(&place, &aside) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(at(&place)(error)),
        };
        std::fs::rename(&self.0, &place).map_err(at(&place))?;
        std::fs::File::open(library).and_then(|library| library.sync_all()).map_err(at(library))?;
        if replaced {
            std::fs::remove_dir_all(&aside).map_err(at(&aside))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Not there any more where it has become an image.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Gives everything to the caller and lets all others only read it.
fn close_up(place: &Path) -> Result<(), LibraryError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut left = vec![place.to_owned()];
    while let Some(path) = left.pop() {
        let data = path.symlink_metadata().map_err(at(&path))?;
        // A root file system's own users stay: programs look at them, and have no power over any.
        if data.uid() == packages::BUILDER {
            std::os::unix::fs::lchown(&path, Some(own.0), Some(own.1)).map_err(at(&path))?;
        }
        if data.is_symlink() {
            continue;
        }
        let mode = data.permissions().mode();
        let closed = (mode | 0o444 | if data.is_dir() || mode & 0o100 != 0 { 0o111 } else { 0 }) & 0o755;
        if mode & 0o7777 != closed {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(closed)).map_err(at(&path))?;
        }
        if data.is_dir() {
            let entries = std::fs::read_dir(&path).map_err(at(&path))?;
            left.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn names_are_words_and_no_paths() {
        for bad in ["", ".", "..", "a/b", "A", "-x", ".hidden", "ä", &"x".repeat(41)] {
            assert!(matches!(check_name(bad), Err(LibraryError::Name(_))), "{bad}");
        }
        for good in ["numpy", "py3.12", "data-science_2"] {
            check_name(good).unwrap();
        }
    }

    #[test]
    fn what_is_not_there_or_not_whole_is_told() {
        let place = tempfile::tempdir().unwrap();
        let library = Library::at(place.path());
        assert!(library.list().unwrap().is_empty());
        let missing = library.open("numpy", 1).unwrap_err().to_string();
        assert!(missing.contains("there is no image numpy") && missing.contains("it has none"), "{missing}");
        std::fs::create_dir(place.path().join("half")).unwrap();
        let broken = library.open("half", 1).unwrap_err().to_string();
        assert!(broken.contains("image half is broken") && broken.contains("image build"), "{broken}");
        assert!(library.remove("other").unwrap_err().to_string().contains("it has half"));
        std::fs::write(place.path().join("half/image.json"), r#"{"base": {"hots": {}}}"#).unwrap();
        assert!(matches!(&library.list().unwrap()[..], [(name, Err(LibraryError::Broken { .. }))] if name == "half"));
        library.remove("half").unwrap();
        assert!(library.list().unwrap().is_empty());
    }

    #[test]
    fn packages_for_another_python_are_not_served() {
        let place = tempfile::tempdir().unwrap();
        let library = Library::at(place.path());
        let manifest = Manifest {
            base: Base::Host { python: "/usr/bin/python3".into() },
            python: "2.7".to_owned(),
            preload: Vec::new(),
            requirements: String::new(),
            installed: Vec::new(),
        };
        std::fs::create_dir_all(place.path().join("old/packages")).unwrap();
        std::fs::write(place.path().join("old/image.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let why = library.open("old", 1).unwrap_err().to_string();
        assert!(why.contains("are for Python 2.7"), "{why}");
    }

    #[test]
    fn a_build_that_fails_leaves_what_was_there() {
        let place = tempfile::tempdir().unwrap();
        let library = Library::at(place.path());
        std::fs::create_dir(place.path().join("mine")).unwrap();
        let recipe = Recipe { from: From::Directory(place.path().join("nowhere")), preload: Vec::new() };
        library.build("mine", &recipe, &mut |_| {}).unwrap_err();
        let names: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["mine"]);
    }
}
