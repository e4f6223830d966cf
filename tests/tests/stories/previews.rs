//! Previews: a branch that is pushed has an app of its own, until the branch goes, the app goes, or its time is over.

use std::time::Duration;

use coracle_api::{ChangeOptions, ConfigChange, ConfigPatch, Preview};
use coracle_model::EngineKind;
use coracle_tests::browser::{self, Answer};
use coracle_tests::{App, Env, eventually};
use http::Method;

/// Looks at a page of a preview.
async fn look(env: &Env, preview: &str, path: &str) -> Answer {
    let host = format!("{preview}.localhost");
    let answer = browser::ask(env.address(), &host, Method::GET, path, "").await;
    answer.unwrap_or_else(|error| panic!("{host}{path}: {error:#}\n{}", env.server_log()))
}

async fn previews(env: &Env, app: &App) -> Vec<Preview> {
    env.client().previews(&app.name).await.unwrap()
}

async fn apps(env: &Env) -> Vec<String> {
    env.client().apps().await.unwrap().into_iter().map(|app| app.name.to_string()).collect()
}

/// A shop that shows its environment, with this section of previews, in a repository.
async fn shop(env: &Env, section: &[&str]) -> App {
    let shop = env.app("flask");
    let page = "\n\n@app.get(\"/env\")\ndef surroundings():\n    return dict(os.environ)";
    shop.tree.version("v1").append("shop.py", page).manifest("deploy", "timeout = \"20s\"");
    for line in section {
        shop.tree.manifest("previews", line);
    }
    shop.becomes_a_repository(env).await;
    shop
}

/// Commits this version on a branch and pushes it.
async fn push_version(env: &Env, app: &App, branch: &str, version: &str) -> coracle_tests::Ran {
    app.git(env, &["checkout", "-q", "-B", branch]).await.succeeds();
    app.tree.version(version);
    app.commits(env, version).await;
    app.push(env, &[branch]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_lives_beside_its_app_and_goes_with_its_branch() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let section = ["env = { GREETING = \"Peek\" }", "secrets = [\"SHARED\"]", "branches = [\"feature/*\"]"];
    let shop = shop(&env, &section).await;
    shop.coracle(&["config", "set", "LEVEL=info", "DATABASE_URL=postgres://shop:hunter2@db/shop"]).await.succeeds();
    let secret =
        |name: &str, value: &str| ConfigChange { name: name.parse().unwrap(), value: Some(value.to_owned()), secret: true };
    let patch = ConfigPatch { changes: vec![secret("PAYMENT", "sk_live_hunter3"), secret("SHARED", "given")], no_deploy: true };
    env.client().set_config(&shop.name, &patch, ChangeOptions::default()).await.unwrap();
    shop.push(&env, &["main"]).await.succeeds();
    let load = shop.load(40).start();

    let first = push_version(&env, &shop, "feature/x", "v2").await;
    first.succeeds().says("remote: ✓ v1 of shop-feature-x is live at http://shop-feature-x.localhost");
    first.says("not copied of the configuration: DATABASE_URL, PAYMENT").does_not_say("hunter").does_not_say("given");
    look(&env, "shop-feature-x", "/").await.says("Peek from v2");
    let surroundings = look(&env, "shop-feature-x", "/env").await;
    surroundings.says("\"SHARED\":\"given\"");
    surroundings.says("\"LEVEL\":\"info\"");
    for not in ["hunter", "PAYMENT", "DATABASE_URL"] {
        assert!(!surroundings.body.contains(not), "{not}: {}", surroundings.body);
    }
    shop.get("/").await.says("Hello from v1");
    let listed = previews(&env, &shop).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((listed[0].branch.as_str(), listed[0].commit.clone()), ("feature/x", Some(shop.head(&env).await)));
    shop.coracle(&["previews"]).await.succeeds().says("feature/x").says("http://shop-feature-x.localhost").says("in 3 days");

    push_version(&env, &shop, "feature/x", "v3").await.succeeds().says("✓ v2 of shop-feature-x is live");
    look(&env, "shop-feature-x", "/").await.says("from v3");

    // Nobody deploys into a preview but by its branch.
    shop.git(&env, &["checkout", "-q", "-f", "main"]).await.succeeds();
    shop.tree.change("coracle.toml", "app = \"shop\"", "app = \"shop-feature-x\"");
    shop.deploy_as_it_is().await.fails().shows("is the preview of branch feature/x of shop");
    shop.git(&env, &["checkout", "-q", "-f", "main"]).await.succeeds();

    shop.push(&env, &[":feature/x"]).await.succeeds().says("feature/x goes, and its preview shop-feature-x with it");
    assert_eq!(apps(&env).await, ["shop"]);
    assert_eq!(look(&env, "shop-feature-x", "/").await.status, 404);
    shop.get("/").await.says("Hello from v1");
    load.stop().await.lost_nothing();
    env.leaves_nothing().await;
}

/// Seconds of the era.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// A site with this section of previews, live.
async fn site(env: &Env, section: &[&str]) -> App {
    let light = env.app("static");
    for line in section {
        light.tree.manifest("previews", line);
    }
    light.becomes_a_repository(env).await;
    light.push(env, &["main"]).await.succeeds();
    light
}

/// Pushes a page on a branch.
async fn push_page(env: &Env, app: &App, branch: &str, text: &str) -> coracle_tests::Ran {
    app.git(env, &["checkout", "-q", "-B", branch]).await.succeeds();
    app.tree.write("public/index.html", text);
    app.commits(env, text).await;
    app.push(env, &[branch]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_leaves_the_preview_before_it_and_two_branches_never_share_one() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = site(&env, &["branches = [\"feature/*\", \"feature-x\"]"]).await;
    push_page(&env, &light, "feature/x", "of feature/x").await.succeeds().says("lighthouse-feature-x is live");
    let v1 = light.head(&env).await;
    let sound = light.tree.read("coracle.toml");
    light.tree.change("coracle.toml", "root = \"public\"", "root = \"nowhere\"");
    let broken = push_page(&env, &light, "feature/x", "broken").await;
    broken.fails().says("! [remote rejected] feature/x -> feature/x (").says("nowhere");
    look(&env, "lighthouse-feature-x", "/").await.says("of feature/x");
    assert_eq!(light.remote_ref(&env, "refs/heads/feature/x").await, Some(v1));
    // One that never was live leaves nothing.
    light.git(&env, &["push", "coracle", "feature/x:feature/never"]).await.fails();
    assert_eq!(apps(&env).await, ["lighthouse", "lighthouse-feature-x"]);

    // Another branch of the same words has a name of its own, and one that the section does not name has none.
    light.tree.write("coracle.toml", sound);
    push_page(&env, &light, "feature-x", "of feature-x").await.succeeds();
    let second = previews(&env, &light).await.remove(0);
    assert_eq!(second.branch, "feature-x");
    assert!(second.app.as_str().starts_with("lighthouse-feature-x-"), "{second:?}");
    look(&env, second.app.as_str(), "/").await.says("of feature-x");
    look(&env, "lighthouse-feature-x", "/").await.says("of feature/x");
    push_page(&env, &light, "other", "of other").await.succeeds().says("other is kept and has no preview: [previews]");
    // While the first commit of a branch fails, the next one waits, and has the preview.
    light.tree.manifest("pipeline.steps.slow", "run = [\"sh\", \"-c\", \"sleep 5; test -e public/fine\"]");
    light.commits(&env, "fails slowly").await;
    let failing = light.push(&env, &["HEAD:feature/slow"]);
    let following = async {
        let under_way = async || match apps(&env).await.contains(&"lighthouse-feature-slow".to_owned()) {
            true => Ok(()),
            false => Err(String::new()),
        };
        eventually("the first push is under way", Duration::from_secs(30), under_way).await;
        light.tree.write("public/fine", "");
        light.commits(&env, "mended").await;
        light.push(&env, &["HEAD:feature/slow"]).await
    };
    let (failed, followed) = tokio::join!(failing, following);
    failed.fails().says("pipeline failed");
    followed.succeeds().says("lighthouse-feature-slow is live");
    // With the app go its previews.
    light.coracle(&["destroy", "-y"]).await.succeeds();
    assert_eq!(apps(&env).await, [""; 0]);
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_ends_when_its_time_is_over() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = site(&env, &["branches = [\"**\"]", "ttl = \"8s\"", "max = 1"]).await;
    push_page(&env, &light, "a", "first").await.succeeds().says("lighthouse-a is live");
    // As many as there may be.
    let kept = push_page(&env, &light, "b", "second").await;
    kept.succeeds().says("b is kept and has no preview: lighthouse has 1 of at most 1 (a)");
    assert!(light.remote_ref(&env, "refs/heads/b").await.is_some());
    light.coracle(&["previews", "extend", "a"]).await.succeeds();
    light.coracle(&["previews", "extend", "b"]).await.fails().says("no preview of a branch b");
    let gone = async || match apps(&env).await.as_slice() {
        [only] if only == "lighthouse" => Ok(()),
        others => Err(format!("{others:?}\n{}", env.server_log())),
    };
    eventually("its time is over", Duration::from_secs(40), gone).await;
    assert!(light.remote_ref(&env, "refs/heads/a").await.is_some(), "the branch itself stays");
    // A time that is over while nobody looks is over.
    push_page(&env, &light, "b", "third").await.succeeds().says("lighthouse-b is live");
    let expires = previews(&env, &light).await[0].expires_at.as_second();
    env.kill_server().await;
    eventually("the time is over", Duration::from_secs(20), async || match now() > expires {
        true => Ok(()),
        false => Err(String::new()),
    })
    .await;
    env.start_server().await;
    eventually("the next start has ended it", Duration::from_secs(40), gone).await;
    light.get("/").await.has_status(200);
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_gives_itself_nothing_and_a_role_in_the_app_is_one_in_its_previews() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = site(&env, &["branches = [\"ok\", \"mine/*\"]"]).await;
    // What the branch says of previews, and of hosts, does not count.
    light.git(&env, &["checkout", "-q", "-b", "greedy"]).await.succeeds();
    light.tree.change("coracle.toml", "branches = [\"ok\"", "branches = [\"**\", \"ok\"");
    light.tree.manifest("http", "hosts = [\"lighthouse.localhost\"]");
    light.commits(&env, "greedy").await;
    light.push(&env, &["greedy"]).await.succeeds().says("greedy is kept and has no preview");
    light.push(&env, &["greedy:ok"]).await.succeeds().says("lighthouse-ok is live at http://lighthouse-ok.localhost");
    assert_eq!(previews(&env, &light).await.len(), 1);

    // Somebody was given a role in an app that is not there yet: its name is not taken.
    env.coracle(&["people", "add", "eve", "--role", "owner", "-a", "lighthouse-mine-x"]).await.succeeds();
    env.coracle(&["people", "add", "ana", "--role", "deployer", "-a", "lighthouse"]).await.succeeds();
    let token = async |name: &str| {
        let made = env.coracle(&["people", "token", "create", name, "--label", "test"]).await;
        made.succeeds().stdout.trim().to_owned()
    };
    let (ana, eve) = (token("ana").await, token("eve").await);
    let url = env.git_url("lighthouse", &ana).await;
    let pushed = light.git(&env, &["push", &url, "greedy:mine/x"]).await;
    let preview = previews(&env, &light).await.remove(0);
    pushed.succeeds().says(&format!("{} is live", preview.app));
    assert!(preview.app.as_str().starts_with("lighthouse-mine-x-"), "{preview:?}");

    let address = env.client().version().await.unwrap().api_tcp.unwrap();
    let ask = async |token: &str, words: &[&str]| {
        let mut command = env.command(words);
        command.env("CORACLE_SERVER", format!("http://{address}")).env("CORACLE_TOKEN", token);
        coracle_tests::Ran::to_its_end(command).await
    };
    let app = preview.app.as_str();
    ask(&ana, &["apps"]).await.succeeds().says(app);
    ask(&ana, &["status", "-a", app]).await.succeeds();
    ask(&ana, &["previews", "-a", "lighthouse"]).await.succeeds().says("mine/x");
    ask(&ana, &["destroy", "-y", "-a", app]).await.fails().says("deployer");
    ask(&eve, &["apps"]).await.succeeds().does_not_say(app);
    ask(&eve, &["status", "-a", app]).await.fails().says("no role");
    ask(&eve, &["previews", "-a", "lighthouse"]).await.fails().says("no role");
    ask(&ana, &["previews", "remove", "mine/x", "-a", "lighthouse"]).await.succeeds();
    ask(&ana, &["git", "branch", "ok", "-a", "lighthouse"]).await.fails().says("owner");

    // Another branch to deploy: what was its preview is none any more.
    light.coracle(&["git", "branch"]).await.succeeds().says("main");
    light.coracle(&["git", "branch", "a..b"]).await.is_refused().says("not the name of a branch");
    light.coracle(&["git", "branch", "ok"]).await.succeeds();
    assert_eq!(apps(&env).await, ["lighthouse"]);
    light.push(&env, &["--force", "main:ok"]).await.succeeds();
    push_page(&env, &light, "main", "of main").await.succeeds().says("main is kept and has no preview");
    push_page(&env, &light, "ok", "of ok").await.succeeds().says("of lighthouse is live");
    light.get("/").await.says("of ok");
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preview_has_data_of_its_own_on_docker() {
    if !coracle_tests::engine::can_tell(EngineKind::Docker, "previews on docker") {
        return;
    }
    let env = Env::start_for_pushes(EngineKind::Docker).await;
    let shop = env.app("flask");
    let page = "\n\n@app.get(\"/data\")\ndef data():\n    path = \"/data/mark\"\n    \
                known = os.path.exists(path)\n    open(path, \"a\").close()\n    return {\"known\": known}";
    shop.tree.version("v1").append("shop.py", page).manifest("previews", "branches = [\"**\"]");
    shop.tree.manifest("processes.web", "volumes = [\"data:/data\"]");
    shop.becomes_a_repository(&env).await;
    shop.push(&env, &["main"]).await.succeeds();
    shop.get("/data").await.says("false");
    shop.get("/data").await.says("true");
    push_version(&env, &shop, "x", "v2").await.succeeds().says("shop-x is live");
    look(&env, "shop-x", "/").await.says("from v2");
    look(&env, "shop-x", "/data").await.says("false");
    shop.git(&env, &["checkout", "-q", "main"]).await.succeeds();
    shop.push(&env, &[":x"]).await.succeeds().says("shop-x with it");
    shop.get("/data").await.says("true");
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_branch_is_called_its_preview_is_an_app_like_any_other() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = site(&env, &["branches = [\"**\"]", "max = 10"]).await;
    let long = "x".repeat(250 - "refs/heads/".len());
    let branches = ["a$(touch${IFS}pwned)", "`touch${IFS}pwned`;'\"", "-u", "\u{202e}ün\u{85}", long.as_str(), "A", "a"];
    let all: Vec<String> = branches.iter().map(|branch| format!("main:refs/heads/{branch}")).collect();
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    let pushed = light.push(&env, &words).await;
    for line in pushed.succeeds().stderr.lines().filter(|line| line.starts_with("remote:")) {
        assert!(!line.contains(['\u{85}', '\u{1b}']), "{line:?}");
    }
    let listed = previews(&env, &light).await;
    assert_eq!(listed.len(), branches.len(), "{listed:?}");
    for preview in &listed {
        assert!(branches.contains(&preview.branch.as_str()), "{preview:?}");
        look(&env, preview.app.as_str(), "/").await.has_status(200);
    }
    let told = light.coracle(&["previews"]).await;
    assert!(!told.succeeds().stdout.contains(['\u{85}', '\u{1b}']), "{told}");
    // All of them go in one push, too.
    let gone: Vec<String> = branches.iter().map(|branch| format!(":refs/heads/{branch}")).collect();
    let words: Vec<&str> = gone.iter().map(String::as_str).collect();
    light.push(&env, &words).await.succeeds();
    assert_eq!(apps(&env).await, ["lighthouse"]);
    for place in [env.state().to_owned(), env.state().join("git/repositories/lighthouse.git"), env.path("home")] {
        assert!(!place.join("pwned").exists());
    }
    env.leaves_nothing().await;
}
