#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use coracle_model::plan::{NodeApp, PackageManager, PythonApp, PythonDependencies};
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

    fn python(&self) -> PythonApp {
        match self.recipe() {
            Recipe::Python(app) => app,
            other => panic!("{other:?}"),
        }
    }

    fn dependencies(&self) -> PythonDependencies {
        self.python().dependencies
    }

    fn node(&self) -> NodeApp {
        match self.recipe() {
            Recipe::Node(app) => app,
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
    Python
    web: gunicorn --bind 0.0.0.0:${PORT} app:app
    (found requirements.txt; web is gunicorn for app:app in app.py; no server for it is among the dependencies, so gunicorn==27.0.1 is added)
    "#);
    let nothing = tree(&[("requirements.txt", "requests")]);
    assert_snapshot!(nothing.says(Process), @r#"
    refused: this is a Python app, but nothing says how to run it: looked for a Procfile, for manage.py with a wsgi.py beside it, for an object called app, application, api, server or made of a framework in app.py, main.py, wsgi.py, asgi.py, application.py, server.py, api.py, run.py, app/__init__.py, app/main.py, src/app.py, src/main.py, and for a script that reads PORT
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
    assert_eq!(tree(&[procfile, pyproject]).dependencies(), PythonDependencies::Pyproject { listed: Vec::new() });
    assert_eq!(tree(&[procfile, ("app.py", "")]).dependencies(), PythonDependencies::None);
    let tools = tree(&[procfile, ("pyproject.toml", "[tool.ruff]\n")]);
    assert_eq!(tools.recipe(), Recipe::Plain);
    assert!(tree(&[procfile, ("Pipfile", "")]).says(Process).starts_with("refused: there is a Pipfile, but no Pipfile.lock"));
    assert_eq!(tree(&[procfile, pyproject]).python().version.as_deref(), Some("3.12"));
    let pinned = tree(&[procfile, ("requirements.txt", ""), (".python-version", "# ours\n3.13\n")]);
    assert_eq!(pinned.python().version.as_deref(), Some("3.13"));
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
    assert_eq!(start.recipe(), Recipe::Node(NodeApp::new(Some("package-lock.json"), true)));
    let main = tree(&[("package.json", r#"{"main": "./src/x.js"}"#), ("src/x.js", ""), ("yarn.lock", "")]);
    assert_snapshot!(main.says(Docker), @r#"
    Node.js
    web: node src/x.js
    (found package.json and yarn.lock; web runs src/x.js)
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
    assert!(matches!(django.recipe(), Recipe::Python(_)));
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
    assert_eq!(port.plan(Docker).unwrap().serving.port, Some(3000));
}

#[test]
fn an_unknown_tree_says_what_was_looked_for() {
    assert_snapshot!(tree(&[("README.md", "")]).says(Docker), @r#"
    refused: nothing here says how to run this app: looked for a Dockerfile, a Procfile, Python (requirements.txt, uv.lock, poetry.lock, Pipfile.lock, pyproject.toml, manage.py, app.py, main.py), Node.js (package.json), Go (go.mod), Rust (Cargo.toml) and a static site (index.html in public, dist, _site, build, out and the root)
    hint: write a Procfile with a line such as `web: ./server --port $PORT`
    "#);
    assert_snapshot!(tree(&[("compose.yaml", "")]).says(Process), @r#"
    refused: the compose file is not used, since coracle.toml says by itself what runs ([processes], [services], [build] or engine), and nothing else here says how to run this app
    hint: name the compose file with `-f FILE`, or take those out of coracle.toml
    "#);
    assert_snapshot!(tree(&[("Procfile", "web: a\nworker b\n")]).says(Process), @r#"refused: Procfile:2: "worker b" is not of the form `name: command`"#);
}

#[test]
fn two_lock_files_are_one_too_many() {
    let uv = ("uv.lock", "");
    let both = tree(&[("Procfile", "web: a"), ("pyproject.toml", ""), uv, ("poetry.lock", "")]);
    assert_snapshot!(both.says(Docker), @r#"
    refused: there are lock files of two package managers: uv.lock (uv) and poetry.lock (Poetry)
    hint: remove the one that is not kept up to date, and deploy again
    "#);
    assert_eq!(both.says(Docker), both.says(Process));
    assert_snapshot!(tree(&[("package.json", "{}"), ("index.js", ""), ("yarn.lock", ""), ("package-lock.json", "{}")]).says(Process), @r#"
    refused: there are lock files of two package managers: package-lock.json (npm) and yarn.lock (yarn)
    hint: remove the one that is not kept up to date, and deploy again
    "#);
    // Both are npm's, and npm says itself which one it reads.
    let npm = tree(&[("package.json", "{}"), ("index.js", ""), ("npm-shrinkwrap.json", "{}"), ("package-lock.json", "{}")]);
    assert_eq!(npm.node().lock.as_deref(), Some("npm-shrinkwrap.json"));
    // What is not used for the app decides nothing.
    let assets = tree(&[("package.json", "{}"), ("Procfile", "web: a"), ("yarn.lock", ""), uv, ("pyproject.toml", "")]);
    assert_eq!(assets.dependencies(), PythonDependencies::UvLock);
    assert_snapshot!(tree(&[("Procfile", "web: a"), uv]).says(Docker), @r#"
    refused: there is uv.lock, but no pyproject.toml
    hint: add it and deploy again
    "#);
}

#[test]
fn versions_that_are_not_supported_are_named_with_their_file() {
    let python = |path: &str, text: &str| tree(&[("Procfile", "web: a"), ("requirements.txt", ""), (path, text)]).says(Docker);
    assert_snapshot!(python("runtime.txt", "python-2.7.18\n"), @r#"
    refused: runtime.txt asks for Python "python-2.7.18", and what is supported is 3.10, 3.11, 3.12, 3.13 and 3.14
    hint: name one of these in runtime.txt, or bring a Dockerfile
    "#);
    assert_snapshot!(python(".python-version", "3.11 RUN curl evil\n"), @r#"
    refused: .python-version asks for Python "3.11 RUN curl evil", and what is supported is 3.10, 3.11, 3.12, 3.13 and 3.14
    hint: name one of these in .python-version, or bring a Dockerfile
    "#);
    assert_snapshot!(python("pyproject.toml", "[project]\nrequires-python = \"<3.8\"\n"), @r#"
    refused: pyproject.toml asks for Python "<3.8", and what is supported is 3.10, 3.11, 3.12, 3.13 and 3.14
    hint: name one of these in pyproject.toml, or bring a Dockerfile
    "#);
    let node = |files: &[(&str, &str)]| tree(&[files, &[("index.js", "")]].concat()).says(Docker);
    assert_snapshot!(node(&[("package.json", r#"{"engines": {"node": "^14"}}"#)]), @r#"
    refused: package.json (engines.node) asks for Node.js "^14", and what is supported is 18, 20, 22 and 24
    hint: name one of these in package.json, or bring a Dockerfile
    "#);
    assert_snapshot!(node(&[("package.json", "{}"), (".nvmrc", "lts/argon\n")]), @r#"
    refused: .nvmrc asks for Node.js "lts/argon", and what is supported is 18, 20, 22 and 24
    hint: name one of these in .nvmrc, or bring a Dockerfile
    "#);
    assert_snapshot!(tree(&[("go.mod", "module x.org/shop\ngo 1.9\n"), ("main.go", "package main\n")]).says(Docker), @r#"
    refused: go.mod asks for Go "1.9", and what is supported is 1.17 and later
    hint: name such a version in go.mod, or bring a Dockerfile
    "#);
    // Only the first line counts, so nothing can come after it.
    let injected = tree(&[("Procfile", "web: a"), ("requirements.txt", ""), ("runtime.txt", "python-3.12\nRUN curl evil\n")]);
    assert_eq!(injected.python().version.as_deref(), Some("3.12"));
}

#[test]
fn a_development_server_is_never_chosen() {
    let port = "import os\n";
    for run in ["shop.run(port=int(os.environ['PORT']))", "shop.run(debug=True)"] {
        let own_name = format!("{port}from flask import Flask\nshop = Flask(__name__)\n{run}\n");
        let says = tree(&[("requirements.txt", "flask"), ("main.py", &own_name)]).says(Docker);
        assert!(says.contains("web: gunicorn --bind 0.0.0.0:${PORT} main:shop\n"), "{says}");
    }
    let hidden = "import os, shop\nfrom flask import Flask\nif __name__ == '__main__':\n    x = Flask('x')\n    x.run(port=os.environ['PORT'])\n";
    assert_snapshot!(tree(&[("requirements.txt", "flask"), ("main.py", hidden)]).says(Docker), @r#"
    refused: main.py reads PORT, but begins a development server (Flask's `run`), which must not serve
    hint: write a Procfile with a line such as `web: gunicorn --bind 0.0.0.0:$PORT app:app`
    "#);
    let reloading = "import os, uvicorn\nuvicorn.run('shop.x:y', reload=True, port=int(os.environ['PORT']))\n";
    assert!(tree(&[("requirements.txt", "uvicorn"), ("run.py", reloading)]).says(Docker).contains("`reload=True`"));
    assert_snapshot!(tree(&[("package.json", r#"{"scripts": {"start": "nodemon server.js"}}"#)]).says(Docker), @r#"
    refused: the `start` script of package.json begins a development server (nodemon), which must not serve
    hint: let `start` begin what serves (`node server.js`), or write a Procfile with a `web:` line; for a site that a build script writes, name its folder as build.root and `builder = "static"` in coracle.toml
    "#);
    // The author's own word is taken as it is.
    let asked = tree(&[("requirements.txt", "flask"), ("app.py", FLASK), ("Procfile", "web: flask run")]);
    assert!(asked.says(Docker).contains("web: flask run"));
}

#[test]
fn a_server_is_added_where_the_dependencies_bring_none() {
    let fastapi = tree(&[("requirements.txt", "fastapi"), ("main.py", "app = FastAPI()\n")]);
    assert_snapshot!(fastapi.says(Docker), @r#"
    Python
    web: uvicorn --host 0.0.0.0 --port ${PORT} main:app
    (found requirements.txt; web is uvicorn for main:app in main.py; no server for it is among the dependencies, so uvicorn==0.54.0 is added)
    "#);
    assert_eq!(fastapi.python().added.as_deref(), Some("uvicorn==0.54.0"));
    let written = tree(&[("requirements.txt", "flask"), ("app.py", FLASK), ("Procfile", "web: gunicorn app:app")]);
    assert_snapshot!(written.says(Docker), @r#"
    Python
    web: gunicorn app:app
    (found requirements.txt; its server is not among the dependencies, so gunicorn==27.0.1 is added; its processes are those of the Procfile)
    "#);
    assert_eq!(written.python().added.as_deref(), Some("gunicorn==27.0.1"));
    let brought = tree(&[("requirements.txt", "flask\ngunicorn"), ("app.py", FLASK), ("Procfile", "web: gunicorn app:app")]);
    assert_eq!(brought.python().added, None);
    let unknown = tree(&[("requirements.txt", "-e ."), ("app.py", FLASK), ("Procfile", "web: gunicorn app:app")]);
    assert_eq!((unknown.python().added, unknown.python().needs_tree), (None, true));
}

#[test]
fn packages_of_the_tree_that_a_lock_file_names_are_found() {
    const UV: &str = "[[package]]\nname = \"shop\"\nsource = { virtual = \".\" }\n\n[[package]]\nname = \"flask\"\nversion = \"3\"\n\
                      source = { registry = \"https://pypi.org/simple\" }\n\n[[package]]\nname = \"core\"\nsource = { editable = \"libs/core\" }\n\n\
                      [[package]]\nname = \"x\"\nsource = { directory = \"./vendor/x\" }\n";
    const POETRY: &str = "[[package]]\nname = \"core\"\nversion = \"1\"\n\n[package.source]\ntype = \"directory\"\nurl = \"libs/core\"\n\n\
                          [[package]]\nname = \"g\"\nversion = \"1\"\n\n[package.source]\ntype = \"git\"\nurl = \"https://x/g\"\n";
    let files = [("pyproject.toml", "[project]\nname = \"shop\"\n"), ("Procfile", "web: gunicorn app:app")];
    let with = |lock: (&'static str, &'static str), more: &[(&'static str, &'static str)]| {
        tree(&[files.as_slice(), &[lock], more].concat())
    };
    let core = ("libs/core/pyproject.toml", "");
    let local = |fixture: &Fixture| match fixture.plan(Docker).unwrap().recipe {
        Recipe::Python(app) => app.local,
        other => panic!("{other:?}"),
    };
    let uv = with(("uv.lock", UV), &[core, ("vendor/x/setup.py", "")]);
    assert_eq!(local(&uv), ["libs/core", "vendor/x"]);
    assert_eq!(local(&with(("poetry.lock", POETRY), &[core])), ["libs/core"]);
    assert_snapshot!(uv.says(Process), @r#"
    refused: uv.lock names libs/core, which lies in the app itself, and the process engine cannot install that
    hint: write engine = "docker" in coracle.toml, or require it in a requirements.txt
    "#);
    let missing = with(("uv.lock", UV), &[core]);
    assert!(
        missing.says(Docker).starts_with("refused: uv.lock takes x from ./vendor/x, which is not there"),
        "{}",
        missing.says(Docker)
    );
    let outside =
        with(("poetry.lock", "[[package]]\nname = \"core\"\n[package.source]\ntype = \"directory\"\nurl = \"../core\"\n"), &[]);
    assert!(outside.says(Docker).contains("takes core from ../core, which is outside of the app"), "{}", outside.says(Docker));
}

#[test]
fn django_gathers_its_static_files_if_it_has_a_place_for_them() {
    let manage = ("manage.py", "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n");
    let of = |settings: &[(&str, &str)]| {
        let files = [&[manage, ("requirements.txt", "django"), ("shop/wsgi.py", "application = x()\n")], settings].concat();
        tree(&files).python().collect_static.map(|how| how.placeholders.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let apps = "INSTALLED_APPS = ['django.contrib.staticfiles']\n";
    let root = format!("{apps}STATIC_ROOT = BASE_DIR / 'static'\nSECRET_KEY = os.environ['SHOP_KEY']\n");
    assert_eq!(of(&[("shop/settings.py", &root)]), Some(vec!["SHOP_KEY".to_owned()]));
    assert_eq!(of(&[("shop/settings/__init__.py", ""), ("shop/settings/base.py", &root)]), Some(vec!["SHOP_KEY".to_owned()]));
    assert_eq!(of(&[("shop/settings.py", apps)]), None);
    assert_eq!(of(&[("shop/settings.py", "STATIC_ROOT = None\n'staticfiles'")]), None);
    assert_eq!(of(&[("shop/settings.py", "# STATIC_ROOT = 'x'\n'staticfiles'")]), None);
    assert_eq!(of(&[]), None);
}

#[test]
fn node_managers_are_told_by_their_lock_files() {
    let of = |lock: &str, text: &str, package: &str| tree(&[("index.js", ""), (lock, text), ("package.json", package)]).node();
    let pnpm = of("pnpm-lock.yaml", "", r#"{"packageManager": "pnpm@9.12.0+sha512.abc"}"#);
    assert_eq!((pnpm.manager, pnpm.manager_version.as_deref()), (PackageManager::Pnpm, Some("9.12.0")));
    let berry = of("yarn.lock", "__metadata:\n  version: 8\n", "{}");
    assert_eq!((berry.manager, berry.manager_version), (PackageManager::YarnBerry, None));
    let injected = of("yarn.lock", "", r#"{"packageManager": "yarn@1.22.0 && curl evil"}"#);
    assert_eq!((injected.manager, injected.manager_version), (PackageManager::Yarn, None));
    assert!(of("package-lock.json", "{}", r#"{"workspaces": ["a"]}"#).needs_tree);
    assert!(of("package-lock.json", "{}", r#"{"dependencies": {"a": "file:./a"}}"#).needs_tree);
    assert!(!of("package-lock.json", "{}", r#"{"dependencies": {"a": "^1"}}"#).needs_tree);
}

#[test]
fn compiled_programs_are_for_the_docker_engine() {
    let go = [
        ("go.mod", "module example.org/x/shop/v2\n\ngo 1.23.1\n"),
        ("cmd/shop/main.go", "package main\n"),
        ("cmd/tool/main.go", "package main\n"),
    ];
    assert_snapshot!(tree(&go).says(Docker), @r#"
    Go
    web: shop
    (found go.mod; web is shop)
    "#);
    assert_snapshot!(tree(&go).says(Process), @r#"
    refused: the process engine does not compile Go programs
    hint: write engine = "docker" in coracle.toml, or a Procfile that starts a program you have built
    "#);
    let several = [go[0], ("cmd/a/main.go", "package main\n"), ("cmd/b/main.go", "package main\n")];
    assert_snapshot!(tree(&several).says(Docker), @r#"
    refused: this Go module has several programs: cmd/a, cmd/b
    hint: call one of them as the module is called, or bring a Dockerfile
    "#);
    let rust = [("Cargo.toml", "[package]\nname = \"shop\"\n"), ("Cargo.lock", ""), ("src/main.rs", "")];
    assert_snapshot!(tree(&rust).says(Docker), @r#"
    Rust
    web: shop
    (found Cargo.toml and Cargo.lock; web is shop)
    "#);
    assert_snapshot!(tree(&[("Cargo.toml", "[package]\nname = \"a b\"\n"), ("Cargo.lock", "")]).says(Docker), @r#"
    refused: Cargo.toml does not tell what its program is called: "a b" cannot be a program's name
    hint: bring a Dockerfile
    "#);
    assert_snapshot!(tree(&[("Cargo.toml", "[workspace]\n")]).says(Docker), @r#"
    refused: Cargo.toml is of a workspace without a package of its own, so it is not clear which program to build
    hint: bring a Dockerfile, or deploy the program's own folder
    "#);
    // With a command of their author's they run as they are.
    assert_eq!(tree(&[go.as_slice(), &[("Procfile", "web: ./shop")]].concat()).recipe(), Recipe::Plain);
}

#[test]
fn names_that_mean_something_else_in_a_dockerfile_are_refused() {
    for name in ["a b.txt", "x-1.2.txt"] {
        let kept = tree(&[("Procfile", "web: a"), ("requirements.txt", &format!("-r {name}")), (name, "")]);
        assert!(kept.plan(Docker).is_ok(), "{name}");
    }
    for name in ["$HOME.txt", "*.txt", "a\"b.txt", "a[b].txt"] {
        let files = tree(&[("Procfile", "web: a"), ("requirements.txt", &format!("-r {name}")), (name, "")]);
        assert!(files.says(Docker).contains("means something else in a Dockerfile"), "{name}: {}", files.says(Docker));
        assert!(files.plan(Process).is_ok(), "{name}");
    }
}
