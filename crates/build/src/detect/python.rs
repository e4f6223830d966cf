//! Python: where the dependencies are written down, which version is asked for, and which server runs the app.

mod django;
mod packages;
pub(crate) mod version;
mod web;

use coracle_model::plan::{PythonApp, PythonDependencies};
use coracle_model::{CommandLine, EngineKind};

use super::{PlanError, Suggested, Tree, unsuitable};

/// Files that make a tree without any list of dependencies a Python app.
const PROGRAMS: [&str; 5] = ["manage.py", "app.py", "main.py", "wsgi.py", "asgi.py"];

/// Lock files, and whose they are.
const LOCKS: [(&str, &str); 4] = [("uv.lock", "uv"), ("poetry.lock", "Poetry"), ("Pipfile.lock", "Pipenv"), ("pdm.lock", "PDM")];

/// A Python app, and what tells so.
pub(super) struct Python {
    pub(super) app: PythonApp,
    pub(super) found: String,
}

/// Whether the tree is a Python app, and how its dependencies are installed.
pub(super) fn recognise(tree: &Tree<'_>) -> Result<Option<Python>, PlanError> {
    let has = |path: &str| tree.source.is_file(path);
    let pyproject = tree.source.read("pyproject.toml")?;
    let locks: Vec<_> = LOCKS.into_iter().filter(|(file, _)| has(file)).collect();
    if let [(one, its), (other, others), ..] = locks[..] {
        let message = format!("there are lock files of two package managers: {one} ({its}) and {other} ({others})");
        return Err(unsuitable(message, "remove the one that is not kept up to date, and deploy again"));
    }
    let (dependencies, found) = match (locks.first().map(|(file, _)| *file), pyproject.as_deref()) {
        (Some("uv.lock"), Some(_)) => (PythonDependencies::UvLock, "uv.lock"),
        (Some("poetry.lock"), Some(_)) => (PythonDependencies::PoetryLock, "poetry.lock"),
        (Some(lock @ ("uv.lock" | "poetry.lock")), None) => {
            return Err(unsuitable(format!("there is {lock}, but no pyproject.toml"), "add it and deploy again"));
        }
        (Some("Pipfile.lock"), _) => (PythonDependencies::PipfileLock, "Pipfile.lock"),
        _ if has("requirements.txt") => {
            (PythonDependencies::Requirements { files: packages::requirement_files(tree)? }, "requirements.txt")
        }
        (_, Some(text)) if packages::lists_dependencies(text) => {
            (PythonDependencies::Pyproject { listed: packages::listed(text)? }, "pyproject.toml")
        }
        _ if has("Pipfile") => {
            return Err(unsuitable("there is a Pipfile, but no Pipfile.lock", "run `pipenv lock` and deploy again"));
        }
        _ => match PROGRAMS.iter().find(|program| has(program)) {
            Some(program) => (PythonDependencies::None, *program),
            None => return Ok(None),
        },
    };
    let lists_itself = matches!(dependencies, PythonDependencies::Requirements { .. } | PythonDependencies::None);
    let mut app = PythonApp::new(dependencies);
    app.version = version::wanted(tree, pyproject.as_deref())?;
    app.needs_tree = packages::need_tree(tree, &app.dependencies)?;
    app.local = packages::local(tree, &app.dependencies)?;
    if let Some(path) = app.local.first().filter(|_| tree.engine == EngineKind::Process) {
        let message = format!("{found} names {path}, which lies in the app itself, and the process engine cannot install that");
        let hint = "write engine = \"docker\" in coracle.toml, or require it in a requirements.txt";
        return Err(unsuitable(message, hint));
    }
    // The project itself is not installed, so that a changed line installs nothing anew: its modules are found there instead.
    app.modules = (!lists_itself && tree.source.is_folder("src")).then(|| "src".to_owned());
    app.collect_static = django::collect_static(tree)?;
    Ok(Some(Python { app, found: format!("found {found}") }))
}

/// A server for the app that the tree holds, and the package that has to be installed for it; or an error that says what to write.
pub(super) fn web_command(tree: &Tree<'_>, app: &PythonApp) -> Result<(Suggested, Option<String>), PlanError> {
    web::command_for(tree, &packages::names(tree, &app.dependencies)?)
}

/// The server that a command which somebody wrote down begins with, where the dependencies do not bring it. What a package of the
/// tree itself brings is not known, and its author has seen to it.
pub(super) fn missing_server(tree: &Tree<'_>, app: &PythonApp, command: &CommandLine) -> Result<Option<String>, PlanError> {
    if app.needs_tree {
        return Ok(None);
    }
    web::missing(&packages::names(tree, &app.dependencies)?, command)
}
