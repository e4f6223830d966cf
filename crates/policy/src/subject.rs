//! What rules are asked about.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use coracle_build::{DockerIgnore, Source};
use coracle_model::command::{Piece, Word};
use coracle_model::container::HealthTest;
use coracle_model::plan::Recipe;
use coracle_model::spec::ProcessSpec;
use coracle_model::stack::Exposure;
use coracle_model::{
    AppSpec, BuildPlan, COMPOSE_FILES, CommandLine, EngineKind, EnvName, ImageFacts, ProcessName, ProcessSource, Secret,
};

use crate::dockerfile::Dockerfile;
use crate::observation::Observation;
use crate::rules;

/// The most commands of one part that are looked at.
const MOST_COMMANDS: u32 = 300;
/// The most that is seen in all, of an app of many parts.
const MOST_SEEN: usize = 200;
/// Bytes of a file that are looked at.
const LARGEST: u64 = 1 << 20;
/// Bytes of a Dockerfile that are looked at.
const LARGEST_DOCKERFILE: usize = 256 << 10;

/// A release to be, as far as it is known.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The unpacked tree.
    pub root: &'a Path,
    /// What of it is not sent. Where it has been sent already: nothing.
    pub ignore: &'a DockerIgnore,
    /// What is made of it.
    pub parts: Vec<Part>,
    /// The app's own configuration, and whether each is a secret.
    pub config: &'a [(EnvName, Secret, bool)],
}

/// Something that is built or fetched, and run.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which part of the app; `None`: the app as a whole.
    pub name: Option<ProcessName>,
    /// The folder that it is built from, relative to the root; empty: all of it.
    pub folder: String,
    /// How it is built.
    pub recipe: Recipe,
    /// What it runs; where a program is not said, its image says it.
    pub programs: Vec<Program>,
    /// Its plain variables.
    pub env: BTreeMap<String, String>,
    /// The user that it runs as, if that is said beside its image.
    pub user: Option<String>,
    /// Whether requests come to it.
    pub serves: bool,
    /// Whether the manifest says how to find out that it is well.
    pub is_checked: bool,
    /// Whether it keeps data: a stateful service.
    pub keeps_data: bool,
    /// What runs it.
    pub engine: EngineKind,
    /// What its image says of itself, if there is one by now.
    pub facts: Option<ImageFacts>,
}

/// A program that a part runs.
#[derive(Debug, Clone)]
pub struct Program {
    /// The argument vector; empty: what the image runs.
    pub argv: Vec<String>,
    /// Variables for it alone.
    pub env: Vec<(String, String)>,
    /// The file that says so.
    pub file: Option<&'static str>,
    /// Whether the image's `ENTRYPOINT` stands before it.
    pub behind_entrypoint: bool,
}

impl Program {
    /// What the image runs.
    fn of_image() -> Self {
        Self { argv: Vec::new(), env: Vec::new(), file: None, behind_entrypoint: false }
    }
}

impl Subject<'_> {
    /// What every rule has seen, each once.
    pub fn observe(&self) -> Vec<Observation> {
        let hidden: Vec<&str> = self.config.iter().map(|(_, value, _)| value.expose()).filter(|value| value.len() >= 4).collect();
        let mut all: Vec<Observation> = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            let Some(folder) = self.folder(part) else { continue };
            let ignore = if part.folder.is_empty() { Some(self.ignore) } else { None };
            let source = ignore.map_or_else(|| Source::new(&folder), |ignore| Source::without(&folder, ignore));
            let is_same = |other: &&Part| other.recipe == part.recipe && other.folder == part.folder && other.facts == part.facts;
            let looked = Looked {
                subject: self,
                part,
                dockerfile: dockerfile(part, &source),
                source,
                folder: &folder,
                commands_left: Cell::new(MOST_COMMANDS),
                is_first: !self.parts[..at].iter().any(|other| is_same(&other)),
            };
            for seen in rules::ask(&looked) {
                let seen = seen.without(&hidden);
                if all.len() < MOST_SEEN && !all.contains(&seen) {
                    all.push(seen);
                }
            }
        }
        all
    }

    /// The real folder of a part, if that is within the tree.
    fn folder(&self, part: &Part) -> Option<PathBuf> {
        let climbs = Path::new(&part.folder).components().any(|it| !matches!(it, Component::Normal(_) | Component::CurDir));
        let (root, real) = (self.root.canonicalize().ok()?, self.root.join(&part.folder).canonicalize().ok()?);
        (!climbs && real.starts_with(root) && real.is_dir()).then_some(real)
    }
}

/// A part with what is read of it.
pub(crate) struct Looked<'a> {
    pub(crate) subject: &'a Subject<'a>,
    pub(crate) part: &'a Part,
    pub(crate) source: Source<'a>,
    pub(crate) folder: &'a Path,
    /// Its Dockerfile, where it has one of its own.
    pub(crate) dockerfile: Option<(Dockerfile, usize)>,
    /// Whether no part before it is made of the same.
    pub(crate) is_first: bool,
    /// How many more commands are looked at: scripts may name each other, each many times.
    pub(crate) commands_left: Cell<u32>,
}

impl Looked<'_> {
    /// Whether another command may be looked at.
    pub(crate) fn may_go_on(&self) -> bool {
        let left = self.commands_left.get();
        self.commands_left.set(left.saturating_sub(1));
        left > 0
    }

    /// The text of a file, if it can be read.
    pub(crate) fn read(&self, path: &str) -> Option<String> {
        let file = self.source.is_file(path).then(|| coracle_regular_file::open(&self.folder.join(path)).ok()).flatten()?;
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned())
    }

    /// A path of the part as one of the tree.
    pub(crate) fn path(&self, path: &str) -> String {
        let folder = self.part.folder.trim_start_matches("./").trim_end_matches('/');
        if folder.is_empty() || folder == "." { path.to_owned() } else { format!("{folder}/{path}") }
    }

    /// The path of its Dockerfile in the tree.
    pub(crate) fn dockerfile_path(&self) -> String {
        match &self.part.recipe {
            Recipe::Dockerfile { extras, .. } if extras.inline.is_some() => compose_file(self.subject.root).to_owned(),
            Recipe::Dockerfile { path, .. } => self.path(path),
            _ => "Dockerfile".to_owned(),
        }
    }

    /// A sentence about the part, with its name if it has one.
    pub(crate) fn of_part(&self, sentence: &str) -> String {
        match &self.part.name {
            Some(name) => format!("{name}: {sentence}"),
            None => sentence.to_owned(),
        }
    }
}

fn dockerfile(part: &Part, source: &Source<'_>) -> Option<(Dockerfile, usize)> {
    let Recipe::Dockerfile { path, target, args, extras } = &part.recipe else { return None };
    let text = match &extras.inline {
        Some(text) => text.clone(),
        None => source.read(path).ok().flatten()?,
    };
    let text: &str = text.get(..text.floor_char_boundary(LARGEST_DOCKERFILE)).unwrap_or(&text);
    let file = Dockerfile::parse(text, args);
    let target = file.target(target.as_deref())?;
    Some((file, target))
}

fn compose_file(root: &Path) -> &'static str {
    COMPOSE_FILES.into_iter().find(|name| root.join(name).is_file()).unwrap_or(COMPOSE_FILES[0])
}

/// What an app is made of. `plan` is how it is built as a whole, if it is.
pub fn parts(root: &Path, spec: &AppSpec, plan: Option<&BuildPlan>, engine: EngineKind) -> Vec<Part> {
    let mut all = Vec::new();
    if let Some(plan) = plan.filter(|_| !spec.is_stack()) {
        all.push(whole(spec, plan, engine));
    }
    for (name, process) in spec.parts() {
        let Some(source) = &process.source else { continue };
        let (folder, recipe) = made_from(source);
        all.push(Part {
            folder,
            recipe,
            programs: vec![of_container(process, compose_file(root))],
            env: process.container.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
            user: process.container.user.clone(),
            serves: process.serves(name),
            is_checked: is_checked(process),
            keeps_data: spec.services.contains_key(name),
            name: Some(name.clone()),
            engine,
            facts: None,
        });
    }
    all
}

/// The app as a whole.
fn whole(spec: &AppSpec, plan: &BuildPlan, engine: EngineKind) -> Part {
    let web = ProcessName::web();
    let mut programs = Vec::new();
    let names = plan.processes.keys().chain(spec.processes.keys().filter(|name| !plan.processes.contains_key(*name)));
    for name in names {
        let of_manifest = spec.processes.get(name).and_then(|process| process.command.as_ref());
        match (of_manifest, plan.processes.get(name)) {
            (Some(command), _) => programs.push(of_line(command, Some("coracle.toml"))),
            (None, Some(command)) => programs.push(of_line(command, Some("Procfile"))),
            (None, None) => programs.push(Program::of_image()),
        }
    }
    if !plan.processes.contains_key(&web) && !spec.processes.contains_key(&web) {
        programs.push(Program::of_image());
    }
    let process = spec.processes.get(&web);
    Part {
        name: None,
        folder: String::new(),
        recipe: plan.recipe.clone(),
        programs,
        env: spec.env.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
        user: process.and_then(|process| process.container.user.clone()),
        serves: plan.processes.is_empty() || plan.processes.contains_key(&web) || process.is_some(),
        is_checked: spec.http.health.is_some() || process.is_some_and(is_checked),
        keeps_data: false,
        engine,
        facts: None,
    }
}

fn made_from(source: &ProcessSource) -> (String, Recipe) {
    match source {
        ProcessSource::Image { reference, pull } => (String::new(), Recipe::Image { reference: reference.clone(), pull: *pull }),
        ProcessSource::Build(build) => {
            let path = build.dockerfile.clone().unwrap_or_else(|| "Dockerfile".to_owned());
            let folder = if build.context == "." { String::new() } else { build.context.clone() };
            let (target, args, extras) = (build.target.clone(), build.args.clone(), Box::new(build.extras.clone()));
            (folder, Recipe::Dockerfile { path, target, args, extras })
        }
    }
}

/// Whether something beside the image says how to find out whether it is well, or that nobody is to.
fn is_checked(process: &ProcessSpec) -> bool {
    let by_path = matches!(&process.exposure, Exposure::Http(http) if http.health.is_some());
    by_path || process.container.health.as_ref().is_some_and(|check| check.test != HealthTest::OfImage)
}

fn of_container(process: &ProcessSpec, file: &'static str) -> Program {
    if let Some(command) = &process.command {
        return of_line(command, Some(file));
    }
    let container = &process.container;
    let argv: Vec<String> = container.entrypoint.iter().chain(&container.arguments).flatten().cloned().collect();
    Program { behind_entrypoint: container.entrypoint.is_none(), argv, env: Vec::new(), file: Some(file) }
}

fn of_line(command: &CommandLine, file: Option<&'static str>) -> Program {
    let text = |word: &Word| -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Variable { name, .. } => format!("${name}"),
        };
        word.0.iter().map(piece).collect()
    };
    let env = command.assignments.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Program { argv: command.words.iter().map(text).collect(), env, file, behind_entrypoint: false }
}
