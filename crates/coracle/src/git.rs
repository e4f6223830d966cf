//! Git, as it is run in somebody's working tree, and the commit of a tree: one without git, or on a machine without it, simply has
//! none.

use std::path::Path;
use std::process::{Command, Stdio};

/// The commit that a tree stands at; with `-dirty` behind it if tracked files were changed since.
pub(crate) fn commit(root: &Path) -> Option<String> {
    let commit = answer(root, &["rev-parse", "--verify", "--quiet", "HEAD"])?.trim().to_owned();
    let known = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_hexdigit());
    // Untracked files do not count: build products are often neither tracked nor ignored.
    let changed =
        || answer(root, &["status", "--porcelain", "--untracked-files=no", "--", "."]).is_some_and(|list| !list.is_empty());
    known.then(|| if changed() { format!("{commit}-dirty") } else { commit })
}

/// Git in this tree.
pub(crate) fn command(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    // A repository of somebody else's must not run programs of its choice here.
    command.arg("-C").arg(root).args(["-c", "core.fsmonitor=false", "--no-optional-locks"]);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What git answers in this tree; `None` if it fails.
pub(crate) fn answer(root: &Path, arguments: &[&str]) -> Option<String> {
    let answer = command(root, arguments).stderr(Stdio::null()).output().ok()?;
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn in_repository(steps: &[&[&str]]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("app.py"), "print(1)\n").unwrap();
        for step in steps {
            assert!(answer(tree.path(), step).is_some(), "git {step:?}");
        }
        tree
    }

    const COMMIT: [&[&str]; 3] =
        [&["init", "-q"], &["add", "app.py"], &["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "one"]];

    #[test]
    fn a_clean_tree_has_its_commit_and_a_changed_one_says_so() {
        let tree = in_repository(&COMMIT);
        let clean = commit(tree.path()).unwrap();
        assert_eq!(clean.len(), 40);
        std::fs::write(tree.path().join("notes.txt"), "untracked").unwrap();
        assert_eq!(commit(tree.path()).unwrap(), clean);
        std::fs::write(tree.path().join("app.py"), "print(2)\n").unwrap();
        assert_eq!(commit(tree.path()).unwrap(), format!("{clean}-dirty"));
    }

    #[test]
    fn a_tree_without_commits_or_git_has_none() {
        assert_eq!(commit(in_repository(&[]).path()), None);
        assert_eq!(commit(in_repository(&[&["init", "-q"]]).path()), None);
    }
}
