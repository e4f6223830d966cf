//! Which folder of a tree is the site.

use std::path::Path;

/// The folder with the site's `index.html`, relative to the root (`.` for the root itself).
pub fn site_root(_root: &Path, _wanted: Option<&str>) -> Option<String> {
    unimplemented!()
}
