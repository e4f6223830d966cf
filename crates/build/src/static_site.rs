//! Which folder of a tree is the site.

use crate::detect::source::Source;

/// Folders that site generators write to, in the order they are looked at; the root itself comes last.
pub const CANDIDATES: [&str; 6] = ["public", "dist", "_site", "build", "out", "."];

/// The folder to serve, relative to the root (`.` for the root itself): the wanted one if it is a folder, else the first of
/// [`CANDIDATES`] with an `index.html`.
pub(crate) fn site_root(source: &Source<'_>, wanted: Option<&str>) -> Option<String> {
    match wanted {
        Some(folder) => source.is_folder(folder).then(|| folder.to_owned()),
        None => {
            let mut folders = CANDIDATES.iter();
            folders.find(|folder| source.is_file(&format!("{folder}/index.html"))).map(|folder| (*folder).to_owned())
        }
    }
}

/// The candidates as a person would list them.
pub(crate) fn candidates_in_words() -> String {
    CANDIDATES.join(", ").replace(", .", " and the root")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn site_root(root: &std::path::Path, wanted: Option<&str>) -> Option<String> {
        super::site_root(&Source::new(root), wanted)
    }

    #[test]
    fn what_a_generator_wrote_is_taken_before_the_root() {
        let tree = tempfile::tempdir().unwrap();
        let at = |path: &str| tree.path().join(path);
        assert_eq!(site_root(tree.path(), None), None);
        fs::write(at("index.html"), "").unwrap();
        assert_eq!(site_root(tree.path(), None).as_deref(), Some("."));
        fs::create_dir(at("dist")).unwrap();
        assert_eq!(site_root(tree.path(), None).as_deref(), Some("."));
        fs::write(at("dist/index.html"), "").unwrap();
        assert_eq!(site_root(tree.path(), None).as_deref(), Some("dist"));
    }

    #[test]
    fn the_folder_that_is_asked_for_must_be_one_within_the_tree() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("site")).unwrap();
        symlink("/etc", tree.path().join("out")).unwrap();
        assert_eq!(site_root(tree.path(), Some("site")).as_deref(), Some("site"));
        assert_eq!(site_root(tree.path(), Some("out")), None);
        assert_eq!(site_root(tree.path(), Some("gone")), None);
        assert_eq!(site_root(tree.path(), Some("..")), None);
    }
}
