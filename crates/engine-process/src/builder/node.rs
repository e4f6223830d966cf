//! Node.js: packages installed by npm beside the slug and linked into it, then the app's own build script, if it has one.

use std::path::{Path, PathBuf};

use coracle_engine::{BuildError, EngineError};
use coracle_jail::Show;
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
pub(super) async fn install(
    bench: &Bench<'_>,
    tree: &Path,
    lock: Option<&str>,
    has_build_script: bool,
) -> Result<SlugRecord, BuildError> {
    let path = bench.site.search_path();
    let find = |name: &str| path.iter().map(|place| place.join(name)).find(|file| file.is_file());
    let (Some(node), Some(npm)) = (find("node"), find("npm")) else {
        return Err(BuildError::CannotBuild("Node.js is not installed on this machine: install node and npm".to_owned()));
    };
    let manifest = reduced_manifest(tree)?;
    let mut key = Key::new("node-1");
    key.add_program(&node);
    key.add("package.json", manifest.as_bytes());
    let mut files = vec![("package.json".to_owned(), manifest.into_bytes())];
    for file in lock.into_iter().chain([".npmrc"]) {
        match std::fs::read(tree.join(super::inside(file)?)) {
            Ok(bytes) => {
                key.add(file, &bytes);
                files.push((file.to_owned(), bytes));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file == ".npmrc" => {}
            Err(error) => return Err(BuildError::CannotBuild(format!("{file} cannot be read: {error}"))),
        }
    }
    let place = Place::prepare(bench, &key).await?;
    let modules = place.path.join("node_modules");
    let path = place.path.clone();
    let name = if place.complete {
        bench.say("dependencies have not changed");
        place.name
    } else {
        let installed = fill(bench, &npm, &place.path, &files, lock.is_some()).await;
        place.finish(installed).await?
    };
    if modules.is_dir() {
        std::os::unix::fs::symlink(&modules, tree.join("node_modules"))
            .map_err(|error| EngineError::io("link node_modules", &error))?;
    }
    if has_build_script {
        build(bench, &npm, tree, &path).await?;
    }
    let env = vec![("NODE_ENV".to_owned(), "production".to_owned())];
    Ok(SlugRecord { path: vec![modules.join(".bin")], env, dependencies: Some(name) })
}

async fn fill(bench: &Bench<'_>, npm: &Path, place: &Path, files: &[(String, Vec<u8>)], locked: bool) -> Result<(), BuildError> {
    for (name, bytes) in files {
        let file = place.join(name);
        std::fs::write(&file, bytes)
            .and_then(|()| std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)))
            .map_err(|error| EngineError::io(format!("write {name}"), &error))?;
    }
    let verb = if locked { "ci" } else { "install" };
    let argv = vec![text(npm), verb.to_owned(), "--no-audit".to_owned(), "--no-fund".to_owned()];
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
    [("npm_config_update_notifier", "false"), ("npm_config_progress", "false"), ("CI", "true")]
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
