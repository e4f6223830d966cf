//! Images.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coracle_engine::{BuildError, EngineError, OutputSink, Stream};
use coracle_model::plan::{PythonApp, PythonDependencies, Recipe};
use coracle_model::{ByteSize, ProcessName, Span};
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, Told, dockerfile, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_build_tells_its_steps_and_what_the_image_is() {
    let Some(rig) = Rig::new().await else { return };
    rig.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nCOPY owner /owner\nRUN echo to-out; echo to-err >&2\nEXPOSE 9000 8080\nHEALTHCHECK CMD true\nCMD [\"sleep\", \"60\"]\n",
    );
    let told = Told::default();
    let artifact = rig.try_build(1, &told).await.unwrap();
    assert!(artifact.id.as_str().starts_with("sha256:"), "{}", artifact.id);
    assert_eq!((artifact.port, artifact.has_healthcheck), (Some(8080), true));
    assert_eq!(artifact.processes, BTreeMap::from([(ProcessName::web(), None)]));
    let lines = told.lines();
    let at =
        |text: &str| lines.iter().position(|line| line.text.contains(text)).unwrap_or_else(|| panic!("{text}: {}", told.text()));
    assert!(at("RUN echo") < lines.iter().position(|line| line.text == "to-err").unwrap());
    assert_eq!(lines.iter().find(|line| line.text == "to-err").unwrap().stream, Stream::Stderr);
    assert_eq!(lines.iter().find(|line| line.text == "to-out").unwrap().stream, Stream::Stdout);
    assert!(rig.engine.builder.has(&artifact.id).await.unwrap());
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_step_is_named_with_its_code() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("Dockerfile", "FROM debian:bookworm-slim\nRUN true\nRUN echo the cause && exit 3\n");
    let told = Told::default();
    match rig.try_build(1, &told).await {
        Err(BuildError::StepFailed { step, code }) => {
            assert_eq!((step.as_str(), code), ("RUN echo the cause && exit 3", Some(3)));
        }
        other => panic!("{other:?}"),
    }
    assert!(told.text().contains("the cause"), "{}", told.text());
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkit_is_used_where_the_dockerfile_needs_it() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("a.txt", "content").file(
        "Dockerfile",
        "FROM debian:bookworm-slim AS base\nCOPY owner /owner\nRUN --mount=type=cache,target=/cache touch /cache/x && echo mounted\nCOPY a.txt /a.txt\nCMD [\"cat\", \"/a.txt\"]\n",
    );
    let told = Told::default();
    let artifact = rig.try_build(1, &told).await.unwrap_or_else(|error| panic!("{error}\n{}", told.text()));
    assert!(told.lines().iter().any(|line| line.text == "mounted"), "{}", told.text());
    assert!(artifact.processes.contains_key(&ProcessName::web()));
    rig.file("Dockerfile", "FROM debian:bookworm-slim\nRUN --mount=type=cache,target=/cache echo the cause && exit 4\n");
    match rig.try_build(2, &told).await {
        Err(BuildError::StepFailed { step, code }) => {
            assert_eq!(code, Some(4));
            assert!(step.starts_with("RUN --mount"), "{step}");
        }
        other => panic!("{other:?}"),
    }
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_build_is_killed_and_that_is_the_reason_given() {
    let Some(rig) = Rig::new().await else { return };
    // tail keeps what it reads until a line ends, and this line does not.
    rig.file("Dockerfile", "FROM debian:bookworm-slim\nRUN tail /dev/zero\n");
    let mut request = rig.request(dockerfile(), 1);
    request.limits.memory = ByteSize::mib(64);
    let began = Instant::now();
    let result = rig.engine.builder.build(&request, &OutputSink::discard(), &CancellationToken::new()).await;
    assert!(matches!(result, Err(BuildError::OutOfMemory { limit }) if limit == ByteSize::mib(64)), "{result:?}");
    assert!(began.elapsed() < Duration::from_secs(20));
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greedy_step_that_needs_buildkit_is_killed_too() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("Dockerfile", "FROM debian:bookworm-slim\nRUN --mount=type=tmpfs,target=/t \\\n    sleep 0.5 && tail /dev/zero\n");
    let mut request = rig.request(dockerfile(), 1);
    request.limits.memory = ByteSize::mib(64);
    let told = Told::default();
    let result = rig.engine.builder.build(&request, &told.sink(), &CancellationToken::new()).await;
    if told.text().contains("not limited") {
        eprintln!("SKIPPED, NOT TESTED: {}", told.text());
    } else {
        assert!(matches!(result, Err(BuildError::OutOfMemory { .. })), "{result:?}\n{}", told.text());
    }
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_stops_and_leaves_nothing() {
    let Some(rig) = Rig::new().await else { return };
    let mark = format!("mark-{}", rig.owner);
    rig.file("Dockerfile", &format!("FROM debian:bookworm-slim\nRUN echo started; exec -a {mark} sleep 300 || sleep 300\n"));
    let (told, cancel) = (Told::default(), CancellationToken::new());
    let request = rig.request(dockerfile(), 1);
    let before = rig.seen_by_docker(&["ps", "-q"]).len();
    let sink = told.sink();
    let build = rig.engine.builder.build(&request, &sink, &cancel);
    let stop = async {
        eventually("the build runs", async || told.text().contains("started")).await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(build, stop);
    assert!(matches!(result, Err(BuildError::Cancelled)), "{result:?}");
    // Other tests come and go; ours is known by what it runs.
    let running = rig.seen_by_docker(&["ps", "--no-trunc", "--format", "{{.Command}}"]);
    assert!(!running.iter().any(|command| command.contains(&mark)), "{running:?} (before: {before})");
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_ends_at_its_deadline() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("Dockerfile", "FROM debian:bookworm-slim\nRUN sleep 300\n");
    let mut request = rig.request(dockerfile(), 1);
    request.limits.deadline = Span::millis(1500);
    let result = rig.engine.builder.build(&request, &OutputSink::discard(), &CancellationToken::new()).await;
    assert!(matches!(result, Err(BuildError::TimedOut { limit }) if limit == Span::millis(1500)), "{result:?}");
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_files_stay_at_home() {
    let Some(rig) = Rig::new().await else { return };
    rig.file(".dockerignore", "*.log\n!keep.log\nnode_modules\n")
        .file("a.log", "x")
        .file("keep.log", "x")
        .file("node_modules/x", "x")
        .file("src/main.py", "x")
        .file("Dockerfile", "FROM debian:bookworm-slim\nCOPY . /app\nRUN find /app -type f\n");
    let told = Told::default();
    rig.try_build(1, &told).await.unwrap();
    let lines: Vec<String> = told.lines().into_iter().map(|line| line.text).collect();
    for (path, there) in
        [("/app/a.log", false), ("/app/keep.log", true), ("/app/node_modules/x", false), ("/app/src/main.py", true)]
    {
        assert_eq!(lines.iter().any(|line| line == path), there, "{path}: {lines:?}");
    }
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_the_wanted_stage_reach_the_build() {
    let Some(rig) = Rig::new().await else { return };
    rig.file(
        "docker/Dockerfile.web",
        "FROM debian:bookworm-slim AS wanted\nCOPY owner /owner\nARG COLOUR=none\nRUN echo \"colour is $COLOUR\"\nFROM wanted AS unwanted\nRUN exit 1\n",
    );
    let recipe = Recipe::Dockerfile {
        path: "docker/Dockerfile.web".into(),
        target: Some("wanted".into()),
        args: BTreeMap::from([("COLOUR".into(), "deep & \"blue\"".into())]),
        extras: Box::default(),
    };
    let told = Told::default();
    let request = rig.request(recipe, 1);
    rig.engine.builder.build(&request, &told.sink(), &CancellationToken::new()).await.unwrap();
    assert!(told.lines().iter().any(|line| line.text == "colour is deep & \"blue\""), "{}", told.text());
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_a_command_has_no_web_process() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("a", "a").file("Dockerfile", "FROM scratch\nCOPY a /a\n");
    let artifact = rig.build(1).await;
    assert_eq!((artifact.processes.len(), artifact.port, artifact.has_healthcheck), (0, None, false));
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_built_is_refused_with_its_name() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("readme", "x").file("Broken", "FROM debian:bookworm-slim\nFLY away\n");
    let at = |path: &str| Recipe::Dockerfile { path: path.into(), target: None, args: BTreeMap::new(), extras: Box::default() };
    let missing =
        Recipe::Image { reference: "localhost:1/no/such:image".into(), pull: coracle_model::stack::PullPolicy::Missing };
    for (recipe, named) in [
        (at("Dockerfile"), "Dockerfile"),
        (at("../Dockerfile"), "../Dockerfile"),
        (at("Broken"), "FLY"),
        (missing, "no/such:image"),
    ] {
        let request = rig.request(recipe, 1);
        match rig.engine.builder.build(&request, &OutputSink::discard(), &CancellationToken::new()).await {
            Err(BuildError::CannotBuild(cause)) => assert!(cause.contains(named), "{cause}"),
            Err(BuildError::Registry { what, .. }) => assert!(what.contains(named), "{what}"),
            other => panic!("{named}: {other:?}"),
        }
    }
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_removes_old_images_and_layers_and_nothing_else() {
    let Some(rig) = Rig::new().await else { return };
    let mut artifacts = Vec::new();
    for release in 1..=4 {
        rig.file("Dockerfile", &format!("FROM debian:bookworm-slim\nRUN echo {} {release} > /a\nRUN date +%N > /b\n", rig.owner));
        artifacts.push(rig.build(release).await.id);
    }
    let foreign = format!("foreign-{}:1", rig.owner);
    rig.seen_by_docker(&["tag", artifacts[0].as_str(), &foreign]);
    let keep = [artifacts[3].clone(), artifacts[2].clone()];
    rig.engine.builder.prune(&rig.app, &keep).await.unwrap();
    for (artifact, there) in artifacts.iter().zip([false, false, true, true]) {
        assert_eq!(rig.engine.builder.has(artifact).await.unwrap(), there, "{artifact}");
    }
    let all = rig.seen_by_docker(&["images", "-aq", "--no-trunc"]);
    assert!(all.contains(&artifacts[0].to_string()), "a foreign name was removed");
    assert!(!all.contains(&artifacts[1].to_string()), "an old image stayed");
    // The next build still finds its layers.
    let layers = |image: &str| rig.seen_by_docker(&["inspect", "--format", "{{.RootFS.Layers}}", image]);
    let again = rig.build(5).await;
    assert_eq!(layers(again.id.as_str()), layers(artifacts[3].as_str()));
    // Once the app keeps nothing, nothing of its builds stays, layers without a name included.
    rig.seen_by_docker(&["rmi", &foreign]);
    rig.engine.builder.prune(&rig.app, &[]).await.unwrap();
    let history = rig.seen_by_docker(&["images", "-aq"]);
    for layer in history {
        let made_by = rig.docker.image_history(&layer).await.unwrap_or_default();
        assert!(!made_by.iter().any(|step| step.created_by.contains(rig.owner.as_str())), "{layer} stayed");
    }
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_there_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let options = coracle_engine_docker::DockerOptions {
        owner: "deadbeef".parse().unwrap(),
        socket: Some(format!("unix://{}/none.sock", dir.path().display())),
        state_dir: dir.path().into(),
    };
    let result = coracle_engine_docker::DockerEngine::connect(options).await;
    assert!(matches!(result, Err(EngineError::Unavailable { .. })), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_without_a_dockerfile_gets_one() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("app.py", "print('hello from the tree')\n").file("requirements.txt", "");
    let dependencies = PythonDependencies::Requirements { files: vec!["requirements.txt".into()] };
    let mut request = rig.request(Recipe::Python(PythonApp::new(dependencies)), 1);
    let command = coracle_model::CommandLine::literal(vec!["python3".into(), "app.py".into()]).unwrap();
    request.plan.processes.insert("once".parse().unwrap(), command.clone());
    let told = Told::default();
    let built = rig.engine.builder.build(&request, &told.sink(), &CancellationToken::new()).await;
    let artifact = built.unwrap_or_else(|error| panic!("{error}\n{}", told.text()));
    let mut spec = rig.spec("shop.v1.once.1", &artifact.id, &["x"]);
    spec.command = Some(command);
    let told = Told::default();
    let run = rig.engine.runtime.run(&spec, &told.sink(), Duration::from_secs(30), &CancellationToken::new()).await;
    assert!(run.unwrap().success());
    assert_eq!(told.text(), "hello from the tree\n");
    rig.clean().await;
}
