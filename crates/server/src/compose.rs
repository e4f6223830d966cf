//! Compose files of a source tree: resolved with the app's configuration as their variables, and made into what is deployed.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use coracle_api::{DeployOptions, Problem, ProblemKind};
use coracle_compose::deploy::{self, Deployable, Surroundings};
use coracle_model::manifest::Overlay;
use coracle_model::{AppName, AppSpec, COMPOSE_FILES};
use coracle_pipeline::Pipeline;
use coracle_policy::Policy;
use serde_json::Value;

/// How many obstacles are told in full.
const TOLD: usize = 20;

/// An app that a tree describes, and what was decided on the way.
pub(crate) struct Resolved {
    pub spec: AppSpec,
    pub notes: Vec<String>,
    /// Whether compose files describe it.
    pub by_compose: bool,
    /// What is run with it, if the manifest says so.
    pub pipeline: Pipeline,
    /// What the app says of the rules that its releases may break.
    pub policy: Policy,
    /// The text of the manifest, where it describes the app.
    pub manifest: Option<String>,
}

/// What an app is made of that compose files describe.
pub(crate) struct Request<'a> {
    pub app: &'a AppName,
    pub options: &'a DeployOptions,
    /// The app's configuration: what its variables mean.
    pub config: BTreeMap<String, String>,
    /// What `coracle.toml` says beside them.
    pub manifest: Option<Overlay>,
}

/// The compose file of the tree under one of the usual names.
pub(crate) fn usual_file(tree: &Path) -> Option<&'static str> {
    COMPOSE_FILES.into_iter().find(|name| tree.join(name).is_file())
}

/// Resolves the compose files of a tree.
pub(crate) fn resolve(tree: &Path, request: Request<'_>) -> Result<Resolved, Problem> {
    let Request { app, options, config, manifest } = request;
    // The state directory may be reached by a link, and paths are compared.
    let tree = &tree.canonicalize().map_err(|error| {
        Problem::new(ProblemKind::Unavailable, format!("the folder that was sent is gone: {error}")).hint("deploy again")
    })?;
    // Trees lie in directories of their own in a directory of the state directory's.
    let is_ours = tree.ancestors().nth(2).is_some_and(|incoming| incoming.ends_with("incoming"));
    let closed = tree.ancestors().nth(3).filter(|_| is_ours);
    let loaded = coracle_compose::load(&coracle_compose::Options {
        files: inside(tree, options.compose_files.as_deref())?,
        project_dir: Some(tree.to_owned()),
        project_name: Some(app.to_string()),
        profiles: words(options.profiles.as_deref()),
        env_files: inside(tree, options.env_files.as_deref())?,
        environment: config,
        working_dir: tree.to_owned(),
        stdin: None,
        within: Some(tree.clone()),
    });
    let mut loaded = loaded.map_err(|error| {
        let hint = error.hint.clone().unwrap_or_else(|| "correct it, then `coracle deploy`".to_owned());
        Problem::new(ProblemKind::Invalid, without(tree, &error.to_string())).hint(hint)
    })?;
    if loaded.project.services.is_empty() {
        let detail =
            "the compose files have no service to run: they name none, or each belongs to a profile that is not asked for";
        return Err(Problem::new(ProblemKind::Invalid, detail).hint("name a profile: coracle deploy --profile NAME"));
    }
    let warnings = std::mem::take(&mut loaded.warnings);
    let hosts = manifest.as_ref().and_then(Overlay::hosts).map(<[_]>::to_vec);
    if hosts.is_some()
        && let Some(Value::Object(own)) = loaded.project.extensions.get_mut("x-coracle")
    {
        // The manifest's word goes before that of the compose file.
        own.remove("hosts");
    }
    let made = deploy::app_spec(&loaded, Surroundings { app: app.clone(), tree, closed, hosts });
    let Deployable { mut spec, obstacles, mistakes, mut notes } = made;
    refuse(&mistakes, "correct them, then `coracle deploy`")?;
    if options.ignore_unsupported {
        notes.extend(obstacles.iter().map(|obstacle| format!("not honoured: {obstacle}")));
    } else {
        refuse(&obstacles, "take them out, or deploy without them: coracle deploy --ignore-unsupported")?;
    }
    notes.extend(warnings.into_iter().map(|warning| without(tree, &warning)));
    notes.extend(manifest.into_iter().flat_map(|manifest| manifest.lay_over(&mut spec)));
    Ok(Resolved { spec, notes, by_compose: true, pipeline: Pipeline::default(), policy: Policy::default(), manifest: None })
}

fn refuse(obstacles: &[deploy::Obstacle], hint: &str) -> Result<(), Problem> {
    let detail = match obstacles {
        [] => return Ok(()),
        // Told once: there is nothing to list.
        [only] => return Err(Problem::new(ProblemKind::Invalid, only.to_string()).hint(hint)),
        several => format!("the compose files ask for {} things that cannot be", several.len()),
    };
    let evidence = obstacles.iter().take(TOLD).map(ToString::to_string).collect();
    Err(Problem::new(ProblemKind::Invalid, detail).hint(hint).evidence(evidence))
}

/// Files of the tree, separated by commas.
fn inside(tree: &Path, text: Option<&str>) -> Result<Vec<PathBuf>, Problem> {
    let checked = |word: String| {
        let path = Path::new(&word);
        let stays = path.components().all(|piece| matches!(piece, Component::Normal(_) | Component::CurDir));
        if stays { Ok(tree.join(path)) } else { Err(outside(&word)) }
    };
    words(text).into_iter().map(checked).collect()
}

fn outside(path: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, format!("{path:?} lies outside of the folder that is sent to the server"))
        .hint("name files of that folder, relative to it")
}

fn words(text: Option<&str>) -> Vec<String> {
    text.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Places are told as they are in the tree, not where the server has unpacked it.
fn without(tree: &Path, text: &str) -> String {
    text.replace(&format!("{}/", tree.display()), "")
}
