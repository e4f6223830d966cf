//! The source tree as steps depend on it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use coracle_pipeline::TreeFiles;

/// The digests of a tree's files. Blocking.
///
/// # Errors
/// Something cannot be read.
pub fn files(root: &Path) -> io::Result<TreeFiles> {
    let mut files = TreeFiles::new();
    gather(root, "", &mut files)?;
    Ok(files)
}

/// Something in the root of a tree that looks like tests.
pub fn tests(root: &Path) -> Option<String> {
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
}
