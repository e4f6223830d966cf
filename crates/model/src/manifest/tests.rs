#![allow(clippy::unwrap_used, clippy::panic)]

use coracle_proxy_table::Middleware;
use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;
use crate::spec::{BuilderChoice, EngineKind, Redirect, Strategy, TlsMode};
use crate::{ByteSize, Cpus, Span};

fn name(text: &str) -> AppName {
    text.parse().unwrap()
}

fn spec(text: &str) -> AppSpec {
    let manifest = Manifest::parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    manifest.resolve(Some(name("folder")), None).unwrap()
}

pub(super) fn mistakes(text: &str) -> String {
    match Manifest::parse(text) {
        Ok(manifest) => panic!("{text:?} was taken: {manifest:?}"),
        Err(errors) => errors.to_string(),
    }
}

const FULL: &str = r#"
app = "shop"
engine = "process"
secrets = ["SECRET_KEY"]
x-note = { anything = [1, 2] }

[build]
builder = "dockerfile"
dockerfile = "./docker//Dockerfile"
target = "run"
args = { VERSION = "1" }
memory = "1.5G"
cpus = 0.5

[http]
hosts = ["shop.example.com", "*.shop.example.com"]
path_prefix = "/api/v1/"
strip_prefix = true
port = 3000
health = "/health?full=1"
x-note = "mine"

[deploy]
strategy = "recreate"
release_command = "python manage.py migrate --noinput"
drain = "1m"
timeout = "2m"
watch = "0"
grace = "500ms"
keep = 3

[processes.web]
command = "gunicorn --bind 0.0.0.0:$PORT app:app"
replicas = 2
memory = "256M"
cpus = "1"
pids = 64

[processes."cron.nightly"]
command = ["sh", "-c", "echo $PORT && true"]
replicas = 0
volumes = ["data:/var/lib/shop"]

[env]
LOG_LEVEL = "info"
DEBUG = ""

[environments.staging]
engine = "docker"
[environments.staging.env]
LOG_LEVEL = "debug"
[environments.staging.processes.web]
replicas = 1

[environments.preview]
app = "shop-pr"
http.hosts = ["pr.example.com"]
"#;

#[test]
fn every_key_arrives_where_it_belongs() {
    let spec = spec(FULL);
    assert_eq!(spec.app, name("shop"));
    assert_eq!(spec.engine, Some(EngineKind::Process));
    assert_eq!(spec.secrets, ["SECRET_KEY".parse().unwrap()]);
    assert_eq!(spec.build.builder, BuilderChoice::Dockerfile);
    assert_eq!(spec.build.dockerfile.as_deref(), Some("docker/Dockerfile"));
    assert_eq!(spec.build.target.as_deref(), Some("run"));
    assert_eq!(spec.build.args["VERSION"], "1");
    assert_eq!((spec.build.memory, spec.build.cpus), (Some(ByteSize::mib(1536)), Some(Cpus::milli(500))));
    assert_eq!(spec.http.hosts.len(), 2);
    assert_eq!((spec.http.path_prefix.as_str(), spec.http.strip_prefix), ("/api/v1", true));
    assert_eq!((spec.http.port, spec.http.health.as_deref()), (Some(3000), Some("/health?full=1")));
    assert_eq!(spec.deploy.strategy, Some(Strategy::Recreate));
    assert_eq!(spec.deploy.release_command.unwrap().to_string(), "python manage.py migrate --noinput");
    assert_eq!((spec.deploy.drain, spec.deploy.timeout), (Span::seconds(60), Span::seconds(120)));
    assert_eq!((spec.deploy.watch, spec.deploy.grace, spec.deploy.keep), (Span::seconds(0), Span::millis(500), 3));
    let web = &spec.processes[&"web".parse().unwrap()];
    assert_eq!((web.replicas, web.limits.memory, web.limits.pids), (2, Some(ByteSize::mib(256)), 64));
    let cron = &spec.processes[&"cron.nightly".parse().unwrap()];
    assert_eq!(cron.command.as_ref().unwrap().to_string(), "sh -c 'echo $PORT && true'");
    assert_eq!((cron.replicas, cron.volumes[0].path.as_str()), (0, "/var/lib/shop"));
    assert_eq!(spec.env[&"DEBUG".parse().unwrap()], "");
}

#[test]
fn an_app_without_a_manifest_is_named_after_its_folder() {
    assert_eq!(spec(""), AppSpec::named(name("folder")));
    assert_eq!(Manifest::parse("").unwrap(), Manifest::default());
    assert_snapshot!(Manifest::default().resolve(None, None).unwrap_err(), @r#"
    coracle.toml: app: the app has no name
       = write `app = "…"` in its first line, or give the name with --app
    "#);
}

#[test]
fn an_environment_lies_over_the_manifest() {
    let manifest = Manifest::parse(FULL).unwrap();
    assert_eq!(manifest.environments(), ["preview", "staging"]);
    let staging = manifest.resolve(None, Some("staging")).unwrap();
    assert_eq!(staging.app, name("shop-staging"));
    assert_eq!(staging.http.hosts, ["shop-staging.localhost".parse().unwrap()]);
    assert_eq!(staging.http.health.as_deref(), Some("/health?full=1"));
    assert_eq!(staging.engine, Some(EngineKind::Docker));
    assert_eq!(staging.env.len(), 2);
    assert_eq!(staging.env[&"LOG_LEVEL".parse().unwrap()], "debug");
    let web = &staging.processes[&"web".parse().unwrap()];
    assert_eq!((web.replicas, web.limits.pids), (1, 64));
    let preview = manifest.resolve(None, Some("preview")).unwrap();
    assert_eq!(preview.app, name("shop-pr"));
    assert_eq!(preview.http.hosts, ["pr.example.com".parse().unwrap()]);
}

#[test]
fn an_image_in_an_environment_takes_the_place_of_the_dockerfile() {
    let manifest = Manifest::parse("[build]\ntarget = \"a\"\n[environments.x]\nbuild.image = \"i:1\"\n").unwrap();
    let build = manifest.resolve(Some(name("a")), Some("x")).unwrap().build;
    assert_eq!((build.image.as_deref(), build.target), (Some("i:1"), None));
}

#[test]
fn environments_that_cannot_be_are_named() {
    assert_snapshot!(Manifest::parse(FULL).unwrap().resolve(None, Some("prod")).unwrap_err(), @r#"
    coracle.toml: environments: there is no environment "prod"
       = known: preview, staging
    "#);
    assert_snapshot!(Manifest::default().resolve(None, Some("prod")).unwrap_err(), @r#"
    coracle.toml: environments: there is no environment "prod"
       = there are none; write [environments.NAME] to have one
    "#);
    let long = Manifest::parse("[environments.staging-in-the-south-of-france]").unwrap();
    assert_snapshot!(long.resolve(Some(name("a-long-name-of-an-app")), Some("staging-in-the-south-of-france")).unwrap_err(), @r#"
    coracle.toml: environments.staging-in-the-south-of-france: app name "a-long-name-of-an-app-staging-in-the-south-of-france" is not valid: use 1 to 40 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen
       = write `app = "…"` under [environments.staging-in-the-south-of-france]
    "#);
    assert_snapshot!(mistakes("[environments.\"a b\"]\n[environments.staging.environments.x]"), @r#"
    coracle.toml:1:15: environments."a b": is not a name for an environment
     1 | [environments."a b"]
       |               ^^^^^
       = use lower-case letters, digits and hyphens, beginning with a letter
    coracle.toml:2:23: environments.staging.environments: unknown key
     2 | [environments.staging.environments.x]
       |                       ^^^^^^^^^^^^
       = known keys here: app, engine, build, http, deploy, processes, env, registry, secrets, services, middlewares, compose, pipeline
    "#);
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    assert_snapshot!(mistakes("app = \"shop\"\n\n[http]\nprot = 8080\n  helth = \"/\"\n[procceses.web]\n[deploy]\ncolour = 1\n"), @r#"
    coracle.toml:4:1: http.prot: unknown key
     4 | prot = 8080
       | ^^^^
       = did you mean `port`?
    coracle.toml:5:3: http.helth: unknown key
     5 |   helth = "/"
       |   ^^^^^
       = did you mean `health`?
    coracle.toml:6:2: procceses: unknown key
     6 | [procceses.web]
       |  ^^^^^^^^^
       = did you mean `processes`?
    coracle.toml:8:1: deploy.colour: unknown key
     8 | colour = 1
       | ^^^^^^
       = known keys here: strategy, release_command, drain, timeout, watch, grace, keep
    "#);
}

#[test]
fn keys_of_later_versions_are_refused_not_dropped() {
    assert_snapshot!(mistakes(
        "engine = \"swarm\"\n[http]\nhealth = \"/up\"\n[deploy]\nstrategy = \"canary\"\n[cron.nightly]\nschedule = \"@daily\"\n[services.db]\nimage = \"x\"\nbackup = \"daily\"\n"
    ), @r#"
    coracle.toml:1:10: engine: engine "swarm" is not supported by this version of Coracle
     1 | engine = "swarm"
       |          ^^^^^^^
       = use "docker" or "process"
    coracle.toml:5:12: deploy.strategy: strategy "canary" is not supported by this version of Coracle
     5 | strategy = "canary"
       |            ^^^^^^^^
       = use "blue-green" or "recreate"
    coracle.toml:6:2: cron: is not supported by this version of Coracle
     6 | [cron.nightly]
       |  ^^^^
       = remove it, or write x- before its name to keep it as a note
    coracle.toml:10:1: services.db.backup: is not supported by this version of Coracle
     10 | backup = "daily"
        | ^^^^^^
        = remove it, or write x- before its name to keep it as a note
    "#);
}

#[test]
fn wrong_types_and_values_are_told_all_at_once() {
    assert_snapshot!(mistakes(
        r#"app = "Shop"
engine = "lxc"
secrets = ["A", "A", "a b", "B", "PORT"]
env = { B = "1", LEVEL = 3, PORT = "1", "a-b" = "x", NUL = "\u0000" }
[http]
hosts = "shop.example.com"
port = 0
health = "health"
path_prefix = "/a/../b"
strip_prefix = "yes"
[deploy]
drain = 30
timeout = "0"
keep = 1001
release_command = "a && b"
[processes.release]
[processes.Web]
[processes.web]
command = 5
replicas = 101
memory = "1M"
cpus = 5000
volumes = ["data:relative", "a:/x", "b:/x/"]
"#
    ), @r#"
    coracle.toml:1:7: app: app name "Shop" is not valid: use 1 to 40 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen
     1 | app = "Shop"
       |       ^^^^^^
    coracle.toml:2:10: engine: engine "lxc" is not known
     2 | engine = "lxc"
       |          ^^^^^
       = use "docker" or "process"
    coracle.toml:3:11: secrets: B is in [env] as well
     3 | secrets = ["A", "A", "a b", "B", "PORT"]
       |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
       = a secret's value is set by `coracle secrets set`, never in the file
    coracle.toml:3:11: secrets: PORT is set by Coracle itself
     3 | secrets = ["A", "A", "a b", "B", "PORT"]
       |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    coracle.toml:3:17: secrets: is listed twice
     3 | secrets = ["A", "A", "a b", "B", "PORT"]
       |                 ^^^
    coracle.toml:3:22: secrets: environment variable name "a b" is not valid: use letters, digits and underscores, not beginning with a digit, at most 128
     3 | secrets = ["A", "A", "a b", "B", "PORT"]
       |                      ^^^^^
    coracle.toml:4:26: env.LEVEL: expected a string, found an integer
     4 | env = { B = "1", LEVEL = 3, PORT = "1", "a-b" = "x", NUL = "\u0000" }
       |                          ^
       = put it in quotes: "3"
    coracle.toml:4:29: env.PORT: PORT is set by Coracle itself
     4 | env = { B = "1", LEVEL = 3, PORT = "1", "a-b" = "x", NUL = "\u0000" }
       |                             ^^^^
       = the port inside a container is `port` under [http]
    coracle.toml:4:41: env.a-b: environment variable name "a-b" is not valid: use letters, digits and underscores, not beginning with a digit, at most 128
     4 | env = { B = "1", LEVEL = 3, PORT = "1", "a-b" = "x", NUL = "\u0000" }
       |                                         ^^^^^
    coracle.toml:4:60: env.NUL: contains a NUL byte
     4 | env = { B = "1", LEVEL = 3, PORT = "1", "a-b" = "x", NUL = "\u0000" }
       |                                                            ^^^^^^^^
    coracle.toml:6:9: http.hosts: expected an array of strings, found a string
     6 | hosts = "shop.example.com"
       |         ^^^^^^^^^^^^^^^^^^
       = put it in brackets: ["shop.example.com"]
    coracle.toml:7:8: http.port: must be a number from 1 to 65535
     7 | port = 0
       |        ^
    coracle.toml:8:10: http.health: "health" is not a path of a request
     8 | health = "health"
       |          ^^^^^^^^
       = begin it with `/`, as in "/health"
    coracle.toml:9:15: http.path_prefix: must not have empty segments, `.` or `..`
     9 | path_prefix = "/a/../b"
       |               ^^^^^^^^^
    coracle.toml:10:16: http.strip_prefix: expected true or false, found a string
     10 | strip_prefix = "yes"
        |                ^^^^^
    coracle.toml:12:9: deploy.drain: expected a string with a unit, found an integer
     12 | drain = 30
        |         ^^
        = as in "30s"
    coracle.toml:13:11: deploy.timeout: would give a new release no time to become healthy
     13 | timeout = "0"
        |           ^^^
    coracle.toml:14:8: deploy.keep: must be a number from 1 to 1000
     14 | keep = 1001
        |        ^^^^
    coracle.toml:15:19: deploy.release_command: && at character 3 needs a shell, and commands run without one: put the line into a script, or write it as ["sh", "-c", "…"] in coracle.toml
     15 | release_command = "a && b"
        |                   ^^^^^^^^
    coracle.toml:16:12: processes.release: `release` is a command, not a process
     16 | [processes.release]
        |            ^^^^^^^
        = write it as `release_command` under [deploy]
    coracle.toml:17:12: processes.Web: process name "Web" is not valid: use 1 to 32 lower-case letters, digits, hyphens, underscores and dots, beginning with a letter
     17 | [processes.Web]
        |            ^^^
    coracle.toml:19:11: processes.web.command: expected a command: a string or an array of strings, found an integer
     19 | command = 5
        |           ^
    coracle.toml:20:12: processes.web.replicas: must be a number from 0 to 100
     20 | replicas = 101
        |            ^^^
    coracle.toml:21:10: processes.web.memory: 1M is less than any program starts with
     21 | memory = "1M"
        |          ^^^^
        = use at least 6M
    coracle.toml:22:8: processes.web.cpus: "5000" is not a number of cores between 0.01 and 1024, such as 0.5
     22 | cpus = 5000
        |        ^^^^
    coracle.toml:23:11: processes.web.volumes: two volumes are mounted at /x/
     23 | volumes = ["data:relative", "a:/x", "b:/x/"]
        |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    coracle.toml:23:12: processes.web.volumes: volume path "relative" must be absolute and must not contain `..`
     23 | volumes = ["data:relative", "a:/x", "b:/x/"]
        |            ^^^^^^^^^^^^^^^
    "#);
}

#[test]
fn paths_stay_below_the_root_and_builders_do_not_contradict() {
    assert_snapshot!(mistakes(
        "[build]\ndockerfile = \"/etc/passwd\"\nroot = \"a/../../b\"\nbuilder = \"magic\"\nimage = \"-x y\"\ntarget = \"\"\nargs = 1\n"
    ), @r#"
    coracle.toml:2:14: build.dockerfile: "/etc/passwd" must be relative to the folder of the manifest
     2 | dockerfile = "/etc/passwd"
       |              ^^^^^^^^^^^^^
    coracle.toml:3:8: build.root: "a/../../b" must not lead out of the folder of the manifest
     3 | root = "a/../../b"
       |        ^^^^^^^^^^^
    coracle.toml:4:11: build.builder: builder "magic" is not known
     4 | builder = "magic"
       |           ^^^^^^^
       = use "auto", "dockerfile" or "static"
    coracle.toml:5:9: build.image: "-x y" is not valid here
     5 | image = "-x y"
       |         ^^^^^^
    coracle.toml:6:10: build.target: "" is not valid here
     6 | target = ""
       |          ^^
    coracle.toml:7:8: build.args: expected a table, found an integer
     7 | args = 1
       |        ^
       = write [build.args] with its keys below
    "#);
    assert_snapshot!(mistakes("[build]\nimage = \"a\"\ntarget = \"b\"\n"), @r#"
    coracle.toml:1:2: build: `image` is run as it is, so `builder`, `dockerfile`, `target`, `args` and `secrets` cannot stand beside it
     1 | [build]
       |  ^^^^^
    "#);
    assert_snapshot!(mistakes("build = { builder = \"static\", dockerfile = \"b\" }\n"), @r#"
    coracle.toml:1:1: build: a static site is not built, so `dockerfile`, `target`, `args` and `secrets` cannot stand beside `builder = "static"`
     1 | build = { builder = "static", dockerfile = "b" }
       | ^^^^^
    "#);
}

#[test]
fn what_is_not_toml_is_shown_where_it_breaks() {
    assert_snapshot!(mistakes("app = \"shop\nengine = docker\n[http\n"), @r#"
    coracle.toml:1:12: invalid basic string, expected `"`
     1 | app = "shop
       |            ^
    coracle.toml:2:10: string values must be quoted, expected literal string
     2 | engine = docker
       |          ^^^^^^
    coracle.toml:3:6: unclosed table, expected `]`
     3 | [http
       |      ^
    "#);
    assert_snapshot!(mistakes("app = \"a\"\napp = \"b\"\n"), @r#"
    coracle.toml:2:1: duplicate key
     2 | app = "b"
       | ^^^
    "#);
}

#[test]
fn secrets_of_a_build_must_be_set_before_a_deploy() {
    let spec = |text: &str| Manifest::parse(text).unwrap().resolve(Some("shop".parse().unwrap()), None).unwrap();
    let shop = spec("secrets = [\"KEY\"]\n[build]\nsecrets = [\"NPM_TOKEN\", \"KEY\"]\n");
    assert_eq!(shop.build.secrets, ["NPM_TOKEN".parse().unwrap(), "KEY".parse().unwrap()]);
    assert_eq!(shop.secrets, ["KEY".parse().unwrap(), "NPM_TOKEN".parse().unwrap()]);
    let told = Manifest::parse("[build]\nimage = \"nginx\"\nsecrets = [\"A\"]\n").unwrap_err().to_string();
    assert!(told.contains("`secrets` cannot stand beside it"), "{told}");
}

#[test]
fn a_megabyte_in_one_line_gives_a_short_error() {
    let long = "x".repeat(1_000_000);
    for text in [
        format!("{long} = 1"),
        format!("app = \"{long}\""),
        format!("env.{long} = \"1\""),
        format!("app = {long}"),
        format!("app = 'a' {long}"),
        format!("[[[[{long}"),
        format!("deploy.release_command = [{}]", "1,".repeat(400_000)),
        format!("secrets = [{}]", "'a b',".repeat(100_000)),
        format!("a = {}", "[".repeat(500_000)),
        format!("{}a = 1", "a.".repeat(400_000)),
        "x = 1\n".repeat(100_000),
        (0..60_000).map(|n| format!("k{n} = 1\n")).collect(),
        format!("{}k = 1", "é ".repeat(300_000)),
    ] {
        let errors = mistakes(&text);
        assert!(errors.len() < 12_000 && errors.lines().all(|line| line.chars().count() < 300), "{errors}");
    }
    let errors = mistakes(&format!("app = \"shop\"\n# {}\n", "x".repeat(LARGEST)));
    assert_snapshot!(errors, @"coracle.toml: the manifest is larger than 1024 KiB");
}

#[test]
fn a_long_line_is_cut_around_the_mistake() {
    let notes: String = (0..40).map(|n| format!("x-k{n} = 1, ")).collect();
    assert_snapshot!(mistakes(&format!("http = {{ prot = 1, {notes}port = 1 }}")), @r#"
    coracle.toml:1:10: http.prot: unknown key
     1 | http = { prot = 1, x-k0 = 1, x-k1 = 1, x-k2 = 1, x-k3 = 1, x-k4 = 1, x-k5 = 1, x-k6 = 1, x-k7 = 1, x…
       |          ^^^^
       = did you mean `port`?
    "#);
    let others = notes.replace("x-k", "x-o");
    assert_snapshot!(mistakes(&format!("http = {{ {notes}prot = 1, {others}port = 1 }}")), @r#"
    coracle.toml:1:440: http.prot: unknown key
     1 | …1, x-k38 = 1, x-k39 = 1, prot = 1, x-o0 = 1, x-o1 = 1, x-o2 = 1, x-o3 = 1, x-o4 = 1, x-o5 = 1, x-o6 …
       |                           ^^^^
       = did you mean `port`?
    "#);
    assert_snapshot!(mistakes(&format!("http = {{ {notes}prot = 1 }}")), @r#"
    coracle.toml:1:440: http.prot: unknown key
     1 | …1, x-k38 = 1, x-k39 = 1, prot = 1 }
       |                           ^^^^
       = did you mean `port`?
    "#);
}

#[test]
fn the_template_parses_whatever_it_is_told() {
    let facts = TemplateFacts {
        reason: Some("found Dockerfile\n[http]\nport = 1".to_owned()),
        health: Some("/up".to_owned()),
        release_command: Some("say \"hi\" 'there' \\ \n".to_owned()),
    };
    for facts in [TemplateFacts::default(), facts] {
        let text = template(&name("shop"), &facts);
        let spec = Manifest::parse(&text).unwrap_or_else(|errors| panic!("{text}\n{errors}")).resolve(None, None).unwrap();
        assert_eq!((spec.app, spec.http.port, spec.http.health), (name("shop"), None, facts.health));
    }
}

proptest! {
    #[test]
    fn reading_never_panics(text in ".{0,200}") {
        drop(Manifest::parse(&text));
    }

    #[test]
    fn nor_on_mutilated_manifests(cut in 0..FULL.len(), insert in "[\\[\\]\"'=.,a-z0-9é\n{}#-]{0,6}", remove in 0..20_usize) {
        let cut = (0..=cut).rev().find(|at| FULL.is_char_boundary(*at)).unwrap();
        let end = (cut + remove).min(FULL.len());
        let text = format!("{}{insert}{}", &FULL[..cut], &FULL[end..]);
        match Manifest::parse(&text) {
            Ok(manifest) => {
                for environment in [None, Some("staging")] {
                    let once = manifest.resolve(Some(name("a")), environment);
                    prop_assert_eq!(once, Manifest::parse(&text).unwrap().resolve(Some(name("a")), environment));
                }
            }
            Err(errors) => prop_assert!(!errors.all.is_empty() && !errors.to_string().is_empty()),
        }
    }
}

#[test]
fn tls_redirects_and_the_canonical_host_are_one_line_each() {
    let all = "http.hosts = [\"shop.example\", \"www.shop.example\"]\nhttp.tls = \"acme\"\nhttp.redirect = \"https\"\nhttp.canonical_host = \"shop.example\"\n";
    let http = spec(all).http;
    assert_eq!((http.tls, http.redirect), (TlsMode::Acme, Some(Redirect::Https)));
    assert_eq!(http.canonical_host.unwrap().as_str(), "shop.example");
    assert_eq!((spec("").http.tls, spec("").http.redirect), (TlsMode::Auto, None));
    for (wrong, told) in [
        ("http.tls = \"yes\"", "no way to get certificates"),
        ("http.redirect = \"www\"", "use \"https\" or \"off\""),
        ("http.canonical_host = \"*.example\"", "not one host"),
        ("http.hosts = [\"a.example\"]\nhttp.canonical_host = \"b.example\"", "not among the hosts"),
    ] {
        assert!(mistakes(wrong).contains(told), "{wrong}: {}", mistakes(wrong));
    }
}

#[test]
fn middlewares_are_those_of_the_proxy_by_the_names_that_the_manifest_gives_them() {
    let text = r#"
        [http]
        middlewares = ["auth", "limits"]
        [middlewares.auth.basic-auth]
        users = ["ann:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"]
        [middlewares.limits.rate-limit]
        average = 10
        period = "1m"
        [middlewares.gzip.compress]
        [environments.staging.http]
        middlewares = ["gzip", "limits"]
        [environments.staging.middlewares.limits.rate-limit]
        average = 1000
        [environments.preview]
    "#;
    let manifest = Manifest::parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    let of = |environment| {
        let http = manifest.resolve(Some(name("shop")), environment).unwrap().http;
        let average = |middleware: &Middleware| match middleware {
            Middleware::RateLimit(limit) => limit.average,
            _ => 0,
        };
        let all = http.middlewares.iter().map(|it| (it.name.clone(), it.middleware.kind(), average(&it.middleware)));
        all.collect::<Vec<_>>()
    };
    let owned = |all: &[(&str, &'static str, u64)]| all.iter().map(|(a, b, c)| ((*a).to_owned(), *b, *c)).collect::<Vec<_>>();
    assert_eq!(of(None), owned(&[("auth", "basic-auth", 0), ("limits", "rate-limit", 10)]));
    assert_eq!(of(Some("staging")), owned(&[("gzip", "compress", 0), ("limits", "rate-limit", 1000)]));
    assert_eq!(of(Some("preview")), of(None));
    // Releases of before are still read.
    let mut old = serde_json::to_value(manifest.resolve(Some(name("shop")), None).unwrap()).unwrap();
    old["http"].as_object_mut().unwrap().remove("middlewares");
    assert!(serde_json::from_value::<AppSpec>(old).unwrap().http.middlewares.is_empty());
}

#[test]
fn middlewares_stay_within_the_app() {
    assert_snapshot!(mistakes(
        r#"[http]
middlewares = ["auth", "gzpi"]
[middlewares.auth.basic-auth]
users_file = "/etc/shadow"
[middlewares.gzip.compres]
[middlewares.errors.error-pages]
service = "other"
[middlewares."a b".compress]
[middlewares.files.static-files]
root = "/"
[environments.staging.http]
middlewares = ["auth", "none"]
"#
    ), @r#"
    coracle.toml:2:24: http.middlewares[1]: there is no middleware "gzpi"
     2 | middlewares = ["auth", "gzpi"]
       |                        ^^^^^^
       = did you mean gzip?
    coracle.toml:3:14: middlewares.auth: names a file or folder of the server's machine, which an app has none of
     3 | [middlewares.auth.basic-auth]
       |              ^^^^
       = an app's own files are served by the app; users and pages may stand in the manifest itself
    coracle.toml:5:19: middlewares.gzip.compres: there is no middleware of this kind
     5 | [middlewares.gzip.compres]
       |                   ^^^^^^^
       = did you mean compress?
    coracle.toml:6:14: middlewares.errors: names a service, and an app has none but itself
     6 | [middlewares.errors.error-pages]
       |              ^^^^^^
    coracle.toml:8:14: middlewares."a b": a middleware is named by 1 to 64 letters, digits, hyphens and underscores
     8 | [middlewares."a b".compress]
       |              ^^^^^
    coracle.toml:9:14: middlewares.files: names a file or folder of the server's machine, which an app has none of
     9 | [middlewares.files.static-files]
       |              ^^^^^
       = an app's own files are served by the app; users and pages may stand in the manifest itself
    coracle.toml:12:24: environments.staging.http.middlewares[1]: there is no middleware "none"
     12 | middlewares = ["auth", "none"]
        |                        ^^^^^^
        = there are a b, auth, errors, files, gzip
    "#);
}

#[test]
fn compose_files_are_named_for_each_environment() {
    let manifest = Manifest::parse(
        r#"app = "shop"
[compose]
files = ["compose.yaml"]
profiles = ["web"]
[environments.production.compose]
files = ["compose.yaml", "deploy/production.yaml"]
[environments.live]
app = "shop-live"
"#,
    )
    .unwrap();
    let of = |environment| manifest.compose(environment);
    assert_eq!(of(None).files.unwrap(), ["compose.yaml"]);
    assert_eq!(of(Some("production")).files.unwrap(), ["compose.yaml", "deploy/production.yaml"]);
    assert_eq!((of(Some("production")).profiles.unwrap(), of(None).env_files), (vec!["web".to_owned()], None));
    assert!(manifest.is_described_by_compose(None, false));
    // By the app's name, as whoever pushes says it.
    let called = |app: &str| manifest.environment_called(&name(app));
    assert_eq!((called("shop-production"), called("shop-live"), called("shop")), (Some("production"), Some("live"), None));
    assert_eq!((called("shop-staging"), called("other")), (None, None));
    assert_snapshot!(mistakes("[compose]\nfiles = []\nprofile = [\"x\"]\nenv_files = [\"a,b\"]\n"), @r#"
    coracle.toml:2:9: compose.files: names nothing
     2 | files = []
       |         ^^
       = leave it out, or name at least one
    coracle.toml:3:1: compose.profile: unknown key
     3 | profile = ["x"]
       | ^^^^^^^
       = did you mean `profiles`?
    coracle.toml:4:13: compose.env_files: "a,b" is empty, has a comma, or begins or ends with a blank
     4 | env_files = ["a,b"]
       |             ^^^^^^^
    "#);
}
