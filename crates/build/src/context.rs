//! Build contexts: a tree as the tar stream that an image builder takes.

use std::io::{self, Write};
use std::path::Path;

use tar::{EntryType, Header};

use crate::ignore::DockerIgnore;
use crate::tree::TreeWriter;

/// Writes the tree as a tar stream (not compressed), sorted, owned by uid 0, without what is ignored and with the extra
/// files last. Symlinks stay symlinks; sockets, pipes and devices are left out. The same tree gives the same bytes.
pub fn tar_context<W: Write>(root: &Path, ignore: &DockerIgnore, extra: &[(String, Vec<u8>)], writer: W) -> io::Result<W> {
    let mut tree = TreeWriter::new(root, ignore, writer);
    tree.write().map_err(|error| io::Error::new(error.source.kind(), format!("{}: {}", error.path.display(), error.source)))?;
    for (path, bytes) in extra {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len() as u64);
        tree.tar.append_data(&mut header, path, bytes.as_slice())?;
    }
    tree.tar.into_inner()
}

/// Writes what a builder would see of the tree, for whoever wants to know whether it has changed: the same files with the
/// same contents and permissions give the same bytes, whenever they were written.
pub fn fingerprint_context<W: Write>(root: &Path, ignore: &DockerIgnore, writer: W) -> io::Result<W> {
    let mut tree = TreeWriter::new(root, ignore, writer);
    tree.times = false;
    tree.write().map_err(|error| io::Error::new(error.source.kind(), format!("{}: {}", error.path.display(), error.source)))?;
    tree.tar.into_inner()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_context_is_sorted_and_holds_what_is_kept_with_its_folders() {
        let tree = tempfile::tempdir().unwrap();
        let at = |path: &str| tree.path().join(path);
        fs::create_dir_all(at("z/deep/er")).unwrap();
        fs::create_dir_all(at("empty")).unwrap();
        fs::create_dir_all(at("gone/below")).unwrap();
        for path in ["b", "a", "z/deep/er/kept.py", "z/deep/er/x.txt", "z/y", "gone/below/x"] {
            fs::write(at(path), path).unwrap();
        }
        symlink("/outside", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let ignore = DockerIgnore::parse("z\ngone\n!z/**/*.py\n", "x").unwrap();
        let extra = [("Dockerfile.coracle".to_owned(), b"FROM x".to_vec())];
        let bytes = tar_context(tree.path(), &ignore, &extra, Vec::new()).unwrap();
        let expected = ["a", "b", "empty/", "link", "z/", "z/deep/", "z/deep/er/", "z/deep/er/kept.py", "Dockerfile.coracle"];
        assert_eq!(names(&bytes), expected);
        assert_eq!(bytes, tar_context(tree.path(), &ignore, &extra, Vec::new()).unwrap());
        let mut archive = tar::Archive::new(bytes.as_slice());
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (0, 0));
            if entry.path().unwrap().to_str() == Some("link") {
                assert_eq!(entry.link_name().unwrap().unwrap().to_str(), Some("/outside"));
            }
        }
    }

    #[test]
    fn a_fingerprint_does_not_know_when_a_file_was_written() {
        let tree = tempfile::tempdir().unwrap();
        let (file, ignore) = (tree.path().join("a"), DockerIgnore::parse("gone", "x").unwrap());
        let now = || fingerprint_context(tree.path(), &ignore, Vec::new()).unwrap();
        fs::write(&file, "one").unwrap();
        let first = now();
        fs::write(&file, "one").unwrap();
        let handle = fs::File::options().append(true).open(&file).unwrap();
        handle.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        fs::write(tree.path().join("gone"), "x").unwrap();
        assert_eq!(now(), first);
        fs::write(&file, "two").unwrap();
        assert_ne!(now(), first);
    }

    #[test]
    fn a_failure_names_the_file() {
        let error = tar_context(Path::new("/nowhere"), &DockerIgnore::default(), &[], Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere"), "{error}");
    }
}
