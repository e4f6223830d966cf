//! What an instance sees of its environment, and what others see of it.

use std::collections::BTreeMap;

use coracle_model::CommandLine;

use super::server::{Server, argv};
use super::waiting::{eventually, processes_with, unique};
use super::{Bench, id, skipped};
use crate::error::EngineError;
use crate::runtime::{InstanceSpec, Stream};

/// What a system, a language or an image sets by itself. Nothing of it comes from the server.
const USUAL: [&str; 18] = [
    "GPG_KEY",
    "HOME",
    "HOSTNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "PORT",
    "PWD",
    "PYTHONUNBUFFERED",
    "PYTHON_SHA256",
    "PYTHON_VERSION",
    "SHELL",
    "TERM",
    "TMPDIR",
    "USER",
    "VIRTUAL_ENV",
];

/// What an instance that prints its environment has been given.
async fn environment(server: &Server, spec: &InstanceSpec) -> BTreeMap<String, String> {
    let name = spec.id.to_string();
    server.start(spec).await;
    let line = eventually("its environment", || async { server.written(&name, Stream::Stdout).await.into_iter().next() }).await;
    server.stop(&name).await;
    serde_json::from_str(&line).unwrap()
}

/// The given values and `PORT` are there; the server's own are not.
pub async fn an_instance_sees_what_it_was_given_and_nothing_of_the_server(bench: &Bench) {
    let server = bench.built().await;
    let spec = server.spec("shop.v1.web.1", &["env-and-stay"]).with_env("GREETING", "hello");
    let seen = environment(&server, &spec).await;
    assert_eq!(seen.get("GREETING").map(String::as_str), Some("hello"));
    let port: u16 = seen["PORT"].parse().unwrap();
    assert_ne!(port, 0);
    let own: Vec<_> = seen.keys().filter(|name| *name != "GREETING" && !USUAL.contains(&name.as_str())).collect();
    assert!(own.is_empty(), "{own:?} came from somewhere");
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "the server's own environment must hold something to leak");
    if bench.can().programs {
        assert!(!seen["PATH"].is_empty() && !seen["HOME"].is_empty());
    }
}

/// Without a port there is no `PORT` and no address.
pub async fn an_instance_that_does_not_listen_has_no_port(bench: &Bench) {
    let server = bench.built().await;
    let spec = server.spec("shop.v1.worker.1", &["env-and-stay"]);
    assert!(!environment(&server, &spec).await.contains_key("PORT"));
    assert_eq!(server.start(&spec).await.address(), None);
}

/// Blanks, quotes, line ends and dollars arrive as they are.
pub async fn values_reach_the_environment_unchanged(bench: &Bench) {
    let server = bench.built().await;
    let hostile = [
        ("EMPTY", ""),
        ("BLANKS", "  two  words "),
        ("QUOTES", r#"'single' "double" `back` \ "#),
        ("LINES", "-----BEGIN KEY-----\nabc=\n-----END KEY-----\n"),
        ("DOLLAR", "$HOME ${HOME} $(id) %s {}"),
        ("EQUALS", "a=b=c"),
        ("UNICODE", "gr\u{fc}n \u{1f980}"),
        ("_lower", "1"),
    ];
    let spec = server.spec("shop.v1.worker.1", &["env-and-stay"]);
    let spec = hostile.iter().fold(spec, |spec, (name, value)| spec.with_env(name, value));
    let seen = environment(&server, &spec).await;
    for (name, value) in hostile {
        assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}");
    }
}

/// `$NAME` and assignments in a command mean what they mean in a Procfile.
pub async fn variables_in_a_command_are_filled_in(bench: &Bench) {
    let server = bench.built().await;
    let mut spec = server.spec("shop.v1.worker.1", &[]).with_env("LINES_TO_PRINT", "2");
    let command: CommandLine = "OWN=set python3 program.py prints $LINES_TO_PRINT ${NOTHING:-1} 4".parse().unwrap();
    spec.command = Some(command);
    server.start(&spec).await;
    assert_eq!(server.exit_of("shop.v1.worker.1").await.code, Some(4));
    assert_eq!(server.written("shop.v1.worker.1", Stream::Stdout).await, ["out 0", "out 1"]);
    assert_eq!(server.written("shop.v1.worker.1", Stream::Stderr).await, ["err 0"]);
    spec.command = Some("OWN=set python3 program.py env-and-stay".parse().unwrap());
    assert_eq!(environment(&server, &spec).await.get("OWN").map(String::as_str), Some("set"));
}

/// No value is in a process list, a label or a name.
pub async fn no_value_is_readable_by_others(bench: &Bench) {
    if !bench.can().programs {
        return skipped("the engine runs no programs");
    }
    let server = bench.built().await;
    let (secret, marker) = (unique("secret"), unique("marker"));
    let spec = server.spec("shop.v1.worker.1", &["stubborn", &marker]).with_env("SECRET_KEY", &secret);
    server.start(&spec).await;
    server.until_written("shop.v1.worker.1", "staying").await;
    assert!(!processes_with(&marker).is_empty(), "the process list shows what can be seen");
    assert_eq!(processes_with(&secret), [0_u32; 0]);
    let readable = bench.fixture().readable_by_others(&id("shop.v1.worker.1")).await;
    assert!(!readable.contains(&secret), "{readable}");
    server.runtime().stop(&id("shop.v1.worker.1"), std::time::Duration::ZERO).await.unwrap();
}

/// What cannot be started does not tell what it would have been given.
pub async fn no_value_is_in_an_error(bench: &Bench) {
    let server = bench.built().await;
    let secret = unique("secret");
    let mut spec = server.spec("shop.v1.worker.1", &[]).with_env("SECRET_KEY", &secret);
    spec.command = Some(CommandLine::literal(vec!["no-such-program".to_owned()]).unwrap());
    let mut told = format!("{:?} {spec:?}", server.runtime().start(&spec).await);
    spec.command = Some(CommandLine::literal(argv(&["prints", "1", "1", "3"])).unwrap());
    spec.artifact = coracle_model::ArtifactId::new("sha256:00");
    let gone = server.runtime().start(&spec).await;
    assert!(matches!(gone, Err(EngineError::NoSuchArtifact(_))), "{gone:?}");
    told += &format!("{gone:?}");
    assert!(!told.contains(&secret), "{told}");
    server.stop("shop.v1.worker.1").await;
}
