//! Relative paths made absolute, each against the directory that its file belongs to.
//!
//! Nothing is looked up on disk but symbolic links of `develop.watch`.

use std::path::{Component, Path, PathBuf};

use crate::error::{ErrorKind, Fault};
use crate::node::{Data, Map, Node};
use crate::schema::{PathRule, Rule};
use crate::trail::Trail;

/// What relative paths are relative to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base<'a> {
    pub(crate) directory: &'a Path,
    /// What `~` stands for.
    pub(crate) home: Option<&'a str>,
}

/// Makes every path below `node` absolute.
pub(crate) fn resolve(node: &mut Node, rule: &Rule, base: Base<'_>, trail: &Trail<'_>) -> Result<(), Fault> {
    match rule.path {
        PathRule::None => {}
        PathRule::File => on_text(node, |text| base.absolute(text)),
        PathRule::Context => on_text(node, |text| base.context(text)),
        PathRule::Contexts => contexts(node, base),
        PathRule::Link => on_text(node, |text| follow_links(base.absolute(text))),
        PathRule::Mount => mount(node, base, trail)?,
        PathRule::LocalDriver => local_driver(node, base),
        PathRule::Ssh => on_values(node, |text| base.absolute(text)),
    }
    match &mut node.data {
        Data::Map(map) => {
            for (key, value) in map.iter_mut() {
                resolve(value, rule.child(key), base, &trail.key(key))?;
            }
        }
        Data::List(items) => {
            for (index, value) in items.iter_mut().enumerate() {
                resolve(value, rule.item(), base, &trail.index(index))?;
            }
        }
        _ => {}
    }
    Ok(())
}

impl Base<'_> {
    /// An absolute path of what was written.
    pub(crate) fn absolute(&self, written: &str) -> String {
        let written = match (written.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) => return join(Path::new(home), rest.trim_start_matches('/')),
            _ => written,
        };
        if written.is_empty() || written.starts_with('/') || is_windows_path(written) {
            return written.to_owned();
        }
        join(self.directory, written)
    }

    /// A build context: an address or a word of the builder's stays as it is.
    fn context(&self, written: &str) -> String {
        const REMOTE: [&str; 3] = ["github.com/", "git@", "service:"];
        if written.contains("://") || REMOTE.iter().any(|prefix| written.starts_with(prefix)) {
            return written.to_owned();
        }
        self.absolute(written)
    }
}

/// A path below a directory, without `.` and `..`, as if no part of it were a link.
pub(crate) fn join(directory: &Path, relative: impl AsRef<Path>) -> String {
    clean(&directory.join(relative)).to_string_lossy().into_owned()
}

/// A path without `.`, `..` and doubled slashes, by its letters alone.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match cleaned.components().next_back() {
                Some(Component::Normal(_)) => {
                    cleaned.pop();
                }
                Some(Component::RootDir | Component::Prefix(_)) => {}
                _ => cleaned.push(".."),
            },
            other => cleaned.push(other),
        }
    }
    if cleaned.as_os_str().is_empty() {
        cleaned.push(".");
    }
    cleaned
}

fn is_windows_path(path: &str) -> bool {
    matches!(path.as_bytes(), [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic()) || path.starts_with("\\\\")
}

fn follow_links(path: String) -> String {
    match std::fs::canonicalize(&path) {
        Ok(real) => real.to_string_lossy().into_owned(),
        Err(_) => path,
    }
}

fn on_text(node: &mut Node, change: impl Fn(&str) -> String) {
    if let Data::Text(text) = &mut node.data {
        *text = change(text);
    }
}

/// Changes each value of a mapping.
fn on_values(node: &mut Node, change: impl Fn(&str) -> String) {
    for value in node.as_map_mut().into_iter().flat_map(Map::values_mut) {
        on_text(value, &change);
    }
}

fn contexts(node: &mut Node, base: Base<'_>) {
    on_values(node, |text| base.context(text));
    if let Data::List(items) = &mut node.data {
        for item in items {
            on_text(item, |text| match text.split_once('=') {
                Some((name, context)) => format!("{name}={}", base.context(context)),
                None => text.to_owned(),
            });
        }
    }
}

fn mount(node: &mut Node, base: Base<'_>, trail: &Trail<'_>) -> Result<(), Fault> {
    if node.text_of("type") != Some("bind") {
        return Ok(());
    }
    let at = node.at;
    match node.as_map_mut().and_then(|map| map.get_mut("source")) {
        Some(source) => on_text(source, |text| base.absolute(text)),
        None => return Err(Fault::new(ErrorKind::Value, "a bind mount needs a source").on(trail).at(at)),
    }
    Ok(())
}

fn local_driver(node: &mut Node, base: Base<'_>) {
    if node.text_of("driver") != Some("local") {
        return;
    }
    let Some(options) = node.as_map_mut().and_then(|map| map.get_mut("driver_opts")) else { return };
    if options.text_of("o") != Some("bind") {
        return;
    }
    if let Some(device) = options.as_map_mut().and_then(|map| map.get_mut("device")) {
        on_text(device, |text| base.absolute(text));
    }
}
