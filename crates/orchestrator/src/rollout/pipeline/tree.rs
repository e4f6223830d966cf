//! The source tree as steps depend on it, and copies of it for them to work in.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coracle_pipeline::TreeFiles;

use super::super::Failure;
use crate::mounts;

/// The digests of a tree's files.
pub(super) async fn files(root: &Path) -> Result<TreeFiles, Failure> {
    let root = root.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut files = TreeFiles::new();
        gather(&root, "", &mut files).map(|()| files)
    });
    done(read.await, "the source tree cannot be read")
}

/// Something in the root of a tree that looks like tests.
pub(super) fn tests(root: &Path) -> Option<String> {
    let names = fs::read_dir(root).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_test = |name: &String| {
        matches!(name.as_str(), "tests" | "test" | "spec" | "__tests__" | "pytest.ini" | "tox.ini")
            || (name.ends_with(".py") && (name.starts_with("test_") || name.ends_with("_test.py")))
            || [".test.js", ".test.ts", ".spec.js", ".spec.ts", "_test.go"].iter().any(|end| name.ends_with(end))
    };
    names.filter(is_test).min()
}

fn gather(folder: &Path, path: &str, files: &mut TreeFiles) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let path = match path {
            "" => name.to_string_lossy().into_owned(),
            path => format!("{path}/{}", name.to_string_lossy()),
        };
        let facts = entry.path().symlink_metadata()?;
        if facts.is_dir() {
            gather(&entry.path(), &path, files)?;
            continue;
        }
        let mut sum = blake3::Hasher::new();
        // A name that is no text would be mistaken for others like it by its path alone.
        sum.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        if facts.is_symlink() {
            sum.update(b"link").update(fs::read_link(entry.path())?.as_os_str().as_bytes());
        } else if facts.is_file() {
            let may_run = facts.permissions().mode() & 0o111 != 0;
            sum.update(if may_run { b"prog" } else { b"file" }).update_reader(fs::File::open(entry.path())?)?;
        }
        files.insert(path, *sum.finalize().as_bytes());
    }
    Ok(())
}

/// Copies a tree to a new place where any user of a container may write. The place itself is for its owner alone to reach.
pub(super) async fn copy_for_all(from: &Path, to: PathBuf) -> Result<(), Failure> {
    let from = from.to_owned();
    let copied = tokio::task::spawn_blocking(move || {
        mounts::copy(&from, &to)?;
        open_to_all(&to)
    });
    done(copied.await, "the source tree cannot be copied for a step")
}

/// Removes such a copy. What is left of it goes with the release.
pub(super) async fn remove(copy: PathBuf) {
    let shown = copy.display().to_string();
    let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(copy)).await;
    if let Err(error) = removed.map_err(io::Error::other).flatten() {
        tracing::warn!(path = shown, %error, "what a step worked in is not gone yet");
    }
}

fn open_to_all(path: &Path) -> io::Result<()> {
    let facts = path.symlink_metadata()?;
    let mode = facts.permissions().mode();
    if facts.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o777))?;
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    } else if facts.is_file() {
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o666))?;
    }
    Ok(())
}

fn done<T>(result: Result<io::Result<T>, tokio::task::JoinError>, what: &str) -> Result<T, Failure> {
    let hint = "see that the server's disk has room (`coracle doctor`), then `coracle deploy`";
    let result = result.map_err(io::Error::other).flatten();
    result.map_err(|error| Failure::release(format!("{what}: {error}"), hint))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digests(root: &Path) -> TreeFiles {
        let mut files = TreeFiles::new();
        gather(root, "", &mut files).unwrap();
        files
    }

    #[test]
    fn content_kind_and_being_a_program_count_and_times_do_not() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [one.path(), other.path()] {
            fs::create_dir(root.join("src")).unwrap();
            fs::write(root.join("src/a"), "1").unwrap();
            std::os::unix::fs::symlink("a", root.join("src/link")).unwrap();
        }
        assert_eq!(digests(one.path()), digests(other.path()));
        assert_eq!(digests(one.path()).into_keys().collect::<Vec<_>>(), ["src/a", "src/link"]);
        let before = digests(other.path());
        fs::set_permissions(other.path().join("src/a"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(before["src/a"], digests(other.path())["src/a"]);
        fs::remove_file(other.path().join("src/link")).unwrap();
        fs::write(other.path().join("src/link"), "1").unwrap();
        assert_ne!(before["src/link"], digests(other.path())["src/link"]);
    }

    #[test]
    fn a_copy_is_open_to_all_and_follows_no_link_out_of_it() {
        let (tree, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = place.path().join("secret");
        fs::write(&secret, "mine").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(tree.path().join("bin")).unwrap();
        fs::write(tree.path().join("bin/run"), "x").unwrap();
        fs::set_permissions(tree.path().join("bin/run"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&secret, tree.path().join("out")).unwrap();
        let to = place.path().join("deep/copy");
        mounts::copy(tree.path(), &to).unwrap();
        open_to_all(&to).unwrap();
        let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&to), mode(&to.join("bin")), mode(&to.join("bin/run"))), (0o777, 0o777, 0o766));
        assert!(to.join("out").symlink_metadata().unwrap().is_symlink());
        assert_eq!(mode(&secret), 0o600);
    }
}
