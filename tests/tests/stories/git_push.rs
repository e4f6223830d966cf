//! `git push`, with real git: the commit is live or the push is refused, and the branch says which.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use coracle_api::Outcome;
use coracle_model::EngineKind;
use coracle_tests::{App, Breakage, Env, Ran, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};

/// An app whose tree is a repository with a remote.
async fn repository(env: &Env, example: &str) -> App {
    let app = env.app(example);
    app.becomes_a_repository(env).await;
    app
}

async fn a_change_goes_live_and_a_broken_one_does_not(engine: EngineKind) {
    let env = Env::start_for_pushes(engine).await;
    let shop = env.app("flask");
    shop.tree.version("v1").manifest("deploy", "timeout = \"6s\"");
    shop.becomes_a_repository(&env).await;

    let first = shop.push(&env, &["main"]).await;
    first.succeeds().says("remote: -----> building").says("remote: ✓ v1 of shop is live at http://shop.localhost");
    shop.get("/").await.says("from v1");
    let v1 = shop.head(&env).await;
    assert_eq!(shop.remote_ref(&env, "refs/heads/main").await, Some(v1));

    let load = shop.load(50).start();
    shop.tree.version("v2");
    shop.commits(&env, "one line; $(touch pwned) `touch pwned`\u{1b}[2J").await;
    shop.push(&env, &["main"]).await.succeeds();
    shop.get("/").await.says("from v2");
    let v2 = shop.head(&env).await;

    let sound = shop.tree.read("requirements.txt");
    shop.tree.version("v3").breaks(Breakage::DoesNotBuild);
    shop.commits(&env, "broken").await;
    let refused = shop.push(&env, &["main"]).await;
    refused.fails().says("! [remote rejected] main -> main (build failed").says(Breakage::DoesNotBuild.evidence());
    shop.get("/").await.says("from v2");
    assert_eq!(shop.remote_ref(&env, "refs/heads/main").await, Some(v2));

    shop.tree.write("requirements.txt", sound).version("v4");
    shop.commits(&env, "mended").await;
    shop.push(&env, &["main"]).await.succeeds();
    load.stop().await.lost_nothing();
    shop.get("/").await.says("from v4");
    let releases = shop.releases().await;
    let commit = shop.head(&env).await;
    assert_eq!(releases.last().unwrap().commit.as_deref(), Some(commit.as_str()), "{releases:?}");

    // Whoever may deploy may clone, and gets what is live.
    let clone = env.path("clone");
    let url = env.git_url("shop", &env.token()).await;
    env.git(&env.path("home"), &["clone", "-q", &url, clone.to_str().unwrap()]).await.succeeds();
    assert_eq!(env.git(&clone, &["rev-parse", "HEAD"]).await.stdout.trim(), commit);
    shop.settles().await;
    env.leaves_nothing().await;
    // With the app went its repository.
    assert!(!env.state().join("git/repositories/shop.git").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_goes_live_and_a_broken_one_does_not_on_processes() {
    a_change_goes_live_and_a_broken_one_does_not(EngineKind::Process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_goes_live_and_a_broken_one_does_not_on_docker() {
    if coracle_tests::engine::can_tell(EngineKind::Docker, "git push on docker") {
        a_change_goes_live_and_a_broken_one_does_not(EngineKind::Docker).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_branch_is_deployed_and_the_others_are_kept() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = repository(&env, "static").await;
    light.git(&env, &["branch", "feature"]).await.succeeds();
    light.git(&env, &["tag", "v1"]).await.succeeds();
    let kept = light.push(&env, &["feature", "v1"]).await;
    kept.succeeds().says("feature is kept and not deployed: main is what is deployed");
    kept.says("no branch was pushed to be deployed yet; to deploy it, push it as main: git push REMOTE feature:main");
    assert_eq!(light.remote_ref(&env, "refs/heads/feature").await, Some(light.head(&env).await));
    assert!(light.remote_ref(&env, "refs/tags/v1").await.is_some());
    assert!(env.client().apps().await.unwrap().is_empty());

    // A remote that leads elsewhere stays as it is; one of ours may be made anew, and that is told.
    light.git(&env, &["remote", "add", "origin", "https://github.com/ana/lighthouse.git"]).await.succeeds();
    light.coracle(&["git", "remote", "origin"]).await.fails().says("origin is https://github.com/ana/lighthouse.git already");
    light.git(&env, &["remote", "add", "old", "http://127.0.0.1:1/git/lighthouse.git"]).await.succeeds();
    light.coracle(&["git", "remote", "old"]).await.fails().says("old is http://127.0.0.1:1/git/lighthouse.git already");
    light.git(&env, &["config", "credential.http://127.0.0.1:1.helper", "!coracle git credential"]).await.succeeds();
    light.coracle(&["git", "remote", "old"]).await.succeeds().says("instead of http://127.0.0.1:1/git/lighthouse.git");

    // Where there is no main, master is as good; and from then on it is master.
    light.push(&env, &["main:master"]).await.succeeds().says("lighthouse is live");
    let kept = light.push(&env, &["main"]).await;
    kept.succeeds().says("main is kept and not deployed: master is what is deployed").does_not_say("git push REMOTE");
    assert_eq!(light.active().await, Some(1));
    // What is live cannot be taken back because another branch is refused.
    let atomic = light.push(&env, &["--atomic", "main:master", "main:another"]).await;
    atomic.fails().says("does not support --atomic");
    assert_eq!(light.active().await, Some(1));

    light.push(&env, &[":master"]).await.fails().says("[remote rejected] master (it is what is deployed");
    light.push(&env, &[":feature"]).await.succeeds();
    assert_eq!(light.remote_ref(&env, "refs/heads/feature").await, None);

    // History may be rewritten, if whoever pushes insists.
    light.tree.write("public/index.html", "<p>rewritten</p>");
    light.git(&env, &["add", "-A"]).await.succeeds();
    light.git(&env, &["commit", "-q", "--amend", "-m", "rewritten"]).await.succeeds();
    light.push(&env, &["main:master"]).await.fails().says("non-fast-forward");
    light.push(&env, &["main:refs/heads/other"]).await.succeeds();
    light.push(&env, &["--force", "main:master", ":other"]).await.succeeds();
    light.get("/").await.says("rewritten");
    // What was intended is settled with git's end, whatever else the push did.
    let intent = env.state().join("git/repositories/lighthouse.git/coracle-intent.json");
    let settled = async || if intent.exists() { Err("it is still intended".to_owned()) } else { Ok(()) };
    eventually("the push is settled", Duration::from_secs(10), settled).await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_token_neither_pushes_nor_reads() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = repository(&env, "static").await;
    light.push(&env, &["main"]).await.succeeds();
    for wrong in ["x", &env.token()[1..], "%00", ""] {
        let url = env.git_url("lighthouse", wrong).await;
        for words in [&["ls-remote", url.as_str()][..], &["push", url.as_str(), "main"]] {
            let refused = light.git(&env, words).await;
            assert_eq!(refused.code, Some(128), "{refused}");
            refused.says("Authentication failed").does_not_say("refs/heads");
        }
    }
    // A person's token is as good as the role that the person has.
    for (name, in_app, may) in [("ana", "lighthouse", true), ("ben", "shop", false)] {
        env.coracle(&["people", "add", name, "--role", "deployer", "-a", in_app]).await.succeeds();
        let token =
            env.coracle(&["people", "token", "create", name, "--label", "test"]).await.succeeds().stdout.trim().to_owned();
        let url = env.git_url("lighthouse", &token).await;
        light.commits(&env, name).await;
        let pushed = light.git(&env, &["push", &url, "main"]).await;
        let read = light.git(&env, &["ls-remote", &url]).await;
        assert_eq!((pushed.code == Some(0), read.code == Some(0)), (may, may), "{pushed}{read}");
        if !may {
            pushed.says("ben has no role in lighthouse");
            read.does_not_say("refs/heads");
        }
        env.coracle(&["people", "token", "revoke", name, if may { "c1" } else { "c2" }]).await.succeeds();
        light.git(&env, &["ls-remote", &url]).await.says("Authentication failed");
    }
    // The token is nowhere in the repository's configuration.
    assert!(!light.tree.read(".git/config").contains(&env.token()));
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_pushed_runs_anything() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = env.app("static");
    let pwned = env.path("pwned");
    let touch = format!("#!/bin/sh\ntouch {}\ncat\n", pwned.display());
    // Hooks, configuration and filters, wherever somebody might look for them in what was pushed.
    for place in ["hooks", ".githooks", "public/hooks"] {
        std::fs::create_dir_all(light.tree.path().join(place)).unwrap();
        for hook in ["pre-receive", "proc-receive", "update", "post-receive", "post-update", "reference-transaction"] {
            let path = format!("{place}/{hook}");
            light.tree.write(&path, &touch);
            std::fs::set_permissions(light.tree.path().join(path), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let filter = "* filter=pwn diff=pwn merge=pwn export-subst\n";
    let config =
        format!("[core]\nhooksPath = hooks\nfsmonitor = {0}\n[filter \"pwn\"]\nsmudge = {0}\nrequired\n", "hooks/update");
    light.tree.write(".gitattributes", filter).write("config", &config).write(".gitconfig", &config);
    light.becomes_a_repository(&env).await;
    light.git(&env, &["config", "core.hooksPath", "/dev/null"]).await.succeeds();

    // Names that a shell would take for something else.
    let branches = ["a$(touch${IFS}pwned)", "`touch${IFS}pwned`", "a;touch${IFS}pwned", "-x", "ünï\u{202e}\u{85}x", "a|b&c"];
    for branch in branches {
        let kept = light.push(&env, &[&format!("main:refs/heads/{branch}")]).await;
        let told: Vec<_> = kept.succeeds().stderr.lines().filter(|line| line.starts_with("remote:")).collect();
        assert!(told.len() == 1 && told[0].contains("is kept") && !told[0].contains('\u{85}'), "{told:?}");
    }
    for outside in ["refs/coracle/x", "refs/notes/x", "refs/replace/0123456789012345678901234567890123456789"] {
        light.push(&env, &[&format!("main:{outside}")]).await.is_refused();
    }
    light.push(&env, &["main"]).await.succeeds();
    light.get("/").await.has_status(200);

    for name in ["..", "a/b", "%2e%2e", "shop%3btouch", "SHOP", "lighthouse.git%2f..%2f.."] {
        let url = env.git_url(name, &env.token()).await;
        assert_eq!(light.git(&env, &["push", &url, "main"]).await.code, Some(128), "{name}");
    }
    assert!(!pwned.exists());
    for place in [env.state().join("git/repositories/lighthouse.git"), env.path("home"), light.tree.path().to_owned()] {
        assert!(!place.join("pwned").exists());
    }
    let mut there = std::fs::read_dir(env.state().join("git/repositories")).unwrap();
    assert!(there.all(|entry| entry.unwrap().file_name() == "lighthouse.git"));
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_deployed_is_refused_with_its_cause() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = repository(&env, "static").await;
    let commit = light.head(&env).await;
    light.git(&env, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},vendor/lib")]).await.succeeds();
    light.git(&env, &["commit", "-q", "-m", "a submodule"]).await.succeeds();
    light.push(&env, &["main"]).await.fails().says("submodules").says("vendor/lib");
    assert!(env.client().apps().await.unwrap().iter().all(|app| app.release.is_none()));

    light.git(&env, &["reset", "-q", "--hard", &commit]).await.succeeds();
    std::os::unix::fs::symlink("/etc/passwd", light.tree.path().join("public/passwd")).unwrap();
    light.commits(&env, "a link out").await;
    light.push(&env, &["main"]).await.fails().says("public/passwd").says("absolute path");

    light.git(&env, &["reset", "-q", "--hard", &commit]).await.succeeds();
    light.tree.change("coracle.toml", "lighthouse", "another");
    light.commits(&env, "another app").await;
    light.push(&env, &["main"]).await.fails().says("names the app another");
    light.git(&env, &["reset", "-q", "--hard", &commit]).await.succeeds();
    // A clone without its history is pushed as any other.
    let shallow = env.path("shallow");
    let source = format!("file://{}", light.tree.path().display());
    light.commits(&env, "second").await;
    env.git(&env.path("home"), &["clone", "-q", "--depth=1", &source, shallow.to_str().unwrap()]).await.succeeds();
    let url = env.git_url("lighthouse", &env.token()).await;
    env.git(&shallow, &["push", &url, "main"]).await.succeeds();
    assert_eq!(light.remote_ref(&env, "refs/heads/main").await, Some(light.head(&env).await));
    env.git(&env.state().join("git/repositories/lighthouse.git"), &["fsck", "--connectivity-only"]).await.succeeds();
    env.leaves_nothing().await;
}

/// A push that has come as far as this line.
pub async fn push_until(env: &Env, app: &App, line: &str) -> tokio::process::Child {
    let mut command = env.git_command(app.tree.path(), &["push", "coracle", "main"]);
    let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = Vec::new();
    let reaching = async {
        while let Some(next) = lines.next_line().await.unwrap() {
            let there = next.contains(line);
            seen.push(next);
            if there {
                return true;
            }
        }
        false
    };
    let reached = tokio::time::timeout(Duration::from_secs(120), reaching).await;
    assert_eq!(reached, Ok(true), "{seen:#?}\n{}", env.server_log());
    // Whoever pushes goes on reading, as a terminal does.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    child
}

/// A shop whose first version was pushed and is live.
async fn pushed_shop(env: &Env) -> App {
    let shop = env.app("flask");
    shop.tree.version("v1");
    shop.becomes_a_repository(env).await;
    shop.push(env, &["main"]).await.succeeds();
    shop
}

/// A second version that takes its time to start.
async fn slow_second_version(env: &Env, shop: &App) {
    shop.tree.version("v2").append("shop.py", "time.sleep(3)");
    shop.commits(env, "slow").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_broken_off_changes_nothing() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let shop = pushed_shop(&env).await;
    let v1 = shop.head(&env).await;
    slow_second_version(&env, &shop).await;
    let mut pushing = push_until(&env, &shop, "waiting until they are healthy").await;
    // As a closed terminal does: the push, and what it runs.
    let group = rustix::process::Pid::from_raw(pushing.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    pushing.wait().await.unwrap();
    let outcome = eventually("the deployment has ended", Duration::from_secs(60), async || {
        let last = shop.deployments().await.remove(0);
        last.outcome.clone().ok_or_else(|| format!("{last:?}"))
    });
    assert!(matches!(outcome.await, Outcome::Cancelled { .. }));
    assert_eq!(shop.active().await, Some(1));
    assert_eq!(shop.remote_ref(&env, "refs/heads/main").await, Some(v1));
    // Nothing of it is in the way of the next.
    shop.push(&env, &["main"]).await.succeeds();
    shop.get("/").await.says("from v2");
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_pushes_the_second_waits_and_finds_the_branch_moved() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let shop = pushed_shop(&env).await;
    let other = env.path("other");
    let url = env.git_url("shop", &env.token()).await;
    env.git(&env.path("home"), &["clone", "-q", &url, other.to_str().unwrap()]).await.succeeds();
    env.git(&other, &["commit", "-q", "--allow-empty", "-m", "mine"]).await.succeeds();

    let load = shop.load(40).start();
    slow_second_version(&env, &shop).await;
    let mut pushing = push_until(&env, &shop, "waiting until they are healthy").await;
    // The same commits, to a branch that nobody deploys.
    shop.push(&env, &["main:copy"]).await.succeeds();
    let late: Ran = env.git(&other, &["push", "origin", "main"]).await;
    late.fails().says("remote:   waiting: deploy").says("(somebody else has pushed meanwhile)").says("git pull");
    assert!(pushing.wait().await.unwrap().success());
    assert_eq!(shop.remote_ref(&env, "refs/heads/main").await, Some(shop.head(&env).await));
    shop.get("/").await.says("from v2");
    load.stop().await.lost_nothing();
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_leaves_the_branch_at_what_is_live() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let shop = pushed_shop(&env).await;
    let v1 = shop.head(&env).await;
    slow_second_version(&env, &shop).await;
    for (phase, live) in [("waiting until they are healthy", 1), ("letting requests on the old instances end", 2)] {
        let mut pushing = push_until(&env, &shop, phase).await;
        env.kill_server().await;
        assert!(!pushing.wait().await.unwrap().success());
        env.start_server().await;
        shop.coracle(&["git", "remote"]).await.succeeds();
        let wanted = if live == 1 { v1.clone() } else { shop.head(&env).await };
        assert_eq!(shop.remote_ref(&env, "refs/heads/main").await, Some(wanted), "{phase}\n{}", env.server_log());
        shop.get("/").await.says(&format!("from v{live}"));
    }
    shop.push(&env, &["main"]).await.succeeds().says("Everything up-to-date");
    shop.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_inherits_the_repository_of_an_app_that_is_gone() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let shop = pushed_shop(&env).await;
    let repository = env.state().join("git/repositories/shop.git");
    let mark = repository.join("coracle-parting");

    // A server that is killed while it destroys an app has got this far, or to the end but for the repository.
    env.kill_server().await;
    std::fs::write(&mark, "").unwrap();
    env.start_server().await;
    shop.coracle(&["git", "remote"]).await.succeeds();
    assert!(repository.is_dir() && !mark.exists());
    shop.push(&env, &["main"]).await.succeeds().says("Everything up-to-date");

    let kept = env.path("kept.git");
    env.git(&env.path("home"), &["clone", "-q", "--bare", repository.to_str().unwrap(), kept.to_str().unwrap()]).await.succeeds();
    env.coracle(&["-y", "destroy", "-a", "shop"]).await.succeeds();
    assert!(!repository.exists());
    env.kill_server().await;
    std::fs::rename(&kept, &repository).unwrap();
    std::fs::write(&mark, "").unwrap();
    env.start_server().await;
    assert!(!repository.exists());
    env.leaves_nothing().await;
}
