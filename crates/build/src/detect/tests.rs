#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use coracle_model::plan::PythonDependencies;
use insta::assert_snapshot;

use super::*;

const FLASK: &str = "from flask import Flask\napp = Flask(__name__)\n";

struct Fixture {
    tree: tempfile::TempDir,
    spec: AppSpec,
}

/// A tree of files.
fn tree(files: &[(&str, &str)]) -> Fixture {
    let tree = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Fixture { tree, spec: AppSpec::named("shop".parse().unwrap()) }
}

impl Fixture {
    fn with(mut self, change: impl FnOnce(&mut AppSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn plan(&self, engine: EngineKind) -> Result<BuildPlan, PlanError> {
        plan(self.tree.path(), &self.spec, engine)
    }

    /// The plan in one text: the recipe, the processes, the reason.
    fn says(&self, engine: EngineKind) -> String {
        match self.plan(engine) {
            Ok(plan) => {
                let processes: String = plan.processes.iter().map(|(name, command)| format!("\n{name}: {command}")).collect();
                let release = plan.release_command.map(|command| format!("\nrelease: {command}")).unwrap_or_default();
                format!("{}{processes}{release}\n({})", plan.recipe, plan.reason)
            }
            Err(PlanError::Unsuitable { message, hint }) => format!("refused: {message}\nhint: {hint}"),
            Err(error) => format!("refused: {error}"),
        }
    }

    fn recipe(&self) -> Recipe {
        self.plan(Process).unwrap().recipe
    }

    fn dependencies(&self) -> PythonDependencies {
        match self.recipe() {
            Recipe::Python { dependencies, .. } => dependencies,
            other => panic!("{other:?}"),
        }
    }
}

use EngineKind::{Docker, Process};

#[test]
fn a_dockerfile_is_for_the_docker_engine() {
    let both = tree(&[("Dockerfile", "FROM x"), ("Procfile", "web: ./serve\nworker: ./work\nrelease: ./migrate\n")]);
    assert_snapshot!(both.says(Docker), @r#"
    Dockerfile (Dockerfile)
    web: ./serve
    worker: ./work
    release: ./migrate
    (found Dockerfile; its processes are those of the Procfile)
    "#);
    assert_snapshot!(both.says(Process), @r#"
    Procfile
    web: ./serve
    worker: ./work
    release: ./migrate
    (found Procfile; the Dockerfile is ignored, since the process engine has no use for it)
    "#);
    let elsewhere = tree(&[("docker/web", "FROM x"), ("Procfile", "web: a")])
        .with(|spec| spec.build.dockerfile = Some("docker/web".to_owned()));
    assert_snapshot!(elsewhere.says(Docker), @r#"
    Dockerfile (docker/web)
    web: a
    (found docker/web; its processes are those of the Procfile)
    "#);
    assert_snapshot!(elsewhere.says(Process), @r#"
    Procfile
    web: a
    (found Procfile; the Dockerfile is ignored, since the process engine has no use for it)
    "#);
}

#[test]
fn what_the_manifest_asks_for_must_be_possible() {
    let image = tree(&[]).with(|spec| spec.build.image = Some("nginx:1".to_owned()));
    assert_snapshot!(image.says(Docker), @r#"
    image nginx:1
    (the manifest names an image)
    "#);
    assert_snapshot!(image.says(Process), @r#"
    refused: the process engine cannot run the image nginx:1
    hint: write engine = "docker" in coracle.toml, or remove build.image
    "#);
    let forced = tree(&[("Procfile", "web: a")]).with(|spec| spec.build.builder = BuilderChoice::Dockerfile);
    assert_snapshot!(forced.says(Docker), @r#"
    refused: there is no Dockerfile at Dockerfile
    hint: write its path, relative to the root of the app, as build.dockerfile in coracle.toml, and see that no ignore file leaves it out
    "#);
    assert_snapshot!(forced.says(Process), @r#"
    refused: the process engine cannot build a Dockerfile
    hint: write engine = "docker" in coracle.toml, or remove build.builder
    "#);
    let gone = tree(&[("Procfile", "web: a")]).with(|spec| spec.build.dockerfile = Some("gone".to_owned()));
    assert_snapshot!(gone.says(Docker), @r#"
    refused: there is no Dockerfile at gone
    hint: write its path, relative to the root of the app, as build.dockerfile in coracle.toml, and see that no ignore file leaves it out
    "#);
    let site = tree(&[("Dockerfile", "FROM x"), ("site/a.html", "")]).with(|spec| {
        spec.build.builder = BuilderChoice::Static;
        spec.build.root = Some("site".to_owned());
    });
    assert_eq!(site.plan(Docker).unwrap().recipe, Recipe::Static { root: "site".to_owned() });
    let no_site = tree(&[("a.html", "")]).with(|spec| spec.build.builder = BuilderChoice::Static);
    assert_snapshot!(no_site.says(Process), @r#"
    refused: no static site was found: looked for index.html in public, dist, _site, build, out and the root
    hint: write the folder that holds it as build.root in coracle.toml
    "#);
}

#[test]
fn files_outside_of_the_tree_are_not_there() {
    let links = tree(&[]);
    for name in ["Procfile", "Dockerfile", "requirements.txt", "index.html"] {
        std::os::unix::fs::symlink("/etc/passwd", links.tree.path().join(name)).unwrap();
    }
    std::os::unix::fs::symlink("Procfile", links.tree.path().join("package.json")).unwrap();
    assert!(links.says(Docker).starts_with("refused: nothing here says how"), "{}", links.says(Docker));
}

#[test]
fn python_servers_bind_to_what_their_engine_needs() {
    let flask = tree(&[("requirements.txt", "Flask\ngunicorn==23\n"), ("app.py", FLASK)]);
    assert_snapshot!(flask.says(Process), @r#"
    Python
    web: gunicorn --bind 127.0.0.1:${PORT} app:app
    (found requirements.txt; web is gunicorn for app:app in app.py)
    "#);
    assert_snapshot!(flask.says(Docker), @r#"
    Python
    web: gunicorn --bind 0.0.0.0:${PORT} app:app
    (found requirements.txt; web is gunicorn for app:app in app.py)
    "#);
    let argv = flask.plan(Process).unwrap().processes[&ProcessName::web()].expand(&|_| Some("5000".to_owned())).1;
    assert_eq!(argv, ["gunicorn", "--bind", "127.0.0.1:5000", "app:app"]);
}

#[test]
fn python_frameworks_are_recognised() {
    let fastapi = tree(&[("requirements.txt", "fastapi[standard]"), ("main.py", "app = FastAPI()\n")]);
    assert_snapshot!(fastapi.says(Docker), @r#"
    Python
    web: uvicorn --host 0.0.0.0 --port ${PORT} main:app
    (found requirements.txt; web is uvicorn for main:app in main.py)
    "#);
    let django = tree(&[
        ("requirements.txt", "Django\ngunicorn\n"),
        ("manage.py", ""),
        ("shop/wsgi.py", "application = get_wsgi_application()\n"),
        ("shop/asgi.py", "application = get_asgi_application()\n"),
    ]);
    assert_snapshot!(django.says(Docker), @r#"
    Python
    web: gunicorn --bind 0.0.0.0:${PORT} shop.wsgi:application
    (found requirements.txt; web is gunicorn for shop.wsgi:application in shop/wsgi.py)
    "#);
    let waitress = tree(&[("requirements.txt", "flask\nwaitress"), ("wsgi.py", "from shop import app\n")]);
    assert_snapshot!(waitress.says(Process), @r#"
    Python
    web: waitress-serve --listen=127.0.0.1:${PORT} wsgi:app
    (found requirements.txt; web is waitress-serve for wsgi:app in wsgi.py)
    "#);
    let factory =
        tree(&[("requirements.txt", "flask\ngunicorn"), ("app.py", "import Flask\ndef create_app():\n  return Flask()\n")]);
    assert_snapshot!(factory.says(Process), @r#"
    Python
    web: gunicorn --bind 127.0.0.1:${PORT} 'app:create_app()'
    (found requirements.txt; web is gunicorn for app:create_app() in app.py)
    "#);
    let plain = tree(&[("main.py", "import os\nserve(int(os.environ['PORT']))\n")]);
    assert_snapshot!(plain.says(Process), @r#"
    Python
    web: python -u main.py
    (found main.py; web runs main.py, which reads PORT)
    "#);
}

#[test]
fn python_without_a_way_to_run_says_what_was_looked_for() {
    let no_server = tree(&[("requirements.txt", "flask"), ("app.py", FLASK)]);
    assert_snapshot!(no_server.says(Docker), @r#"
    refused: app.py holds the app app:app, but no server for it is among the dependencies
    hint: add gunicorn to the dependencies, or write a Procfile with a line such as `web: gunicorn --bind 0.0.0.0:$PORT app:app`
    "#);
    let nothing = tree(&[("requirements.txt", "requests")]);
    assert_snapshot!(nothing.says(Process), @r#"
    refused: this is a Python app, but nothing says how to run it: looked for a Procfile, for manage.py with a wsgi.py beside it, for an object called app, application, api, server in app.py, main.py, wsgi.py, asgi.py, application.py, server.py, api.py, run.py, app/__init__.py, app/main.py, src/app.py, src/main.py, and for a script that reads PORT
    hint: write a Procfile with a line such as `web: gunicorn --bind 127.0.0.1:$PORT app:app`
    "#);
}

#[test]
fn a_worker_alone_needs_no_web() {
    let worker = tree(&[("requirements.txt", "requests"), ("Procfile", "worker: python work.py\n")]);
    assert_snapshot!(worker.says(Process), @r#"
    Python
    worker: python work.py
    (found requirements.txt; its processes are those of the Procfile)
    "#);
    let manifest = tree(&[("requirements.txt", "requests")]).with(|spec| {
        let command = Some("python work.py".parse().unwrap());
        spec.processes.entry("worker".parse().unwrap()).or_default().command = command;
    });
    assert_snapshot!(manifest.says(Process), @r#"
    Python
    (found requirements.txt)
    "#);
}

#[test]
fn a_worker_in_the_manifest_does_not_hide_the_web() {
    let with_worker = |files: &[(&str, &str)]| {
        tree(files).with(|spec| {
            let command = Some("python work.py".parse().unwrap());
            spec.processes.entry("worker".parse().unwrap()).or_default().command = command;
        })
    };
    let flask = with_worker(&[("requirements.txt", "gunicorn"), ("app.py", FLASK)]);
    assert!(flask.plan(Process).unwrap().processes.contains_key(&ProcessName::web()));
    let node = with_worker(&[("package.json", r#"{"scripts": {"start": "x"}}"#)]);
    assert!(node.plan(Process).unwrap().processes.contains_key(&ProcessName::web()));
}

#[test]
fn locks_come_before_lists() {
    let procfile = ("Procfile", "web: a");
    let pyproject = ("pyproject.toml", "[project]\nname = \"a\"\nrequires-python = \">=3.12\"\n");
    assert_eq!(
        tree(&[procfile, pyproject, ("uv.lock", ""), ("requirements.txt", "")]).dependencies(),
        PythonDependencies::UvLock
    );
    assert_eq!(tree(&[procfile, pyproject, ("poetry.lock", "")]).dependencies(), PythonDependencies::PoetryLock);
    assert_eq!(tree(&[procfile, ("Pipfile.lock", "{}"), ("Pipfile", "")]).dependencies(), PythonDependencies::PipfileLock);
    assert_eq!(tree(&[procfile, pyproject]).dependencies(), PythonDependencies::Pyproject);
    assert_eq!(tree(&[procfile, ("app.py", "")]).dependencies(), PythonDependencies::None);
    let tools = tree(&[procfile, ("pyproject.toml", "[tool.ruff]\n")]);
    assert_eq!(tools.recipe(), Recipe::Plain);
    assert!(tree(&[procfile, ("Pipfile", "")]).says(Process).starts_with("refused: there is a Pipfile, but no Pipfile.lock"));
    let Recipe::Python { version, .. } = tree(&[procfile, pyproject]).recipe() else { panic!() };
    assert_eq!(version.as_deref(), Some("3.12"));
    let pinned = tree(&[procfile, ("requirements.txt", ""), (".python-version", "# ours\n3.13\n")]);
    assert!(matches!(pinned.recipe(), Recipe::Python { version: Some(version), .. } if version == "3.13"));
}

#[test]
fn included_requirements_are_followed_within_the_tree() {
    let files = [
        ("Procfile", "web: a"),
        ("requirements.txt", "-r requirements/prod.txt\n-c constraints.txt\n-r https://example.com/x.txt\n"),
        ("requirements/prod.txt", "-r base.txt\ngunicorn\n"),
        ("requirements/base.txt", "-r ../requirements.txt\nflask\n"),
        ("constraints.txt", ""),
    ];
    let expected = ["requirements.txt", "requirements/prod.txt", "constraints.txt", "requirements/base.txt"];
    let files_found = PythonDependencies::Requirements { files: expected.map(str::to_owned).to_vec() };
    assert_eq!(tree(&files).dependencies(), files_found);
    assert_snapshot!(tree(&[("requirements.txt", "-r ../outside.txt")]).says(Process), @r#"
    refused: requirements.txt includes ../outside.txt, which leads out of the app
    hint: requirements files must lie within the app and must not be left out by an ignore file
    "#);
    assert_snapshot!(tree(&[("requirements.txt", "-r gone.txt")]).says(Process), @r#"
    refused: requirements.txt includes gone.txt, which is not there
    hint: requirements files must lie within the app and must not be left out by an ignore file
    "#);
}

#[test]
fn servers_are_found_in_every_kind_of_lock() {
    let module = ("app.py", FLASK);
    let pyproject = ("pyproject.toml", "[project]\ndependencies = [\"Gunicorn>=20\"]\n");
    for files in [
        vec![module, pyproject],
        vec![module, ("pyproject.toml", ""), ("uv.lock", "[[package]]\nname = \"gunicorn\"\n")],
        vec![module, ("pyproject.toml", ""), ("poetry.lock", "[[package]]\nname = \"gunicorn\"\n")],
        vec![module, ("pyproject.toml", "[tool.poetry.dependencies]\ngunicorn = \"*\"\n")],
        vec![module, ("Pipfile.lock", r#"{"default": {"gunicorn": {}}}"#)],
    ] {
        let says = tree(&files).says(Process);
        assert!(says.contains("web: gunicorn --bind 127.0.0.1:"), "{files:?}: {says}");
    }
}

#[test]
fn node_apps_start_as_their_package_says() {
    let start = tree(&[("package.json", r#"{"scripts": {"start": "node x", "build": "tsc"}}"#), ("package-lock.json", "{}")]);
    assert_snapshot!(start.says(Process), @r#"
    Node.js
    web: npm start
    (found package.json and package-lock.json; web is its `start` script)
    "#);
    assert_eq!(start.recipe(), Recipe::Node { lock: Some("package-lock.json".to_owned()), has_build_script: true });
    let main = tree(&[("package.json", r#"{"main": "./src/x.js"}"#), ("src/x.js", ""), ("yarn.lock", "")]);
    assert_snapshot!(main.says(Docker), @r#"
    Node.js
    web: node src/x.js
    (found package.json; yarn.lock is not read, so versions are not locked; web runs src/x.js)
    "#);
    assert_snapshot!(tree(&[("package.json", "{}"), ("server.js", "")]).says(Docker), @r#"
    Node.js
    web: node server.js
    (found package.json without a lock file, so versions are not locked; web runs server.js)
    "#);
    assert_snapshot!(tree(&[("package.json", r#"{"main": "../x.js"}"#)]).says(Docker), @r#"
    refused: package.json has no `start` script and names no `main` file that is there
    hint: write a Procfile with a line such as `web: node server.js`, or add a `start` script
    "#);
    assert_snapshot!(tree(&[("package.json", "[")]).says(Docker), @r#"
    refused: package.json is not valid JSON: EOF while parsing a list at line 1 column 1
    hint: mend it and deploy again
    "#);
}

#[test]
fn python_with_assets_of_node_is_python_unless_node_serves_it() {
    let package = ("package.json", r#"{"scripts": {"build": "x"}}"#);
    let django = tree(&[package, ("requirements.txt", ""), ("Procfile", "web: gunicorn a.wsgi")]);
    assert!(matches!(django.recipe(), Recipe::Python { .. }));
    let node = tree(&[package, ("requirements.txt", ""), ("Procfile", "web: npm run serve")]);
    assert_snapshot!(node.says(Process), @r#"
    Node.js
    web: npm run serve
    (found package.json without a lock file, so versions are not locked; Python is not set up, since the web process is a Node.js program; its processes are those of the Procfile)
    "#);
}

#[test]
fn static_sites_are_what_is_left() {
    assert_snapshot!(tree(&[("index.html", "")]).says(Process), @r#"
    static files (.)
    (found index.html)
    "#);
    assert_snapshot!(tree(&[("package.json", "{}"), ("dist/index.html", "")]).says(Process), @r#"
    static files (dist)
    (found dist/index.html)
    "#);
    assert_snapshot!(tree(&[("index.html", "")]).says(Docker), @r#"
    static files (.)
    web: nginx -c /etc/nginx/coracle.conf
    (found index.html)
    "#);
    assert_eq!(tree(&[("index.html", ""), ("Procfile", "web: a")]).recipe(), Recipe::Plain);
    let port = tree(&[("index.html", "")]).with(|spec| spec.http.port = Some(3000));
    assert_snapshot!(port.says(Docker), @r#"
    refused: a static site on the docker engine listens on port 8080 in its container
    hint: remove http.port from coracle.toml
    "#);
}

#[test]
fn an_unknown_tree_says_what_was_looked_for() {
    assert_snapshot!(tree(&[("README.md", "")]).says(Docker), @r#"
    refused: nothing here says how to run this app: looked for a Dockerfile, a Procfile, Python (requirements.txt, uv.lock, poetry.lock, Pipfile.lock, pyproject.toml, manage.py, app.py, main.py), Node.js (package.json) and a static site (index.html in public, dist, _site, build, out and the root)
    hint: write a Procfile with a line such as `web: ./server --port $PORT`
    "#);
    assert_snapshot!(tree(&[("compose.yaml", "")]).says(Process), @r#"
    refused: the compose file is not used, since coracle.toml says by itself what runs ([processes], [services], [build] or engine), and nothing else here says how to run this app
    hint: name the compose file with `-f FILE`, or take those out of coracle.toml
    "#);
    assert_snapshot!(tree(&[("Procfile", "web: a\nworker b\n")]).says(Process), @r#"refused: Procfile:2: "worker b" is not of the form `name: command`"#);
}
