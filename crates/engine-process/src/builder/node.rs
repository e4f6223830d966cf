//! Node.js: packages installed by npm beside the slug and linked into it, then the app's own build script, if it has one.

use std::path::{Path, PathBuf};

use coracle_engine::{BuildError, EngineError};
use coracle_jail::Show;
use coracle_model::plan::{NodeApp, PackageManager};
use serde_json::{Map, Value};

use super::dependencies::{Key, Place};
use super::step::{Bench, Step};
use super::tree;
use crate::runtime::in_background;
use crate::slug::SlugRecord;
use crate::surroundings::text;

/// What of `package.json` decides which packages are installed.
const DECIDING: [&str; 11] = [
    "name",
    "version",
    "dependencies",
    "devDependencies",
    "optionalDependencies",
    "peerDependencies",
    "peerDependenciesMeta",
    "bundleDependencies",
    "overrides",
    "engines",
    "packageManager",
];

/// Installs the packages, unless they are installed, and runs the build script.
pub(super) async fn install(bench: &Bench<'_>, tree: &Path, app: &NodeApp) -> Result<SlugRecord, BuildError> {
    let path = bench.site.search_path();
    let find = |name: &str| path.iter().map(|place| place.join(name)).find(|file| file.is_file());
    let (Some(node), Some(npm)) = (find("node"), find("npm")) else {
        return Err(BuildError::CannotBuild("Node.js is not installed on this machine: install node and npm".to_owned()));
    };
    let manager = Manager::choose(app, npm, &find, bench);
    let manifest = reduced_manifest(tree)?;
    let mut key = Key::new("node-1");
    key.add_program(&node);
    if !matches!(manager.kind, PackageManager::Npm) {
        key.add_program(&manager.program);
    }
    key.add("package.json", manifest.as_bytes());
    let mut files = vec![("package.json".to_owned(), manifest.into_bytes())];
    for file in manager.lock.iter().chain(&app.settings) {
        let bytes = std::fs::read(tree.join(super::inside(file)?))
            .map_err(|error| BuildError::CannotBuild(format!("{file} cannot be read: {error}")))?;
        key.add(file, &bytes);
        files.push((file.clone(), bytes));
    }
    let place = Place::prepare(bench, &key).await?;
    let modules = place.path.join("node_modules");
    let path = place.path.clone();
    let name = if place.complete {
        bench.say("dependencies have not changed");
        place.name
    } else {
        let installed = fill(bench, &manager, &place.path, &files).await;
        place.finish(installed).await?
    };
    if modules.is_dir() {
        std::os::unix::fs::symlink(&modules, tree.join("node_modules"))
            .map_err(|error| EngineError::io("link node_modules", &error))?;
    }
    if app.has_build_script {
        build(bench, &manager.npm, tree, &path).await?;
    }
    let env = vec![("NODE_ENV".to_owned(), "production".to_owned())];
    Ok(SlugRecord { path: vec![modules.join(".bin")], env, dependencies: Some(name) })
}

/// What installs the packages on this machine.
struct Manager {
    kind: PackageManager,
    program: PathBuf,
    npm: PathBuf,
    /// The lock file that it reads.
    lock: Option<String>,
}

impl Manager {
    /// The app's own, if it is installed here; else npm, which reads no other's lock file.
    fn choose(app: &NodeApp, npm: PathBuf, find: &dyn Fn(&str) -> Option<PathBuf>, bench: &Bench<'_>) -> Self {
        let name = app.manager.program();
        match find(name) {
            Some(program) => Self { kind: app.manager, program, npm, lock: app.lock.clone() },
            None => {
                let lock = app
                    .lock
                    .as_deref()
                    .map(|lock| format!(" {lock} is not read, so versions are not locked"))
                    .unwrap_or_default();
                bench.say(format!("{name} is not installed on this machine; npm installs the packages.{lock}"));
                Self { kind: PackageManager::Npm, program: npm.clone(), npm, lock: None }
            }
        }
    }

    fn words(&self) -> &'static [&'static str] {
        match (self.kind, self.lock.is_some()) {
            (PackageManager::Npm, true) => &["ci", "--no-audit", "--no-fund"],
            (PackageManager::Npm, false) => &["install", "--no-audit", "--no-fund"],
            (PackageManager::Pnpm | PackageManager::Yarn, true) => &["install", "--frozen-lockfile"],
            (PackageManager::YarnBerry, true) => &["install", "--immutable"],
            (_, false) => &["install"],
        }
    }
}

async fn fill(bench: &Bench<'_>, manager: &Manager, place: &Path, files: &[(String, Vec<u8>)]) -> Result<(), BuildError> {
    for (name, bytes) in files {
        let file = place.join(name);
        std::fs::write(&file, bytes)
            .and_then(|()| std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)))
            .map_err(|error| EngineError::io(format!("write {name}"), &error))?;
    }
    let argv = std::iter::once(text(&manager.program)).chain(manager.words().iter().map(|word| (*word).to_owned())).collect();
    bench.run(Step { argv, cwd: place, env: npm_env(), shows: vec![Show::writable(place)] }).await
}

/// Runs the build script in the tree, which the app's user may write to meanwhile.
async fn build(bench: &Bench<'_>, npm: &Path, tree: &Path, place: &Path) -> Result<(), BuildError> {
    let (owned, user): (PathBuf, _) = (tree.to_owned(), bench.user);
    in_background(move || tree::hand_over(&owned, user)).await?;
    let argv = vec![text(npm), "run".to_owned(), "build".to_owned()];
    let shows = vec![Show::writable(tree), Show::readable(place)];
    bench.run(Step { argv, cwd: tree, env: npm_env(), shows }).await
}

fn npm_env() -> Vec<(String, String)> {
    [
        ("npm_config_update_notifier", "false"),
        ("npm_config_progress", "false"),
        ("CI", "true"),
        ("YARN_NODE_LINKER", "node-modules"),
        ("YARN_ENABLE_TELEMETRY", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// `package.json` without the app's own scripts, which have nothing to run on where packages are installed, and without
/// what decides nothing.
fn reduced_manifest(tree: &Path) -> Result<String, BuildError> {
    let cannot = |why: String| BuildError::CannotBuild(format!("package.json {why}"));
    let text = std::fs::read_to_string(tree.join("package.json")).map_err(|error| cannot(format!("cannot be read: {error}")))?;
    let manifest: Map<String, Value> = serde_json::from_str(&text).map_err(|error| cannot(format!("is not valid: {error}")))?;
    if manifest.contains_key("workspaces") {
        return Err(cannot("has workspaces, which the process engine cannot install; use a Dockerfile".to_owned()));
    }
    let reduced: Map<String, Value> = manifest.into_iter().filter(|(name, _)| DECIDING.contains(&name.as_str())).collect();
    serde_json::to_string_pretty(&reduced).map_err(|error| cannot(error.to_string()))
}
