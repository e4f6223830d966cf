//! `git push` over SSH, with OpenSSH's own client: people are known by their keys, git is served, and nothing else is.

use std::process::Stdio;
use std::time::Duration;

use coracle_api::Outcome;
use coracle_model::EngineKind;
use coracle_tests::{App, Env, eventually};
use tokio::process::Child;

use crate::git_push::push_until;

/// An app that somebody with a key has pushed.
async fn pushed(env: &Env, example: &str, app: &str) -> (App, coracle_tests::ssh::Key) {
    let key = env.person("ana", "deployer", app).await;
    let app = env.app(example);
    app.becomes_a_repository_over_ssh(env, &key).await;
    app.push(env, &["main"]).await.succeeds().says("is live");
    (app, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_over_ssh_goes_live_or_is_refused_with_its_cause() {
    let env = Env::start_for_ssh(EngineKind::Process).await;
    let (light, key) = pushed(&env, "static", "lighthouse").await;
    light.get("/").await.has_status(200);
    let v1 = light.head(&env).await;
    assert_eq!(light.remote_ref(&env, "refs/heads/main").await, Some(v1.clone()));

    light.tree.change("coracle.toml", "root = \"public\"", "root = \"nowhere\"");
    light.commits(&env, "broken").await;
    let refused = light.push(&env, &["main"]).await;
    refused.fails().says("! [remote rejected] main -> main (").says("nowhere").says("remote: ----->");
    assert_eq!(light.remote_ref(&env, "refs/heads/main").await, Some(v1));

    light.tree.change("coracle.toml", "root = \"nowhere\"", "root = \"public\"").write("public/index.html", "<p>second</p>");
    light.commits(&env, "mended").await;
    light.push(&env, &["main"]).await.succeeds().says("remote: ✓ v3 of lighthouse is live");
    light.get("/").await.says("second");
    let commit = light.head(&env).await;
    assert_eq!(light.releases().await.last().unwrap().commit.as_deref(), Some(commit.as_str()));

    // Both protocols, and clones of one commit.
    let url = env.ssh_url("lighthouse").await;
    let ssh = format!("core.sshCommand={}", env.ssh_for_git(&key).await);
    for (name, options) in [("v0", &["-c", "protocol.version=0"][..]), ("v2", &["-c", "protocol.version=2"])] {
        let clone = env.path(name);
        let words = [options, &["-c", &ssh, "clone", "-q", "--depth=1", &url, clone.to_str().unwrap()]].concat();
        env.git(&env.path("home"), &words).await.succeeds();
        assert_eq!(env.git(&clone, &["rev-parse", "HEAD"]).await.stdout.trim(), commit);
    }
    let traced =
        env.git_command(light.tree.path(), &["ls-remote", "coracle"]).env("GIT_TRACE_PACKET", "1").output().await.unwrap();
    assert!(String::from_utf8_lossy(&traced.stderr).contains("version 2"), "the newer protocol is not spoken");
    let people = env.coracle(&["people"]).await;
    people.succeeds().says("deployer of lighthouse").says("SHA256:").does_not_say("never");
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_known_keys_come_in_and_only_to_their_own_apps() {
    let env = Env::start_for_ssh(EngineKind::Process).await;
    let (light, ana) = pushed(&env, "static", "lighthouse").await;
    let ben = env.person("ben", "owner", "shop").await;
    let stranger = env.key("stranger", "ed25519").await;
    let load = light.load(40).only_get().start();

    light.uses_key(&env, &stranger).await;
    light.commits(&env, "second").await;
    light.push(&env, &["main"]).await.says("Permission denied (publickey)");
    light.uses_key(&env, &ben).await;
    light.push(&env, &["main"]).await.says("coracle: ben has no role in lighthouse").says("coracle people role ben");
    light.git(&env, &["ls-remote", "coracle"]).await.says("ben has no role in lighthouse").does_not_say("refs/heads");
    // A role names the one app that may be made.
    let url = env.ssh_url("another").await;
    light.git(&env, &["push", &url, "main"]).await.says("ben has no role in another");
    assert!(!env.state().join("git/repositories/another.git").exists());

    for name in [
        "..",
        "../lighthouse",
        "a;touch${IFS}pwned",
        "$(touch${IFS}pwned)",
        "`touch${IFS}pwned`",
        "-x",
        "a'b",
        "LIGHTHOUSE",
        "%2e",
    ] {
        let words = ["push", &format!("{}/x", env.ssh_url("x").await).replace("x.git/x", &format!("{name}.git")), "main"];
        assert_eq!(light.git(&env, &words).await.code, Some(128), "{name}");
    }
    for place in [env.path("home"), env.state().to_owned(), env.state().join("git/repositories/lighthouse.git")] {
        assert!(!place.join("pwned").exists());
    }

    env.coracle(&["people", "key", "remove", "ana", "c1"]).await.succeeds();
    light.uses_key(&env, &ana).await;
    light.push(&env, &["main"]).await.says("Permission denied (publickey)");
    assert_eq!(light.active().await, Some(1));
    load.stop().await.lost_nothing();
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_serves_git_and_nothing_else() {
    let env = Env::start_for_ssh(EngineKind::Process).await;
    let ana = env.person("ana", "owner", "shop").await;
    for words in
        [&[][..], &["id"], &["sh", "-c", "id"], &["git-upload-archive", "'shop.git'"], &["git-receive-pack 'shop.git'; id"]]
    {
        let refused = env.ssh(&ana, words).await;
        assert!(!matches!(refused.code, Some(0) | None), "{refused}");
        refused.does_not_say("uid=");
    }
    env.ssh(&ana, &["id"]).await.fails().says("Hello ana: this door serves git");
    let terminal = Env::ssh_command(&env, "ssh", &ana, &["-tt"], &[]).await;
    let terminal = coracle_tests::Ran::to_its_end(terminal).await;
    assert!(matches!(terminal.code, Some(1 | 255)), "{terminal}");
    // Forwarding, of each kind: to a port here, from a port here, an agent, files.
    let elsewhere = env.address().to_string();
    let through = Env::ssh_command(&env, "ssh", &ana, &["-W", &elsewhere], &[]).await;
    let through = coracle_tests::Ran::to_its_end(through).await;
    assert_eq!(through.code, Some(255), "{through}");
    let back = format!("0:{elsewhere}");
    let backwards = Env::ssh_command(&env, "ssh", &ana, &["-N", "-o", "ExitOnForwardFailure=yes", "-R", &back], &[]).await;
    let backwards = coracle_tests::Ran::to_its_end(backwards).await;
    assert_eq!(backwards.code, Some(255), "{backwards}");
    let files = Env::ssh_command(&env, "sftp", &ana, &[], &[]).await;
    let files = coracle_tests::Ran::to_its_end(files).await;
    assert!(!matches!(files.code, Some(0)), "{files}");

    // The host key is the same after a restart, private, and told where people look for it.
    let before = env.client().version().await.unwrap().ssh.unwrap();
    env.restart_server().await;
    let after = env.client().version().await.unwrap().ssh.unwrap();
    assert_eq!(before.fingerprint, after.fingerprint);
    env.coracle(&["server", "status"]).await.succeeds().says(&after.fingerprint);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&env.state().join("ssh_host_ed25519_key").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    env.leaves_nothing().await;
}

async fn ends_badly(mut pushing: Child) {
    let ended = tokio::time::timeout(Duration::from_secs(60), pushing.wait()).await;
    assert!(!ended.expect("the push goes on").unwrap().success());
}

async fn last_was_called_off(shop: &App) {
    let outcome = eventually("the deployment has ended", Duration::from_secs(60), async || {
        let last = shop.deployments().await.remove(0);
        last.outcome.clone().ok_or_else(|| format!("{last:?}"))
    });
    assert!(matches!(outcome.await, Outcome::Cancelled { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_over_ssh_ends_with_its_terminal_and_with_its_key() {
    let env = Env::start_for_ssh(EngineKind::Process).await;
    let (light, _ana) = pushed(&env, "static", "lighthouse").await;
    let ben = env.key("ben", "ecdsa").await;
    env.knows("ben", "deployer", "lighthouse", &ben).await;
    let v1 = light.head(&env).await;
    let load = light.load(40).only_get().start();
    // Two at once: the second waits, and finds that it would replace what it has not seen.
    let other = env.path("other");
    let ssh = format!("core.sshCommand={}", env.ssh_for_git(&ben).await);
    let url = env.ssh_url("lighthouse").await;
    env.git(&env.path("home"), &["clone", "-q", "-c", &ssh, &url, other.to_str().unwrap()]).await.succeeds();
    env.git(&other, &["commit", "-q", "--allow-empty", "-m", "ben's"]).await.succeeds();

    // Slow to be proven: nothing answers where its health is asked for.
    light.tree.append("coracle.toml", "\n[http]\nhealth = \"/nowhere\"\n\n[deploy]\ntimeout = \"100s\"");
    light.commits(&env, "slow").await;
    let mut pushing = push_until(&env, &light, "waiting until they are healthy").await;
    let late = env.git_command(&other, &["push", "origin", "main"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let group = rustix::process::Pid::from_raw(pushing.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    pushing.wait().await.unwrap();
    let late = tokio::time::timeout(Duration::from_secs(120), late.wait_with_output()).await.expect("the second goes on");
    assert!(late.unwrap().status.success(), "{}", env.server_log());

    light.git(&env, &["reset", "-q", "--hard", &v1]).await.succeeds();
    light.git(&env, &["pull", "-q", "--no-rebase", "coracle", "main"]).await.succeeds();
    let bens = light.head(&env).await;
    light.tree.append("coracle.toml", "\n[http]\nhealth = \"/nowhere\"\n\n[deploy]\ntimeout = \"100s\"");
    light.commits(&env, "slow").await;
    let pushing = push_until(&env, &light, "waiting until they are healthy").await;
    env.coracle(&["people", "key", "remove", "ana", "c1"]).await.succeeds();
    ends_badly(pushing).await;
    last_was_called_off(&light).await;
    light.uses_key(&env, &ben).await;
    assert_eq!(light.remote_ref(&env, "refs/heads/main").await, Some(bens));
    load.stop().await.lost_nothing();
    env.leaves_nothing().await;
}
