//! Looking at a tree: which recipe builds it, and which processes it names.
//!
//! The manifest's word comes first, then a Dockerfile (docker engine only), then what the tree's files say. Nothing is
//! guessed that could deploy the wrong thing: where the web process stays unclear, the error says what was looked for.

mod compiled;
pub(crate) mod node;
pub(crate) mod python;
pub(crate) mod source;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_model::command::{Piece, Word};
use coracle_model::plan::{Recipe, Serving};
use coracle_model::spec::BuilderChoice;
use coracle_model::stack::PullPolicy;
use coracle_model::{AppSpec, BuildPlan, COMPOSE_FILES, CommandLine, EngineKind, ProcessName};

use crate::ignore::DockerIgnore;
use crate::procfile::{Procfile, ProcfileError};
use crate::static_site;
use source::Source;

/// Why there is no plan for a tree.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The Procfile is wrong.
    #[error(transparent)]
    Procfile(#[from] ProcfileError),
    /// The manifest asks for what the tree or the engine does not have, or nothing was recognised.
    #[error("{message}")]
    Unsuitable {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A file could not be read.
    #[error("{} cannot be read: {source}", path.display())]
    Io {
        /// The file, relative to the root.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn unsuitable(message: impl Into<String>, hint: impl Into<String>) -> PlanError {
    PlanError::Unsuitable { message: message.into(), hint: hint.into() }
}

/// Decides how the tree at `root` is built for this engine, and which processes it names. Reads the tree and nothing else.
pub fn plan(root: &Path, spec: &AppSpec, engine: EngineKind) -> Result<BuildPlan, PlanError> {
    plan_for(Source::new(root), spec, engine)
}

/// What [`plan`] would decide about the tree once these rules have left out of it what is not sent.
pub fn plan_without(root: &Path, ignore: &DockerIgnore, spec: &AppSpec, engine: EngineKind) -> Result<BuildPlan, PlanError> {
    plan_for(Source::without(root, ignore), spec, engine)
}

fn plan_for(source: Source<'_>, spec: &AppSpec, engine: EngineKind) -> Result<BuildPlan, PlanError> {
    if let Some(reference) = &spec.build.image {
        return image(reference, engine);
    }
    let procfile = source.read("Procfile")?.map(|text| Procfile::parse(&text)).transpose()?;
    if let Some(path) = dockerfile(&source, spec, engine)? {
        return Ok(from_dockerfile(path, spec, procfile));
    }
    let tree = Tree { source, spec, engine, procfile };
    let mut plan = if spec.build.builder == BuilderChoice::Static { tree.static_site()? } else { tree.detect()? };
    plan.serving = serving(&plan, spec);
    if engine == EngineKind::Docker {
        crate::dockerfile::check(&plan)?;
    }
    if engine == EngineKind::Process && (spec.build.dockerfile.is_some() || tree.source.is_file("Dockerfile")) {
        plan.reason += "; the Dockerfile is ignored, since the process engine has no use for it";
    }
    Ok(plan)
}

/// How it is served, by the manifest or else by the tree.
fn serving(plan: &BuildPlan, spec: &AppSpec) -> Serving {
    let web = ProcessName::web();
    let of_manifest = spec.processes.get(&web).and_then(|process| process.command.clone());
    let host = spec.http.hosts.iter().find(|host| !host.as_str().contains('*'));
    Serving {
        command: of_manifest.or_else(|| plan.processes.get(&web).cloned()),
        port: spec.http.port,
        health: spec.http.health.clone(),
        host: host.map(ToString::to_string),
    }
}

fn image(reference: &str, engine: EngineKind) -> Result<BuildPlan, PlanError> {
    if engine == EngineKind::Process {
        let message = format!("the process engine cannot run the image {reference}");
        return Err(unsuitable(message, "write engine = \"docker\" in coracle.toml, or remove build.image"));
    }
    Ok(BuildPlan {
        recipe: Recipe::Image { reference: reference.to_owned(), pull: PullPolicy::Always },
        processes: BTreeMap::new(),
        release_command: None,
        reason: "the manifest names an image".to_owned(),
        serving: Serving::default(),
    })
}

/// The Dockerfile to build, if this tree is built from one.
fn dockerfile(source: &Source<'_>, spec: &AppSpec, engine: EngineKind) -> Result<Option<String>, PlanError> {
    let wanted = spec.build.dockerfile.as_deref();
    let path = wanted.unwrap_or("Dockerfile");
    let forced = spec.build.builder == BuilderChoice::Dockerfile;
    if engine == EngineKind::Process {
        let hint = "write engine = \"docker\" in coracle.toml, or remove build.builder";
        return if forced { Err(unsuitable("the process engine cannot build a Dockerfile", hint)) } else { Ok(None) };
    }
    if spec.build.builder == BuilderChoice::Static {
        return Ok(None);
    }
    if source.is_file(path) {
        return Ok(Some(path.to_owned()));
    }
    if forced || wanted.is_some() || spec.build.target.is_some() || !spec.build.args.is_empty() {
        let hint = "write its path, relative to the root of the app, as build.dockerfile in coracle.toml, and see that no ignore file leaves it out";
        return Err(unsuitable(format!("there is no Dockerfile at {path}"), hint));
    }
    Ok(None)
}

fn from_dockerfile(path: String, spec: &AppSpec, procfile: Option<Procfile>) -> BuildPlan {
    let mut reason = format!("found {path}");
    if procfile.is_some() {
        reason += "; its processes are those of the Procfile";
    }
    let procfile = procfile.unwrap_or_default();
    let (target, args) = (spec.build.target.clone(), spec.build.args.clone());
    BuildPlan {
        recipe: Recipe::Dockerfile { path, target, args, extras: Box::default() },
        processes: procfile.processes,
        release_command: procfile.release,
        reason,
        serving: Serving::default(),
    }
}

/// A tree that is built without a Dockerfile.
struct Tree<'a> {
    source: Source<'a>,
    spec: &'a AppSpec,
    engine: EngineKind,
    procfile: Option<Procfile>,
}

/// A recipe and how it was recognised.
struct Recognised {
    recipe: Recipe,
    reason: String,
}

/// A web command that the tree suggests.
struct Suggested {
    command: CommandLine,
    reason: String,
}

impl Tree<'_> {
    fn detect(&self) -> Result<BuildPlan, PlanError> {
        let package = node::Package::read(self)?;
        if let Some(package) = package.as_ref().filter(|_| self.is_run_by_node()) {
            return self.node(package, matches!(python::recognise(self), Ok(Some(_))));
        }
        match (python::recognise(self)?, package) {
            (Some(python), _) => self.python(python),
            (None, Some(package)) if self.knows_web() || package.can_start(self) => self.node(&package, false),
            (None, package) => self.neither(package.is_some()),
        }
    }

    /// Neither Python nor what Node.js starts.
    fn neither(&self, has_package: bool) -> Result<BuildPlan, PlanError> {
        if let Some(program) = compiled::recognise(self)? {
            if self.engine == EngineKind::Docker {
                let web = self.suggested(|| Ok(program.web_command()))?;
                return Ok(self.with_web(program.recognised, web));
            }
            if !self.knows_web() {
                let message = format!("the process engine does not compile {} programs", program.recognised.recipe);
                let hint = "write engine = \"docker\" in coracle.toml, or a Procfile that starts a program you have built";
                return Err(unsuitable(message, hint));
            }
        }
        match self.static_site() {
            _ if self.knows_web() => self.plain(has_package),
            Ok(plan) => Ok(plan),
            // There is a site, but not one that can be served as the manifest wants it.
            Err(error) if static_site::site_root(&self.source, None).is_some() => Err(error),
            Err(_) => self.plain(has_package),
        }
    }

    /// Whether the author has said what runs, so that nothing is to be guessed.
    fn knows_web(&self) -> bool {
        self.procfile.is_some() || self.has_commands()
    }

    fn has_commands(&self) -> bool {
        self.spec.processes.values().any(|process| process.command.is_some())
    }

    /// Whether the web process, as far as it is known, is a Node.js program.
    fn is_run_by_node(&self) -> bool {
        let program = self.web_of_author().and_then(|command| command.words.first());
        let Some([Piece::Text(program)]) = program.map(|word| word.0.as_slice()) else { return false };
        matches!(program.as_str(), "node" | "npm" | "npx" | "yarn" | "pnpm")
    }

    fn python(&self, python: python::Python) -> Result<BuildPlan, PlanError> {
        let python::Python { mut app, found: mut reason } = python;
        let mut added = None;
        let web = self.suggested(|| {
            let (suggested, server) = python::web_command(self, &app)?;
            added = server;
            Ok(suggested)
        })?;
        if let Some(command) = self.web_of_author() {
            added = python::missing_server(self, &app, command)?;
            if let Some(added) = &added {
                reason += &format!("; its server is not among the dependencies, so {added} is added");
            }
        }
        app.added = added;
        Ok(self.with_web(Recognised { recipe: Recipe::Python(app), reason }, web))
    }

    /// The web command that the author has written down: in the manifest, else in the Procfile.
    fn web_of_author(&self) -> Option<&CommandLine> {
        let of_manifest = self.spec.processes.get(&ProcessName::web()).and_then(|process| process.command.as_ref());
        of_manifest.or_else(|| self.procfile.as_ref()?.processes.get(&ProcessName::web()))
    }

    /// The suggested web command, where the author has not named one. If other commands are named, there need not be any.
    fn suggested(&self, suggest: impl FnOnce() -> Result<Suggested, PlanError>) -> Result<Option<Suggested>, PlanError> {
        let web = self.spec.processes.get(&ProcessName::web());
        if self.procfile.is_some() || web.is_some_and(|web| web.command.is_some()) {
            return Ok(None);
        }
        match suggest() {
            Ok(suggested) => Ok(Some(suggested)),
            Err(PlanError::Unsuitable { .. }) if self.has_commands() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn node(&self, package: &node::Package, has_python: bool) -> Result<BuildPlan, PlanError> {
        let mut node = package.recognised(self)?;
        if has_python {
            node.reason += "; Python is not set up, since the web process is a Node.js program";
        }
        let web = self.suggested(|| package.web_command(self))?;
        Ok(self.with_web(node, web))
    }

    /// The plan with the Procfile's processes, or with the suggested one.
    fn with_web(&self, recognised: Recognised, web: Option<Suggested>) -> BuildPlan {
        let Recognised { recipe, mut reason } = recognised;
        let mut procfile = self.procfile.clone().unwrap_or_default();
        if self.procfile.is_some() {
            reason += "; its processes are those of the Procfile";
        }
        if let Some(web) = web {
            reason += &format!("; {}", web.reason);
            procfile.processes.insert(ProcessName::web(), web.command);
        }
        BuildPlan {
            recipe,
            processes: procfile.processes,
            release_command: procfile.release,
            reason,
            serving: Serving::default(),
        }
    }

    fn static_site(&self) -> Result<BuildPlan, PlanError> {
        let wanted = self.spec.build.root.as_deref();
        let Some(root) = static_site::site_root(&self.source, wanted) else {
            return Err(match wanted {
                Some(folder) => unsuitable(
                    format!("the folder {folder} of the static site is not there"),
                    "write the folder's path, relative to the root of the app, as build.root in coracle.toml",
                ),
                None => unsuitable(
                    format!("no static site was found: looked for index.html in {}", static_site::candidates_in_words()),
                    "write the folder that holds it as build.root in coracle.toml",
                ),
            });
        };
        let reason = match wanted {
            Some(_) => format!("the manifest names the folder {root} as a static site"),
            None if root == "." => "found index.html".to_owned(),
            None => format!("found {root}/index.html"),
        };
        let mut processes = BTreeMap::new();
        if self.engine == EngineKind::Docker {
            processes.insert(ProcessName::web(), crate::dockerfile::static_server());
        }
        Ok(BuildPlan { recipe: Recipe::Static { root }, processes, release_command: None, reason, serving: Serving::default() })
    }

    /// Nothing to install: commands that run in the tree as it is.
    fn plain(&self, has_package: bool) -> Result<BuildPlan, PlanError> {
        if self.knows_web() {
            let reason = if self.procfile.is_some() { "found Procfile" } else { "the manifest names the commands" };
            let procfile = self.procfile.clone().unwrap_or_default();
            let (processes, release_command) = (procfile.processes, procfile.release);
            let (reason, serving) = (reason.to_owned(), Serving::default());
            return Ok(BuildPlan { recipe: Recipe::Plain, processes, release_command, reason, serving });
        }
        let hint = "write a Procfile with a line such as `web: ./server --port $PORT`";
        if has_package {
            return Err(node::no_start());
        }
        if COMPOSE_FILES.iter().any(|path| self.source.is_file(path)) {
            let message = "the compose file is not used, since coracle.toml says by itself what runs ([processes], [services], \
                           [build] or engine), and nothing else here says how to run this app";
            let hint = "name the compose file with `-f FILE`, or take those out of coracle.toml";
            return Err(unsuitable(message, hint));
        }
        let dockerfile = if self.engine == EngineKind::Docker { "a Dockerfile, " } else { "" };
        let message = format!(
            "nothing here says how to run this app: looked for {dockerfile}a Procfile, Python (requirements.txt, uv.lock, \
             poetry.lock, Pipfile.lock, pyproject.toml, manage.py, app.py, main.py), Node.js (package.json), Go (go.mod), Rust \
             (Cargo.toml) and a static site (index.html in {})",
            static_site::candidates_in_words()
        );
        Err(unsuitable(message, hint))
    }

    /// The address a server has to listen on: instances of the process engine share the machine's network, so they must not
    /// be reachable from outside; a container is reached through its own.
    fn host(&self) -> &'static str {
        match self.engine {
            EngineKind::Process => "127.0.0.1",
            EngineKind::Docker => "0.0.0.0",
        }
    }
}

/// A command of words in which `$PORT` is the variable.
fn command(words: &[&str]) -> CommandLine {
    let word = |text: &&str| {
        let mut pieces = Vec::new();
        for (n, part) in text.split("$PORT").enumerate() {
            if n > 0 {
                let name = "PORT".parse().unwrap_or_else(|_| unreachable!("PORT is a name"));
                pieces.push(Piece::Variable { name, default: None, quoted: false });
            }
            if !part.is_empty() {
                pieces.push(Piece::Text(part.to_owned()));
            }
        }
        Word(pieces)
    };
    CommandLine { assignments: Vec::new(), words: words.iter().map(word).collect() }
}
