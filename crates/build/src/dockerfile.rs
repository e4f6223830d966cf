//! Dockerfiles for trees that have none: dependencies in a layer of their own before the source, so that a changed line
//! reinstalls nothing; a user that is not root; and no shell, every step is an argument vector.

use coracle_model::command::{Piece, Word};
use coracle_model::plan::{PythonDependencies, Recipe};
use coracle_model::{BuildPlan, CommandLine};

/// The port generated images expose.
pub const DEFAULT_PORT: u16 = 8080;

/// The user that apps run as in images that bring none.
const USER: &str = "10001:10001";

/// What serves static sites on the docker engine.
const NGINX: &str = "nginx:1-alpine";

/// A Dockerfile for the docker engine; `None` for recipes that bring their own or need none.
///
/// It has no `CMD`: the plan's processes are the commands. Build it with the tree as its context.
pub fn generate(plan: &BuildPlan) -> Option<String> {
    let body = match &plan.recipe {
        Recipe::Dockerfile { .. } | Recipe::Image { .. } => return None,
        Recipe::Python { dependencies, version } => python(dependencies, version.as_deref().unwrap_or("3.11")),
        Recipe::Node { lock, has_build_script } => node(lock.as_deref(), *has_build_script),
        Recipe::Static { root } => static_site(root),
        Recipe::Plain => format!("FROM debian:12-slim\n{}{}USER {USER}\n", home(), copy_all(USER)),
    };
    let reason: String = plan.reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Some(format!("# Written by Coracle: {reason}.\n{body}EXPOSE {DEFAULT_PORT}\n"))
}

/// A step as an argument vector.
fn run(argv: &[&str]) -> String {
    format!("RUN {}\n", serde_json::Value::from(argv))
}

fn copy(paths: &[&str], to: &str) -> String {
    let all: Vec<_> = paths.iter().copied().chain([to]).collect();
    format!("COPY {}\n", serde_json::Value::from(all))
}

fn copy_all(owner: &str) -> String {
    format!("COPY --chown={owner} . .\n")
}

/// A folder that belongs to the app's user, which has no entry in the image's list of users.
fn home() -> String {
    let (uid, gid) = USER.split_once(':').unwrap_or((USER, USER));
    format!("ENV HOME=/app\n{}WORKDIR /app\n", run(&["install", "-d", "-o", uid, "-g", gid, "/app"]))
}

fn python(dependencies: &PythonDependencies, version: &str) -> String {
    let mut out = format!("FROM python:{version}-slim\n");
    out += "ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1\n";
    out += &home();
    out += &python_dependencies(dependencies);
    out += &copy_all(USER);
    if *dependencies == PythonDependencies::Pyproject {
        out += &run(&["python", "-c", INSTALL_PROJECT]);
    }
    out + &format!("USER {USER}\n")
}

/// Installs what `pyproject.toml` lists, without the project itself, whose source is not there yet.
const INSTALL_LISTED: &str = "import subprocess, sys, tomllib; \
    listed = tomllib.load(open('pyproject.toml', 'rb')).get('project', {}).get('dependencies', []); \
    sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'install', *listed]) if listed else 0)";

/// Installs the project itself if it says how it is built.
const INSTALL_PROJECT: &str = "import subprocess, sys, tomllib; \
    buildable = 'build-system' in tomllib.load(open('pyproject.toml', 'rb')); \
    sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'install', '--no-deps', '.']) if buildable else 0)";

fn python_dependencies(dependencies: &PythonDependencies) -> String {
    match dependencies {
        PythonDependencies::Requirements { files } => {
            // Each keeps its folder, since they name each other relatively.
            let copies: String = files.iter().map(|file| copy(&[file], &format!("./{file}"))).collect();
            copies + &run(&["pip", "install", "-r", "requirements.txt"])
        }
        PythonDependencies::UvLock => {
            let sync = ["uv", "sync", "--frozen", "--no-dev", "--no-install-project"];
            let path = "ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_NO_CACHE=1 PATH=/opt/venv/bin:$PATH\n";
            run(&["pip", "install", "uv"]) + path + &copy(&["pyproject.toml", "uv.lock"], "./") + &run(&sync)
        }
        PythonDependencies::PoetryLock => {
            let install = ["poetry", "install", "--no-interaction", "--only", "main", "--no-root"];
            let settings = "ENV POETRY_VIRTUALENVS_CREATE=false\n";
            run(&["pip", "install", "poetry"]) + settings + &copy(&["pyproject.toml", "poetry.lock"], "./") + &run(&install)
        }
        PythonDependencies::PipfileLock => {
            // `sync` reads the lock alone, but pipenv wants to see a Pipfile.
            run(&["pip", "install", "pipenv"]) + &copy(&["Pipfile*"], "./") + &run(&["pipenv", "sync", "--system"])
        }
        PythonDependencies::Pyproject => copy(&["pyproject.toml"], "./") + &run(&["python", "-c", INSTALL_LISTED]),
        PythonDependencies::None => String::new(),
    }
}

fn node(lock: Option<&str>, has_build_script: bool) -> String {
    let mut out = String::from("FROM node:22-slim\n");
    out += &run(&["install", "-d", "-o", "node", "-g", "node", "/app"]);
    out += "WORKDIR /app\nUSER node\n";
    let files: Vec<_> = ["package.json"].into_iter().chain(lock).collect();
    out += &format!("COPY --chown=node:node {}\n", serde_json::Value::from([files, vec!["./"]].concat()));
    let install = if lock.is_some() { "ci" } else { "install" };
    // A build script is made of development dependencies, which are taken away after it.
    if has_build_script {
        out += &run(&["npm", install]);
        out += &copy_all("node:node");
        out += &run(&["npm", "run", "build"]);
        out += &run(&["npm", "prune", "--omit=dev"]);
    } else {
        out += &run(&["npm", install, "--omit=dev"]);
        out += &copy_all("node:node");
    }
    out + "ENV NODE_ENV=production\n"
}

/// nginx's settings for a static site, whose requests the proxy logs already: files that belong to root, nothing served whose name begins with a dot (but
/// `.well-known`), nor what describes the app.
const NGINX_SETTINGS: &str = "daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen 8080;
    root /srv/site;
    index index.html;
    absolute_redirect off;
    location ~ /\\.(?!well-known/) { return 404; }
    location ~ ^/(coracle\\.toml|Procfile|Dockerfile)$ { return 404; }
    location / { try_files $uri $uri/ $uri.html =404; }
    error_page 404 /404.html;
  }
}";

/// Where the image keeps them.
const NGINX_FILE: &str = "/etc/nginx/coracle.conf";

fn static_site(root: &str) -> String {
    // A Dockerfile writes no files by itself; awk does so without a shell in between.
    let write = format!("BEGIN {{ print ARGV[1] > \"{NGINX_FILE}\" }}");
    let settings = run(&["awk", &write, NGINX_SETTINGS]);
    let site = copy(&[&format!("{root}/")], "/srv/site/");
    // uid and gid of nginx in the official images.
    format!("FROM {NGINX}\n{settings}{site}USER 101:101\n")
}

/// nginx for a static site. It listens on [`DEFAULT_PORT`] whatever `$PORT` says, since its settings know no variables.
pub(crate) fn static_server() -> CommandLine {
    let word = |text: &str| Word(vec![Piece::Text(text.to_owned())]);
    CommandLine { assignments: Vec::new(), words: ["nginx", "-c", NGINX_FILE].map(word).to_vec() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use insta::assert_snapshot;

    use super::*;

    fn generated(recipe: Recipe) -> String {
        let reason = "found requirements.txt\nRUN evil".to_owned();
        generate(&BuildPlan { recipe, processes: BTreeMap::new(), release_command: None, reason }).unwrap()
    }

    fn python_of(dependencies: PythonDependencies) -> String {
        generated(Recipe::Python { dependencies, version: None })
    }

    #[test]
    fn dependencies_are_installed_before_the_source_is_there() {
        let files = vec!["requirements.txt".to_owned(), "requirements/base.txt".to_owned()];
        assert_snapshot!(python_of(PythonDependencies::Requirements { files }), @r#"
    # Written by Coracle: found requirements.txt RUN evil.
    FROM python:3.11-slim
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY ["requirements.txt","./requirements.txt"]
    COPY ["requirements/base.txt","./requirements/base.txt"]
    RUN ["pip","install","-r","requirements.txt"]
    COPY --chown=10001:10001 . .
    USER 10001:10001
    EXPOSE 8080
    "#);
        assert_snapshot!(python_of(PythonDependencies::Pyproject), @r#"
    # Written by Coracle: found requirements.txt RUN evil.
    FROM python:3.11-slim
    ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY ["pyproject.toml","./"]
    RUN ["python","-c","import subprocess, sys, tomllib; listed = tomllib.load(open('pyproject.toml', 'rb')).get('project', {}).get('dependencies', []); sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'install', *listed]) if listed else 0)"]
    COPY --chown=10001:10001 . .
    RUN ["python","-c","import subprocess, sys, tomllib; buildable = 'build-system' in tomllib.load(open('pyproject.toml', 'rb')); sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'install', '--no-deps', '.']) if buildable else 0)"]
    USER 10001:10001
    EXPOSE 8080
    "#);
        assert_snapshot!(generated(Recipe::Node { lock: Some("package-lock.json".to_owned()), has_build_script: false }), @r#"
    # Written by Coracle: found requirements.txt RUN evil.
    FROM node:22-slim
    RUN ["install","-d","-o","node","-g","node","/app"]
    WORKDIR /app
    USER node
    COPY --chown=node:node ["package.json","package-lock.json","./"]
    RUN ["npm","ci","--omit=dev"]
    COPY --chown=node:node . .
    ENV NODE_ENV=production
    EXPOSE 8080
    "#);
        assert_snapshot!(generated(Recipe::Node { lock: None, has_build_script: true }), @r#"
    # Written by Coracle: found requirements.txt RUN evil.
    FROM node:22-slim
    RUN ["install","-d","-o","node","-g","node","/app"]
    WORKDIR /app
    USER node
    COPY --chown=node:node ["package.json","./"]
    RUN ["npm","install"]
    COPY --chown=node:node . .
    RUN ["npm","run","build"]
    RUN ["npm","prune","--omit=dev"]
    ENV NODE_ENV=production
    EXPOSE 8080
    "#);
        for dependencies in [PythonDependencies::UvLock, PythonDependencies::PoetryLock, PythonDependencies::PipfileLock] {
            let text = python_of(dependencies);
            assert!(text.find("COPY [").unwrap() < text.find("COPY --chown").unwrap(), "{text}");
        }
    }

    #[test]
    fn what_needs_no_dependencies_is_only_copied() {
        assert_snapshot!(generated(Recipe::Static { root: "public".to_owned() }), @r#"
    # Written by Coracle: found requirements.txt RUN evil.
    FROM nginx:1-alpine
    RUN ["awk","BEGIN { print ARGV[1] > \"/etc/nginx/coracle.conf\" }","daemon off;\npid /tmp/nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\n  include /etc/nginx/mime.types;\n  default_type application/octet-stream;\n  access_log off;\n  sendfile on;\n  client_body_temp_path /tmp/body;\n  proxy_temp_path /tmp/proxy;\n  fastcgi_temp_path /tmp/fastcgi;\n  uwsgi_temp_path /tmp/uwsgi;\n  scgi_temp_path /tmp/scgi;\n  server {\n    listen 8080;\n    root /srv/site;\n    index index.html;\n    absolute_redirect off;\n    location ~ /\\.(?!well-known/) { return 404; }\n    location ~ ^/(coracle\\.toml|Procfile|Dockerfile)$ { return 404; }\n    location / { try_files $uri $uri/ $uri.html =404; }\n    error_page 404 /404.html;\n  }\n}"]
    COPY ["public/","/srv/site/"]
    USER 101:101
    EXPOSE 8080
    "#);
        assert_snapshot!(generated(Recipe::Plain), @r#"
    # Written by Coracle: found requirements.txt RUN evil.
    FROM debian:12-slim
    ENV HOME=/app
    RUN ["install","-d","-o","10001","-g","10001","/app"]
    WORKDIR /app
    COPY --chown=10001:10001 . .
    USER 10001:10001
    EXPOSE 8080
    "#);
        assert!(python_of(PythonDependencies::None).contains("\nCOPY --chown=10001:10001 . .\nUSER 10001:10001\n"));
    }

    #[test]
    fn nobody_is_root_and_no_shell_runs() {
        for recipe in [
            Recipe::Plain,
            Recipe::Static { root: ".".to_owned() },
            Recipe::Node { lock: None, has_build_script: true },
            Recipe::Python { dependencies: PythonDependencies::UvLock, version: Some("3.12".to_owned()) },
        ] {
            let text = generated(recipe);
            assert!(text.contains("\nUSER "), "{text}");
            assert!(text.lines().filter(|line| line.starts_with("RUN")).all(|line| line.starts_with("RUN [")), "{text}");
        }
    }

    #[test]
    fn the_server_of_static_sites_listens_on_the_port_that_is_exposed() {
        assert!(NGINX_SETTINGS.contains(&format!("listen {DEFAULT_PORT};")));
        assert_eq!(static_server().to_string(), "nginx -c /etc/nginx/coracle.conf");
    }
}
