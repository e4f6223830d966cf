//! What each rule sees, and what it must not see: a false alarm is a defect.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;

use coracle_build::DockerIgnore;
use coracle_model::plan::Recipe;
use coracle_model::policy::Rule;
use coracle_model::stack::PullPolicy;
use coracle_model::{AppSpec, EngineKind, EnvName, ImageFacts, Manifest, Secret};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::subject::{Subject, parts};
use crate::{Observation, Policy, ServerPolicy};

/// A tree, and what is known of the app.
struct Bench {
    dir: TempDir,
    manifest: String,
    engine: EngineKind,
    facts: Option<ImageFacts>,
    config: Vec<(EnvName, Secret, bool)>,
    ignore: DockerIgnore,
}

/// An image that nothing can be said against.
fn sound() -> ImageFacts {
    ImageFacts { user: "app".to_owned(), has_healthcheck: true, ..ImageFacts::default() }
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            manifest: String::new(),
            engine: EngineKind::Docker,
            facts: None,
            config: Vec::new(),
            ignore: DockerIgnore::default(),
        };
        files.iter().for_each(|(path, text)| bench.write(path, text));
        bench
    }

    fn dockerfile(text: &str) -> Self {
        Self::new(&[("Dockerfile", text), (".dockerignore", ".git\n")])
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn with(self, facts: ImageFacts) -> Self {
        Self { facts: Some(facts), ..self }
    }

    fn manifest(self, text: &str) -> Self {
        Self { manifest: text.to_owned(), ..self }
    }

    fn on_processes(self) -> Self {
        Self { engine: EngineKind::Process, ..self }
    }

    fn secret(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.parse().unwrap(), Secret::new(value), true));
        self
    }

    fn plain(mut self, name: &str, value: &str) -> Self {
        self.config.push((name.parse().unwrap(), Secret::new(value), false));
        self
    }

    fn spec(&self) -> AppSpec {
        Manifest::parse(&self.manifest).unwrap().resolve(Some("shop".parse().unwrap()), None).unwrap()
    }

    fn observe(&self) -> Vec<Observation> {
        let spec = self.spec();
        let plan = match spec.is_stack() {
            true => None,
            false => Some(coracle_build::plan(self.dir.path(), &spec, self.engine).unwrap()),
        };
        let mut parts = parts(self.dir.path(), &spec, plan.as_ref(), self.engine);
        parts.iter_mut().for_each(|part| part.facts.clone_from(&self.facts));
        Subject { root: self.dir.path(), ignore: &self.ignore, parts, config: &self.config }.observe()
    }

    /// What a rule says, with places.
    fn says(&self, rule: Rule) -> Vec<String> {
        let place = |seen: &Observation| seen.place.as_ref().map(|place| format!(" @{place}")).unwrap_or_default();
        let of_rule = self.observe().into_iter().filter(|seen| seen.rule == rule);
        of_rule.map(|seen| format!("{}{}", seen.what, place(&seen))).collect()
    }

    #[track_caller]
    fn sees(&self, rule: Rule, expected: &[&str]) {
        let said = self.says(rule);
        let fits = said.len() == expected.len() && said.iter().zip(expected).all(|(said, wanted)| said.contains(wanted));
        assert!(fits, "{rule}: expected {expected:?}, got {said:?}");
    }

    #[track_caller]
    fn is_fine(&self, rule: Rule) {
        self.sees(rule, &[]);
    }
}

#[test]
fn root_is_seen_in_the_stage_that_is_built() {
    let root = |text: &str| Bench::dockerfile(text);
    root("FROM debian:12\nCMD [\"x\"]")
        .sees(Rule::Root, &["says no USER, so it runs as root, unless its base image says otherwise @Dockerfile:1"]);
    root("FROM debian:12\nUSER app\nUSER root").sees(Rule::Root, &["USER root @Dockerfile:3"]);
    root("FROM debian:12\nUSER 0:0").sees(Rule::Root, &["USER root"]);
    root("FROM debian:12 AS a\nUSER app\nFROM debian:12\nCOPY --from=a /x /x").sees(Rule::Root, &["no USER"]);
    root("FROM scratch\nCOPY x /").sees(Rule::Root, &["runs as root @Dockerfile:1"]);
    for fine in [
        "FROM debian:12\nUSER app",
        "FROM debian:12\nUSER root\nRUN x\nUSER 1000:1000",
        // In the last stage only, or inherited from an earlier one.
        "FROM debian:12 AS build\nRUN x\nFROM debian:12\nUSER app",
        "FROM debian:12 AS base\nUSER app\nFROM base AS run\nCMD [\"x\"]",
        "FROM gcr.io/distroless/static:nonroot",
        "FROM nginxinc/nginx-unprivileged:1.27",
        "FROM debian:12\nENTRYPOINT [\"gosu\", \"app\", \"x\"]",
        // Nobody builds the last stage.
        "FROM debian:12\n# USER root\nUSER app",
    ] {
        root(fine).is_fine(Rule::Root);
    }
    root("FROM debian:12 AS run\nUSER app\nFROM debian:12 AS test\nUSER root")
        .manifest("[build]\ntarget = \"run\"")
        .is_fine(Rule::Root);
}

#[test]
fn the_image_knows_better_than_the_dockerfile() {
    let text = "FROM debian:12\nCMD [\"x\"]";
    Bench::dockerfile(text).with(sound()).is_fine(Rule::Root);
    for user in ["", "root", "0", "root:root"] {
        let facts = ImageFacts { user: user.to_owned(), ..sound() };
        Bench::dockerfile(text).with(facts).sees(Rule::Root, &["its image runs as root @Dockerfile:1"]);
    }
    let facts = ImageFacts { user: String::new(), entrypoint: vec!["/docker-entrypoint.sh".to_owned()], ..sound() };
    let bench = Bench::dockerfile(text).with(facts);
    bench.sees(Rule::Root, &["root"]);
    bench.write("docker-entrypoint.sh", "#!/bin/sh\nchown app /data\nexec gosu app \"$@\"\n");
    bench.is_fine(Rule::Root);
    Bench::new(&[("requirements.txt", ""), ("app.py", "app = 1\n"), ("Procfile", "web: gunicorn app:app\n")])
        .on_processes()
        .is_fine(Rule::Root);
}

#[test]
fn images_that_move_are_named() {
    let latest = |text: &str| Bench::dockerfile(text);
    latest("FROM python\nUSER a").sees(Rule::Latest, &["the base image python has no tag @Dockerfile:1"]);
    latest("FROM python:latest\nUSER a").sees(Rule::Latest, &["is named by `latest`"]);
    latest("FROM registry:5000/python\nUSER a").sees(Rule::Latest, &["has no tag"]);
    latest("ARG V=latest\nFROM python:$V\nUSER a").sees(Rule::Latest, &["python:$V is named by `latest` @Dockerfile:2"]);
    latest("FROM python:3.12 AS a\nFROM node AS b\nFROM a\nCOPY --from=b /x /x").sees(Rule::Latest, &["node"]);
    latest("FROM python:3.12\nCOPY --from=ghcr.io/astral-sh/uv:latest /uv /bin/")
        .sees(Rule::Latest, &["uv:latest, which is copied from"]);
    for fine in [
        "FROM python:3.12-slim",
        "FROM python@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "FROM python:latest@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "FROM registry:5000/python:3.12",
        "FROM scratch",
        "FROM python:3.12 AS base\nFROM base",
        "FROM python:3.12 AS Base\nFROM x:1\nCOPY --from=base /x /x\nCOPY --from=0 /x /x",
        "ARG TAG=3.12\nFROM python:${TAG}",
        "ARG TAG\nFROM python:${TAG}",
        "ARG BASE\nFROM ${BASE}",
        "FROM --platform=$BUILDPLATFORM golang:1.23 AS build\nFROM scratch\nCOPY --from=build /x /x",
        // No part of what is built.
        "FROM node AS unused\nFROM python:3.12",
        "FROM python:3.12\nRUN <<EOF\nFROM node\nEOF",
        "FROM python:3.12\nRUN echo \\\nFROM node",
    ] {
        latest(fine).is_fine(Rule::Latest);
    }
    let given = latest("ARG TAG=latest\nFROM python:${TAG}").manifest("[build.args]\nTAG = \"3.12\"");
    given.is_fine(Rule::Latest);
    Bench::new(&[]).manifest("[build]\nimage = \"nginx\"").sees(Rule::Latest, &["the image nginx has no tag"]);
    let service = "[services.db]\nimage = \"postgres\"\n";
    let bench = Bench::dockerfile("FROM python:3.12").manifest(service);
    bench.sees(Rule::Latest, &["db: the image postgres has no tag"]);
    bench.is_fine(Rule::SecretInImage);
}

#[test]
fn health_is_seen_where_requests_come() {
    let text = "FROM debian:12\nUSER app\nCMD [\"x\"]";
    let none = || ImageFacts { has_healthcheck: false, ..sound() };
    Bench::dockerfile(text).with(none()).sees(Rule::Health, &["neither its image nor coracle.toml"]);
    Bench::dockerfile(text).with(sound()).is_fine(Rule::Health);
    Bench::dockerfile(text).with(none()).manifest("[http]\nhealth = \"/up\"").is_fine(Rule::Health);
    Bench::dockerfile(text).sees(Rule::Health, &["neither"]);
    Bench::dockerfile(&format!("{text}\nHEALTHCHECK CMD true")).is_fine(Rule::Health);
    Bench::dockerfile(&format!("{text}\nHEALTHCHECK NONE")).sees(Rule::Health, &["neither"]);
    Bench::new(&[("index.html", "x")]).on_processes().is_fine(Rule::Health);
    let worker = Bench::new(&[("Procfile", "worker: ./work\n")]).on_processes();
    worker.is_fine(Rule::Health);
    Bench::new(&[("Procfile", "web: ./serve\n")]).on_processes().sees(Rule::Health, &["coracle.toml does not say"]);
}

#[test]
fn an_ignore_file_is_missed_where_everything_is_copied() {
    let bench = |text: &str| Bench::new(&[("Dockerfile", text)]);
    for text in
        ["FROM a:1\nCOPY . .", "FROM a:1\nCOPY --chown=1 ./ /app", "FROM a:1\nADD [\".\", \"/app\"]", "FROM a:1\nCOPY * /"]
    {
        bench(text).sees(Rule::Ignore, &["no .dockerignore leaves anything out @Dockerfile:2"]);
    }
    bench("FROM a:1 AS b\nCOPY . .\nFROM c:1\nCOPY --from=b /x /x").sees(Rule::Ignore, &["@Dockerfile:2"]);
    for fine in [
        "FROM a:1\nCOPY app.py .",
        "FROM a:1\nCOPY --from=b:1 . /x",
        "FROM a:1\nRUN echo COPY . .",
        "FROM a:1 AS x\nCOPY . .\nFROM b:1",
    ] {
        bench(fine).is_fine(Rule::Ignore);
    }
    for file in [".dockerignore", ".coracleignore", "Dockerfile.dockerignore"] {
        let bench = bench("FROM a:1\nCOPY . .");
        bench.write(file, "");
        bench.is_fine(Rule::Ignore);
    }
    Bench::new(&[("app.py", ""), ("requirements.txt", ""), ("Procfile", "web: x\n")]).is_fine(Rule::Ignore);
}

const KEY: &str = "AKIAQ7BR2XKD9LMW4TZP";

#[test]
fn values_of_the_configuration_are_found_and_never_repeated() {
    let text = "FROM a:1\nARG TOKEN\nUSER app\nRUN fetch\nENV OTHER=1";
    let value = "s3cr3t-Value-of-ours";
    let with = |facts: ImageFacts| Bench::dockerfile(text).with(facts).secret("TOKEN", value);
    let history = |made: String| ImageFacts { history: vec!["/bin/sh -c #(nop) ENV A=1".to_owned(), made], ..sound() };
    let bench = with(history(format!("|1 TOKEN={value} /bin/sh -c fetch")));
    bench.sees(Rule::SecretInImage, &["the value of TOKEN, of the app's own configuration, stands in its history @Dockerfile:2"]);
    with(ImageFacts { env: vec![("X".to_owned(), format!("a:{value}"))], ..sound() })
        .sees(Rule::SecretInImage, &["stands in its variable X"]);
    with(ImageFacts { labels: vec![("note".to_owned(), value.to_owned())], ..sound() })
        .sees(Rule::SecretInImage, &["stands in its label note"]);
    assert!(bench.observe().iter().any(|seen| seen.surely));
    for seen in bench.observe() {
        assert!(!format!("{seen:?}").contains(value), "{seen:?}");
    }
    // Before it is built: in the Dockerfile itself.
    Bench::dockerfile(&format!("FROM a:1\nENV TOKEN={value}"))
        .secret("TOKEN", value)
        .sees(Rule::SecretInImage, &["its Dockerfile, in ENV @Dockerfile:2"]);
    with(history("ENV TOKEN=".to_owned())).is_fine(Rule::SecretInImage);
}

#[test]
fn usual_words_are_no_secrets() {
    let facts = |made: &str| ImageFacts {
        history: vec![made.to_owned()],
        env: vec![("APP_ENV".to_owned(), "production".to_owned()), ("PORT".to_owned(), "8080".to_owned())],
        ..sound()
    };
    let made = "RUN apt-get install postgresql && echo production 8080 /var/lib/data https://example.com 1.2.3 true admin";
    let bench =
        ["postgres", "production", "8080", "/var/lib/data", "https://example.com", "1.2.3", "true", "admin", "localhost:6379"]
            .iter()
            .enumerate()
            .fold(Bench::dockerfile("FROM a:1").with(facts(made)), |bench, (n, value)| {
                bench.secret(&format!("SECRET_{n}"), value)
            });
    bench.is_fine(Rule::SecretInImage);
    // Not a secret, and no name or form of one.
    let bench =
        Bench::dockerfile("FROM a:1").with(facts("ENV GREETING=Hello-World-2024!")).plain("GREETING", "Hello-World-2024!");
    bench.is_fine(Rule::SecretInImage);
    // A piece of a longer word.
    let bench = Bench::dockerfile("FROM a:1").with(facts("RUN echo xs3cr3t-0042y")).secret("A", "s3cr3t-0042");
    bench.is_fine(Rule::SecretInImage);
    // What is weak counts under its own name.
    let weak = Bench::dockerfile("FROM a:1").with(facts("ENV DB_PASSWORD=postgres")).secret("DB_PASSWORD", "postgres");
    weak.sees(Rule::SecretInImage, &["the value of DB_PASSWORD"]);
    // A plain value with the form of a secret.
    let url = "postgres://shop:hunter22@db/shop";
    let bench = Bench::dockerfile("FROM a:1").with(facts(&format!("ENV X={url}"))).plain("DATABASE_URL", url);
    bench.sees(Rule::SecretInImage, &["the value of DATABASE_URL"]);
}

#[test]
fn keys_of_known_formats_are_found_in_images() {
    let facts = ImageFacts { env: vec![("AWS".to_owned(), KEY.to_owned())], ..sound() };
    let bench = Bench::dockerfile(&format!("FROM a:1\nENV AWS={KEY}")).with(facts);
    bench.sees(Rule::SecretInImage, &["an AWS access key stands in its variable AWS @Dockerfile:2"]);
    let seen = bench.observe();
    assert!(seen.iter().all(|seen| !seen.surely && !format!("{seen:?}").contains(KEY)), "{seen:?}");
    Bench::dockerfile(&format!("FROM a:1 AS unused\nENV AWS={KEY}\nFROM b:1")).is_fine(Rule::SecretInImage);
}

#[test]
fn files_with_secrets_are_found_where_they_get_into_what_is_built() {
    let private = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", "MIIEpAIBAAKCAQEA".repeat(4));
    let all: &[(&str, &str)] = &[
        (".env", "# x\nDEBUG=1\nSECRET_KEY=k8dh2kd9sk2\n"),
        ("keys/server.key", &private),
        ("tests/fixtures/server.key", &private),
        ("public.pem", "-----BEGIN PUBLIC KEY-----\nabc\n"),
        (".env.example", "SECRET_KEY=k8dh2kd9sk2\n"),
        ("node_modules/x/.env", "SECRET_KEY=k8dh2kd9sk2\n"),
        (".git/HEAD", "ref: refs/heads/main\n"),
    ];
    let bench = |dockerfile: &str| {
        let bench = Bench::new(all);
        bench.write("Dockerfile", dockerfile);
        bench
    };
    let found = [
        "gets into what is built @.env:3",
        "everything that was ever removed from it @.git",
        "a private key gets into what is built @keys/server.key",
    ];
    let mut said = bench("FROM a:1\nCOPY . .").says(Rule::SecretInTree);
    said.sort_by_key(|said| said.split('@').next_back().unwrap().to_owned());
    assert!(said.len() == 3 && said.iter().zip(found).all(|(said, wanted)| said.contains(wanted)), "{said:?}");
    assert!(!format!("{said:?}").contains("k8dh2kd9sk2"));
    bench("FROM a:1\nCOPY keys/ /keys/").sees(Rule::SecretInTree, &["a private key"]);
    bench("FROM a:1\nCOPY .env* /app/").sees(Rule::SecretInTree, &["SECRET_KEY"]);
    for fine in ["FROM a:1\nCOPY app.py .", "FROM a:1 AS b\nCOPY . .\nFROM c:1\nCOPY --from=b /x /x", "FROM a:1\nRUN x"] {
        bench(fine).is_fine(Rule::SecretInTree);
    }
    let ignored = bench("FROM a:1\nCOPY . .");
    ignored.write(".dockerignore", ".env\n.git\nkeys\n");
    ignored.is_fine(Rule::SecretInTree);
    // Without a Dockerfile everything that is sent gets in.
    let bench = Bench::new(&[("Procfile", "web: x\n"), (".env", "API_TOKEN=k8dh2kd9sk2\n")]).on_processes();
    bench.sees(Rule::SecretInTree, &["a secret (API_TOKEN)"]);
}

#[test]
fn variables_that_are_no_secrets_are_no_alarm() {
    for fine in [
        "FLASK_APP=shop\nDEBUG=0\nPORT=8080",
        "SECRET_KEY=\nTOKEN=changeme\nPASSWORD=${PASSWORD}\nAPI_KEY=<your key>",
        "# SECRET_KEY=k8dh2kd9sk2",
        "PUBLIC_KEY=k8dh2kd9sk2\nKEY_FILE=/run/secrets/key1234",
        "DATABASE_URL=postgres://localhost/shop",
    ] {
        let bench = Bench::new(&[("Procfile", "web: x\n"), (".env", fine)]).on_processes();
        bench.is_fine(Rule::SecretInTree);
    }
    let bench = Bench::new(&[("Procfile", "web: x\n"), (".env", "X=s3cr3t-Value-of-ours")]).on_processes();
    bench.secret("TOKEN", "s3cr3t-Value-of-ours").sees(Rule::SecretInTree, &["which is a secret of the app's own configuration"]);
}

/// A tree without a Dockerfile whose web process is this.
fn runs(command: &str, files: &[(&str, &str)]) -> Bench {
    let bench = Bench::new(files);
    bench.write("Procfile", &format!("# what runs\nweb: {command}\n"));
    bench.on_processes()
}

const FLASK: &str = "from flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get(\"/\")\ndef index():\n    return \"\"\n\n\nif __name__ == \"__main__\":\n    app.run(debug=True)\n";

#[test]
fn servers_for_development_are_told_by_their_commands() {
    for (command, what) in [
        ("flask run --host 0.0.0.0", "flask run is a server for development @Procfile:2"),
        ("flask --app shop --debug run", "flask run"),
        ("python -m flask run", "flask run"),
        ("FLASK_APP=shop python3 -u -m flask --app shop run", "flask run"),
        ("poetry run flask run", "flask run"),
        ("uv run --no-dev flask run", "flask run"),
        ("python manage.py runserver 0.0.0.0:$PORT", "manage.py runserver"),
        ("./manage.py runserver", "manage.py runserver"),
        ("django-admin runserver", "django-admin runserver"),
        ("uvicorn shop:app --reload", "uvicorn --reload"),
        ("gunicorn --reload shop:app", "gunicorn --reload"),
        ("fastapi dev shop.py", "fastapi dev"),
        ("php -S 0.0.0.0:8080", "php -S"),
        ("npx vite --host", "vite"),
        ("next dev", "next dev"),
        ("npx --yes nodemon server.js", "nodemon"),
        ("node --watch server.js", "node --watch"),
        ("sh -c \"migrate && exec flask run\"", "flask run"),
        ("python -m http.server 8080", "python -m http.server"),
        ("tini -- flask run", "flask run"),
    ] {
        runs(command, &[]).sees(Rule::DevelopmentServer, &[what]);
    }
    for fine in [
        "gunicorn shop:app",
        "python -m gunicorn shop:app --workers 2",
        "uvicorn shop:app --host 0.0.0.0 --port $PORT",
        "flask --app shop db upgrade",
        "python manage.py migrate",
        "vite build",
        "next start",
        "node server.js",
        "php-fpm",
        "python -m shop",
        "sh -c \"flask db upgrade && exec gunicorn shop:app\"",
        "./server --reload-config run",
        "echo flask run",
    ] {
        runs(fine, &[]).is_fine(Rule::DevelopmentServer);
    }
}

#[test]
fn a_script_that_opens_flasks_server_is_one_if_it_is_what_runs() {
    let files: &[(&str, &str)] = &[("app.py", FLASK)];
    runs("python app.py", files).sees(Rule::DevelopmentServer, &["app.run() is a server for development @app.py:12"]);
    runs("python -u ./app.py", files).sees(Rule::DevelopmentServer, &["app.run()"]);
    runs("python -m app", files).sees(Rule::DevelopmentServer, &["app.run()"]);
    // It stands below `if __name__`, and nobody runs the file.
    runs("gunicorn app:app", files).is_fine(Rule::DevelopmentServer);
    for fine in [
        "import shop\nshop.run()\n",
        "from flask import Flask\napp = Flask(__name__)\n# app.run()\n",
        "\"\"\"How to:\n\napp.run()\n\"\"\"\nfrom flask import Flask\napp = Flask(__name__)\n",
        "from flask import Flask\nfrom waitress import serve\napp = Flask(__name__)\nserve(app)\n",
        "import asyncio\nloop = asyncio.Runner()\nloop.run(main())\n",
        "import uvicorn\nuvicorn.run(app, host=\"0.0.0.0\")\n",
        "import subprocess\nsubprocess.run([\"x\"])\n",
    ] {
        runs("python app.py", &[("app.py", fine)]).is_fine(Rule::DevelopmentServer);
    }
    runs("python app.py", &[("app.py", "import uvicorn\nuvicorn.run(\n  \"shop:app\",\n  reload=True,\n)\n")])
        .sees(Rule::DevelopmentServer, &["uvicorn.run(reload=True)"]);
    let factory =
        ("shop/__init__.py", "from flask import Flask\ndef create_app():\n    return Flask(__name__)\napp = create_app()\n");
    runs("python run.py", &[factory, ("run.py", "from shop import app\napp.run()\n")])
        .sees(Rule::DevelopmentServer, &["app.run() is a server for development @run.py:2"]);
}

#[test]
fn scripts_and_packages_are_looked_into() {
    let package = |start: &str| format!("{{\n  \"scripts\": {{\n    \"start\": \"{start}\",\n    \"dev\": \"vite\"\n  }}\n}}\n");
    runs("npm start", &[("package.json", &package("npm run dev"))]).sees(Rule::DevelopmentServer, &["vite (by `npm run dev`)"]);
    runs("npm run dev", &[("package.json", &package("x"))]).sees(Rule::DevelopmentServer, &["@package.json:4"]);
    runs("yarn dev", &[("package.json", &package("x"))]).sees(Rule::DevelopmentServer, &["vite"]);
    runs("npm run dev", &[]).sees(Rule::DevelopmentServer, &["npm run dev"]);
    runs("npm start", &[("package.json", &package("node server.js"))]).is_fine(Rule::DevelopmentServer);
    runs("npm start", &[("package.json", &package("npm start"))]).is_fine(Rule::DevelopmentServer);
    let start = "#!/bin/sh\nset -e\npython manage.py migrate\nexec python manage.py runserver 0.0.0.0:8000\n";
    runs("./start.sh", &[("start.sh", start)])
        .sees(Rule::DevelopmentServer, &["manage.py runserver is a server for development @start.sh:4"]);
    let all = "./a.sh\n".repeat(2000);
    runs("./a.sh", &[("a.sh", &format!("#!/bin/sh\n{all}"))]).is_fine(Rule::DevelopmentServer);
    let either = "#!/bin/sh\nif [ \"$DEV\" ]; then\n  flask run\nelse\n  exec gunicorn shop:app\nfi\n";
    runs("./start.sh", &[("start.sh", either)]).is_fine(Rule::DevelopmentServer);
}

#[test]
fn an_image_that_starts_one_is_seen_before_and_after_it_is_built() {
    let text = "FROM a:1\nUSER app\nCMD [\"flask\", \"run\"]";
    Bench::dockerfile(text).sees(Rule::DevelopmentServer, &["flask run is a server for development @Dockerfile:3"]);
    let facts = ImageFacts { command: vec!["/bin/sh".to_owned(), "-c".to_owned(), "flask run".to_owned()], ..sound() };
    Bench::dockerfile(text).with(facts.clone()).sees(Rule::DevelopmentServer, &["flask run"]);
    let entry = ImageFacts { entrypoint: vec!["flask".to_owned()], command: vec!["run".to_owned()], ..sound() };
    Bench::dockerfile("FROM a:1").with(entry).sees(Rule::DevelopmentServer, &["flask run"]);
    // The manifest's command is what runs.
    let manifest = "[processes.web]\ncommand = \"gunicorn shop:app\"";
    Bench::dockerfile(text).with(facts).manifest(manifest).is_fine(Rule::DevelopmentServer);
    Bench::dockerfile("FROM a:1\nCMD [\"gunicorn\", \"shop:app\"]")
        .manifest("[processes.web]\ncommand = \"flask run\"")
        .sees(Rule::DevelopmentServer, &["flask run"]);
}

#[test]
fn variables_and_settings_for_development_are_seen() {
    let facts = |name: &str, value: &str| ImageFacts { env: vec![(name.to_owned(), value.to_owned())], ..sound() };
    let bench = |facts| Bench::dockerfile("FROM a:1\nCMD [\"gunicorn\", \"shop:app\"]").with(facts);
    bench(facts("FLASK_ENV", "development"))
        .sees(Rule::DevelopmentServer, &["FLASK_ENV makes this a development environment, by its image"]);
    bench(facts("FLASK_DEBUG", "0")).is_fine(Rule::DevelopmentServer);
    bench(facts("FLASK_DEBUG", "1")).plain("FLASK_DEBUG", "0").is_fine(Rule::DevelopmentServer);
    bench(sound()).plain("FLASK_DEBUG", "True").sees(Rule::DevelopmentServer, &["by the app's configuration"]);
    bench(sound()).manifest("[env]\nFLASK_DEBUG = \"1\"").sees(Rule::DevelopmentServer, &["[env] in coracle.toml"]);

    let manage = "import os\nos.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\n";
    let django = |settings: &str| runs("gunicorn shop.wsgi", &[("manage.py", manage), ("shop/settings.py", settings)]);
    django("SECRET_KEY = \"x\"\nDEBUG = True\n")
        .sees(Rule::DevelopmentServer, &["DEBUG is True: errors show settings and source to everybody @shop/settings.py:2"]);
    for fine in [
        "DEBUG = False\n",
        "DEBUG = os.environ.get(\"DEBUG\") == \"1\"\n",
        "DEBUG = True\nDEBUG = env.bool(\"DEBUG\")\n",
        "DEBUG = True\nfrom .local import *\n",
        "DEBUG = True\nif \"PROD\" in os.environ:\n    DEBUG = False\n",
        "TEMPLATE_DEBUG = True\n# DEBUG = True\nprint(DEBUG == True)\n",
    ] {
        django(fine).is_fine(Rule::DevelopmentServer);
    }
    django("DEBUG = True\n").plain("DJANGO_SETTINGS_MODULE", "shop.production").is_fine(Rule::DevelopmentServer);
}

#[test]
fn requirements_without_versions_are_seen() {
    let python = |files: &[(&str, &str)]| runs("gunicorn shop:app", files);
    python(&[("requirements.txt", "flask==3.1.0\ngunicorn>=20\nrequests\n")])
        .sees(Rule::Unpinned, &["gunicorn, requests are installed without an exact version @requirements.txt:2"]);
    python(&[("requirements.txt", "flask\n"), ("uv.lock", ""), ("pyproject.toml", "[project]\nname = \"x\"\nversion = \"1\"\n")])
        .is_fine(Rule::Unpinned);
    python(&[("requirements.txt", "-r base.txt\n"), ("base.txt", "flask\n")])
        .sees(Rule::Unpinned, &["flask is installed without an exact version @base.txt:1"]);
    python(&[("requirements.txt", "-c pins.txt\nFlask_Login\n"), ("pins.txt", "flask-login==0.6\n")]).is_fine(Rule::Unpinned);
    python(&[
        ("requirements.txt", "# x\n--index-url https://x\nflask==3.1.0 \\\n  --hash=sha256:00\n-e .\n./vendor/x\n"),
        ("setup.py", ""),
    ])
    .is_fine(Rule::Unpinned);
    let node = |files: &[(&str, &str)]| runs("node server.js", files);
    let package = ("package.json", "{\"dependencies\": {\"express\": \"^4\"}}");
    node(&[package, ("server.js", "")]).sees(Rule::Unpinned, &["express is installed without a lock file @package.json"]);
    node(&[package, ("server.js", ""), ("package-lock.json", "{}")]).is_fine(Rule::Unpinned);
    node(&[("package.json", "{}"), ("server.js", "")]).is_fine(Rule::Unpinned);
    let docker =
        |run: &str| Bench::new(&[("Dockerfile", &format!("FROM a:1\nRUN {run}")), ("requirements.txt", "flask\n"), package]);
    docker("pip install --no-cache-dir -r /app/requirements.txt").sees(Rule::Unpinned, &["flask"]);
    docker("npm install --omit=dev").sees(Rule::Unpinned, &["express"]);
    docker("echo hello").is_fine(Rule::Unpinned);
    docker("npm ci").is_fine(Rule::Unpinned);
}

#[test]
fn parts_of_a_stack_are_looked_at_where_they_are_built() {
    let compose = |image: &str| Recipe::Image { reference: image.to_owned(), pull: PullPolicy::Missing };
    let bench = Bench::new(&[("api/Dockerfile", "FROM python\nCOPY . .\nCMD [\"flask\", \"run\"]"), ("compose.yaml", "x")]);
    let part = |name: &str, folder: &str, recipe: Recipe| crate::Part {
        name: Some(name.parse().unwrap()),
        folder: folder.to_owned(),
        recipe,
        programs: vec![crate::subject::Program { argv: Vec::new(), env: Vec::new(), file: None, behind_entrypoint: false }],
        env: BTreeMap::new(),
        user: None,
        serves: true,
        is_checked: false,
        keeps_data: false,
        engine: EngineKind::Docker,
        facts: None,
    };
    let dockerfile =
        Recipe::Dockerfile { path: "Dockerfile".to_owned(), target: None, args: BTreeMap::new(), extras: Box::default() };
    let parts = vec![
        part("api", "./api", dockerfile.clone()),
        part("worker", "api", dockerfile.clone()),
        part("front", "", compose("nginx:1")),
    ];
    let outside = vec![part("x", "../..", dockerfile.clone()), part("y", "/etc", dockerfile)];
    let observe = |parts| Subject { root: bench.dir.path(), ignore: &bench.ignore, parts, config: &[] }.observe();
    let said: Vec<String> = observe(parts)
        .iter()
        .map(|seen| format!("{}: {}", seen.rule, seen.place.as_ref().map(ToString::to_string).unwrap_or_default()))
        .collect();
    for wanted in
        ["latest: api/Dockerfile:1", "root: api/Dockerfile:1", "ignore: api/Dockerfile:2", "development-server: api/Dockerfile:3"]
    {
        assert!(said.iter().any(|said| said == wanted), "{wanted} is not in {said:?}");
    }
    assert_eq!(said.iter().filter(|said| said.starts_with("latest")).count(), 1, "{said:?}");
    assert!(observe(outside).is_empty());
}

#[test]
fn what_others_have_written_is_made_harmless() {
    let bench = Bench::dockerfile("FROM evil\u{1b}[2J\u{202e}image\nUSER app");
    let said = bench.says(Rule::Latest).join("");
    assert!(said.contains("evil") && !said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
    let long = format!("FROM {}\nUSER app", "x".repeat(100_000));
    assert!(Bench::dockerfile(&long).says(Rule::Latest)[0].len() < 300);
}

/// Whoever sends very much of something wrong costs neither time nor memory.
#[test]
fn a_flood_is_dammed() {
    let stages: String = (0..20_000).map(|n| format!("FROM x AS s{n}\nCOPY --from=y{n} / /\nENV A={KEY}\n")).collect();
    let copies: String = (0..500).map(|n| format!("COPY a{n} /\n")).collect();
    let bench = Bench::new(&[("Dockerfile", &format!("FROM x:1\n{copies}{stages}")), ("run.py", &"app.run(1)\n".repeat(50_000))]);
    (0..3_000).for_each(|n| bench.write(&format!("{n}.env"), "X=1"));
    assert!(bench.observe().len() < 40);
    let bench = Bench::dockerfile(&format!("FROM x:1\n{}", format!("COPY --from=y / /\nENV A={KEY}\n").repeat(5_000)));
    let latest = bench.says(Rule::Latest);
    assert!(latest.len() <= 8 && latest.last().unwrap().contains("more like this"), "{latest:?}");
}

#[test]
fn levels_are_those_of_the_app_unless_the_server_says_more() {
    use coracle_model::policy::Level;
    let app = |text: &str| Policy::parse(text).unwrap();
    let server = |text: &str| ServerPolicy::parse(text).unwrap();
    let seen = |surely| Observation { surely, ..Observation::new(Rule::Root, "it runs as root", "mend it") };
    let level = |of_app: &str, of_server: &str, surely| {
        let mut judged = app(of_app).judge(&server(of_server), vec![seen(surely)]);
        judged.pop().unwrap()
    };
    let off = "[policy]\nroot = { level = \"off\", reason = \"needs port 80\" }";
    for (of_app, of_server, surely, expected) in [
        ("", "", false, Level::Warn),
        ("", "", true, Level::Block),
        ("[policy]\nroot = \"block\"", "", false, Level::Block),
        ("[policy]\nroot = \"warn\"", "", true, Level::Warn),
        (off, "", true, Level::Off),
        (off, "root = \"block\"", false, Level::Block),
        (off, "root = \"warn\"", false, Level::Warn),
        (off, "root = { level = \"block\", may_loosen = true }", false, Level::Off),
        ("", "root = { level = \"block\", may_loosen = true }", false, Level::Block),
        ("", "root = \"off\"", false, Level::Off),
        ("[policy]\nroot = \"block\"", "[policy]\nroot = \"off\"", false, Level::Block),
        (off, "latest = \"block\"", false, Level::Off),
    ] {
        assert_eq!(level(of_app, of_server, surely).level, expected, "{of_app} / {of_server}");
    }
    let bound = level(off, "root = { level = \"block\", reason = \"house rule\" }", false);
    assert!(bound.silence.contains("only the administrator"), "{bound:?}");
    assert_eq!(bound.reason.as_deref(), Some("house rule"));
    assert!(level("", "", false).silence.contains("[policy] root = { level = \"off\""));
}

#[test]
fn misspelt_settings_name_the_nearest() {
    for (text, wanted) in [
        ("[policy]\nrot = \"off\"", "did you mean `root`?"),
        ("[policy]\nsecret_in_image = \"off\"", "did you mean `secret-in-image`?"),
        ("[policy]\nzzzzzzzzz = \"off\"", "the rules are secret-in-image"),
        ("[policy]\nroot = \"of\"", "use \"off\", \"warn\" or \"block\""),
        ("[policy]\nroot = { reason = \"x\" }", "says no level"),
        ("[policy]\nroot = { level = \"off\", reasn = \"x\" }", "reason"),
        ("[policy]\nroot = { level = \"off\", may_loosen = true }", "is not an app's to say"),
        ("policy = 3", "expected a table"),
    ] {
        let mistakes = Policy::parse(text).unwrap_err().to_string();
        assert!(mistakes.contains(wanted), "{text}: {mistakes}");
    }
    assert!(ServerPolicy::parse("rot = \"off\"").unwrap_err().to_string().contains("did you mean `root`?"));
    assert_eq!(Policy::parse("app = \"shop\"").unwrap(), Policy::default());
    assert!(Manifest::parse("[policy]\nroot = \"off\"").is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_on_arbitrary_trees(
        dockerfile in proptest::collection::vec("(FROM|ARG|ENV|RUN|COPY|ADD|USER|CMD|ENTRYPOINT|HEALTHCHECK|# escape=|)[ \\t]?([a-z:@$\\{\\}<\"'\\[\\],.=/-]|<<EOF|--from=|--mount=|\\\\\n|é){0,12}", 0..8),
        procfile in "[a-z .$\"'&|;()<>\\\\=#-]{0,40}",
        script in "(app = Flask\\(|app\\.run\\(|\"\"\"|uvicorn.run\\(|[a-z().=\n é]){0,20}",
        requirements in "[a-z=<>@:+/#;.\\\\\n -]{0,60}",
        env in "[A-Z_]{0,8}=[a-zA-Z0-9 $\\{}\"'é]{0,20}",
        value in "[a-zé$ =]{0,12}",
    ) {
        let bench = Bench::new(&[("app.py", &script), ("requirements.txt", &requirements), (".env", &env), ("start.sh", &procfile)]);
        bench.write("Dockerfile", &dockerfile.join("\n"));
        let spec = AppSpec::named("shop".parse().unwrap());
        let Ok(plan) = coracle_build::plan(bench.dir.path(), &spec, EngineKind::Docker) else { return Ok(()) };
        let argv = vec!["sh".to_owned(), "-c".to_owned(), procfile];
        for facts in [None, Some(ImageFacts { history: vec![env.clone(), value.clone()], command: argv, ..ImageFacts::default() })] {
            let mut parts = parts(bench.dir.path(), &spec, Some(&plan), EngineKind::Docker);
            parts[0].facts = facts;
            let config = [("SECRET".parse().unwrap(), Secret::new(value.as_str()), true)];
            let subject = Subject { root: bench.dir.path(), ignore: &bench.ignore, parts, config: &config };
            let findings = Policy::default().judge(&ServerPolicy::default(), subject.observe());
            for finding in findings {
                prop_assert!(!finding.to_string().chars().any(char::is_control), "{finding}");
            }
        }
        let _read = Policy::parse(&requirements);
    }
}
