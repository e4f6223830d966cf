//! Building: what is installed once, what is refused, what failures leave behind.

use std::time::Duration;

use coracle_engine::{BuildError, PortRequest};
use coracle_model::plan::{NodeApp, PythonApp, PythonDependencies, Recipe};
use coracle_model::{ByteSize, Limits, ProcessName, Span};
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, collector, is_root, skipped, until};

fn requirements() -> Recipe {
    Recipe::Python(PythonApp::new(PythonDependencies::Requirements { files: vec!["requirements.txt".to_owned()] }))
}

/// A package that lies in the tree, so that no index is asked.
const LOCAL: [(&str, &str); 4] = [
    ("requirements.txt", "./greeter\n"),
    ("greeter/pyproject.toml", "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n"),
    ("greeter/backend.py", BACKEND),
    ("app.py", "import greeter; print(greeter.WORD)"),
];

/// A build backend in a few lines: writes a wheel by hand.
const BACKEND: &str = r#"
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "greeter-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("greeter.py", "WORD = 'installed'\n")
        wheel.writestr("greeter-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
        wheel.writestr("greeter-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("greeter-1.0.dist-info/RECORD", "greeter.py,,\ngreeter-1.0.dist-info/METADATA,,\ngreeter-1.0.dist-info/WHEEL,,\ngreeter-1.0.dist-info/RECORD,,\n")
    return name
"#;

#[tokio::test]
async fn dependencies_are_installed_once_and_a_change_of_code_copies_files_only() {
    let bench = Bench::new();
    let source = bench.source(&LOCAL);
    let first = bench.build(&source, requirements()).await;
    let (exit, text) = bench.run_spec(&bench.spec("v1.web.1", &first.id, &["python", "app.py"])).await;
    assert!(exit.unwrap().success(), "{text}");
    assert_eq!(text, "installed");
    std::fs::write(source.join("app.py"), "import greeter; print(greeter.WORD, 'again')").unwrap();
    let begin = std::time::Instant::now();
    let (second, lines) = bench.try_build(&bench.request(&source, requirements())).await;
    let took = begin.elapsed();
    assert!(lines.iter().any(|line| line == "dependencies have not changed"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with('$')), "{lines:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    let second = second.unwrap();
    assert_ne!(first.id, second.id);
    let (_, text) = bench.run_spec(&bench.spec("v2.web.1", &second.id, &["python", "app.py"])).await;
    assert_eq!(text, "installed again");
    let (_, text) = bench.run_spec(&bench.spec("v1.web.1", &first.id, &["python", "app.py"])).await;
    assert_eq!(text, "installed", "the first release changed");
    // Pruning keeps what is kept, with its dependencies.
    bench.engine.builder.prune(&bench.app, std::slice::from_ref(&second.id)).await.unwrap();
    assert!(!bench.engine.builder.has(&first.id).await.unwrap());
    assert!(bench.engine.builder.has(&second.id).await.unwrap());
    bench.engine.builder.prune(&bench.app, &[]).await.unwrap();
    assert!(!bench.engine.builder.has(&second.id).await.unwrap());
    assert!(!bench.home().join("deps/shop").exists() && !bench.home().join("slugs/shop").exists());
}

#[tokio::test]
async fn a_failing_step_is_named_and_leaves_nothing() {
    let bench = Bench::new();
    let source = bench.source(&[("requirements.txt", "./no-such-folder\n")]);
    let (outcome, lines) = bench.try_build(&bench.request(&source, requirements())).await;
    let Err(BuildError::StepFailed { step, code }) = outcome else { panic!("{outcome:?}") };
    assert!(step.contains("install") && code.is_some_and(|code| code != 0), "{step} {code:?}");
    assert!(lines.iter().any(|line| line.contains("no-such-folder")), "{lines:?}");
    for place in ["slugs/shop", "deps/shop"] {
        let left = std::fs::read_dir(bench.home().join(place)).map(Iterator::count).unwrap_or(0);
        assert_eq!(left, 0, "{place}");
    }
}

#[tokio::test]
async fn uv_installs_where_it_is_present() {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|place| place.join("uv").is_file());
    if !found {
        skipped("needs uv");
        return;
    }
    let bench = Bench::new();
    let artifact = bench.build(&bench.source(&LOCAL), requirements()).await;
    let (exit, text) = bench.run_spec(&bench.spec("v1.web.1", &artifact.id, &["python", "app.py"])).await;
    assert!(exit.unwrap().success(), "{text}");
    assert_eq!(text, "installed");
    let lock = "version = 1\nrequires-python = \">=3.9\"\n[[package]]\nname = \"shop\"\nversion = \"0.1.0\"\nsource = { virtual = \".\" }\n";
    let project = "[project]\nname = \"shop\"\nversion = \"0.1.0\"\nrequires-python = \">=3.9\"\ndependencies = []\n";
    let source = bench.source(&[("uv.lock", lock), ("pyproject.toml", project), ("app.py", "import sys; print(sys.prefix)")]);
    let artifact = bench.build(&source, Recipe::Python(PythonApp::new(PythonDependencies::UvLock))).await;
    let (exit, text) = bench.run_spec(&bench.spec("v1.web.1", &artifact.id, &["python", "app.py"])).await;
    assert!(exit.unwrap().success(), "{text}");
    assert!(text.contains("/deps/shop/") && text.ends_with("/venv"), "{text}");
}

/// A package whose build does `what`.
fn greedy(what: &str) -> Vec<(&'static str, String)> {
    let backend = format!("def build_wheel(*a, **k):\n    {what}\n");
    LOCAL
        .iter()
        .map(|(name, text)| (*name, if name.ends_with("backend.py") { backend.clone() } else { (*text).to_owned() }))
        .collect()
}

#[tokio::test]
async fn a_build_that_wants_too_much_memory_is_killed_with_that_reason() {
    if !is_root() {
        skipped("needs root");
        return;
    }
    let bench = Bench::new();
    let files = greedy("x = []\n    while True: x.append(bytearray(10_000_000))");
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut request = bench.request(&bench.source(&files), requirements());
    request.limits.memory = ByteSize::mib(128);
    let (outcome, _) = bench.try_build(&request).await;
    assert!(matches!(outcome, Err(BuildError::OutOfMemory { limit }) if limit == ByteSize::mib(128)), "{outcome:?}");
}

#[tokio::test]
async fn a_build_ends_at_its_deadline_and_when_called_off_with_all_it_started() {
    let bench = Bench::new();
    let marker = format!("marker-{}-{}", std::process::id(), bench.dir.path().display());
    let sleeping =
        format!("import subprocess; subprocess.run(['/usr/bin/python3', '-c', 'import time; time.sleep(600)', '{marker}'])");
    let files = greedy(&sleeping);
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let runs = || {
        std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|process| {
            std::fs::read_to_string(process.path().join("cmdline"))
                .is_ok_and(|argv| argv.contains(&marker) && argv.contains("sleep"))
        })
    };
    let mut request = bench.request(&bench.source(&files), requirements());
    let (cancel, (sink, _)) = (CancellationToken::new(), collector());
    let call_off = async {
        until("the build is in the middle of it", runs).await;
        cancel.cancel();
    };
    let (outcome, ()) = futures::future::join(bench.engine.builder.build(&request, &sink, &cancel), call_off).await;
    assert!(matches!(outcome, Err(BuildError::Cancelled)), "{outcome:?}");
    assert!(!runs());
    request.limits.deadline = Span::seconds(1);
    let (outcome, _) = bench.try_build(&request).await;
    assert!(matches!(outcome, Err(BuildError::TimedOut { .. })), "{outcome:?}");
    assert!(!runs());
}

#[tokio::test]
async fn a_static_site_is_served_by_this_program() {
    let bench = Bench::new();
    let source =
        bench.source(&[("public/index.html", "<h1>hello</h1>"), ("public/404.html", "nothing here"), ("secret.txt", "x")]);
    let artifact = bench.build(&source, Recipe::Static { root: "public".to_owned() }).await;
    let mut spec = bench.spec("v1.web.1", &artifact.id, &["x"]);
    spec.command = artifact.processes[&ProcessName::web()].clone();
    spec.port = PortRequest::Listen(8080);
    spec.limits = Limits { memory: Some(ByteSize::mib(64)), ..Limits::default() };
    let address = bench.start(&spec).await.address().unwrap();
    let get = |path: &'static str| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    };
    let deadline = tokio::time::Instant::now() + crate::bench::SOON;
    let first = loop {
        if let Some(answer) = get("/").await {
            break answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{:?}", bench.log(&spec.id).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(first.starts_with("HTTP/1.1 200") && first.ends_with("<h1>hello</h1>"), "{first}");
    assert!(first.to_lowercase().contains("\r\netag: ") && first.to_lowercase().contains("\r\nlast-modified: "), "{first}");
    let missing = get("/nope").await.unwrap();
    assert!(missing.starts_with("HTTP/1.1 404") && missing.ends_with("nothing here"), "{missing}");
    for out in ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//etc/passwd"] {
        let answer = get(out).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{out}: {answer}");
    }
    let begin = std::time::Instant::now();
    bench.stop(&spec.id).await;
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn what_this_engine_cannot_build_names_the_one_that_can() {
    let bench = Bench::new();
    let source = bench.source(&[("Dockerfile", "FROM scratch")]);
    let recipe = Recipe::Dockerfile { path: "Dockerfile".to_owned(), target: None, args: [].into(), extras: Box::default() };
    let (outcome, _) = bench.try_build(&bench.request(&source, recipe)).await;
    let Err(BuildError::CannotBuild(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("engine = \"docker\""), "{why}");
}

#[tokio::test]
async fn hostile_trees_are_refused() {
    let bench = Bench::new();
    let source = bench.source(&[("app.py", "")]);
    std::os::unix::fs::symlink("/etc/shadow", source.join("link")).unwrap();
    let (outcome, _) = bench.try_build(&bench.request(&source, Recipe::Plain)).await;
    assert!(matches!(outcome, Err(BuildError::CannotBuild(_))), "{outcome:?}");
    std::fs::remove_file(source.join("link")).unwrap();
    let (outcome, _) = bench.try_build(&bench.request(&source, Recipe::Static { root: "../..".to_owned() })).await;
    assert!(matches!(outcome, Err(BuildError::CannotBuild(_))), "{outcome:?}");
}

#[tokio::test]
async fn node_packages_are_installed_beside_the_slug_and_the_build_script_runs() {
    if !std::path::Path::new("/usr/bin/npm").exists() {
        skipped("needs npm");
        return;
    }
    let bench = Bench::new();
    let manifest = r#"{"name": "shop", "version": "1.0.0", "scripts": {"build": "node build.js"}, "dependencies": {}}"#;
    let build = "require('fs').writeFileSync('built.txt', 'built by ' + process.env.npm_lifecycle_event)";
    let source = bench.source(&[
        ("package.json", manifest),
        ("build.js", build),
        ("app.js", "console.log(require('fs').readFileSync('built.txt', 'utf8'))"),
    ]);
    let recipe = || Recipe::Node(NodeApp::new(None, true));
    let artifact = bench.build(&source, recipe()).await;
    let (exit, text) = bench.run_spec(&bench.spec("v1.web.1", &artifact.id, &["node", "app.js"])).await;
    assert!(exit.unwrap().success(), "{text}");
    assert_eq!(text, "built by build");
    let (_, lines) = bench.try_build(&bench.request(&source, recipe())).await;
    assert!(lines.iter().any(|line| line == "dependencies have not changed"), "{lines:?}");
}

/// A mount that goes with the test.
struct SmallDisk<'a>(&'a std::path::Path);

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_as_such() {
    if !is_root() {
        skipped("needs root");
        return;
    }
    let bench = Bench::new();
    let slugs = bench.home().join("slugs");
    rustix::mount::mount("tmpfs", &slugs, "tmpfs", rustix::mount::MountFlags::empty(), c"size=1m").unwrap();
    let _disk = SmallDisk(&slugs);
    let source = bench.source(&[("large", &"x".repeat(3 << 20))]);
    let (outcome, _) = bench.try_build(&bench.request(&source, Recipe::Plain)).await;
    assert!(matches!(outcome, Err(BuildError::Engine(coracle_engine::EngineError::DiskFull { .. }))), "{outcome:?}");
    let source = bench.source(&[("small", "x")]);
    bench.build(&source, Recipe::Plain).await;
}
