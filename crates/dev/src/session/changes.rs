//! What follows from files that have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use coracle_engine::{EngineError, OutputLine, OutputSink};
use coracle_model::{EngineKind, InstanceId, ProcessName, ReleaseNumber};

use super::Session;
use crate::error::DevError;
use crate::news::News;
use crate::stack::{Action, Rule, Stack};
use crate::sync::{self, Errand};

/// How many paths an `rm` is given at once.
const AT_ONCE: usize = 100;

/// What is to be done about a part.
#[derive(Debug, Default)]
struct Doing {
    rebuild: bool,
    restart: bool,
    errands: Vec<Errand>,
    programs: Vec<Vec<String>>,
}

impl Session {
    /// Does what has to be done about these files. Answers whether something else is to be watched from now on.
    pub(super) async fn take_changes(&mut self, paths: BTreeSet<PathBuf>) -> Result<bool, DevError> {
        let mut rebuilt: BTreeSet<ProcessName> = BTreeSet::new();
        let mut watch = false;
        if self.stack.files.iter().any(|file| paths.contains(file)) {
            (rebuilt, watch) = self.reload().await?;
        }
        let mut doings = doings(&self.stack, &paths);
        let rebuild: BTreeSet<_> = doings.iter().filter(|(_, doing)| doing.rebuild).map(|(name, _)| name.clone()).collect();
        let rebuild: BTreeSet<_> = rebuild.difference(&rebuilt).cloned().collect();
        doings.retain(|name, doing| !doing.rebuild && !rebuilt.contains(name));
        if !rebuild.is_empty() {
            self.tell.note(format!("{} changed", named(&paths, self.folder.path())));
            self.renew(&rebuild).await?;
        }
        let mut restarted = Vec::new();
        for (name, doing) in doings {
            if self.carry(&name, &doing).await && doing.restart {
                self.restart_part(&name).await?;
                restarted.push(name);
            }
        }
        self.restart_with(restarted).await?;
        Ok(watch)
    }

    /// Restarts what wants to be restarted with these, and so on.
    async fn restart_with(&mut self, mut restarted: Vec<ProcessName>) -> Result<(), DevError> {
        loop {
            let with = self.restarted_with(&restarted);
            if restarted.is_empty() || with.is_empty() {
                return Ok(());
            }
            for name in with {
                self.restart_part(&name).await?;
                restarted.push(name);
            }
        }
    }

    /// Makes parts anew and replaces them. A build that fails leaves what runs as it is.
    async fn renew(&mut self, parts: &BTreeSet<ProcessName>) -> Result<(), DevError> {
        let before = (self.generation, self.artifacts.clone());
        if self.engine.kind == EngineKind::Process {
            self.generation = ReleaseNumber::new(self.generation.get() + 1).unwrap_or(self.generation);
        }
        match self.make(parts).await {
            Ok(()) => {}
            Err(DevError::Stopped) => return Err(DevError::Stopped),
            Err(error) => {
                (self.generation, self.artifacts) = before;
                self.tell.trouble(format!("{error}; what runs stays"));
                return Ok(());
            }
        }
        let mut replaced = Vec::new();
        for name in self.stack.spec.start_order()?.into_iter().flatten().filter(|name| parts.contains(name)) {
            if self.replace(&name).await? {
                replaced.push(name);
            }
        }
        self.restart_with(replaced.clone()).await?;
        let used = self.copies.values().map(|copy| copy.artifact.clone());
        let keep: Vec<_> = used.chain(self.artifacts.values().map(|artifact| artifact.id.clone())).collect();
        if let Err(error) = self.engine.builder.prune(&self.stack.spec.app, &keep).await {
            tracing::warn!(%error, "old builds are left behind");
        }
        let titles: Vec<_> = replaced.iter().map(|name| self.stack.title(name)).collect();
        if !titles.is_empty() {
            self.tell.note(format!("reloaded {}", titles.join(", ")));
        }
        Ok(())
    }

    /// Reads the stack again and makes what runs the same. Answers the parts that were made anew, and whether something else
    /// is to be watched.
    async fn reload(&mut self) -> Result<(BTreeSet<ProcessName>, bool), DevError> {
        let reload = std::sync::Arc::clone(&self.reload);
        let read = tokio::task::spawn_blocking(move || reload()).await.unwrap_or_else(|error| Err(error.to_string()));
        let nothing = (BTreeSet::new(), false);
        let new = match read {
            Ok(new) if new.spec.app != self.stack.spec.app => {
                self.tell.trouble("the project has another name now; stop and start again to develop it under that name");
                return Ok(nothing);
            }
            Ok(new) => new,
            Err(error) => {
                self.tell.trouble(format!("{error}; what runs stays"));
                return Ok(nothing);
            }
        };
        let old = std::mem::replace(&mut self.stack, new);
        if let Err(error) = self.check().and_then(|()| self.check_new_ports(&old)) {
            self.stack = old;
            self.tell.trouble(format!("{error}; what runs stays"));
            return Ok(nothing);
        }
        let gone: Vec<InstanceId> = self.copies.keys().filter(|id| self.stack.process(&id.process).is_none()).cloned().collect();
        self.stop(&gone).await?;
        self.artifacts.retain(|name, _| self.stack.spec.processes.contains_key(name));
        self.fronts.retain(|name, _| self.stack.spec.processes.contains_key(name));
        let differs = |name: &ProcessName| {
            old.process(name) != self.stack.process(name)
                || old.source(name) != self.stack.source(name)
                || old.spec.env != self.stack.spec.env
        };
        let changed: BTreeSet<_> = self.stack.spec.processes.keys().filter(|name| differs(name)).cloned().collect();
        // Parts of one source tree are built as one.
        let tree = changed.iter().any(|name| self.is_tree(name));
        let with_tree = self.stack.spec.processes.keys().filter(|name| tree && self.is_tree(name)).cloned();
        let changed: BTreeSet<_> = with_tree.chain(changed.clone()).collect();
        if !changed.is_empty() {
            self.tell.note("what should run has changed");
            self.renew(&changed).await?;
        }
        Ok((changed, true))
    }

    /// Whether ports are free that the stack before did not have.
    fn check_new_ports(&self, old: &Stack) -> Result<(), DevError> {
        let had: Vec<_> = old.spec.processes.values().flat_map(|part| &part.container.ports).collect();
        let mut new = self.stack.clone();
        for part in new.spec.processes.values_mut() {
            part.container.ports.retain(|port| !had.contains(&port));
        }
        crate::ports::check(&new)
    }

    /// Copies what a part's rules want to be copied when it starts.
    pub(super) async fn copy_first_files(&self, name: &ProcessName) {
        let Some(part) = self.stack.parts.get(name) else { return };
        let mut doing = Doing::default();
        for rule in part.rules.iter().filter(|rule| rule.initial) {
            let mut folders = vec![rule.path.clone()];
            while let Some(folder) = folders.pop() {
                for path in std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                    if path.is_dir() && !path.is_symlink() {
                        if rule.looks_into(&path) {
                            folders.push(path);
                        }
                    } else {
                        doing.errands.extend(errand(rule, &path));
                    }
                }
            }
        }
        if !doing.errands.is_empty() {
            self.carry(name, &doing).await;
        }
    }

    /// Copies files into every copy of a part and runs what is to be run there. Answers whether it could be done.
    async fn carry(&self, name: &ProcessName, doing: &Doing) -> bool {
        let errands = doing.errands.clone();
        let packed = tokio::task::spawn_blocking(move || sync::pack(&errands)).await;
        let load = match packed.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(load) => load,
            Err(error) => {
                self.tell.trouble(format!("{}: files cannot be copied: {error}", self.stack.title(name)));
                return false;
            }
        };
        for id in self.ids_of(name) {
            if let Err(error) = self.carry_to(&id, &load, &doing.programs).await {
                self.tell.trouble(format!("{}: files cannot be copied: {error}", self.stack.title(name)));
                return false;
            }
        }
        if load.count + load.gone.len() > 0 {
            let gone = if load.gone.is_empty() { String::new() } else { format!(", removed {}", load.gone.len()) };
            self.tell.note(format!("copied {} to {}{gone}", load.count, self.stack.title(name)));
        }
        true
    }

    async fn carry_to(&self, id: &InstanceId, load: &sync::Load, programs: &[Vec<String>]) -> Result<(), EngineError> {
        let runtime = &self.engine.runtime;
        if !load.archive.is_empty() {
            runtime.put(id, load.archive.clone()).await?;
        }
        for gone in load.gone.chunks(AT_ONCE) {
            let argv: Vec<String> = ["rm", "-rf", "--"].map(str::to_owned).into_iter().chain(gone.iter().cloned()).collect();
            runtime.exec(id, &argv, &OutputSink::discard(), &self.stops.stop).await?;
        }
        for argv in programs {
            let (tell, voice) = (self.tell.clone(), self.voice(id));
            let sink = OutputSink::new(move |OutputLine { stream, text }| {
                tell.news(News::Line { voice: voice.clone(), stream, text });
            });
            let exit = runtime.exec(id, argv, &sink, &self.stops.stop).await?;
            if !exit.success() {
                self.tell.trouble(format!("{}: {} failed: {exit}", self.voice(id).name, argv.join(" ")));
            }
        }
        Ok(())
    }
}

/// What the rules of a stack say about files that have changed.
fn doings(stack: &Stack, paths: &BTreeSet<PathBuf>) -> BTreeMap<ProcessName, Doing> {
    let mut doings: BTreeMap<ProcessName, Doing> = BTreeMap::new();
    for (name, rule) in stack.rules() {
        for path in paths.iter().filter(|path| rule.covers(path).is_some()) {
            let doing = doings.entry(name.clone()).or_default();
            match &rule.action {
                Action::Rebuild => doing.rebuild = true,
                Action::Restart => doing.restart = true,
                Action::Sync => doing.errands.extend(errand(rule, path)),
                Action::SyncRestart => {
                    doing.restart = true;
                    doing.errands.extend(errand(rule, path));
                }
                Action::SyncExec(argv) => {
                    doing.errands.extend(errand(rule, path));
                    if !doing.programs.contains(argv) {
                        doing.programs.push(argv.clone());
                    }
                }
            }
        }
    }
    doings
}

/// Where a file belongs inside a part.
fn errand(rule: &Rule, path: &Path) -> Option<Errand> {
    let below = rule.covers(path)?;
    let target = rule.target.as_deref()?.trim_end_matches('/');
    let target = if below.is_empty() { target.to_owned() } else { format!("{target}/{below}") };
    Some(Errand { source: path.to_owned(), target })
}

/// The files, for people: the first few, relative to the folder.
fn named(paths: &BTreeSet<PathBuf>, folder: &Path) -> String {
    let all: Vec<_> = paths.iter().map(|path| path.strip_prefix(folder).unwrap_or(path).display().to_string()).collect();
    match all.as_slice() {
        [first, second, _, more @ ..] => format!("{first}, {second} and {} more", more.len() + 1),
        few => few.join(", "),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_model::AppSpec;

    use super::*;
    use crate::stack::{Part, Source};

    #[test]
    fn rules_say_what_is_done_about_a_file() {
        let mut sync = Rule::new("/app/src".into(), Action::SyncRestart);
        sync.target = Some("/srv/".into());
        let rules = vec![sync, Rule::new("/app/requirements.txt".into(), Action::Rebuild)];
        let part = Part { title: "web".into(), source: Source::Tree, rules, shown: true };
        let stack = Stack {
            spec: AppSpec::named("shop".parse().unwrap()),
            parts: BTreeMap::from([(ProcessName::web(), part)]),
            tree: None,
            files: Vec::new(),
        };
        let of = |path: &str| doings(&stack, &BTreeSet::from([PathBuf::from(path)])).remove(&ProcessName::web());
        let doing = of("/app/src/a/b.py").unwrap();
        assert!(doing.restart && !doing.rebuild);
        assert_eq!(doing.errands[0].target, "/srv/a/b.py");
        assert!(of("/app/requirements.txt").unwrap().rebuild);
        assert!(of("/app/other").is_none());
    }
}
