//! Webhooks: a push elsewhere is live here, whoever is not the forge changes nothing, and the forge is told what came of it.

use std::time::Duration;

use coracle_api::{Outcome, Phase};
use coracle_model::{DeploymentId, EngineKind};
use coracle_tests::forge::{BRANCH, Hook, Reports, push};
use coracle_tests::{App, Env, browser, eventually, memory};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An app whose source lies elsewhere, with one commit.
async fn elsewhere(env: &Env) -> App {
    let light = env.app("static");
    light.tree.write("public/index.html", "<p>first</p>");
    light.git(env, &["init", "-q", "-b", "main"]).await.succeeds();
    light.commits(env, "first").await;
    light.goes_elsewhere(env).await;
    light
}

/// Connects it over HTTP with a token, and a forge of GitHub's kind.
async fn connected(env: &Env, light: &App, api: &str) -> Hook {
    connected_with(env, env, light, api).await
}

/// The same, where the repository is another server's.
async fn connected_with(source: &Env, env: &Env, light: &App, api: &str) -> Hook {
    std::fs::write(env.path("token"), source.token()).unwrap();
    let url = source.git_url("source", "x").await.replace("coracle:x@", "");
    let token = env.path("token");
    let words =
        ["--json", "forge", "connect", &url, "--kind", "github", "--branch", BRANCH, "--plain-http", "--api", api, "--token"];
    let connected = light.coracle(&[&words[..], &[token.to_str().unwrap()]].concat()).await;
    connected.succeeds().does_not_say(&source.token());
    Hook::of(env, &connected.stdout).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_elsewhere_is_live_here_and_the_forge_is_told() {
    let env = Env::start_for_webhooks(EngineKind::Process).await;
    let (light, reports) = (elsewhere(&env).await, Reports::listen().await);
    let hook = connected(&env, &light, &reports.url()).await;
    let v1 = light.head(&env).await;
    let (status, text) = hook.sends("ping", "p1", &json!({ "zen": "Keep it simple." })).await;
    assert_eq!((status, text.as_str()), (200, "well connected: lighthouse is deployed from live\n"));

    let first = push(BRANCH, &v1, 1);
    assert_eq!(hook.sends("push", "d1", &first).await.0, 202);
    light.hears("is live").await;
    light.get("/").await.says("first");
    reports.hears(&v1, &["pending", "success"]).await;
    reports.hears("deployments/7", &["in_progress", "success"]).await;
    let told = reports.told();
    assert!(told.iter().all(|told| told.authorization == format!("Bearer {}", env.token())), "{told:?}");

    let load = light.load(40).only_get().start();
    let forged = format!("sha256={}", hook.sum(b"another body"));
    let headers = [("x-github-event", "push"), ("x-github-delivery", "d0"), ("x-hub-signature-256", forged.as_str())];
    assert_eq!(hook.sends_with(&headers, push(BRANCH, &v1, 7).to_string()).await.0, 401);
    // The same again is refused, whatever it says its number is.
    for delivery in ["d1", "d2"] {
        assert_eq!(hook.sends("push", delivery, &first).await.0, 409);
    }
    // What is told late does not lead back: the branch is deployed as it is now.
    light.tree.write("public/index.html", "<p>second</p>");
    light.commits(&env, "second").await;
    let v2 = light.goes_elsewhere(&env).await;
    assert_eq!(hook.sends("push", "d3", &push(BRANCH, &v1, 2)).await.0, 202);
    light.hears(&format!("{} is live", &v2[..12])).await;
    light.get("/").await.says("second");
    assert_eq!(hook.sends("push", "d4", &push(BRANCH, &v1, 3)).await.0, 202);
    light.hears("is live already").await;
    assert_eq!(light.active().await, Some(2));

    // A broken one is told as such, and changes nothing.
    light.tree.change("coracle.toml", "root = \"public\"", "root = \"nowhere\"");
    light.commits(&env, "broken").await;
    let broken = light.goes_elsewhere(&env).await;
    assert_eq!(hook.sends("push", "d5", &push(BRANCH, &broken, 4)).await.0, 202);
    light.hears("nowhere").await;
    reports.hears(&broken, &["pending", "failure"]).await;
    let failed = reports.told().into_iter().rfind(|told| told.path.ends_with(&format!("/statuses/{broken}"))).unwrap();
    // Those who see the app read why; a forge's pages may be everybody's.
    let description = failed.body["description"].as_str().unwrap();
    assert!(description.contains("it failed (build)") && !description.contains("nowhere"), "{failed:?}");
    light.get("/").await.says("second");
    light.coracle(&["forge", "show"]).await.succeeds().says("nowhere").does_not_say(&env.token());

    load.stop().await.lost_nothing();
    light.coracle(&["forge", "disconnect"]).await.succeeds();
    assert_eq!(hook.sends("push", "d6", &push(BRANCH, &v2, 5)).await.0, 404);
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_the_forge_changes_nothing() {
    let env = Env::start_for_webhooks(EngineKind::Process).await;
    let light = elsewhere(&env).await;
    let hook = connected(&env, &light, "http://127.0.0.1:9").await;
    let body = push(BRANCH, &light.head(&env).await, 1).to_string();
    let right = format!("sha256={}", hook.sum(body.as_bytes()));
    let other = format!("sha256={}", hook.sum(b"another body"));
    for signature in [None, Some(""), Some("sha256="), Some(other.as_str()), Some(&right[7..])] {
        let shown = signature.map(|signature| ("x-hub-signature-256", signature));
        let headers: Vec<_> = [("x-github-event", "push"), ("x-github-delivery", "d1")].into_iter().chain(shown).collect();
        let (status, text) = hook.sends_with(&headers, body.clone()).await;
        assert_eq!((status, text.as_str()), (401, "the signature is missing or wrong\n"), "{signature:?}");
    }
    // The server's own token opens nothing here, and the address of webhooks serves nothing else.
    let token = format!("Bearer {}", env.token());
    assert_eq!(hook.sends_with(&[("authorization", &token), ("x-github-event", "push")], body.clone()).await.0, 401);
    let (address, _) = hook.place();
    for path in ["/v1/version", "/hooks/lighthouse", "/hooks/", "/git/source.git/info/refs?service=git-upload-pack"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 405"), "{path}: {answer}");
    }
    // What is signed and not meant is answered in a word.
    let pull = |fork: u64| {
        let side = |id: u64| json!({ "ref": "feature", "sha": "b".repeat(40), "repo": { "id": id } });
        json!({ "action": "opened", "number": 5, "pull_request": { "head": side(fork), "base": side(1) } })
    };
    for (number, (event, body, status, word)) in [
        ("push", push("a$(touch${IFS}pwned);`x`", &"a".repeat(40), 1), 200, "is not deployed: live is"),
        ("push", push("x\u{1b}[2J", &"a".repeat(40), 2), 400, "is not the name of a branch"),
        ("push", push("--upload-pack=touch pwned", &"a".repeat(40), 3), 400, "is not the name of a branch"),
        ("push", push(BRANCH, "$(touch pwned)", 4), 400, "is not the name of a commit"),
        ("push", push(BRANCH, &"0".repeat(40), 5), 200, "is what is deployed"),
        ("push", json!({ "ref": "refs/tags/v1", "after": "a".repeat(40) }), 200, "tags are not deployed"),
        ("push", json!({ "ref": 1 }), 400, "the payload is not what such an event holds"),
        ("pull_request", pull(2), 200, "#5 comes from a fork, which is never deployed"),
        ("pull_request", pull(1), 200, "#5 is not deployed: its branch is, if [previews] names it"),
        ("star", json!({}), 200, "nothing is done about \"star\""),
    ]
    .into_iter()
    .enumerate()
    {
        let (found, text) = hook.sends(event, &format!("n{number}"), &body).await;
        assert!(found == status && text.contains(word) && !text.contains('\u{1b}'), "{event} {body}: {found} {text}");
    }
    assert!(light.deployments().await.is_empty());
    assert_eq!(light.active().await, None);
    for place in [env.path("home"), env.state().to_owned(), env.state().join("git/repositories/lighthouse.git")] {
        assert!(!place.join("pwned").exists());
    }
    // It was all the same secret: the right signature is taken. Nothing listens where it would be reported.
    let headers = [("x-github-event", "push"), ("x-github-delivery", "d1"), ("x-hub-signature-256", right.as_str())];
    assert_eq!(hook.sends_with(&headers, body).await.0, 202);
    light.hears("is live; GitHub was not told of it").await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_elsewhere_has_its_preview_here_and_goes_with_it() {
    const BESIDE: &str = "feature/x";
    let env = Env::start_for_webhooks(EngineKind::Process).await;
    let (light, reports) = (env.app("static"), Reports::listen().await);
    light.tree.write("public/index.html", "<p>first</p>").manifest("previews", "branches = [\"feature/**\"]");
    light.git(&env, &["init", "-q", "-b", "main"]).await.succeeds();
    light.commits(&env, "first").await;
    let first = light.goes_elsewhere(&env).await;
    let hook = connected(&env, &light, &reports.url()).await;
    assert_eq!(hook.sends("push", "d1", &push(BRANCH, &first, 1)).await.0, 202);
    light.hears("is live").await;

    light.tree.write("public/index.html", "<p>beside</p>");
    light.commits(&env, "beside").await;
    let beside = light.goes_elsewhere_as(&env, BESIDE).await;
    let (status, word) = hook.sends("push", "d2", &push(BESIDE, &beside, 2)).await;
    assert_eq!((status, word.contains("is fetched into its preview")), (202, true), "{word}");
    light.hears("lighthouse-feature-x: ").await;
    let page = browser::get(env.address(), "lighthouse-feature-x.localhost", "/").await.unwrap();
    page.says("beside");
    light.get("/").await.says("first");
    reports.hears(&beside, &["pending", "success"]).await;
    // One that nobody asked for has none, and one that is not there any more neither.
    let (status, word) = hook.sends("push", "d3", &push("fix/y", &beside, 3)).await;
    assert_eq!((status, word.contains("fix/y is not deployed: live is")), (200, true), "{word}");
    assert_eq!(hook.sends("push", "d4", &push("feature/z", &beside, 4)).await.0, 202);
    light.hears("feature/z: ").await;

    // Its branch has gone, which nobody tells yet, and another stands below its name.
    let source = env.git_url("source", &env.token()).await;
    light.git(&env, &["push", "-q", &source, ":feature/x"]).await.succeeds();
    light.tree.write("public/index.html", "<p>below</p>");
    light.commits(&env, "below").await;
    let below = light.goes_elsewhere_as(&env, "feature/x/y").await;
    assert_eq!(hook.sends("push", "d5", &push("feature/x/y", &below, 5)).await.0, 202);
    light.hears("lighthouse-feature-x-y: ").await;
    browser::get(env.address(), "lighthouse-feature-x-y.localhost", "/").await.unwrap().says("below");

    for (branch, delivery) in [(BESIDE, "d6"), ("feature/x/y", "d7")] {
        let mut gone = push(branch, &"0".repeat(40), 6);
        gone["deleted"] = json!(true);
        assert_eq!(hook.sends("push", delivery, &gone).await.0, 202);
    }
    eventually("the preview is gone", Duration::from_secs(30), async || {
        let apps = env.client().apps().await.map_err(|error| error.to_string())?;
        if apps.len() == 1 { Ok(()) } else { Err(format!("{apps:?}")) }
    })
    .await;
    light.get("/").await.says("first");
    env.leaves_nothing().await;
}

/// Waits until a deployment waits for a person; which one.
async fn waits(light: &App) -> DeploymentId {
    eventually("it waits for approval", Duration::from_secs(60), async || {
        let status = light.status().await;
        status.waiting.as_ref().map(|waiting| waiting.id).ok_or_else(|| format!("{status:?}"))
    })
    .await
}

/// Allows a deployment, which is refused all the same; the cause.
async fn allowed_too_late(light: &App, id: DeploymentId) -> String {
    light.coracle(&["approve", &id.to_string()]).await.succeeds();
    eventually("the deployment ends", Duration::from_secs(40), async || {
        let deployment = light.deployments().await.into_iter().find(|it| it.id == id).unwrap();
        match deployment.outcome {
            Some(Outcome::Failed { phase: Phase::Approval, cause, .. }) => Ok(cause),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Waits until there are so many apps, previews included.
async fn has_apps(env: &Env, count: usize) {
    eventually("the previews are as they should be", Duration::from_secs(30), async || {
        let apps = env.client().apps().await.map_err(|error| error.to_string())?;
        if apps.len() == count { Ok(()) } else { Err(format!("{apps:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_person_holds_no_preview_up_and_goes_live_by_its_own_connection_alone() {
    let env = Env::start_for_webhooks(EngineKind::Process).await;
    let light = env.app("static");
    light.tree.write("public/index.html", "<p>first</p>").manifest("previews", "branches = [\"feature/**\"]");
    light.git(&env, &["init", "-q", "-b", "main"]).await.succeeds();
    light.commits(&env, "first").await;
    let first = light.goes_elsewhere(&env).await;
    let hook = connected(&env, &light, "http://127.0.0.1:9").await;
    assert_eq!(hook.sends("push", "d1", &push(BRANCH, &first, 1)).await.0, 202);
    light.hears("is live").await;
    light.tree.write("public/index.html", "<p>second</p>").manifest("pipeline", "approve = true");
    light.commits(&env, "second").await;
    let second = light.goes_elsewhere(&env).await;
    assert_eq!(hook.sends("push", "d2", &push(BRANCH, &second, 2)).await.0, 202);
    let id = waits(&light).await;

    // Other branches come and go meanwhile.
    for (branch, host, delivery) in
        [("feature/x", "lighthouse-feature-x.localhost", "d3"), ("feature/y", "lighthouse-feature-y.localhost", "d4")]
    {
        light.tree.write("public/index.html", format!("<p>{branch}</p>"));
        light.commits(&env, branch).await;
        let beside = light.goes_elsewhere_as(&env, branch).await;
        assert_eq!(hook.sends("push", delivery, &push(branch, &beside, 3)).await.0, 202);
        light.hears(&format!("{}: ", host.trim_end_matches(".localhost"))).await;
        browser::get(env.address(), host, "/").await.unwrap().says(branch);
    }
    has_apps(&env, 3).await;
    let mut gone = push("feature/y", &"0".repeat(40), 5);
    gone["deleted"] = json!(true);
    assert_eq!(hook.sends("push", "d5", &gone).await.0, 202);
    has_apps(&env, 2).await;
    assert_eq!(waits(&light).await, id);

    // With another branch connected, what was fetched of the one before does not go live; and that branch is no preview any more.
    let url = env.git_url("source", "x").await.replace("coracle:x@", "");
    let words = ["forge", "connect", &url, "--kind", "github", "--plain-http", "--api", "http://127.0.0.1:9", "--branch"];
    light.coracle(&[&words[..], &["feature/x"]].concat()).await.succeeds();
    has_apps(&env, 1).await;
    let cause = allowed_too_late(&light, id).await;
    assert!(cause.contains("lighthouse is deployed from feature/x by now, and this was fetched from live"), "{cause}");
    light.hears("is deployed from feature/x by now").await;
    assert_eq!(light.active().await, Some(1));

    // Disconnected, nothing of it does.
    light.coracle(&[&words[..], &[BRANCH]].concat()).await.succeeds();
    light.coracle(&["forge", "deploy"]).await.succeeds();
    let id = waits(&light).await;
    light.coracle(&["forge", "disconnect"]).await.succeeds();
    let cause = allowed_too_late(&light, id).await;
    assert!(cause.contains("lighthouse was disconnected from its repository after live had been fetched"), "{cause}");
    light.get("/").await.says("first");
    light.settles().await;
    env.leaves_nothing().await;
}

/// Sends a head and as much of a body as is taken, in chunks; the status of the answer, if one comes.
async fn pours(hook: &Hook, signature: &str, megabytes: usize) -> Option<u16> {
    let (address, path) = hook.place();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx-github-event: push\r\ncontent-type: application/json\r\n\
         x-hub-signature-256: sha256={signature}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    let writing = tokio::spawn(async move {
        to.write_all(head.as_bytes()).await?;
        let piece = vec![b' '; 1 << 20];
        for _ in 0..megabytes {
            to.write_all(b"100000\r\n").await?;
            to.write_all(&piece).await?;
            to.write_all(b"\r\n").await?;
        }
        to.write_all(b"0\r\n\r\n").await?;
        // Whoever closes one direction is taken for gone.
        Ok::<_, std::io::Error>(to)
    });
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(90), from.read_to_end(&mut answer)).await;
    writing.abort();
    // Cut off in the middle of what it sends, a sender may see nothing of the answer.
    reading.expect("the server neither answers nor cuts off").ok();
    String::from_utf8_lossy(&answer).split(' ').nth(1).map(|status| status.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_without_end_and_senders_without_haste_hold_nobody_up() {
    let env = Env::start_for_webhooks(EngineKind::Process).await;
    let light = elsewhere(&env).await;
    let hook = connected(&env, &light, "http://127.0.0.1:9").await;
    let (wrong, before) = ("0".repeat(64), memory::resident(env.server_pid()));
    assert_eq!(pours(&hook, &wrong, 1).await, Some(401));
    assert_eq!(pours(&hook, &wrong, 30).await, Some(413));
    for _ in 0..3 {
        assert!(matches!(pours(&hook, &wrong, 100).await, None | Some(413)));
    }
    let grown = memory::resident(env.server_pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "100 MB of body made the server {} MiB larger", grown >> 20);

    // Senders that stop in the middle.
    let (address, path) = hook.place();
    let mut slow = Vec::new();
    // What two of them announce would take all the room that there is.
    let large = ["transfer-encoding: chunked\r\n\r\n1\r\n{", "content-length: 24117248\r\n\r\n{"];
    for announced in std::iter::repeat_n("content-length: 400000\r\n\r\n{", 38).chain(large) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nx-hub-signature-256: sha256={wrong}\r\n{announced}");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let commit = light.head(&env).await;
    assert_eq!(hook.sends("push", "d1", &push(BRANCH, &commit, 1)).await.0, 202);
    light.hears("is live").await;
    drop(slow);
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_ssh_it_is_read_with_a_key_of_its_own() {
    let env = Env::start_for_webhooks(EngineKind::Process).await;
    let light = elsewhere(&env).await;
    let url = env.ssh_url("source").await;
    let words = ["--json", "forge", "connect", &url, "--kind", "forgejo", "--branch", BRANCH];
    let connected = light.coracle(&words).await;
    let told: serde_json::Value = serde_json::from_str(&connected.succeeds().stdout).unwrap();
    let host = env.client().version().await.unwrap().ssh.unwrap();
    assert_eq!(told["connection"]["host_keys"], json!([host.fingerprint]));

    light.coracle(&["forge", "deploy"]).await.succeeds();
    light.hears("cannot be fetched").await;
    light.coracle(&["forge", "show"]).await.succeeds().says("Permission denied");
    // The forge lets the key in, for this repository.
    let key = env.path("deploy-key.pub");
    std::fs::write(&key, told["connection"]["deploy_key"].as_str().unwrap()).unwrap();
    env.coracle(&["people", "add", "coracle", "--role", "deployer", "-a", "source", "--key", key.to_str().unwrap()])
        .await
        .succeeds();
    let hook = Hook::of(&env, &connected.stdout).await;
    let body = push(BRANCH, &light.head(&env).await, 1).to_string();
    let sum = hook.sum(body.as_bytes());
    let headers =
        [("x-github-event", "push"), ("x-gitea-event", "push"), ("x-gitea-delivery", "d1"), ("x-gitea-signature", &sum)];
    assert_eq!(hook.sends_with(&headers, body).await.0, 202);
    light.hears("is live").await;
    light.get("/").await.says("first");
    // No key is left where it was used, and the host is believed by this one key alone.
    assert_eq!(std::fs::read_dir(env.state().join("git/keys")).unwrap().count(), 0);
    let again = light.coracle(&words).await;
    let again: serde_json::Value = serde_json::from_str(&again.succeeds().stdout).unwrap();
    assert_eq!(again["connection"]["deploy_key"], told["connection"]["deploy_key"]);
    assert_eq!((&again["connection"]["hook_path"], &again["secret"]), (&told["connection"]["hook_path"], &json!(null)));
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_does_what_it_has_promised() {
    let env = Env::start_for_webhooks(EngineKind::Process).await;
    // The repository stays where it is: it is another server's.
    let source = Env::start_for_pushes(EngineKind::Process).await;
    let light = elsewhere(&env).await;
    let commit = light.goes_elsewhere(&source).await;
    let hook = connected_with(&source, &env, &light, "http://127.0.0.1:9").await;
    assert_eq!(hook.sends("push", "d1", &push(BRANCH, &commit, 1)).await.0, 202);
    env.kill_server().await;
    env.start_server().await;
    light.hears("is live").await;
    assert_eq!(light.releases().await.last().unwrap().commit.as_deref(), Some(commit.as_str()));
    light.get("/").await.says("first");
    env.leaves_nothing().await;
}
