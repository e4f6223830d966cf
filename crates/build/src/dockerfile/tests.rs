#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use coracle_model::CommandLine;
use coracle_model::plan::{CollectStatic, GoApp, NodeApp, PackageManager, PythonApp, RustApp};
use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;

fn serving(command: &str) -> Serving {
    Serving { command: Some(command.parse().unwrap()), ..Serving::default() }
}

fn made(recipe: Recipe, serving: Serving) -> String {
    let reason = "found it\nRUN evil".to_owned();
    generate(&BuildPlan { recipe, processes: BTreeMap::new(), release_command: None, reason, serving }).unwrap()
}

/// The text without the two lines that all begin with.
fn generated(recipe: Recipe, command: &str) -> String {
    made(recipe, serving(command)).split_once("\n\n").unwrap().1.to_owned()
}

fn requirements() -> PythonDependencies {
    PythonDependencies::Requirements { files: vec!["requirements.txt".to_owned(), "requirements/base.txt".to_owned()] }
}

const GUNICORN: &str = "gunicorn --bind 0.0.0.0:$PORT app:app";

#[test]
fn flask_with_pip() {
    let app = PythonApp { added: Some("gunicorn==27.0.1".to_owned()), ..PythonApp::new(requirements()) };
    let health = Serving { health: Some("/health".to_owned()), host: Some("shop.example.com".to_owned()), ..serving(GUNICORN) };
    assert_snapshot!(made(Recipe::Python(app), health), @r#"
    # Written by Coracle: found it RUN evil.
    # An app without a Dockerfile is built from this very text. Keep it as Dockerfile, and it is yours to change.

    # Packages are installed in a stage of their own: installers and what they leave behind stay out of the image.
    FROM python:3.11-slim AS packages
    ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    WORKDIR /app
    RUN ["python","-m","venv","/opt/venv"]
    ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
    # What lists the packages, and nothing else: a changed line of the source installs nothing anew.
    COPY ["requirements.txt","./requirements.txt"]
    COPY ["requirements/base.txt","./requirements/base.txt"]
    RUN ["pip","install","-r","requirements.txt"]
    # What serves: the app's own packages bring no server, and a framework's own is for development.
    RUN ["pip","install","gunicorn==27.0.1"]

    FROM python:3.11-slim
    # What is printed is seen at once, in the logs.
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY --from=packages /opt/venv /opt/venv
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python","-c","import http.client as http, os, sys; connection = http.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 8080), timeout=5); connection.request('GET', sys.argv[1], headers={'Host': sys.argv[2]}); sys.exit(not 200 <= connection.getresponse().status < 400)","/health","shop.example.com"]
    CMD ["sh","-c","exec gunicorn --bind 0.0.0.0:${PORT:-8080} app:app"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    "#);
}

#[test]
fn django() {
    let app = PythonApp {
        version: Some("3.12".to_owned()),
        collect_static: Some(CollectStatic { placeholders: vec!["SECRET_KEY".parse().unwrap()] }),
        ..PythonApp::new(PythonDependencies::Requirements { files: vec!["requirements.txt".to_owned()] })
    };
    assert_snapshot!(generated(Recipe::Python(app), "gunicorn --bind 0.0.0.0:$PORT shop.wsgi:application"), @r#"
    # Packages are installed in a stage of their own: installers and what they leave behind stay out of the image.
    FROM python:3.12-slim AS packages
    ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    WORKDIR /app
    RUN ["python","-m","venv","/opt/venv"]
    ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
    # What lists the packages, and nothing else: a changed line of the source installs nothing anew.
    COPY ["requirements.txt","./requirements.txt"]
    RUN ["pip","install","-r","requirements.txt"]

    FROM python:3.12-slim
    # What is printed is seen at once, in the logs.
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY --from=packages /opt/venv /opt/venv
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python","-c","import os, socket; socket.create_connection(('127.0.0.1', int(os.environ.get('PORT') or 8080)), 5)"]
    CMD ["sh","-c","exec gunicorn --bind 0.0.0.0:${PORT:-8080} shop.wsgi:application"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    # Static files are gathered into STATIC_ROOT. No real secret is needed for that, and none gets into the image.
    RUN ["env","SECRET_KEY=only-while-it-is-built","python","manage.py","collectstatic","--noinput"]
    "#);
}

#[test]
fn python_with_uv() {
    let app = PythonApp {
        modules: Some("src".to_owned()),
        added: Some("uvicorn==0.54.0".to_owned()),
        ..PythonApp::new(PythonDependencies::UvLock)
    };
    assert_snapshot!(generated(Recipe::Python(app), "uvicorn --port $PORT app:app"), @r#"
    # Packages are installed in a stage of their own: installers and what they leave behind stay out of the image.
    FROM python:3.11-slim AS packages
    ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    WORKDIR /app
    ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT=/opt/venv
    RUN ["pip","install","uv==0.13.9"]
    RUN ["python","-m","venv","/opt/venv"]
    ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
    # What lists the packages, and nothing else: a changed line of the source installs nothing anew.
    COPY ["pyproject.toml","uv.lock","./"]
    RUN ["uv","sync","--frozen","--no-dev","--no-install-project"]
    # What serves: the app's own packages bring no server, and a framework's own is for development.
    RUN ["uv","pip","install","uvicorn==0.54.0"]

    FROM python:3.11-slim
    # What is printed is seen at once, in the logs.
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app/src PATH=/opt/venv/bin:$PATH
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY --from=packages /opt/venv /opt/venv
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python","-c","import os, socket; socket.create_connection(('127.0.0.1', int(os.environ.get('PORT') or 8080)), 5)"]
    CMD ["sh","-c","exec uvicorn --port ${PORT:-8080} app:app"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    "#);
}

#[test]
fn python_with_poetry() {
    assert_snapshot!(generated(Recipe::Python(PythonApp::new(PythonDependencies::PoetryLock)), GUNICORN), @r#"
    # Packages are installed in a stage of their own: installers and what they leave behind stay out of the image.
    FROM python:3.11-slim AS packages
    ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    WORKDIR /app
    ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
    RUN ["pip","install","poetry==2.5.1"]
    RUN ["python","-m","venv","/opt/venv"]
    ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
    # What lists the packages, and nothing else: a changed line of the source installs nothing anew.
    COPY ["pyproject.toml","poetry.lock","./"]
    RUN ["poetry","install","--no-interaction","--no-cache","--only","main","--no-root"]

    FROM python:3.11-slim
    # What is printed is seen at once, in the logs.
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY --from=packages /opt/venv /opt/venv
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python","-c","import os, socket; socket.create_connection(('127.0.0.1', int(os.environ.get('PORT') or 8080)), 5)"]
    CMD ["sh","-c","exec gunicorn --bind 0.0.0.0:${PORT:-8080} app:app"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    "#);
}

#[test]
fn python_with_pipenv() {
    assert_snapshot!(generated(Recipe::Python(PythonApp::new(PythonDependencies::PipfileLock)), GUNICORN), @r#"
    # Packages are installed in a stage of their own: installers and what they leave behind stay out of the image.
    FROM python:3.11-slim AS packages
    ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    WORKDIR /app
    ENV PIPENV_VERBOSITY=-1
    RUN ["pip","install","pipenv==2026.10.3"]
    RUN ["python","-m","venv","/opt/venv"]
    ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
    # What lists the packages, and nothing else: a changed line of the source installs nothing anew.
    COPY ["Pipfile*","./"]
    RUN ["pipenv","sync"]

    FROM python:3.11-slim
    # What is printed is seen at once, in the logs.
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY --from=packages /opt/venv /opt/venv
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python","-c","import os, socket; socket.create_connection(('127.0.0.1', int(os.environ.get('PORT') or 8080)), 5)"]
    CMD ["sh","-c","exec gunicorn --bind 0.0.0.0:${PORT:-8080} app:app"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    "#);
}

#[test]
fn python_with_a_pyproject_alone() {
    let listed = vec!["flask>=3".to_owned(), "gunicorn ; python_version > \"3\"".to_owned()];
    assert_snapshot!(generated(Recipe::Python(PythonApp::new(PythonDependencies::Pyproject { listed })), GUNICORN), @r#"
    # Packages are installed in a stage of their own: installers and what they leave behind stay out of the image.
    FROM python:3.11-slim AS packages
    ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    WORKDIR /app
    RUN ["python","-m","venv","/opt/venv"]
    ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH
    # As pyproject.toml lists them.
    RUN ["pip","install","--","flask>=3","gunicorn ; python_version > \"3\""]

    FROM python:3.11-slim
    # What is printed is seen at once, in the logs.
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY --from=packages /opt/venv /opt/venv
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python","-c","import os, socket; socket.create_connection(('127.0.0.1', int(os.environ.get('PORT') or 8080)), 5)"]
    CMD ["sh","-c","exec gunicorn --bind 0.0.0.0:${PORT:-8080} app:app"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    "#);
}

#[test]
fn python_with_requirements_in_the_tree() {
    let app = PythonApp { needs_tree: true, ..PythonApp::new(requirements()) };
    let text = generated(Recipe::Python(app), GUNICORN);
    assert!(text.contains("COPY . .\nRUN [\"pip\",\"install\",\"-r\",\"requirements.txt\"]\n"), "{text}");
}

/// Only what is required is there before packages are installed, so that another changed line installs nothing anew.
#[test]
fn packages_of_the_tree_are_copied_before_they_are_installed() {
    let local = vec!["libs/core".to_owned(), "vendor/x.whl".to_owned()];
    for (dependencies, step) in [
        (PythonDependencies::UvLock, r#"RUN ["uv","sync","--frozen","--no-dev","--no-install-project","--no-editable"]"#),
        (PythonDependencies::PoetryLock, r#"RUN ["poetry","install""#),
    ] {
        let app = PythonApp { local: local.clone(), ..PythonApp::new(dependencies) };
        let text = generated(Recipe::Python(app), GUNICORN);
        let copies = "COPY [\"libs/core\",\"./libs/core\"]\nCOPY [\"vendor/x.whl\",\"./vendor/x.whl\"]\n";
        let (copied, installed) = (text.find(copies).unwrap(), text.find(step).unwrap());
        let source = text.find("COPY --chown").unwrap();
        assert!(copied < installed && installed < source && !text[..installed].contains("COPY . ."), "{text}");
    }
}

#[test]
fn a_script_without_dependencies() {
    assert_snapshot!(generated(Recipe::Python(PythonApp::new(PythonDependencies::None)), "python -u main.py"), @r#"
    FROM python:3.11-slim
    # What is printed is seen at once, in the logs.
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python","-c","import os, socket; socket.create_connection(('127.0.0.1', int(os.environ.get('PORT') or 8080)), 5)"]
    CMD ["python","-u","main.py"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    "#);
}

#[test]
fn node_with_npm() {
    assert_snapshot!(generated(Recipe::Node(NodeApp::new(Some("package-lock.json"), false)), "npm start"), @r#"
    # Packages are installed in a stage of their own: the manager's cache stays out of the image.
    FROM node:22-slim AS packages
    WORKDIR /app
    # What lists the packages, and nothing else: a changed line of the source installs nothing anew. The app's own
    # scripts have nothing to run on yet.
    COPY ["package.json","package-lock.json","./"]
    RUN ["npm","pkg","delete","scripts"]
    RUN ["npm","ci","--omit=dev","--no-audit","--no-fund"]
    RUN ["mkdir","-p","node_modules"]

    FROM node:22-slim
    ENV NODE_ENV=production npm_config_update_notifier=false
    RUN ["install","-d","-o","node","-g","node","/app"]
    WORKDIR /app
    COPY --from=packages /app/node_modules ./node_modules
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["node","-e","require('net').connect(process.env.PORT || 8080, '127.0.0.1').on('connect', () => process.exit(0)).on('error', () => process.exit(1))"]
    CMD ["npm","start"]
    # Not as root; and the source comes last, since it is what changes.
    USER node:node
    COPY --chown=node:node . .
    "#);
}

#[test]
fn node_with_a_build_script() {
    let app = NodeApp { version: Some("20".to_owned()), ..NodeApp::new(Some("package-lock.json"), true) };
    assert_snapshot!(generated(Recipe::Node(app), "npm start"), @r#"
    # Packages are installed in a stage of their own: the manager's cache stays out of the image.
    FROM node:20-slim AS packages
    WORKDIR /app
    # What lists the packages, and nothing else: a changed line of the source installs nothing anew. The app's own
    # scripts have nothing to run on yet.
    COPY ["package.json","package-lock.json","./"]
    RUN ["npm","pkg","delete","scripts"]
    RUN ["npm","ci","--omit=dev","--no-audit","--no-fund"]
    RUN ["mkdir","-p","node_modules"]

    # The build script needs what is for development, which goes again when it is done.
    FROM packages AS build
    RUN ["npm","ci","--no-audit","--no-fund"]
    COPY . .
    RUN ["npm","run","build"]
    RUN ["rm","-rf","node_modules"]

    FROM node:20-slim
    ENV NODE_ENV=production npm_config_update_notifier=false
    RUN ["install","-d","-o","node","-g","node","/app"]
    WORKDIR /app
    COPY --from=packages /app/node_modules ./node_modules
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["node","-e","require('net').connect(process.env.PORT || 8080, '127.0.0.1').on('connect', () => process.exit(0)).on('error', () => process.exit(1))"]
    CMD ["npm","start"]
    # Not as root; and what is made of the source comes last, since it is what changes.
    USER node:node
    COPY --from=build --chown=node:node /app ./
    "#);
}

#[test]
fn node_with_other_managers() {
    let of = |manager, lock: &str, version: Option<&str>| {
        let app = NodeApp { manager, manager_version: version.map(str::to_owned), ..NodeApp::new(Some(lock), true) };
        let text = generated(Recipe::Node(app), "npm start");
        text.lines().filter(|line| line.contains(manager.program()) || line.contains("YARN")).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(of(PackageManager::Pnpm, "pnpm-lock.yaml", Some("9.12.0")), @r#"
    RUN ["npm","install","--global","--force","pnpm@9.12.0"]
    COPY ["package.json","pnpm-lock.yaml","./"]
    RUN ["pnpm","install","--frozen-lockfile","--prod"]
    RUN ["pnpm","install","--frozen-lockfile","--prod=false"]
    "#);
    assert_snapshot!(of(PackageManager::Yarn, "yarn.lock", None), @r#"
    RUN ["npm","install","--global","--force","yarn@1.22.22"]
    COPY ["package.json","yarn.lock","./"]
    RUN ["yarn","install","--frozen-lockfile","--production"]
    RUN ["yarn","install","--frozen-lockfile","--production=false"]
    "#);
    assert_snapshot!(of(PackageManager::YarnBerry, "yarn.lock", None), @r#"
    ENV YARN_NODE_LINKER=node-modules YARN_ENABLE_TELEMETRY=0
    RUN ["npm","install","--global","--force","@yarnpkg/cli-dist@4.12.0"]
    COPY ["package.json","yarn.lock","./"]
    RUN ["yarn","workspaces","focus","--all","--production"]
    RUN ["yarn","install","--immutable"]
    "#);
}

#[test]
fn node_with_workspaces() {
    let app = NodeApp { needs_tree: true, ..NodeApp::new(Some("package-lock.json"), true) };
    assert_snapshot!(generated(Recipe::Node(app), "npm start"), @r#"
    # Packages are installed in a stage of their own: the manager's cache stays out of the image.
    FROM node:22-slim AS packages
    WORKDIR /app
    # Some packages lie in the tree, so every change of it installs them all again.
    COPY . .
    RUN ["npm","ci","--omit=dev","--no-audit","--no-fund"]
    RUN ["mkdir","-p","node_modules"]

    # The build script needs what is for development, which goes again when it is done.
    FROM packages AS build
    RUN ["npm","ci","--no-audit","--no-fund"]
    RUN ["npm","run","build"]
    RUN ["npm","ci","--omit=dev","--no-audit","--no-fund"]

    FROM node:22-slim
    ENV NODE_ENV=production npm_config_update_notifier=false
    RUN ["install","-d","-o","node","-g","node","/app"]
    WORKDIR /app
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["node","-e","require('net').connect(process.env.PORT || 8080, '127.0.0.1').on('connect', () => process.exit(0)).on('error', () => process.exit(1))"]
    CMD ["npm","start"]
    # Not as root; and what is made of the source comes last, since it is what changes.
    USER node:node
    COPY --from=build --chown=node:node /app ./
    "#);
}

#[test]
fn go() {
    let app = GoApp { package: "./cmd/shop".to_owned(), program: "shop".to_owned(), version: "1.23".to_owned(), fetches: true };
    assert_snapshot!(generated(Recipe::Go(app), "shop"), @r#"
    # The toolchain stays behind in a stage of its own.
    FROM golang:1.23-bookworm AS build
    ENV CGO_ENABLED=0
    WORKDIR /src
    # What lists the modules, and nothing else: a changed line of the source fetches nothing anew.
    COPY ["go.mod","go.sum","./"]
    RUN ["go","mod","download"]
    COPY . .
    RUN ["go","build","-trimpath","-buildvcs=false","-o","/out/shop","./cmd/shop"]

    FROM debian:bookworm-slim
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    # Whom it trusts when it asks others.
    COPY --from=build ["/etc/ssl/certs/ca-certificates.crt","/etc/ssl/certs/ca-certificates.crt"]
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["bash","-c","exec 3<>\"/dev/tcp/127.0.0.1/${PORT:-8080}\""]
    CMD ["shop"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    COPY --from=build ["/out/shop","/usr/local/bin/shop"]
    "#);
}

#[test]
fn rust() {
    let app = RustApp { program: "shop".to_owned(), version: None, is_simple: true };
    assert_snapshot!(generated(Recipe::Rust(app), "shop"), @r#"
    # The toolchain stays behind in a stage of its own.
    FROM rust:1-slim-bookworm AS build
    WORKDIR /src
    # What lists the modules, and nothing else: a changed line of the source fetches nothing anew.
    COPY ["Cargo.toml","Cargo.lock","./"]
    RUN ["install","-D","/dev/null","src/main.rs"]
    RUN ["cargo","fetch","--locked"]
    COPY . .
    RUN ["cargo","build","--release","--locked","--bin","shop"]

    FROM debian:bookworm-slim
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    # Whom it trusts when it asks others.
    COPY --from=build ["/etc/ssl/certs/ca-certificates.crt","/etc/ssl/certs/ca-certificates.crt"]
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["bash","-c","exec 3<>\"/dev/tcp/127.0.0.1/${PORT:-8080}\""]
    CMD ["shop"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    COPY --from=build ["/src/target/release/shop","/usr/local/bin/shop"]
    "#);
}

#[test]
fn a_static_site() {
    let text = generated(Recipe::Static { root: "public".to_owned() }, "nginx -c /etc/nginx/coracle.conf");
    assert_snapshot!(text.replace(&site::settings(DEFAULT_PORT).replace('\n', "\\n"), "…"), @r#"
    FROM nginx:1-alpine
    # nginx's settings, which know no variables: the port is the one that the app has in coracle.toml.
    RUN ["awk","BEGIN { print ARGV[1] > \"/etc/nginx/coracle.conf\" }","daemon off;\npid /tmp/nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\n  include /etc/nginx/mime.types;\n  default_type application/octet-stream;\n  access_log off;\n  sendfile on;\n  client_body_temp_path /tmp/body;\n  proxy_temp_path /tmp/proxy;\n  fastcgi_temp_path /tmp/fastcgi;\n  uwsgi_temp_path /tmp/uwsgi;\n  scgi_temp_path /tmp/scgi;\n  server {\n    listen 8080;\n    root /srv/site;\n    index index.html;\n    absolute_redirect off;\n    location ~ /\\.(?!well-known/) { return 404; }\n    location ~ ^/(coracle\\.toml|Procfile|Dockerfile)$ { return 404; }\n    location / { try_files $uri $uri/ $uri.html =404; }\n    error_page 404 /404.html;\n  }\n}"]
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["curl","--silent","--globoff","--output","/dev/null","http://127.0.0.1:8080/"]
    CMD ["nginx","-c","/etc/nginx/coracle.conf"]
    # Not as root: this is nginx in the official images. The files come last, since they are what changes.
    USER 101:101
    COPY ["public/","/srv/site/"]
    "#);
    let elsewhere = Serving { port: Some(3000), ..serving(&static_server().to_string()) };
    let text = made(Recipe::Static { root: ".".to_owned() }, elsewhere);
    assert!(text.contains("listen 3000;") && text.contains("EXPOSE 3000\n") && text.contains(":3000/"), "{text}");
}

#[test]
fn commands_of_a_procfile_alone() {
    assert_snapshot!(generated(Recipe::Plain, "./serve --port $PORT"), @r#"
    FROM debian:bookworm-slim
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    # Coracle says in $PORT where to listen, and asks by itself whether the app is well; this is for others.
    EXPOSE 8080
    HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["bash","-c","exec 3<>\"/dev/tcp/127.0.0.1/${PORT:-8080}\""]
    CMD ["sh","-c","exec ./serve --port ${PORT:-8080}"]
    # Not as root; and the source comes last, since it is what changes.
    USER 10001:10001
    COPY --chown=10001:10001 . .
    "#);
    // Nothing serves, so nothing is said about serving.
    let text = made(Recipe::Plain, Serving::default());
    assert!(!text.contains("CMD") && !text.contains("EXPOSE"), "{text}");
}

fn every_recipe(word: &str) -> Vec<Recipe> {
    let word = || word.to_owned();
    let dependencies = vec![
        PythonDependencies::Requirements { files: vec![word()] },
        PythonDependencies::Pyproject { listed: vec![word()] },
        PythonDependencies::UvLock,
        PythonDependencies::PoetryLock,
        PythonDependencies::PipfileLock,
        PythonDependencies::None,
    ];
    let mut all: Vec<_> = dependencies
        .into_iter()
        .map(|dependencies| {
            Recipe::Python(PythonApp { collect_static: Some(CollectStatic::default()), ..PythonApp::new(dependencies) })
        })
        .collect();
    all.extend([true, false].map(|has_build| Recipe::Node(NodeApp::new(Some("package-lock.json"), has_build))));
    all.push(Recipe::Go(GoApp { package: word(), program: "shop".to_owned(), version: "1.23".to_owned(), fetches: false }));
    all.push(Recipe::Rust(RustApp { program: "shop".to_owned(), version: None, is_simple: false }));
    all.extend([Recipe::Static { root: word() }, Recipe::Plain]);
    all
}

#[test]
fn nobody_is_root_and_no_step_needs_a_shell() {
    for recipe in every_recipe("x") {
        let text = made(recipe, serving(GUNICORN));
        let last = text.rsplit("\nFROM ").next().unwrap();
        assert_eq!(last.matches("\nUSER ").count(), 1, "{text}");
        let after = last.split_once("\nUSER ").unwrap().1;
        assert!(!after.starts_with("root") && !after.starts_with('0'), "{text}");
        assert!(text.lines().filter(|line| line.starts_with("RUN")).all(|line| line.starts_with("RUN [")), "{text}");
        assert!(last.contains("\nHEALTHCHECK ") && last.contains("\nCMD [") && last.contains("\nEXPOSE 8080\n"), "{text}");
    }
}

/// The instructions that a builder sees: comments and what a backslash at the end of a line joins.
fn instructions(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
    let mut all: Vec<String> = Vec::new();
    let mut joined = false;
    for line in lines {
        match all.last_mut() {
            Some(last) if joined => last.push_str(line),
            _ => all.push(line.split_whitespace().next().unwrap_or_default().to_owned()),
        }
        joined = line.trim_end().ends_with('\\');
    }
    all
}

proptest! {
    /// Whatever a repository writes into names, requirements, commands, reasons and paths: the instructions are the same as
    /// those for harmless ones.
    #[test]
    fn nothing_in_a_tree_becomes_an_instruction(text in "(.|\n|\r|\\\\|RUN |\"|#){0,30}") {
        let command = CommandLine::literal(vec!["serve".to_owned(), text.clone()]);
        prop_assume!(command.is_ok());
        let hostile = Serving {
            command: command.ok(),
            port: None,
            health: Some(format!("/{text}")),
            host: Some(text.clone()),
        };
        let harmless = Serving { health: Some("/".to_owned()), ..serving("serve x") };
        for (one, other) in every_recipe(&text).into_iter().zip(every_recipe("x")) {
            let plan = |recipe, reason: &str, serving: &Serving| {
                let (reason, serving) = (reason.to_owned(), serving.clone());
                generate(&BuildPlan { recipe, processes: BTreeMap::new(), release_command: None, reason, serving }).unwrap()
            };
            let text = plan(one, &text, &hostile);
            prop_assert_eq!(instructions(&text), instructions(&plan(other, "x", &harmless)), "{}", text);
        }
    }
}
