//! Python: a virtual environment made at its final place, filled by `uv` where it is installed and by pip where it is not.

use std::path::{Path, PathBuf};

use coracle_engine::{BuildError, EngineError};
use coracle_jail::Show;
use coracle_model::plan::{CollectStatic, PythonApp, PythonDependencies};

use super::dependencies::{Key, Place};
use super::lockfile::{self, LockError};
use super::step::{Bench, Step};
use super::tree;
use crate::confine::is_reachable;
use crate::runtime::in_background;
use crate::slug::SlugRecord;
use crate::surroundings::text;

/// The file that pip reads what a lock file pins from, in the place of the dependencies.
const PINNED: &str = "requirements.lock.txt";

/// What installs packages.
enum Installer {
    /// `uv`, and where it is seen.
    Uv { source: PathBuf, seen: PathBuf },
    /// pip, inside the environment.
    Pip,
}

/// Where the list of packages comes from.
enum Listed {
    /// Files of the tree, as they are.
    Files(Vec<String>),
    /// `uv.lock`, which `uv` reads itself.
    UvProject,
    /// A text for pip.
    Pinned(String),
    /// Nothing to install.
    Nothing,
}

/// Installs the dependencies, unless they are installed.
pub(super) async fn install(bench: &Bench<'_>, tree: &Path, app: &PythonApp) -> Result<SlugRecord, BuildError> {
    let version = app.version.as_deref();
    let usable = |program: &Path| bench.site.can_run(program);
    let python = find_python(&bench.site.search_path(), version, &usable)
        .ok_or_else(|| BuildError::CannotBuild("Python is not installed on this machine: install python3".to_owned()))?;
    if let Some(wish) = version
        && !text(&python).contains(wish.split('.').take(2).collect::<Vec<_>>().join(".").as_str())
    {
        bench.say(format!("Python {wish} is asked for and not installed here; taking {}", python.display()));
    }
    let installer = find_uv(bench);
    let listed = list(tree, &app.dependencies, &installer)?;
    let mut key = Key::new(if matches!(installer, Installer::Uv { .. }) { "python-uv-1" } else { "python-pip-1" });
    key.add_program(&python);
    add_to_key(&mut key, tree, &listed)?;
    if let Some(added) = &app.added {
        key.add("added", added.as_bytes());
    }
    let place = Place::prepare(bench, &key).await?;
    let place_path = place.path.clone();
    let venv = place_path.join("venv");
    let name = if place.complete {
        bench.say("dependencies have not changed");
        place.name
    } else {
        let installed =
            fill(bench, tree, &python, &installer, &Wanted { listed: &listed, added: app.added.as_deref() }, &place.path).await;
        place.finish(installed).await?
    };
    let mut env = vec![("VIRTUAL_ENV".to_owned(), text(&venv)), ("PYTHONUNBUFFERED".to_owned(), "1".to_owned())];
    if let Some(folder) = &app.modules {
        // The project itself is not installed, since dependencies are shared by releases: its packages are found here.
        env.push(("PYTHONPATH".to_owned(), text(&tree.join(super::inside(folder)?))));
    }
    if let Some(how) = &app.collect_static {
        collect_static(bench, tree, &place_path, how, &env).await?;
    }
    Ok(SlugRecord { path: vec![venv.join("bin")], env, dependencies: Some(name) })
}

/// What is to be installed, and the server beside it.
struct Wanted<'a> {
    listed: &'a Listed,
    added: Option<&'a str>,
}

/// Gathers Django's static files in the tree, which the app's user may write to meanwhile.
async fn collect_static(
    bench: &Bench<'_>,
    tree: &Path,
    place: &Path,
    how: &CollectStatic,
    env: &[(String, String)],
) -> Result<(), BuildError> {
    let (owned, user) = (tree.to_owned(), bench.user);
    in_background(move || tree::hand_over(&owned, user)).await?;
    let python = text(&place.join("venv/bin/python"));
    let argv = [python.as_str(), "manage.py", "collectstatic", "--noinput"].map(str::to_owned).to_vec();
    let placeholders = how.placeholders.iter().map(|name| (name.to_string(), CollectStatic::PLACEHOLDER.to_owned()));
    let env = env.iter().cloned().chain(placeholders).collect();
    bench.run(Step { argv, cwd: tree, env, shows: vec![Show::writable(tree), Show::readable(place)] }).await
}

/// Makes the environment and installs into it.
async fn fill(
    bench: &Bench<'_>,
    tree: &Path,
    python: &Path,
    installer: &Installer,
    wanted: &Wanted<'_>,
    place: &Path,
) -> Result<(), BuildError> {
    let Wanted { listed, added } = *wanted;
    let venv = place.join("venv");
    let (venv_text, interpreter) = (text(&venv), text(&venv.join("bin/python")));
    if let Listed::Pinned(lines) = listed {
        std::fs::write(place.join(PINNED), lines).map_err(|error| EngineError::io("write pinned requirements", &error))?;
        // The app's user reads it.
        std::fs::set_permissions(place.join(PINNED), std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .map_err(|error| EngineError::io("write pinned requirements", &error))?;
    }
    let files: Vec<String> = match listed {
        Listed::Files(files) => files.first().cloned().into_iter().collect(),
        Listed::Pinned(_) => vec![text(&place.join(PINNED))],
        Listed::UvProject | Listed::Nothing => Vec::new(),
    };
    let with_files = |mut argv: Vec<String>| {
        argv.extend(files.iter().flat_map(|file| ["-r".to_owned(), file.clone()]));
        argv
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut steps = match (installer, listed) {
        (Installer::Uv { seen, .. }, Listed::UvProject) => {
            let sync = ["sync", "--frozen", "--no-dev", "--no-install-project", "--python", &text(python)].map(str::to_owned);
            vec![std::iter::once(text(seen)).chain(sync).collect()]
        }
        (Installer::Uv { seen, .. }, _) => {
            let make = words(&[&text(seen), "venv", "--quiet", "--python", &text(python), &venv_text]);
            let fill = words(&[&text(seen), "pip", "install", "--python", &interpreter]);
            if files.is_empty() { vec![make] } else { vec![make, with_files(fill)] }
        }
        (Installer::Pip, _) => {
            let without_pip: &[&str] = if files.is_empty() && added.is_none() { &["--without-pip"] } else { &[] };
            let python = text(python);
            let make = words(&[&[python.as_str(), "-m", "venv"], without_pip, &[venv_text.as_str()]].concat());
            let fill = words(&[&interpreter, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]);
            if files.is_empty() { vec![make] } else { vec![make, with_files(fill)] }
        }
    };
    // A step of its own: pip takes lists with hashes only by themselves.
    steps.extend(added.map(|added| match installer {
        Installer::Uv { seen, .. } => words(&[&text(seen), "pip", "install", "--python", &interpreter, added]),
        Installer::Pip => words(&[&interpreter, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", added]),
    }));
    for argv in steps {
        let mut shows = vec![Show::readable(tree), Show::writable(place)];
        if let Installer::Uv { source, seen } = installer {
            shows.push(Show { source: source.clone(), target: seen.clone(), writable: false });
        }
        let env = [
            ("UV_PROJECT_ENVIRONMENT", venv_text.as_str()),
            ("UV_LINK_MODE", "copy"),
            ("UV_PYTHON_DOWNLOADS", "never"),
            ("UV_NO_PROGRESS", "1"),
            ("PIP_PROGRESS_BAR", "off"),
            ("PIP_NO_INPUT", "1"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        bench.run(Step { argv, cwd: tree, env, shows }).await?;
    }
    Ok(())
}

/// What is to be installed, as the installer can read it.
fn list(tree: &Path, dependencies: &PythonDependencies, installer: &Installer) -> Result<Listed, BuildError> {
    let read = |file: &str| {
        std::fs::read_to_string(tree.join(file))
            .map_err(|error| BuildError::CannotBuild(format!("{file} cannot be read: {error}")))
    };
    let pinned = |file: &str, lines: Result<String, LockError>| {
        lines.map(Listed::Pinned).map_err(|error| BuildError::CannotBuild(format!("{file}: {error}")))
    };
    match dependencies {
        PythonDependencies::Requirements { files } => {
            for file in files {
                super::inside(file)?;
            }
            Ok(Listed::Files(files.clone()))
        }
        PythonDependencies::UvLock if matches!(installer, Installer::Uv { .. }) => Ok(Listed::UvProject),
        PythonDependencies::UvLock => pinned("uv.lock", lockfile::from_uv(&read("uv.lock")?)),
        PythonDependencies::PoetryLock => {
            pinned("poetry.lock", lockfile::from_poetry(&read("poetry.lock")?, &read("pyproject.toml")?))
        }
        PythonDependencies::PipfileLock => pinned("Pipfile.lock", lockfile::from_pipfile(&read("Pipfile.lock")?)),
        PythonDependencies::Pyproject { listed } => Ok(Listed::Pinned(listed.iter().map(|line| format!("{line}\n")).collect())),
        PythonDependencies::None => Ok(Listed::Nothing),
    }
}

/// Adds everything that decides what is installed.
fn add_to_key(key: &mut Key, tree: &Path, listed: &Listed) -> Result<(), BuildError> {
    let files: Vec<&str> = match listed {
        Listed::Files(files) => files.iter().map(String::as_str).collect(),
        Listed::UvProject => vec!["uv.lock", "pyproject.toml"],
        Listed::Pinned(lines) => {
            key.add("pinned", lines.as_bytes());
            Vec::new()
        }
        Listed::Nothing => Vec::new(),
    };
    for file in files {
        let text =
            std::fs::read(tree.join(file)).map_err(|error| BuildError::CannotBuild(format!("{file} cannot be read: {error}")))?;
        key.add(file, &text);
    }
    Ok(())
}

/// `uv`, if it is installed where the app's user can be shown it.
fn find_uv(bench: &Bench<'_>) -> Installer {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|place| place.join("uv")).find(|file| is_program(file));
    let Some(source) = found.and_then(|file| file.canonicalize().ok()) else { return Installer::Pip };
    if bench.site.means.has_mount_namespaces() {
        // It is a single file that needs nothing beside it, so it can be shown wherever it is.
        Installer::Uv { seen: bench.site.home.root().join("bin/uv"), source }
    } else if !bench.site.means.own_users || source.parent().is_some_and(is_reachable) {
        Installer::Uv { seen: source.clone(), source }
    } else {
        Installer::Pip
    }
}

/// The interpreter of that version, if it is there, else the usual one. Shims of version managers choose by the working
/// directory and its owner's home, which a service has not, so a real one is preferred.
fn find_python(path: &[PathBuf], version: Option<&str>, usable: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let wish = version.map(|wish| wish.split('.').take(2).collect::<Vec<_>>().join("."));
    let names = wish.map(|wish| format!("python{wish}")).into_iter().chain(["python3".to_owned()]);
    let all: Vec<PathBuf> = names
        .flat_map(|name| path.iter().map(move |place| place.join(&name)))
        .filter(|file| is_program(file) && usable(file))
        .collect();
    let real = all.iter().find(|file| !is_script(file)).and_then(|file| file.canonicalize().ok());
    real.or_else(|| all.first().cloned())
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn is_script(file: &Path) -> bool {
    let mut begin = [0; 2];
    std::fs::File::open(file)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut begin))
        .is_ok_and(|()| begin == *b"#!")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(place: &Path, name: &str, text: &str) -> PathBuf {
        let file = place.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        file.canonicalize().unwrap()
    }

    #[test]
    fn a_real_interpreter_is_preferred_to_a_shim_and_the_wanted_version_to_another() {
        let (shims, bin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        program(shims.path(), "python3", "#!/bin/sh");
        let path = [shims.path().to_owned(), bin.path().to_owned()];
        assert_eq!(find_python(&path, None, &|_| true).unwrap(), shims.path().join("python3"));
        let usual = program(bin.path(), "python3", "ELF");
        assert_eq!(find_python(&path, Some("3.12"), &|_| true).unwrap(), usual);
        let wanted = program(bin.path(), "python3.12", "ELF");
        assert_eq!(find_python(&path, Some("3.12.4"), &|_| true).unwrap(), wanted);
        assert_eq!(find_python(&path, None, &|_| true).unwrap(), usual);
    }
}
