//! What every command needs: what was typed globally, where it was typed, how to print, and whom to ask.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_api::Client;
use coracle_model::manifest::Overlay;
use coracle_model::{AppName, AppSpec, Manifest};

use crate::address::{self, Surroundings};
use crate::arguments::Global;
use crate::failure::Failure;
use crate::output::{Output, terminal};
use crate::project_file;

/// The name of the manifest.
pub(crate) const MANIFEST: &str = "coracle.toml";

/// The surroundings of a command.
#[derive(Clone)]
pub(crate) struct Context {
    /// The global options.
    pub(crate) global: Global,
    /// Where to print.
    pub(crate) output: Arc<Output>,
    /// The current directory.
    pub(crate) directory: PathBuf,
}

impl Context {
    /// The app that is meant: `-a`, else the one in the manifest here, else the directory's name.
    pub(crate) fn app(&self) -> Result<AppName, Failure> {
        match &self.global.app {
            Some(app) => Ok(app.clone()),
            None => app_of(&self.directory, self.global.environment.as_deref()),
        }
    }

    /// A client of the server that is meant. Nothing is asked yet.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        address::client(self.remote().as_deref(), &self.state(), &Surroundings::found())
    }

    /// The server that was named, in whatever way, if one was.
    pub(crate) fn remote(&self) -> Option<String> {
        // As it was called before servers had names.
        let former = || std::env::var("CORACLE_SERVER").ok().filter(|server| !server.is_empty());
        self.global.remote.clone().filter(|remote| !remote.is_empty()).or_else(former)
    }

    /// Where the server of this machine keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.global.state.clone().unwrap_or_else(|| Surroundings::found().default_state())
    }

    /// Asks before something is destroyed; `-y` answers. Where nobody can be asked, the answer is no. `act` is what is about
    /// to be done (`destroying shop`), `what` the sentence that says what it means.
    pub(crate) fn confirm_by_typing(&self, word: &str, act: &str, what: &str) -> Result<(), Failure> {
        if self.global.yes {
            return Ok(());
        }
        if !terminal::can_ask() {
            return Err(Failure::usage(format!("{act} needs a confirmation, and nobody can be asked here")).hint("add -y"));
        }
        let answer = terminal::ask(&self.output, &format!("{what} Type {word} to go on: "))?;
        if answer.trim() == word { Ok(()) } else { Err(Failure::failed("not confirmed; nothing was changed")) }
    }
}

impl Global {
    /// What is to be typed for the app and the server that are meant here, environment and all.
    pub(crate) fn command(&self, words: &str) -> String {
        let told = [
            ("-e", "CORACLE_ENVIRONMENT", self.environment.clone()),
            ("-a", "CORACLE_APP", self.app.as_ref().map(ToString::to_string)),
            ("--remote", "CORACLE_REMOTE", self.remote.clone()),
            ("--state", "CORACLE_STATE", self.state.as_ref().map(|state| state.display().to_string())),
        ];
        let mut command = format!("coracle {words}");
        for (option, variable, value) in told {
            // What the environment says, it says the next time too.
            if let Some(value) = value.filter(|value| std::env::var(variable).as_deref() != Ok(value)) {
                command = format!("{command} {option} {value}");
            }
        }
        command
    }
}

/// The app of a tree: the one its manifest names, else the directory's name, if that is a valid one.
fn app_of(root: &Path, environment: Option<&str>) -> Result<AppName, Failure> {
    match app_of_manifest(root, environment, directory_name(root))? {
        Some(app) => Ok(app),
        None => directory_name(root).ok_or_else(nameless),
    }
}

/// The app that the manifest of a tree names, or `fallback` where it names none; `None` if there is no manifest. All of the
/// manifest is checked on the way.
pub(crate) fn app_of_manifest(
    root: &Path,
    environment: Option<&str>,
    fallback: Option<AppName>,
) -> Result<Option<AppName>, Failure> {
    Ok(spec_of(root, environment, fallback)?.map(|spec| spec.app))
}

/// What the manifest of a tree says; `None` if there is none. `fallback` is the app's name where it names none.
pub(crate) fn spec_of(root: &Path, environment: Option<&str>, fallback: Option<AppName>) -> Result<Option<AppSpec>, Failure> {
    let Some(manifest) = read_manifest(root)? else { return Ok(None) };
    let spec = manifest.resolve(fallback, environment);
    spec.map(Some).map_err(|errors| manifest_failure(&root.join(MANIFEST), &errors))
}

/// Whether compose files describe a tree where nobody names any. `usual` says that there is one with a usual name.
pub(crate) fn is_described_by_compose(root: &Path, environment: Option<&str>, usual: bool) -> Result<bool, Failure> {
    Ok(read_manifest(root)?.map_or(usual, |manifest| manifest.is_described_by_compose(environment, usual)))
}

/// The keys of a tree's manifest that lie over what compose files say of this app; `None` if there is no manifest.
pub(crate) fn overlay_of(root: &Path, environment: Option<&str>, app: &AppName) -> Result<Option<Overlay>, Failure> {
    let Some(manifest) = read_manifest(root)? else { return Ok(None) };
    let overlay = manifest.beside_compose(app, environment);
    overlay.map(Some).map_err(|errors| manifest_failure(&root.join(MANIFEST), &errors))
}

/// Nothing tells which app is meant.
pub(crate) fn nameless() -> Failure {
    Failure::usage(format!("which app? There is no {MANIFEST} here, and the directory's name is not a valid app name"))
        .hint("name it with -a NAME, or write a manifest with `coracle init -a NAME`")
}

/// The name of a directory, if it can be an app's.
pub(crate) fn directory_name(root: &Path) -> Option<AppName> {
    let full = root.canonicalize().ok()?;
    full.file_name()?.to_str()?.parse().ok()
}

/// The manifest of a tree; `None` if it has none.
fn read_manifest(root: &Path) -> Result<Option<Manifest>, Failure> {
    let path = root.join(MANIFEST);
    let Some(text) = project_file::manifest(&path)? else { return Ok(None) };
    Manifest::parse(&text).map(Some).map_err(|errors| manifest_failure(&path, &errors))
}

/// Mistakes in a manifest, with their lines.
fn manifest_failure(path: &Path, errors: &coracle_model::manifest::ManifestErrors) -> Failure {
    let count = errors.all.len();
    let mistakes = if count == 1 { "a mistake".to_owned() } else { format!("{count} mistakes") };
    Failure::usage(format!("{} has {mistakes}; nothing was done", path.display())).excerpt(errors.to_string())
}
