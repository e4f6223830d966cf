//! Leaving out of a tree that is there what packing would have left behind.

use std::fs;
use std::io;
use std::path::Path;

use crate::ignore::DockerIgnore;

/// Removes from the tree at `root` what the rules ignore, so that it holds what [`pack`](super::pack) would have packed. Links are
/// removed, never followed. Blocking.
pub fn prune(root: &Path, ignore: &DockerIgnore) -> io::Result<()> {
    folder(root, "", ignore).map(drop)
}

/// Prunes a folder and tells whether it is empty now.
fn folder(root: &Path, within: &str, ignore: &DockerIgnore) -> io::Result<bool> {
    let mut empty = true;
    for entry in fs::read_dir(root.join(within))? {
        let entry = entry?;
        let name = entry.file_name();
        // What is not text was never let in, and no pattern could name it.
        let Some(name) = name.to_str() else { continue };
        let path = if within.is_empty() { name.to_owned() } else { format!("{within}/{name}") };
        let (ignored, is_folder) = (ignore.ignores(&path), entry.file_type()?.is_dir());
        let removed = match (ignored, is_folder) {
            (false, false) => false,
            (true, false) => fs::remove_file(entry.path()).map(|()| true)?,
            (true, true) if !ignore.may_keep_below(&path) => fs::remove_dir_all(entry.path()).map(|()| true)?,
            (_, true) => {
                let emptied = folder(root, &path, ignore)? && ignored;
                if emptied {
                    fs::remove_dir(entry.path())?;
                }
                emptied
            }
        };
        empty &= removed;
    }
    Ok(empty)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::archive::{UnpackLimits, pack, unpack};

    /// Every path below a folder, sorted.
    fn paths(root: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                all.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_pruned_tree_holds_what_would_have_been_packed() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        for file in
            ["app.py", "node_modules/a/b.js", "data/big.bin", "data/keep/me.txt", "notes/a.md", "notes/b.txt", "deep/notes/c.md"]
        {
            fs::create_dir_all(tree.join(file).parent().unwrap()).unwrap();
            fs::write(tree.join(file), file).unwrap();
        }
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        std::os::unix::fs::symlink("data", tree.join("link")).unwrap();
        let rules = "node_modules\ndata\n!data/keep/me.txt\n**/*.md\nlink\n";
        let ignore = DockerIgnore::parse(rules, "test").unwrap();

        let mut packed = Vec::new();
        pack(&tree, &ignore, &mut packed).unwrap();
        let unpacked = directory.path().join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        unpack(packed.as_slice(), &unpacked, UnpackLimits::default()).unwrap();

        prune(&tree, &ignore).unwrap();
        assert_eq!(paths(&tree), paths(&unpacked));
        assert!(tree.join("data/keep/me.txt").exists() && !tree.join("link").exists());
        assert!(outside.join("precious").exists());
    }
}
