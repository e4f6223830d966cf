//! `approve = true`: a release that waits for a person, while the app goes on living.

use std::process::Stdio;
use std::time::Duration;

use coracle_api::{Deployment, Outcome, Phase};
use coracle_model::EngineKind;
use coracle_tests::{App, Env, Ran, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};

/// The lighthouse in production: its first release is live, and whatever comes next waits for an owner.
async fn in_production(env: &Env, rule: &str) -> App {
    let light = env.app("static");
    light.becomes_a_repository(env).await;
    light.push(env, &["main"]).await.succeeds().does_not_say("waiting for approval");
    light.tree.manifest("pipeline", &format!("approve = {rule}"));
    light
}

/// What lies aside in the repository; nobody who fetches sees it.
async fn aside(env: &Env) -> String {
    let repository = env.state().join("git/repositories/lighthouse.git");
    let listed = env.git(&repository, &["for-each-ref", "--format=%(objectname) %(refname)", "refs/waiting/"]).await;
    listed.succeeds().stdout.clone()
}

/// Commits a page that says this, and pushes it.
async fn pushes_page(light: &App, env: &Env, page: &str) -> Ran {
    light.tree.write("public/index.html", format!("<p>{page}</p>"));
    light.commits(env, page).await;
    light.push(env, &["main"]).await
}

/// Commits a page, pushes it, and is told that it waits; the number that it waits under.
async fn waits(light: &App, env: &Env, page: &str) -> String {
    let before = light.remote_ref(env, "refs/heads/main").await;
    let pushed = pushes_page(light, env, page).await;
    waits_after(&pushed, light, env, before).await
}

async fn waits_after(pushed: &Ran, light: &App, env: &Env, before: Option<String>) -> String {
    pushed.succeeds().says("remote: -----> waiting for approval: coracle approve d").says("the branch is moved when it is live");
    let output = pushed.output();
    let id = output.split("coracle approve ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    pushed.says(&format!("main -> refs/waiting/{id}"));
    assert_eq!(light.remote_ref(env, "refs/heads/main").await, before);
    assert_eq!(aside(env).await, format!("{} refs/waiting/{id}\n", light.head(env).await));
    let status = light.status().await;
    assert_eq!(status.waiting.map(|waiting| waiting.id.to_string()), Some(id.clone()));
    id
}

/// Waits for the end of a deployment.
async fn ended(light: &App, id: &str) -> Deployment {
    eventually("the deployment ends", Duration::from_secs(40), async || {
        let deployment = light.deployments().await.into_iter().find(|it| it.id.to_string() == id).unwrap();
        if deployment.outcome.is_some() { Ok(deployment) } else { Err(format!("{deployment:?}")) }
    })
    .await
}

/// Why a deployment failed that waited.
async fn cause(light: &App, id: &str) -> String {
    match ended(light, id).await.outcome {
        Some(Outcome::Failed { phase: Phase::Approval, cause, .. }) => cause,
        other => panic!("{id} ended otherwise: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_waits_for_an_owner_while_the_app_is_changed_by_others() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = in_production(&env, "true").await;
    let mut tokens = Vec::new();
    for (name, role) in [("ana", "owner"), ("ben", "deployer")] {
        env.coracle(&["people", "add", name, "--role", role, "-a", "lighthouse"]).await.succeeds();
        let made = env.coracle(&["people", "token", "create", name, "--label", "test"]).await;
        tokens.push(made.succeeds().stdout.trim().to_owned());
    }
    let address = env.client().version().await.unwrap().api_tcp.unwrap();
    let as_person = |token: &str, words: &[&str]| {
        let server = format!("http://{address}");
        let words: Vec<&str> = words.iter().copied().chain(["-a", "lighthouse", "--server", &server]).collect();
        let mut command = env.command(&words);
        command.env("CORACLE_TOKEN", token);
        Ran::to_its_end(command)
    };

    let load = light.load(50).only_get().start();
    light.tree.write("public/index.html", "<p>new light</p>");
    light.commits(&env, "new light").await;
    let before = light.remote_ref(&env, "refs/heads/main").await;
    let url = env.git_url("lighthouse", &tokens[1]).await;
    let pushed = light.git(&env, &["push", &url, "main"]).await;
    let id = waits_after(&pushed, &light, &env, before).await;
    assert!(!light.get("/").await.body.contains("new light"));
    env.coracle(&["status", "-a", "lighthouse"]).await.succeeds().says(&format!("v2 waits for approval: coracle approve {id}"));
    env.coracle(&["deployments", "-a", "lighthouse"]).await.succeeds().says("waiting").says(&format!("coracle approve {id}"));

    // Who brings code does not let it through.
    as_person(&tokens[1], &["approve", &id]).await.fails().says("ben is deployer of lighthouse, and this takes an owner");
    as_person(&tokens[1], &["reject", &id]).await.fails().says("takes an owner");
    // Nor does going back to it, or promoting it.
    light.coracle(&["rollback", "v2"]).await.is_refused().says("v2 of lighthouse is being deployed, or waits to be allowed");
    light.coracle(&["promote", "lighthouse", "elsewhere", "--release", "v2"]).await.is_refused();
    assert!(!light.get("/").await.body.contains("new light"));
    // The app lives on meanwhile.
    light.coracle(&["restart"]).await.succeeds();
    light.coracle(&["config", "set", "LAMP=bright"]).await.succeeds();
    assert_eq!(light.active().await, Some(4));

    as_person(&tokens[0], &["approve", &id]).await.succeeds().says("v2 of lighthouse goes on");
    let deployment = ended(&light, &id).await;
    assert_eq!(deployment.outcome, Some(Outcome::Succeeded), "{deployment:?}");
    let decision = deployment.approval.clone().unwrap().decision.unwrap();
    assert_eq!((decision.approved, decision.by.unwrap().to_string().as_str()), (true, "ana"));
    assert_eq!(deployment.from.map(|from| from.to_string()), Some("v4".to_owned()));
    light.get("/").await.says("new light");
    eventually("the branch says what is live", Duration::from_secs(20), async || {
        let refs = (light.remote_ref(&env, "refs/heads/main").await, aside(&env).await);
        if refs == (Some(light.head(&env).await), String::new()) { Ok(()) } else { Err(format!("{refs:?}")) }
    })
    .await;
    env.coracle(&["deployments", &id]).await.succeeds().says("brought  by ben").says("approved by ana");
    as_person(&tokens[0], &["approve", &id]).await.fails().says("does not wait for approval: ana has approved it");
    load.stop().await.lost_nothing();
    // It took up the configuration that was set while it waited.
    light.coracle(&["run", "--", "sh", "-c", "echo lamp=$LAMP"]).await.succeeds().says("lamp=bright");
    // Going back to what was live before it waits for nobody.
    light.coracle(&["rollback"]).await.succeeds();
    assert!(!light.get("/").await.body.contains("new light"));

    // What was shown and is revoked meanwhile brings nothing any more, and neither does who has lost the role.
    let losses: [(&[&str], &str); 2] = [
        (&["people", "token", "revoke", "ben", "c2"], "c2, by which ben has brought it, was revoked"),
        (&["people", "remove", "ben"], "ben, who has brought it, has no role in lighthouse any more"),
    ];
    let mut token = tokens[1].clone();
    for (lost, why) in losses {
        light.tree.write("public/index.html", format!("<p>late light: {why}</p>"));
        light.commits(&env, "late light").await;
        let before = light.remote_ref(&env, "refs/heads/main").await;
        let url = env.git_url("lighthouse", &token).await;
        let pushed = light.git(&env, &["push", &url, "main"]).await;
        let id = waits_after(&pushed, &light, &env, before).await;
        let another = env.coracle(&["people", "token", "create", "ben", "--label", "another"]).await;
        token = another.succeeds().stdout.trim().to_owned();
        env.coracle(lost).await.succeeds();
        as_person(&tokens[0], &["approve", &id]).await.succeeds();
        let cause = cause(&light, &id).await;
        assert!(cause.contains(why), "{cause}");
        assert!(!light.get("/").await.body.contains("late light"));
    }
    light.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_rejected_superseded_or_too_late_and_cannot_go_around() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = in_production(&env, "{ timeout = \"1h\", by = \"another\" }").await;
    let load = light.load(50).only_get().start();
    let first = light.remote_ref(&env, "refs/heads/main").await;

    // The first that demands another person: the administrator has brought it, and is nobody else.
    let refused = waits(&light, &env, "red light").await;
    light.coracle(&["approve"]).await.fails().says("may not approve it").says("another owner of lighthouse");
    light.coracle(&["reject", "--reason", "not on\na Friday"]).await.succeeds().says("is rejected; nothing of it has run");
    assert_eq!(cause(&light, &refused).await, "rejected by the administrator: not on a Friday");
    light.coracle(&["approve"]).await.fails().says("nothing of lighthouse waits for approval");

    let older = waits(&light, &env, "green light").await;
    let newer = waits(&light, &env, "blue light").await;
    assert_eq!(cause(&light, &older).await, format!("superseded by {newer}"));
    // One that fails supersedes nothing.
    light.tree.manifest("pipeline.steps.test", "run = \"false\"");
    pushes_page(&light, &env, "no light").await.fails().says("pipeline failed");
    assert_eq!(light.status().await.waiting.map(|waiting| waiting.id.to_string()), Some(newer.clone()));
    let manifest = light.tree.read("coracle.toml");
    light.tree.write("coracle.toml", manifest.replace("run = \"false\"", "run = \"true\""));

    // Called off like everything else.
    let number = newer.strip_prefix('d').unwrap().parse().map(coracle_model::DeploymentId).unwrap();
    env.client().cancel(number).await.unwrap();
    assert_eq!(ended(&light, &newer).await.outcome, Some(Outcome::Cancelled { phase: Phase::Approval }));

    // Nothing has gone live, so it is the first release that counts, and that demanded nothing.
    let manifest = light.tree.read("coracle.toml");
    light.tree.write("coracle.toml", manifest.replace("approve = { timeout = \"1h\", by = \"another\" }", "approve = true"));
    let allowed = waits(&light, &env, "white light").await;
    light.coracle(&["approve", "-f"]).await.succeeds().says("approved by the administrator").says("is live");
    assert_eq!(ended(&light, &allowed).await.outcome, Some(Outcome::Succeeded));
    light.get("/").await.says("white light");

    // From now on, demanding nothing is something to be allowed as well.
    light.tree.write("coracle.toml", manifest.replace("approve = { timeout = \"1h\", by = \"another\" }", ""));
    let around = waits(&light, &env, "black light").await;
    light.get("/").await.says("white light");
    light.coracle(&["reject", &around]).await.succeeds();
    assert_eq!(cause(&light, &around).await, "rejected by the administrator");

    // What was pushed to the branch that was deployed does not go live when another is.
    light.tree.write("coracle.toml", manifest.replace("approve = { timeout = \"1h\", by = \"another\" }", "approve = true"));
    let astray = waits(&light, &env, "stray light").await;
    light.coracle(&["git", "branch", "live"]).await.succeeds();
    light.coracle(&["approve", &astray]).await.succeeds();
    assert!(cause(&light, &astray).await.contains("the branch that is deployed was changed meanwhile: it is live"));
    light.coracle(&["git", "branch"]).await.succeeds().says("live");
    light.coracle(&["git", "branch", "main"]).await.succeeds();

    let short = manifest.replace("approve = { timeout = \"1h\", by = \"another\" }", "approve = { timeout = \"1s\" }");
    light.tree.write("coracle.toml", short);
    pushes_page(&light, &env, "late light").await.succeeds().says("waiting for approval");
    let late = light.deployments().await.first().unwrap().id.to_string();
    assert_eq!(cause(&light, &late).await, "not approved within 1s");

    light.get("/").await.says("white light");
    assert_ne!(light.remote_ref(&env, "refs/heads/main").await, first);
    assert_eq!(aside(&env).await, "");
    load.stop().await.lost_nothing();
    light.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_forgets_nothing_but_the_wait() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = in_production(&env, "true").await;
    let load = light.load(50).only_get().start();
    let before = light.remote_ref(&env, "refs/heads/main").await;
    let id = waits(&light, &env, "new light").await;
    env.kill_server().await;
    env.start_server().await;
    let outcome = ended(&light, &id).await.outcome;
    assert_eq!(outcome, Some(Outcome::Interrupted { phase: Phase::Approval, completed: false }));
    light.coracle(&["git", "remote"]).await.succeeds();
    assert_eq!(aside(&env).await, "");
    assert_eq!(light.remote_ref(&env, "refs/heads/main").await, before);
    light.coracle(&["approve"]).await.fails().says("nothing of lighthouse waits for approval");

    // What waits goes with its app, too.
    let again = light.push(&env, &["main"]).await;
    waits_after(&again, &light, &env, before).await;
    load.stop().await.lost_nothing();
    light.settles().await;
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pushes_that_wait_for_their_turn_only_the_newest_is_kept() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = env.app("static");
    light.tree.manifest("pipeline.steps.slow", "run = \"sleep 600\"");
    light.becomes_a_repository(&env).await;
    let begin = || {
        let mut command = env.git_command(light.tree.path(), &["push", "coracle", "main"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().unwrap()
    };
    let first = begin();
    let running = eventually("the first is being worked on", Duration::from_secs(40), async || {
        let deployments = env.client().deployments(&light.name).await.map_err(|error| error.to_string())?;
        let running = deployments.first().filter(|it| it.phase == Phase::Pipeline).map(|it| it.id);
        running.ok_or_else(|| format!("{deployments:?}"))
    })
    .await;
    let manifest = light.tree.read("coracle.toml");
    light.tree.write("coracle.toml", manifest.replace("sleep 600", "true"));
    light.commits(&env, "second").await;
    let mut second = begin();
    let mut told = BufReader::new(second.stderr.take().unwrap()).lines();
    let mut until = async |text: &str| {
        let mut seen = Vec::new();
        let look = async {
            while let Some(line) = told.next_line().await.unwrap() {
                let is_it = line.contains(text);
                seen.push(line);
                if is_it {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(40), look).await.is_ok();
        assert!(in_time && seen.last().is_some_and(|line| line.contains(text)), "{text}: {seen:#?}");
    };
    until("waiting: deploy").await;
    light.commits(&env, "third").await;
    let newest = light.head(&env).await;
    let third = begin();
    until(&format!("main -> main (superseded by a newer push ({}) while it waited", &newest[..7])).await;
    assert!(!second.wait().await.unwrap().success());

    env.client().cancel(running).await.unwrap();
    assert!(!first.wait_with_output().await.unwrap().status.success());
    let third = third.wait_with_output().await.unwrap();
    assert!(third.status.success(), "{}", String::from_utf8_lossy(&third.stderr));
    assert_eq!(light.remote_ref(&env, "refs/heads/main").await, Some(newest));
    light.settles().await;
    env.leaves_nothing().await;
}
