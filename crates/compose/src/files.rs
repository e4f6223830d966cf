//! Reading files, with a bound on their size and, for projects of strangers, on where they lie.

use std::fs::File;
use std::io;
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
    /// Reads regular files within a directory alone, wherever links lead, or anywhere.
    pub(crate) fn new(within: Option<&Path>) -> Self {
        Self { within: within.map(|root| root.canonicalize().unwrap_or_else(|_| root.to_owned())) }
    }

    /// A whole file as text: a regular one, or a pipe that a shell made.
    pub(crate) fn text(&self, path: &str) -> Result<String, Fault> {
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::FileTooLarge => too_large(path),
            io::ErrorKind::InvalidInput => Fault::new(ErrorKind::File, format!("{path} is not a regular file")),
            _ => Fault::new(ErrorKind::File, format!("cannot read {path}: {error}")),
        };
        let read = match &self.within {
            None if is_of_a_shell(path) => File::open(path).and_then(|file| coracle_regular_file::read_bounded(file, MAX_FILE)),
            None => coracle_regular_file::read(Path::new(path), MAX_FILE),
            Some(root) => {
                let real = Path::new(path).canonicalize().map_err(unreadable)?;
                if !real.starts_with(root) {
                    let message = format!("{path} lies outside of the folder that is sent to the server");
                    return Err(
                        Fault::new(ErrorKind::File, message).hint("copy it into the folder, or deploy from the folder above")
                    );
                }
                coracle_regular_file::read(&real, MAX_FILE)
            }
        };
        String::from_utf8(read.map_err(unreadable)?).map_err(|_| Fault::new(ErrorKind::File, format!("{path} is not UTF-8")))
    }
}

/// The text of a regular file of a tree, wherever links within the tree lead. What is read of it is bounded.
pub(crate) fn text_within(tree: &Path, path: &str) -> io::Result<String> {
    let real = tree.join(path).canonicalize()?;
    if !real.starts_with(tree.canonicalize()?) {
        return Err(io::Error::other("it leads out of the folder that is sent to the server"));
    }
    let bytes = coracle_regular_file::read(&real, MAX_FILE)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

/// Whether a path is one that shells make of `<(…)`, or stands for nothing at all. Pipes elsewhere would keep their reader waiting.
fn is_of_a_shell(path: &str) -> bool {
    path == "/dev/null" || ["/dev/fd/", "/dev/stdin", "/proc/self/fd/"].iter().any(|place| path.starts_with(place))
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

    #[test]
    fn pipes_are_read_where_a_shell_has_put_them_alone() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd;
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("compose.yaml");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let pipe = pipe.to_str().unwrap();
        let refused = Reader::default().text(pipe).unwrap_err();
        assert!(format!("{refused:?}").contains("compose.yaml is not a regular file"), "{refused:?}");
        let (read, mut write) = io::pipe().unwrap();
        write.write_all(b"services: {}").unwrap();
        drop(write);
        let text = Reader::default().text(&format!("/proc/self/fd/{}", read.as_raw_fd())).unwrap();
        assert_eq!(text, "services: {}");
        assert_eq!(Reader::default().text("/dev/null").unwrap(), "");
    }
}
