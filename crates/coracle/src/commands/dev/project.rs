//! What is developed: a compose project, or a source tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_compose::{Loaded, dotenv};
use coracle_dev::{DevError, Reload, Stack, source_tree, translation};
use coracle_model::{AppSpec, COMPOSE_FILES, EngineKind, EnvName};

use super::{Arguments, failure};
use crate::commands::compose::ProjectFiles;
use crate::context::{Context, MANIFEST, directory_name, is_described_by_compose, overlay_of, spec_of};
use crate::failure::Failure;
use crate::project_file;

/// What is developed, and how it is read again.
#[derive(Clone)]
pub(super) struct Project {
    what: What,
    files: ProjectFiles,
    services: Vec<String>,
    ignore_unsupported: bool,
    context: Arc<Context>,
}

#[derive(Clone)]
enum What {
    /// A compose project. It was loaded once already, to know that it is one.
    Compose(Arc<Loaded>),
    /// A source tree.
    Tree(PathBuf),
}

impl Project {
    /// Looks what is here: the compose files that are named, one in this folder, the files of a source tree in this folder,
    /// or a compose file in a folder above.
    pub(super) fn find(arguments: &Arguments, context: &Context) -> Result<Self, Failure> {
        let (files, here) = (arguments.project.clone(), &context.directory);
        let is_here = |names: &[&str]| names.iter().any(|name| here.join(name).is_file());
        let above = || here.ancestors().skip(1).any(|folder| COMPOSE_FILES.iter().any(|name| folder.join(name).is_file()));
        // As for a deployment: a manifest that says by itself what runs goes before compose files that nobody names.
        // Which of them a deployment uses, `[compose]` says; here they are those for development.
        let by_compose = || is_described_by_compose(here, context.global.environment.as_deref(), true);
        let compose =
            files.are_named() || (is_here(&COMPOSE_FILES) && by_compose()?) || (!is_here(&[MANIFEST, "Procfile"]) && above());
        let what = if compose { What::Compose(Arc::new(files.load(context)?)) } else { What::Tree(here.clone()) };
        Ok(Self {
            what,
            files,
            services: arguments.services.clone(),
            ignore_unsupported: arguments.ignore_unsupported,
            context: Arc::new(context.clone()),
        })
    }

    /// The folder that paths are relative to.
    pub(super) fn directory(&self) -> &Path {
        match &self.what {
            What::Compose(loaded) => &loaded.project.directory,
            What::Tree(tree) => tree,
        }
    }

    /// What runs it.
    pub(super) fn engine(&self) -> EngineKind {
        match &self.what {
            What::Compose(_) => EngineKind::Docker,
            What::Tree(_) => EngineKind::Process,
        }
    }

    /// What should run.
    pub(super) fn stack(&self) -> Result<Stack, Failure> {
        let stack = match &self.what {
            What::Compose(loaded) => self.translated(loaded)?,
            What::Tree(tree) => self.tree(tree)?,
        };
        let stack = stack.only(&self.services).map_err(|error| Failure::usage(error.to_string()))?;
        if stack.spec.processes.is_empty() {
            return Err(Failure::usage("there is nothing to run: every service belongs to a profile that is not active")
                .hint("name a profile with --profile"));
        }
        Ok(stack)
    }

    /// Reads everything again, as it was read first.
    pub(super) fn reload(&self) -> Reload {
        let project = self.clone();
        Arc::new(move || {
            let stack = match &project.what {
                What::Compose(_) => project
                    .files
                    .load(&project.context)
                    .and_then(|loaded| Self { what: What::Compose(Arc::new(loaded)), ..project.clone() }.stack()),
                What::Tree(_) => project.stack(),
            };
            stack.map_err(|failure| failure.told())
        })
    }

    fn translated(&self, loaded: &Loaded) -> Result<Stack, Failure> {
        let translation::Translated { stack, obstacles, mistakes } = translation::translate(loaded);
        if !mistakes.is_empty() {
            return Err(refused(mistakes, "correct it, then `coracle dev`"));
        }
        if !obstacles.is_empty() && !self.ignore_unsupported {
            return Err(refused(obstacles, "take it out, or go on without: coracle dev --ignore-unsupported"));
        }
        for obstacle in obstacles {
            self.context.output.remark(format!("warning: not honoured: {obstacle}"));
        }
        self.with_manifest(stack, &loaded.project.directory)
    }

    /// The keys of a `coracle.toml` beside compose files lie over them here as they do when it is deployed.
    fn with_manifest(&self, mut stack: Stack, directory: &Path) -> Result<Stack, Failure> {
        let app = stack.spec.app.clone();
        let Some(overlay) = overlay_of(directory, self.context.global.environment.as_deref(), &app)? else { return Ok(stack) };
        let mut notes = overlay.lay_over(&mut stack.spec);
        // Nobody is routed here, and what must be set for a deployment need not be.
        notes.retain(|note| !note.starts_with("[http]"));
        stack.spec.secrets.clear();
        stack.files.push(directory.join(MANIFEST));
        notes.into_iter().for_each(|note| self.context.output.remark(note));
        Ok(stack)
    }

    fn tree(&self, tree: &Path) -> Result<Stack, Failure> {
        let name = self.context.global.app.clone().or_else(|| directory_name(tree)).or_else(|| "dev".parse().ok());
        let spec = spec_of(tree, self.context.global.environment.as_deref(), name.clone())?;
        let spec = spec.or_else(|| name.map(AppSpec::named)).ok_or_else(crate::context::nameless)?;
        source_tree::read(tree, spec, self.variables(tree)?).map_err(|error: DevError| match error {
            DevError::NoPlan { .. } => {
                let hint = error.hint().unwrap_or_default();
                Failure::usage(error.to_string()).hint(hint)
            }
            error => failure(error),
        })
    }

    /// What the environment files say; `.env` in the folder, if none is named.
    fn variables(&self, tree: &Path) -> Result<BTreeMap<EnvName, String>, Failure> {
        let named = self.files.env_files().iter().map(|file| self.context.directory.join(file)).collect();
        let mut variables = BTreeMap::new();
        for (file, text) in project_file::variables(tree.join(".env"), named)? {
            let failed = |what: String| Failure::usage(format!("{}: {what}", file.display()));
            let lookup = |name: &str| std::env::var(name).ok();
            let entries = dotenv::parse(&text, &lookup).map_err(|error| failed(error.to_string()))?;
            for (name, value) in entries.into_iter().filter_map(|(name, value)| Some((name, value?))) {
                variables.insert(name.parse().map_err(|error: coracle_model::NameError| failed(error.to_string()))?, value);
            }
        }
        Ok(variables)
    }
}

fn refused(mut all: Vec<String>, hint: &str) -> Failure {
    let told = match all.as_slice() {
        [_] => all.remove(0),
        several => format!("the compose file asks for {} things that cannot be", several.len()),
    };
    Failure::usage(told).evidence(all).hint(hint)
}
