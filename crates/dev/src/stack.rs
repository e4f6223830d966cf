//! What should run in a folder: its parts, what they are made from, and what happens when a file changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_build::{DockerIgnore, IgnoreError};
use coracle_model::stack::{BuildExtras, PullPolicy};
use coracle_model::{AppSpec, ProcessName, ProcessSpec};

/// What should run.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The parts as processes, with their containers' settings and what they wait for.
    pub spec: AppSpec,
    /// What else is known of each part. A part of the specification without an entry here is one that the build will name.
    pub parts: BTreeMap<ProcessName, Part>,
    /// The source tree that parts of [`Source::Tree`] are built from.
    pub tree: Option<PathBuf>,
    /// Files whose change means that the stack itself has to be read again.
    pub files: Vec<PathBuf>,
}

/// A part of a stack.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What people call it.
    pub title: String,
    /// What it is made from.
    pub source: Source,
    /// What happens when files change.
    pub rules: Vec<Rule>,
    /// Whether its output is shown.
    pub shown: bool,
}

/// What a part is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The stack's source tree, as the recipe for it says.
    Tree,
    /// A ready image.
    Image {
        /// Its reference.
        reference: String,
        /// When it is fetched.
        pull: PullPolicy,
    },
    /// A folder with a Dockerfile.
    Folder(Box<FolderBuild>),
}

/// How a folder is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderBuild {
    /// The folder, absolute.
    pub context: PathBuf,
    /// The Dockerfile, relative to the folder.
    pub dockerfile: String,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// Everything else; its `contexts` stand below.
    pub extras: BuildExtras,
    /// Further sources, by the names that the Dockerfile knows them by.
    pub contexts: BTreeMap<String, NamedSource>,
}

/// A further source of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedSource {
    /// A folder, absolute.
    Folder(PathBuf),
    /// An image.
    Image(String),
    /// What another part is made into.
    Part(ProcessName),
}

/// What happens when a file changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The part is made anew and replaced.
    Rebuild,
    /// The part is restarted as it is.
    Restart,
    /// The file is copied into the running part.
    Sync,
    /// It is copied, and the part restarted.
    SyncRestart,
    /// It is copied, and a program runs inside the part.
    SyncExec(Vec<String>),
}

/// An entry of `develop.watch`, or the whole tree where there is no compose file.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The file or folder that is watched, absolute.
    pub path: PathBuf,
    /// What happens.
    pub action: Action,
    /// Where it belongs inside the part.
    pub target: Option<String>,
    /// Whether everything is copied when the part starts.
    pub initial: bool,
    left_out: Vec<(PathBuf, DockerIgnore)>,
    only: Option<DockerIgnore>,
    has_exceptions: bool,
    /// What the patterns were read from: rules are the same if they were written the same.
    written: Vec<String>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.action, &self.target, self.initial, &self.written)
            == (&other.path, &other.action, &other.target, other.initial, &other.written)
    }
}

/// What editors and version control leave beside the files that are meant.
const NEVER: &str =
    "**/.git\n**/.hg\n**/.svn\n**/.DS_Store\n**/*~\n**/*.swp\n**/*.swx\n**/*.swo\n**/.#*\n**/#*#\n**/4913\n**/___jb_*___";

impl Rule {
    /// A rule about a path, without patterns of its own.
    pub fn new(path: PathBuf, action: Action) -> Self {
        Self {
            path,
            action,
            target: None,
            initial: false,
            left_out: Vec::new(),
            only: None,
            has_exceptions: false,
            written: Vec::new(),
        }
    }

    /// Leaves out what these patterns, relative to the rule's own path, match.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn ignoring(self, patterns: &[String]) -> Result<Self, IgnoreError> {
        if patterns.is_empty() {
            return Ok(self);
        }
        let text = patterns.join("\n");
        let (path, rules) = (self.path.clone(), DockerIgnore::parse(&text, "ignore")?);
        Ok(self.without(path, rules, text))
    }

    /// Leaves out what an ignore file of this folder leaves out; `text` is what stands in it.
    #[must_use]
    pub fn without(mut self, folder: PathBuf, rules: DockerIgnore, text: String) -> Self {
        self.has_exceptions |= text.lines().any(|line| line.trim_start().starts_with('!'));
        self.left_out.push((folder, rules));
        self.written.push(text);
        self
    }

    /// Takes in only what these patterns, relative to the rule's own path, match.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn including(mut self, patterns: &[String]) -> Result<Self, IgnoreError> {
        if !patterns.is_empty() {
            let text = patterns.join("\n");
            self.only = Some(DockerIgnore::parse(&text, "include")?);
            self.written.push(format!("include {text}"));
        }
        Ok(self)
    }

    /// The path relative to the rule's own, if the rule is about it; empty if it is the rule's own path.
    pub(crate) fn covers(&self, path: &Path) -> Option<String> {
        let below = path.strip_prefix(&self.path).ok()?.to_str()?.to_owned();
        if self.leaves_out(path) {
            return None;
        }
        let wanted = self.only.as_ref().is_none_or(|only| below.is_empty() || only.ignores(&below));
        wanted.then_some(below)
    }

    /// Whether something below this folder may be what the rule is about.
    pub(crate) fn looks_into(&self, folder: &Path) -> bool {
        let inside = folder.starts_with(&self.path) && (self.has_exceptions || !self.leaves_out(folder));
        inside && !is_never(folder, &self.path)
    }

    fn leaves_out(&self, path: &Path) -> bool {
        let ignored = |(root, rules): &(PathBuf, DockerIgnore)| {
            let below = path.strip_prefix(root).ok().and_then(Path::to_str);
            below.is_some_and(|below| !below.is_empty() && rules.ignores(below))
        };
        is_never(path, &self.path) || self.left_out.iter().any(ignored)
    }
}

fn is_never(path: &Path, root: &Path) -> bool {
    static RULES: std::sync::LazyLock<DockerIgnore> =
        std::sync::LazyLock::new(|| DockerIgnore::parse(NEVER, "").unwrap_or_default());
    let below = path.strip_prefix(root).ok().and_then(Path::to_str);
    below.is_some_and(|below| !below.is_empty() && RULES.ignores(below))
}

impl Stack {
    /// What people call a part.
    pub(crate) fn title(&self, name: &ProcessName) -> String {
        self.parts.get(name).map_or_else(|| name.to_string(), |part| part.title.clone())
    }

    /// What a part is made from.
    pub(crate) fn source(&self, name: &ProcessName) -> &Source {
        self.parts.get(name).map_or(&Source::Tree, |part| &part.source)
    }

    /// The part itself.
    pub(crate) fn process(&self, name: &ProcessName) -> Option<&ProcessSpec> {
        self.spec.processes.get(name)
    }

    /// Keeps only these parts and what they depend on.
    ///
    /// # Errors
    /// A name that no part has, with the nearest one.
    pub fn only(mut self, wanted: &[String]) -> Result<Self, crate::DevError> {
        if wanted.is_empty() {
            return Ok(self);
        }
        let mut kept: Vec<ProcessName> = Vec::new();
        for text in wanted {
            let named = self.parts.iter().find(|(_, part)| part.title == *text).map(|(name, _)| name.clone());
            let named = named.or_else(|| self.spec.processes.keys().find(|name| name.as_str() == text).cloned());
            let known = || self.spec.processes.keys().map(|name| self.title(name)).collect();
            kept.push(named.ok_or_else(|| crate::DevError::NoSuchPart { name: text.clone(), known: known() })?);
        }
        let mut at = 0;
        while let Some(name) = kept.get(at).cloned() {
            let on = self.process(&name).into_iter().flat_map(|part| part.depends_on.keys().cloned());
            let new: Vec<_> = on.filter(|name| self.spec.processes.contains_key(name) && !kept.contains(name)).collect();
            kept.extend(new);
            at += 1;
        }
        self.spec.processes.retain(|name, _| kept.contains(name));
        self.parts.retain(|name, _| kept.contains(name));
        Ok(self)
    }

    /// Every rule with the part that it is for.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (&ProcessName, &Rule)> {
        self.parts.iter().flat_map(|(name, part)| part.rules.iter().map(move |rule| (name, rule)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rule_is_about_what_its_patterns_leave() {
        let rule = Rule::new("/app/src".into(), Action::Sync).ignoring(&["node_modules/".into(), "*.log".into()]).unwrap();
        let covers = |path: &str| rule.covers(Path::new(path));
        assert_eq!(covers("/app/src/a/b.py").as_deref(), Some("a/b.py"));
        assert_eq!(covers("/app/src").as_deref(), Some(""));
        for path in ["/app/other", "/app/src/node_modules/x.js", "/app/src/x.log", "/app/src/.git/HEAD", "/app/src/a/.b.py.swp"] {
            assert_eq!(covers(path), None, "{path}");
        }
        assert!(rule.looks_into(Path::new("/app/src/a")) && !rule.looks_into(Path::new("/app/src/node_modules")));
        let only = Rule::new("/app".into(), Action::Sync).including(&["**/*.py".into()]).unwrap();
        assert!(only.covers(Path::new("/app/x/a.py")).is_some() && only.covers(Path::new("/app/x/a.js")).is_none());
    }
}
