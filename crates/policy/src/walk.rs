//! The files of a tree by name: links are not followed, and what others wrote (installed packages) is not looked at.

use std::fs;
use std::io::Read;
use std::path::Path;

/// The most entries that are looked at; a tree has been measured before it comes here, and names alone are cheap.
const MOST: usize = 100_000;
/// The deepest folder that is looked into.
const DEEPEST: usize = 24;
/// Bytes of a file that are looked into.
const LARGEST: u64 = 64 << 10;

/// Folders of other people's files.
const FOREIGN: [&str; 8] =
    ["node_modules", ".venv", "venv", "site-packages", "__pycache__", "vendor", "target", "bower_components"];

/// Calls `take` with the path and the name of every file, and of every folder called `.git`, which is not looked into.
pub(crate) fn files(root: &Path, mut take: impl FnMut(&str, &str)) {
    let (mut left, mut seen) = (vec![(String::new(), 0_usize)], 0_usize);
    while let Some((folder, depth)) = left.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        let mut names: Vec<(String, bool)> = Vec::new();
        for entry in entries.flatten() {
            seen += 1;
            if seen > MOST {
                return;
            }
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
            if !kind.is_symlink() {
                names.push((name, kind.is_dir()));
            }
        }
        names.sort_unstable();
        for (name, is_folder) in names {
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            match is_folder {
                true if name == ".git" => take(&path, &name),
                true if depth < DEEPEST && !FOREIGN.contains(&name.as_str()) => left.push((path, depth + 1)),
                true => {}
                false => take(&path, &name),
            }
        }
    }
}

/// The beginning of a file of the tree; nothing if it cannot be read.
pub(crate) fn head(root: &Path, path: &str) -> String {
    let mut bytes = Vec::new();
    let opened = coracle_regular_file::open(&root.join(path)).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
    if opened.is_ok() { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() }
}
