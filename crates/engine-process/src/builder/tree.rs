//! The tree of a slug: copied from the source, then sealed.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use coracle_engine::{BuildError, EngineError};
use coracle_jail::User;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use crate::files::{give_group, give_to};

/// Copies the source as it is, but without git's own files and without `skip` at its root. Links may only lead to
/// somewhere within the tree; devices and sockets are nothing that is deployed.
pub(super) fn copy(source: &Path, tree: &Path, skip: Option<&str>, cancel: &CancellationToken) -> Result<(), BuildError> {
    let failed = |path: &Path, error: &io::Error| BuildError::from(EngineError::io(format!("copy {}", path.display()), error));
    let wanted = |entry: &walkdir::DirEntry| {
        entry.depth() != 1 || (entry.file_name() != ".git" && skip.is_none_or(|skip| entry.file_name() != skip))
    };
    for entry in WalkDir::new(source).into_iter().filter_entry(wanted) {
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let entry = entry.map_err(|error| failed(source, &error.into()))?;
        let below = entry.path().strip_prefix(source).unwrap_or(entry.path());
        let target = tree.join(below);
        let kind = entry.file_type();
        let copied = if kind.is_dir() {
            std::fs::create_dir_all(&target)
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target).map(|_| ())
        } else if kind.is_symlink() {
            let to = std::fs::read_link(entry.path()).map_err(|error| failed(below, &error))?;
            if !stays_inside(below, &to) {
                return Err(BuildError::CannotBuild(format!(
                    "{} is a link to {}, which is outside of the app",
                    below.display(),
                    to.display()
                )));
            }
            std::os::unix::fs::symlink(to, &target)
        } else {
            return Err(BuildError::CannotBuild(format!("{} is neither a file nor a directory nor a link", below.display())));
        };
        copied.map_err(|error| failed(below, &error))?;
    }
    Ok(())
}

/// Whether a link at `link` (relative to the root) to `to` ends within the root, going by the names alone.
fn stays_inside(link: &Path, to: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    for piece in to.components() {
        match piece {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// Makes everything in the tree read-only. Who may read it is decided by the directory of the app's slugs, which others
/// may not enter, and by what an instance is shown.
pub(super) fn seal(tree: &Path, user: Option<User>) -> Result<(), BuildError> {
    let sealed = each(tree, |path, kind| {
        if kind.is_symlink() {
            return Ok(());
        }
        give_group(path, user)?;
        let runs = kind.is_dir() || path.symlink_metadata()?.permissions().mode() & 0o111 != 0;
        std::fs::set_permissions(path, PermissionsExt::from_mode(if runs { 0o555 } else { 0o444 }))
    });
    sealed.map_err(|error| EngineError::io("seal the slug", &error).into())
}

/// Hands the tree to the app's user, to be written to by a build step.
pub(super) fn hand_over(tree: &Path, user: Option<User>) -> Result<(), BuildError> {
    each(tree, |path, _| give_to(path, user)).map_err(|error| EngineError::io("hand over the tree", &error).into())
}

/// Children before their directories, which may be closed by then.
fn each(tree: &Path, mut act: impl FnMut(&Path, std::fs::FileType) -> io::Result<()>) -> io::Result<()> {
    for entry in WalkDir::new(tree).contents_first(true) {
        let entry = entry?;
        act(entry.path(), entry.file_type())?;
    }
    Ok(())
}

/// The bytes in a directory; counting ends soon after `enough`.
pub(super) fn size(directory: &Path, enough: u64) -> u64 {
    let mut total = 0;
    for entry in WalkDir::new(directory).into_iter().filter_map(Result::ok) {
        total += entry.metadata().map(|meta| meta.len()).unwrap_or(0);
        if total > enough {
            break;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_may_lead_around_inside_only() {
        for (link, to, inside) in [
            ("a", "b", true),
            ("d/a", "../b", true),
            ("a", "../b", false),
            ("a", "/etc/passwd", false),
            ("d/a", "../../etc/passwd", false),
            ("d/a", "x/../../../etc", false),
        ] {
            assert_eq!(stays_inside(Path::new(link), Path::new(to)), inside, "{link} -> {to}");
        }
    }

    #[test]
    fn gits_own_files_are_left_out_at_the_root_only() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [".git", "vendor/.git"] {
            std::fs::create_dir_all(source.path().join(folder)).unwrap();
            std::fs::write(source.path().join(folder).join("HEAD"), "x").unwrap();
        }
        let tree = target.path().join("tree");
        copy(source.path(), &tree, None, &CancellationToken::new()).unwrap();
        assert!(!tree.join(".git").exists());
        assert!(tree.join("vendor/.git/HEAD").exists());
    }
}
