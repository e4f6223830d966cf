//! Reading files, with a bound on their size and, for projects of strangers, on where they lie.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::budget::MAX_FILE;
use crate::error::{ErrorKind, Fault};

/// Reads the files that a project names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reader {
    /// Where they have to lie, links resolved; anywhere, if nothing is said.
    within: Option<PathBuf>,
}

impl Reader {
    /// Reads regular files within a directory alone, wherever links lead, or anything.
    pub(crate) fn new(within: Option<&Path>) -> Self {
        Self { within: within.map(|root| root.canonicalize().unwrap_or_else(|_| root.to_owned())) }
    }

    /// A whole file as text.
    pub(crate) fn text(&self, path: &str) -> Result<String, Fault> {
        let unreadable = |error: io::Error| Fault::new(ErrorKind::File, format!("cannot read {path}: {error}"));
        let file = match &self.within {
            None => File::open(path).map_err(unreadable)?,
            Some(root) => {
                let real = Path::new(path).canonicalize().map_err(unreadable)?;
                if !real.starts_with(root) {
                    let message = format!("{path} lies outside of the folder that is sent to the server");
                    return Err(
                        Fault::new(ErrorKind::File, message).hint("copy it into the folder, or deploy from the folder above")
                    );
                }
                // Of a pipe the opening alone would wait for a writer.
                if !real.metadata().map_err(unreadable)?.is_file() {
                    return Err(Fault::new(ErrorKind::File, format!("{path} is not a regular file")));
                }
                File::open(real).map_err(unreadable)?
            }
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(too_large(path));
        }
        String::from_utf8(bytes).map_err(|_| Fault::new(ErrorKind::File, format!("{path} is not UTF-8")))
    }
}

/// The text of a regular file of a tree, wherever links within the tree lead. What is read of it is bounded.
pub(crate) fn text_within(tree: &Path, path: &str) -> io::Result<String> {
    let real = tree.join(path).canonicalize()?;
    if !real.starts_with(tree.canonicalize()?) {
        return Err(io::Error::other("it leads out of the folder that is sent to the server"));
    }
    // Of a pipe the opening alone would wait for a writer.
    if !real.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(real)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MAX_FILE {
        true => Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE / 1024 / 1024))),
        false => Ok(text),
    }
}

/// The error for a file past the bound.
pub(crate) fn too_large(path: &str) -> Fault {
    Fault::new(ErrorKind::Limit, format!("{path} is larger than {} MiB", MAX_FILE / 1024 / 1024))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_a_tree_only_its_own_regular_files_are_read() {
        let tree = tempfile::tempdir().unwrap();
        let socket = std::os::unix::net::UnixListener::bind(tree.path().join("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", tree.path().join("endless")).unwrap();
        std::fs::write(tree.path().join("Dockerfile"), "FROM scratch").unwrap();
        std::os::unix::fs::symlink("Dockerfile", tree.path().join("linked")).unwrap();
        let told = |path: &str| text_within(tree.path(), path).map_err(|error| error.to_string());
        assert_eq!(told("linked").as_deref(), Ok("FROM scratch"));
        assert_eq!(told("socket").unwrap_err(), "it is not a regular file");
        assert_eq!(told("endless").unwrap_err(), "it leads out of the folder that is sent to the server");
        drop(socket);
    }
}
