//! Python.

use coracle_model::plan::{CollectStatic, PythonApp, PythonDependencies};

use super::health::Prober;
use super::{Image, USER, copy, home, run, source_of};
use crate::detect::python::version::DEFAULT;

/// The installers that have been tried.
const UV: &str = "uv==0.13.9";
const POETRY: &str = "poetry==2.5.1";
const PIPENV: &str = "pipenv==2026.10.3";

/// Where the packages are, in both stages.
const PLACE: &str = "/opt/venv";

/// What pip leaves undone: caches that nobody uses again, and questions that nobody answers.
const PIP: &str = "PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore";

/// uv and Poetry bring lists of certificate authorities of their own; the image's is the one that its owner can add to.
const TRUST: &str = "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt";

pub(super) fn stages(app: &PythonApp, image: &Image<'_>) -> String {
    let base = format!("python:{}-slim", app.version.as_deref().unwrap_or(DEFAULT));
    let has_packages = app.dependencies != PythonDependencies::None || app.added.is_some();
    let mut out = if has_packages { packages(app, &base) } else { String::new() };
    out += &format!("FROM {base}\n");
    let mut settings = "PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1".to_owned();
    if let Some(folder) = app.modules.as_deref().filter(|folder| *folder == "src") {
        settings += &format!(" PYTHONPATH=/app/{folder}");
    }
    if has_packages {
        settings += &format!(" PATH={PLACE}/bin:$PATH");
    }
    out += &format!("# What is printed is seen at once, in the logs.\nENV {settings}\n{}", home());
    if has_packages {
        out += &format!("COPY --from=packages {PLACE} {PLACE}\n");
    }
    out += &image.says(Prober::Python);
    out += &source_of(USER);
    out + &app.collect_static.as_ref().map(collect_static).unwrap_or_default()
}

/// The stage that installs.
fn packages(app: &PythonApp, base: &str) -> String {
    let mut out = format!(
        "# Packages are installed in a stage of their own: installers and what they leave behind stay out of the image.\n\
         FROM {base} AS packages\nENV {PIP}\nWORKDIR /app\n"
    );
    let venv = run(&["python", "-m", "venv", PLACE]);
    let installer = match app.dependencies {
        PythonDependencies::UvLock => {
            format!(
                "ENV {TRUST} UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT={PLACE}\n{}",
                run(&["pip", "install", UV])
            )
        }
        PythonDependencies::PoetryLock => format!("ENV {TRUST}\n{}", run(&["pip", "install", POETRY])),
        PythonDependencies::PipfileLock => format!("ENV PIPENV_VERBOSITY=-1\n{}", run(&["pip", "install", PIPENV])),
        _ => String::new(),
    };
    out += &format!("{installer}{venv}ENV VIRTUAL_ENV={PLACE} PATH={PLACE}/bin:$PATH\n");
    out += &install(app);
    if let Some(added) = &app.added {
        let install: &[&str] = if app.dependencies == PythonDependencies::UvLock { &["uv", "pip"] } else { &["pip"] };
        out += "# What serves: the app's own packages bring no server, and a framework's own is for development.\n";
        out += &run(&[install, &["install", added]].concat());
    }
    out + "\n"
}

/// The steps that install what the app lists.
fn install(app: &PythonApp) -> String {
    let listed = "# What lists the packages, and nothing else: a changed line of the source installs nothing anew.\n";
    let with = |files: &[&str], step: &[&str]| format!("{listed}{}{}{}", copy(files, "./"), local(app), run(step));
    match &app.dependencies {
        PythonDependencies::Requirements { .. } if app.needs_tree => {
            let why = "# Some requirements lie in the tree, so every change of it installs them all again.\nCOPY . .\n";
            format!("{why}{}", run(&["pip", "install", "-r", "requirements.txt"]))
        }
        PythonDependencies::Requirements { files } => {
            // Each keeps its folder, since they name each other relatively.
            let copies: String = files.iter().map(|file| copy(&[file], &format!("./{file}"))).collect();
            format!("{listed}{copies}{}", run(&["pip", "install", "-r", "requirements.txt"]))
        }
        PythonDependencies::UvLock => {
            let sync = ["uv", "sync", "--frozen", "--no-dev", "--no-install-project"];
            // Packages of the tree are copied into the environment, as all others are.
            let copies: &[&str] = if app.local.is_empty() { &[] } else { &["--no-editable"] };
            with(&["pyproject.toml", "uv.lock"], &[&sync, copies].concat())
        }
        PythonDependencies::PoetryLock => {
            let install = ["poetry", "install", "--no-interaction", "--no-cache", "--only", "main", "--no-root"];
            with(&["pyproject.toml", "poetry.lock"], &install)
        }
        // It reads the lock alone, but wants to see a Pipfile, which may be missing.
        PythonDependencies::PipfileLock => with(&["Pipfile*"], &["pipenv", "sync"]),
        PythonDependencies::Pyproject { listed } if listed.is_empty() => String::new(),
        PythonDependencies::Pyproject { listed } => {
            let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
            format!("# As pyproject.toml lists them.\n{}", run(&[&["pip", "install", "--"], listed.as_slice()].concat()))
        }
        PythonDependencies::None => String::new(),
    }
}

/// What lies in the tree and is installed as a package, each at its place.
fn local(app: &PythonApp) -> String {
    if app.local.is_empty() {
        return String::new();
    }
    let copies: String = app.local.iter().map(|path| copy(&[path], &format!("./{path}"))).collect();
    format!("# Packages of the tree itself; what is changed beside them installs nothing anew.\n{copies}")
}

fn collect_static(how: &CollectStatic) -> String {
    let placeholders: Vec<String> =
        how.placeholders.iter().map(|name| format!("{name}={}", CollectStatic::PLACEHOLDER)).collect();
    let mut argv: Vec<&str> = Vec::new();
    if !placeholders.is_empty() {
        argv.push("env");
        argv.extend(placeholders.iter().map(String::as_str));
    }
    argv.extend(["python", "manage.py", "collectstatic", "--noinput"]);
    let why = if placeholders.is_empty() { "" } else { " No real secret is needed for that, and none gets into the image." };
    format!("# Static files are gathered into STATIC_ROOT.{why}\n{}", run(&argv))
}
