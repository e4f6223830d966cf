//! `coracle ci`: the pipeline on the laptop, and what is kept of the server's runs.

use std::time::Duration;

use coracle_api::Phase;
use coracle_model::EngineKind;
use coracle_tests::engine::{can_tell, docker};
use coracle_tests::{App, Env, eventually};

/// What the runs of a folder on this machine have on Docker now.
async fn left_on_docker(env: &Env) -> Vec<String> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(env.state().join("ci")).into_iter().flatten() {
        let label = format!("label=dev.coracle.owner={}", entry.unwrap().file_name().to_str().unwrap());
        for (words, format) in [(&["ps", "-a"][..], "{{.Names}}"), (&["network", "ls"], "{{.Name}}")] {
            let words: Vec<&str> = words.iter().copied().chain(["--format", format, "--filter", &label]).collect();
            left.extend(docker(&words).await.unwrap().lines().map(str::to_owned));
        }
    }
    left
}

/// Nothing of a run is left that runs, and nothing that it worked in.
async fn leaves_nothing_running(env: &Env) {
    if env.engine() == EngineKind::Docker {
        assert_eq!(left_on_docker(env).await, Vec::<String>::new());
    }
    for entry in std::fs::read_dir(env.state().join("ci")).unwrap() {
        let folder = entry.unwrap().path();
        assert!(!folder.join("steps").exists() && !folder.join("tree").exists(), "{}", folder.display());
        let instances = std::fs::read_dir(folder.join("process/instances")).into_iter().flatten().count();
        assert_eq!(instances, 0);
    }
}

async fn run(shop: &App, env: &Env, words: &[&str]) -> coracle_tests::Ran {
    let engine = env.engine().to_string();
    let words: Vec<&str> = ["ci", "run", "--engine", &engine].iter().chain(words).copied().collect();
    shop.coracle(&words).await
}

/// Makes files in a new folder, one of them a program.
const MAKE: &str = r##"import os
import sys

os.makedirs("dist/deep")
open("dist/deep/page.html", "w").write("made of " + open("notes.txt").read())
open("dist/run.sh", "w").write("#!/bin/sh\n")
os.chmod("dist/run.sh", 0o755)
open("left-alone", "w").close()
if "hostile" in sys.argv:
    os.symlink("/etc/passwd", "dist/absolute")
    os.symlink("../../../../../../etc/passwd", "dist/upwards")
    os.symlink("/etc", "dist/folder")
    os.mkfifo("dist/pipe")
    open("dist/two\nlines", "w").close()
    os.chmod("dist/run.sh", 0o4755)
if "bomb" in sys.argv:
    os.truncate(os.open("dist/bomb", os.O_CREAT | os.O_WRONLY), 1 << 40)
"##;

/// Puts links that lead out of it into what it keeps, and says whether they are still there.
const LINKS: &str = r#"import os
import sys

outside = sys.argv[1]
for name, target in (("folder", outside), ("file", outside + "/precious")):
    link = "/kept/" + name
    print(name, "is kept" if os.path.islink(link) else "is new")
    if not os.path.islink(link):
        os.symlink(target, link)
"#;

/// Says what was handed over.
const USE: &str = r#"import os

print("found:", open("dist/deep/page.html").read().strip())
print("names:", sorted(os.listdir("dist")), os.path.exists("left-alone"), os.access("dist/run.sh", os.X_OK))
open("dist/mine", "w").close()
"#;

fn with_artifacts(shop: &App) {
    shop.tree.write("make.py", MAKE).write("use.py", USE).write("notes.txt", "one");
    shop.tree.manifest("pipeline.steps.make", "run = \"python make.py\"\nartifacts = [\"dist/**\"]");
    shop.tree.manifest("pipeline.steps.use", "run = \"python use.py\"\nneeds = [\"make\"]");
}

on_both_engines! {
    async fn the_pipeline_runs_on_the_laptop_and_leaves_nothing(env: Env) {
        let shop = env.app("flask");
        shop.tree.write(".env", "TOKEN=not-to-be-seen-1\n");
        shop.tree.manifest("pipeline.steps.lint", "run = [\"python\", \"-c\", \"print(1)\"]");
        shop.tree.manifest(
            "pipeline.steps.test",
            "run = [\"python\", \"-c\", \"import os, flask; print('flask', os.environ['TOKEN'], os.environ.get('CORACLE_COMMIT'))\"]\n\
             needs = [\"lint\"]\nsecrets = [\"TOKEN\"]",
        );
        shop.tree.manifest("pipeline.steps.broken", "run = [\"python\", \"-c\", \"import sys; print('this one'); sys.exit(3)\"]");
        shop.tree.manifest("pipeline.steps.after", "run = \"true\"\nneeds = [\"broken\"]");
        let green = run(&shop, &env, &["test"]).await;
        green.succeeds().says("test | flask *** None").does_not_say("not-to-be-seen").does_not_say("this one");
        leaves_nothing_running(&env).await;
        run(&shop, &env, &["--step", "test"]).await.succeeds().says("cached").does_not_say("flask ***");
        run(&shop, &env, &["--step", "test", "--no-cache"]).await.succeeds().says("flask ***");

        let red = run(&shop, &env, &["--keep-going"]).await;
        assert_eq!(red.code, Some(1), "{}", red.output());
        red.says("broken | this one").says("the step broken failed: exit code 3").says("not-run");
        let json = run(&shop, &env, &["broken", "--json"]).await;
        let mut ended = json.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let ended = ended.rfind(|line| line["event"] == "ended").unwrap();
        let broken = ended["steps"].as_array().unwrap().iter().find(|step| step["name"] == "broken").unwrap();
        assert_eq!((&ended["outcome"], &broken["exit_code"]), (&"failed".into(), &3.into()));
        run(&shop, &env, &["tset"]).await.is_refused().says("there is no step tset").says("lint, test, broken, after");
        shop.tree.remove(".env");
        run(&shop, &env, &["test"]).await.is_refused().says("not set: TOKEN");
        leaves_nothing_running(&env).await;
        // The server has heard nothing of it.
        assert!(env.client().apps().await.unwrap().is_empty());
        shop.coracle(&["ci", "clean"]).await.succeeds();
        assert_eq!(std::fs::read_dir(env.state().join("ci")).unwrap().count(), 0);
        env.leaves_nothing().await;
    }

    async fn ctrl_c_ends_every_step_on_the_laptop(env: Env) {
        let shop = env.app("flask");
        let services = if env.engine() == EngineKind::Docker { "\nservices = [\"redis:7\"]" } else { "" };
        let long = "run = [\"python\", \"-uc\", \"import time; print('at work'); time.sleep(600)\"]";
        shop.tree.manifest("pipeline.steps.long", &format!("{long}{services}"));
        shop.tree.manifest("pipeline.steps.other", long);
        let engine = env.engine().to_string();
        let (out, log) = (env.path("ci.log"), env.path("ci.err"));
        let mut command = shop.command(&["ci", "run", "--engine", &engine]);
        command.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&log).unwrap());
        let mut running = command.spawn().unwrap();
        let said = || std::fs::read_to_string(&out).unwrap_or_default();
        eventually("both steps run", Duration::from_secs(120), async || {
            if said().matches("| at work").count() == 2 { Ok(()) } else { Err(said()) }
        })
        .await;
        let pid = rustix::process::Pid::from_raw(running.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), running.wait()).await.unwrap().unwrap();
        assert_eq!(ended.code(), Some(130), "{}", said());
        assert!(said().contains("cancelled"), "{}", said());
        leaves_nothing_running(&env).await;
        shop.coracle(&["ci", "clean"]).await.succeeds();
        env.leaves_nothing().await;
    }

    async fn runs_are_kept_and_searched_and_called_off(env: Env) {
        let shop = env.app("flask");
        let token = env.path("token");
        std::fs::write(&token, "not-to-be-seen-1").unwrap();
        shop.coracle(&["secrets", "set", "TOKEN", "--file", token.to_str().unwrap()]).await.succeeds();
        shop.tree.manifest(
            "pipeline.steps.test",
            "run = [\"python\", \"-c\", \"import os; print('needle', os.environ['TOKEN'], '\\\\x1b]0;title\\\\x07'); print('hay')\"]\nsecrets = [\"TOKEN\"]",
        );
        shop.deploy("v1").await;
        shop.tree.manifest("pipeline.steps.flaky", "run = [\"python\", \"-c\", \"import sys; print('why it failed'); sys.exit(4)\"]\nretries = 1");
        shop.deploy_as_it_is().await.fails();
        let runs = shop.coracle(&["ci", "runs"]).await;
        runs.succeeds().says("passed").says("failed").says("flaky");
        let status = shop.coracle(&["ci", "status"]).await;
        status.succeeds().says("(build)").says("the step flaky failed: exit code 4");
        let json: serde_json::Value = serde_json::from_str(&shop.coracle(&["ci", "status", "d1", "--json"]).await.stdout).unwrap();
        let test = json["steps"].as_array().unwrap().iter().find(|step| step["name"] == "test").unwrap();
        assert_eq!((&test["state"], &test["exit_code"], &test["attempts"]), (&"passed".into(), &0.into(), &1.into()), "{json}");
        assert!(test["waited_ms"].as_u64().is_some(), "{json}");
        // What the failed run wrote is kept as well, each attempt of it.
        let failed = shop.coracle(&["ci", "logs", "--step", "flaky"]).await;
        assert_eq!(failed.succeeds().stdout.matches("why it failed").count(), 2, "{}", failed.output());
        let found = shop.coracle(&["ci", "logs", "d1", "--grep", "needle"]).await;
        found.succeeds().says("test | needle ***").does_not_say("not-to-be-seen").does_not_say("hay").does_not_say("\u{1b}");
        shop.coracle(&["ci", "logs", "d1", "--step", "build"]).await.succeeds().says("(build)").does_not_say("needle");
        shop.coracle(&["ci", "logs", "d9"]).await.fails().says("d9 has no run");

        shop.tree.manifest("pipeline.steps.long", "run = [\"python\", \"-uc\", \"import time; print('at work'); time.sleep(600)\"]");
        shop.tree.manifest("pipeline.steps.flaky", "when = { branch = \"no\", tag = \"no\" }");
        shop.tree.change("coracle.toml", "sys.exit(4)", "sys.exit(0)");
        let mut deploying = shop.begin_deploy();
        assert!(deploying.reaches(Phase::Pipeline).await);
        eventually("its log has what it writes", Duration::from_secs(60), async || {
            let log = shop.coracle(&["ci", "logs", "--step", "long"]).await;
            if log.stdout.contains("at work") { Ok(()) } else { Err(log.output()) }
        })
        .await;
        let following = tokio::spawn(coracle_tests::Ran::to_its_end(shop.command(&["ci", "logs", "-f", "--step", "long"])));
        shop.coracle(&["ci", "cancel"]).await.succeeds();
        deploying.end().await.fails();
        let followed = tokio::time::timeout(Duration::from_secs(60), following).await.unwrap().unwrap();
        followed.succeeds().says("at work");
        shop.coracle(&["ci", "status"]).await.succeeds().says("cancelled");
        shop.coracle(&["ci", "cancel"]).await.fails().says("has ended: cancelled");
        env.leaves_nothing().await;
        assert!(!env.state().join("mounts/shop").exists());
    }

    async fn links_in_caches_lead_nowhere(env: Env) {
        use std::os::unix::fs::MetadataExt;

        let outside = env.path("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("precious"), "ours").unwrap();
        let facts = || [&outside, &outside.join("precious")].map(|path| path.metadata().map(|it| (it.mode(), it.uid())).unwrap());
        let before = facts();
        let shop = env.app("flask");
        let (run, cached) = (format!("run = \"python links.py {}\"", outside.display()), "cache = [\"/kept\"]");
        shop.tree.write("links.py", LINKS).manifest("pipeline.steps.links", &format!("{run}\n{cached}\nalways = true"));
        shop.deploy("v1").await.succeeds();
        let second = shop.deploy("v2").await;
        second.succeeds();
        assert!(second.lines.iter().any(|line| line.contains("links: folder is kept")), "{second}");
        // Another cache would lie behind the link.
        shop.tree.change("coracle.toml", cached, "cache = [\"/kept\", \"/kept/folder/deep\"]").version("v3");
        let behind = shop.deploy_as_it_is().await;
        assert_eq!(behind.code, Some(2), "{behind}");
        behind.shows("/kept and /kept/folder/deep lie in each other");
        shop.coracle(&["-y", "destroy"]).await.succeeds();
        let left: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((left, std::fs::read_to_string(outside.join("precious")).unwrap()), (vec!["precious".into()], "ours".into()));
        assert_eq!(facts(), before);
        env.leaves_nothing().await;
    }

    async fn artifacts_are_handed_on_and_nothing_hostile_with_them(env: Env) {
        let shop = env.app("flask");
        with_artifacts(&shop);
        shop.tree.manifest("pipeline.steps.make", "when = { paths = [\"notes.txt\"] }");
        shop.tree.manifest("pipeline.steps.idle", "run = \"true\"\nwhen = { paths = [\"nothing-here\"] }");
        let first = shop.deploy_as_it_is().await;
        first.succeeds();
        let says = |deployed: &coracle_tests::Deployed, text: &str| {
            assert!(deployed.lines.iter().any(|line| line.contains(text)), "{text}: {deployed}");
        };
        says(&first, "use: found: made of one");
        says(&first, "use: names: ['deep', 'run.sh'] False True");
        says(&first, "idle: no file of the tree is one of when.paths (nothing-here)");
        // One that need not run hands over what it did; one that is handed something else runs.
        shop.tree.change("use.py", "found:", "again:");
        let second = shop.deploy_as_it_is().await;
        says(&second, "make: cached");
        says(&second, "use: again: made of one");
        shop.tree.manifest("pipeline.steps.use", "when = { paths = [\"use.py\"] }");
        shop.tree.write("notes.txt", "two");
        says(&shop.deploy_as_it_is().await, "use: again: made of two");

        shop.tree.change("coracle.toml", "python make.py", "python make.py hostile");
        let hostile = shop.deploy_as_it_is().await;
        hostile.succeeds();
        says(&hostile, "make: left out of its artifacts: dist/absolute (a link)");
        // Without what is hostile it is what it was before, so that those who are handed it need not run again.
        says(&hostile, "use: cached");
        let out = env.path("out");
        let out_text = out.to_str().unwrap();
        shop.coracle(&["ci", "artifacts", "--step", "make", "-o", out_text]).await.succeeds();
        assert_eq!(std::fs::read_to_string(out.join("dist/deep/page.html")).unwrap(), "made of two");
        let names = |place: &std::path::Path| {
            let mut names: Vec<String> =
                std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!((names(&out), names(&out.join("dist"))), (vec!["dist".into()], vec!["deep".into(), "run.sh".into()]));
        let mode = std::os::unix::fs::PermissionsExt::mode(&out.join("dist/run.sh").metadata().unwrap().permissions());
        assert_eq!(mode & 0o7000, 0);
        shop.coracle(&["ci", "artifacts", "--step", "make", "-o", out_text]).await.fails().says("is there already");
        // An earlier run still has what it made.
        let before = env.path("before");
        shop.coracle(&["ci", "artifacts", "d1", "-o", before.to_str().unwrap()]).await.succeeds();
        assert_eq!(std::fs::read_to_string(before.join("make/dist/deep/page.html")).unwrap(), "made of one");
        shop.coracle(&["ci", "logs", "--step", "tset"]).await.fails().says("has no step tset").says("its steps: ");
        shop.coracle(&["ci", "artifacts", "--step", "use"]).await.fails().says("handed nothing over; these did: make");

        // A container's files come as they are told, zeros and all, which takes its time.
        if env.engine() == EngineKind::Process {
            shop.tree.change("coracle.toml", "python make.py hostile", "python make.py bomb");
            let bomb = shop.deploy_as_it_is().await;
            bomb.fails().shows("the step make passed, and its artifacts cannot be kept: there is more than 256M");
            shop.settles().await;
        }
        env.leaves_nothing().await;
    }
}

/// Images of their own work in a copy of the tree, whoever they run as; what they keep in caches is theirs to write to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_images_hand_on_to_each_other_and_to_the_app() {
    if !can_tell(EngineKind::Docker, "artifacts of images") {
        return;
    }
    let env = Env::start(EngineKind::Docker).await;
    let shop = env.app("flask");
    with_artifacts(&shop);
    let cache = "import os; os.makedirs('/home/kept/a', exist_ok=True); os.makedirs('.cache/b', exist_ok=True); print(os.getuid(), 'wrote')";
    shop.tree.manifest("pipeline.steps.make", "image = \"python:3.11-slim\"\ncache = [\"/workspace/.cache\"]");
    shop.tree.manifest("pipeline.steps.elsewhere", "image = \"python:3.11-slim\"\nrun = \"python use.py\"\nneeds = [\"make\"]");
    shop.tree.manifest(
        "pipeline.steps.cached",
        &format!("run = [\"python\", \"-c\", \"{cache}\"]\ncache = [\"/home/kept\", \"/app/.cache\"]"),
    );
    let ran = run(&shop, &env, &[]).await;
    ran.succeeds().says("use       | found: made of one").says("elsewhere | found: made of one").says("wrote");
    leaves_nothing_running(&env).await;
    shop.coracle(&["ci", "clean"]).await.succeeds();
    env.leaves_nothing().await;
}
