//! A server on another machine: by the system's `ssh` and a real `sshd`, by Coracle's own door with a person's key, and over TLS.

use std::process::Stdio;
use std::time::Duration;

use coracle_api::{Outcome, Phase};
use coracle_model::EngineKind;
use coracle_tests::sshd::{Laptop, Sshd, is_missing};
use coracle_tests::{App, Deploying, Env, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Follows what a command prints until a line has this in it; the command goes on.
async fn until_it_says(mut command: Command, text: &str) -> Child {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(text) {
                // Whoever goes on writing is read, and not told that nobody listens.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), reading).await.expect("it does not say so"), "it ended before");
    child
}

async fn ends(mut child: Child) -> Option<i32> {
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
    ended.expect("it goes on").unwrap().code()
}

/// Writes a line a moment, as apps do.
fn talkative(env: &Env) -> App {
    let app = env.app("static");
    app.tree.write(
        "coracle.toml",
        "app = \"lighthouse\"\nengine = \"process\"\n\n[processes.web]\ncommand = \"python3 -u keeper.py\"\n",
    );
    app.tree.write(
        "keeper.py",
        "import http.server, os, threading, time\n\
         def talk():\n    while True:\n        print('a light', flush=True)\n        time.sleep(0.2)\n\
         threading.Thread(target=talk, daemon=True).start()\n\
         class Keeper(http.server.SimpleHTTPRequestHandler):\n    def log_message(self, *_): pass\n\
         http.server.ThreadingHTTPServer(('0.0.0.0', int(os.environ['PORT'])), Keeper).serve_forever()\n",
    );
    app
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_logs_in_to_a_machine_uses_its_server_from_afar() {
    if is_missing("remote servers over SSH") {
        return;
    }
    let env = Env::start(EngineKind::Process).await;
    let (machine, key) = (Sshd::start(&env, "machine", true).await, env.key("ana", "ed25519").await);
    let laptop = Laptop::of(&env, "laptop", &key);
    let add = ["remote", "add", "prod", &machine.url()];

    laptop.coracle(&add).await.fails().says("its host key is not known").says("compare the fingerprint");
    laptop.knows(&[machine.known()]);
    laptop.coracle(&add).await.fails().says("does not let you in").says("Permission denied (publickey)");
    assert!(!laptop.config().exists(), "what does not work is not written down");
    machine.lets_in(&[&key]);
    laptop.coracle(&add).await.succeeds().says("you administer it");
    laptop.coracle(&add).await.fails().says("there is a remote prod already");
    laptop.coracle(&["remote", "list"]).await.succeeds().says("prod").says(&machine.url());

    let before = machine.logins();
    let app = talkative(&env);
    let deploy = laptop.coracle_in(app.tree.path(), &["--remote", "prod", "deploy"]).await;
    deploy.succeeds().says("v1 of lighthouse is live");
    laptop.coracle(&["status", "-a", "lighthouse"]).await.is_refused();
    laptop.coracle(&["remote", "default", "prod"]).await.succeeds();
    laptop.coracle(&["status", "-a", "lighthouse"]).await.succeeds().says("v1");
    laptop.coracle(&["--remote", "local", "apps"]).await.fails().says("is the server running?");
    let typed = ["exec", "-a", "lighthouse", "--", "sh", "-c", "echo out; echo err >&2; exit 7"];
    let ran = laptop.coracle(&typed).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(7), "out\n", "err\n"), "{ran}");
    let following = until_it_says(laptop.command(&env.path("laptop"), &["logs", "-f", "-a", "lighthouse"]), "a light").await;
    let group = rustix::process::Pid::from_raw(following.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(group, rustix::process::Signal::INT).unwrap();
    ends(following).await;
    assert_eq!(machine.logins(), before, "each of them has logged in by itself");

    // Ctrl-C, as a terminal sends it to the whole group, calls the deployment off: `ssh` is not what it ends.
    app.tree.append("coracle.toml", "\n[http]\nhealth = \"/nowhere\"\n\n[deploy]\ntimeout = \"100s\"");
    let mut command = laptop.command(app.tree.path(), &["deploy"]);
    command.process_group(0);
    let mut deploying = Deploying::begin(command);
    assert!(deploying.reaches(Phase::Probe).await);
    deploying.interrupt_group();
    deploying.end().await.fails();
    let outcome = eventually("the deployment has ended", Duration::from_secs(60), async || {
        let last = app.deployments().await.remove(0);
        last.outcome.clone().ok_or_else(|| format!("{last:?}"))
    });
    assert_eq!(outcome.await, Outcome::Cancelled { phase: Phase::Probe });
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_way_of_a_remote_is_said() {
    if is_missing("what is in the way over SSH") {
        return;
    }
    let env = Env::start(EngineKind::Process).await;
    let key = env.key("ana", "ed25519").await;
    let (machine, bare) = (Sshd::start(&env, "machine", true).await, Sshd::start(&env, "bare", false).await);
    let laptop = Laptop::of(&env, "laptop", &key);
    laptop.knows(&[machine.known(), bare.known()]);
    machine.lets_in(&[&key]);
    bare.lets_in(&[&key]);
    laptop.coracle(&["remote", "add", "bare", &bare.url()]).await.fails().says("no coracle on the other side");
    let closed = machine.url().rsplit_once(':').unwrap().0.to_owned() + ":1";
    laptop.coracle(&["remote", "add", "closed", &closed]).await.fails().says("Connection refused");
    laptop.coracle(&["remote", "add", "option", "ssh://-oProxyCommand=touch${IFS}pwned"]).await.is_refused();
    laptop.coracle(&["--remote", "ssh://-oProxyCommand=touch${IFS}pwned", "apps"]).await.is_refused();
    laptop.coracle(&["remote", "add", "prod", &machine.url()]).await.succeeds();

    env.stop_server().await;
    laptop.coracle(&["--remote", "prod", "apps"]).await.fails().says("it has no server for you").says("coracle server run");
    env.start_server().await;
    laptop.coracle(&["--remote", "prod", "apps"]).await.succeeds();

    machine.lets_in(&[]);
    laptop.forgets_connections();
    laptop.coracle(&["--remote", "prod", "apps"]).await.fails().says("does not let you in").says("Permission denied");
    laptop.knows(&[bare.known().replace(&port(&bare), &port(&machine))]);
    laptop.coracle(&["--remote", "prod", "apps"]).await.fails().says("its host key is another one").says("ssh-keygen -R");
    laptop.coracle(&["remote", "remove", "prod"]).await.succeeds();
    laptop.coracle(&["--remote", "prod", "apps"]).await.is_refused().says("there is no remote \"prod\"");
    assert!(!env.path("laptop").join("pwned").exists());
}

fn port(machine: &Sshd) -> String {
    machine.url().rsplit_once(':').unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persons_key_is_enough_at_coracles_own_door() {
    let env = Env::start_for_ssh(EngineKind::Process).await;
    let key = env.person("ana", "deployer", "lighthouse").await;
    let laptop = Laptop::of(&env, "laptop", &key);
    let (known, url) = laptop.door().await;
    laptop.knows(&[known]);
    laptop.coracle(&["remote", "add", "--default", "prod", &url]).await.succeeds().says("you are ana");

    let app = talkative(&env);
    laptop.coracle_in(app.tree.path(), &["deploy"]).await.succeeds().says("v1 of lighthouse is live");
    laptop.coracle(&["status", "-a", "lighthouse"]).await.succeeds();
    laptop.coracle(&["-y", "destroy", "-a", "lighthouse"]).await.fails().says("ana is deployer of lighthouse");
    laptop.coracle(&["people"]).await.fails().says("the administrator's");
    laptop.coracle(&["status", "-a", "another"]).await.fails().says("ana has no role in another");
    // Roles are those of the moment, whatever connection is there from before.
    env.coracle(&["people", "role", "ana", "deployer", "-a", "another"]).await.succeeds();
    laptop.coracle(&["status", "-a", "another"]).await.fails().says("another").does_not_say("has no role");
    // Git goes by the same door.
    let git = app.git(&env, &["init", "-q", "-b", "main"]).await;
    git.succeeds();
    let added = laptop.coracle_in(app.tree.path(), &["git", "remote", "prod"]).await;
    added.succeeds().says(&format!("{}/lighthouse.git", url.replace("coracle@", "git@")));

    let following = until_it_says(laptop.command(&env.path("laptop"), &["logs", "-f", "-a", "lighthouse"]), "a light").await;
    env.coracle(&["people", "key", "remove", "ana", "c1"]).await.succeeds();
    assert_ne!(ends(following).await, Some(0));
    laptop.coracle(&["status", "-a", "lighthouse"]).await.fails().says("does not let you in");
    // Nothing is asked for by a word more than the client's own.
    for words in [&["coracle", "dial", "--state", "/"][..], &["coracle"], &["coracle", "apps"]] {
        env.knows("ben", "deployer", "shop", &key).await;
        env.ssh(&key, words).await.fails().says("this door serves git");
        env.coracle(&["people", "remove", "ben"]).await.succeeds();
    }
    env.leaves_nothing().await;
}
