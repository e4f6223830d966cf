//! `coracle ci init`: what it writes passes the published schemas and the linter's rules, and its lines, run as a runner runs them, deploy.
//!
//! Of actionlint's rules, the schema holds for keys, types, events, permissions and shells; that a key is not there twice is held by the
//! reader; what is left is held here: expressions and where they may stand, what `run` is made of, labels of runners, actions.

use std::path::{Path, PathBuf};

use coracle_model::EngineKind;
use coracle_tests::sshd::Laptop;
use coracle_tests::{Env, Ran, Settings, program, schema, yaml};
use serde_json::Value;

const GITHUB: &str = include_str!("../../schemas/github-workflow.json");
const GITLAB: &str = include_str!("../../schemas/gitlab-ci.json");

/// A server that is reached over TLS and by its own door.
async fn server() -> Env {
    let arguments = ["--https", "127.0.0.1:0", "--api-host", "localhost", "--ssh", "127.0.0.1:0"];
    let arguments = arguments.map(str::to_owned).to_vec();
    let env = Env::prepare(Settings { arguments, ..Settings::of(EngineKind::Process) });
    env.start_server().await;
    env
}

/// What is written for this forge, as text.
async fn workflow(env: &Env, tree: &Path, words: &[&str]) -> String {
    let mut command = env.command(&[&["ci", "init"], words, &["--stdout"]].concat());
    command.current_dir(tree);
    let printed = Ran::to_its_end(command).await;
    printed.succeeds();
    printed.stdout
}

/// The expressions of a workflow, each with the path of keys that it stands at.
fn expressions(value: &Value, place: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => {
            let parts = text.split("${{").skip(1).map(|rest| rest.split_once("}}").expect("an expression ends").0.trim());
            found.extend(parts.map(|expression| (place.to_owned(), expression.to_owned())));
        }
        Value::Array(list) => list.iter().for_each(|item| expressions(item, &format!("{place}/-"), found)),
        Value::Object(map) => map.iter().for_each(|(key, value)| expressions(value, &format!("{place}/{key}"), found)),
        _ => {}
    }
}

async fn is_bash(script: &str, env: &Env) {
    let mut command = program::command(Path::new("bash"), &env.path("home"));
    command.args(["-n", "-c", script]);
    let read = Ran::to_its_end(command).await;
    assert!(read.code == Some(0) && read.stderr.is_empty(), "{read}");
}

async fn passes_the_linter(workflow: &Value, env: &Env) {
    let mut found = Vec::new();
    expressions(workflow, "", &mut found);
    for (place, expression) in &found {
        // Nothing that somebody else chose is made part of a script.
        assert!(!place.ends_with("/run"), "{expression} stands in a script");
        let known = match expression.strip_prefix("secrets.") {
            // In jobs, this context is known in `env` of steps, not in `if` (contexts, "Context availability").
            Some(secret) => place.starts_with("/jobs/deploy/steps/-/env/") && secret.starts_with("CORACLE_"),
            None => ["github.server_url", "github.repository", "github.token", "!github.event.repository.fork"]
                .contains(&expression.as_str()),
        };
        assert!(known, "{place}: {expression}");
    }
    assert!(!found.is_empty());
    let job = &workflow["jobs"]["deploy"];
    assert_eq!(job["runs-on"], "ubuntu-24.04", "a label that is no version moves");
    assert_eq!(job["if"], "${{ !github.event.repository.fork }}", "a text beside an expression is always true");
    assert_eq!(workflow["permissions"], serde_json::json!({ "contents": "read" }));
    assert_eq!(workflow["concurrency"]["cancel-in-progress"], true);
    assert!(job["timeout-minutes"].is_u64());
    for step in job["steps"].as_array().unwrap() {
        assert!(step.get("uses").is_none(), "an action of somebody else's");
        let names = step["env"].as_object().unwrap().keys();
        let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        assert!(names.into_iter().all(is_name));
        let run = step["run"].as_str().unwrap();
        assert!(!run.contains("::set-output") && !run.contains("::save-state"));
        is_bash(run, env).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_passes_the_published_schemas_and_the_linters_rules() {
    let env = server().await;
    let tree = env.app("static").tree.path().to_owned();
    let [github, gitlab] = [GITHUB, GITLAB].map(|text| serde_json::from_str::<Value>(text).unwrap());
    let key = ["--key", "--host", "box.example.com"];
    let token = ["--url", "https://coracle.example.com:8443"];
    for way in [&token[..], &key[..]] {
        for branch in [&[][..], &["--branch", "release/1.2"]] {
            let words = [way, branch].concat();
            let text = workflow(&env, &tree, &[&["github"], &words[..]].concat()).await;
            let written = yaml::read(&text);
            assert_eq!(schema::faults(&github, &written), Vec::<String>::new(), "{text}");
            passes_the_linter(&written, &env).await;
            let text = workflow(&env, &tree, &[&["gitlab"], &words[..]].concat()).await;
            let written = yaml::read(&text);
            assert_eq!(schema::faults(&gitlab, &written), Vec::<String>::new(), "{text}");
            is_bash(written["coracle"]["script"][0].as_str().unwrap(), &env).await;
        }
    }
    // The schemas do find what is wrong.
    let mut broken = yaml::read(&workflow(&env, &tree, &[&["github"], &token[..]].concat()).await);
    broken["jobs"]["deploy"]["steps"][0]["runs"] = "x".into();
    assert!(!schema::faults(&github, &broken).is_empty());
    let mut broken = yaml::read(&workflow(&env, &tree, &[&["gitlab"], &token[..]].concat()).await);
    broken["coracle"]["scripts"] = "x".into();
    assert!(!schema::faults(&gitlab, &broken).is_empty());

    // A file that is there is left alone.
    let init = async |words: &[&str]| {
        let mut command = env.command(&[&["ci", "init", "github"], words, &token[..]].concat());
        command.current_dir(&tree);
        Ran::to_its_end(command).await
    };
    init(&[]).await.succeeds().says("wrote .github/workflows/coracle.yml").says("coracle people token create ci-lighthouse");
    let path = tree.join(".github/workflows/coracle.yml");
    std::fs::write(&path, "mine").unwrap();
    init(&[]).await.fails().says("exists already").says("--force");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    init(&["--force"]).await.succeeds();
    assert!(std::fs::read_to_string(&path).unwrap().contains("coracle.example.com"));
    for bad in ["https://a'b", "https://box/x", "http://u:p@box", "$(id)"] {
        let mut command = env.command(&["ci", "init", "gitlab", "--stdout", "--url", bad]);
        command.current_dir(&tree);
        Ran::to_its_end(command).await.is_refused();
    }
}

/// A machine that runs jobs.
struct Runner<'a> {
    env: &'a Env,
    /// What stands for the forge: a folder with a bare repository in it.
    forge: PathBuf,
    /// The authority that the machine trusts.
    ca: PathBuf,
    jobs: usize,
}

impl Runner<'_> {
    /// Pushes the branch to the forge, and gives the commit.
    async fn pushed(&self, app: &coracle_tests::App, message: &str) -> String {
        app.commits(self.env, message).await;
        let url = self.forge.join("lighthouse.git").display().to_string();
        app.git(self.env, &["push", "-q", &url, "HEAD:refs/heads/main"]).await.succeeds();
        app.head(self.env).await
    }

    /// Runs a script as runners do, in a directory.
    async fn bash(&self, directory: &Path, script: &str, variables: &[(String, String)]) -> Ran {
        let mut command = program::command(Path::new("bash"), &self.env.path("home"));
        command.args(["--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script]).current_dir(directory);
        command.env("GIT_SSL_CAINFO", &self.ca).env_remove("SSH_AUTH_SOCK");
        Ran::to_its_end(variables.iter().fold(command, |mut command, (name, value)| {
            command.env(name, value);
            command
        }))
        .await
    }

    fn workspace(&mut self) -> PathBuf {
        self.jobs += 1;
        let workspace = self.env.path(&format!("job-{}", self.jobs));
        std::fs::create_dir(&workspace).unwrap();
        workspace
    }

    /// The steps of a GitHub workflow, up to the first that fails.
    async fn github(&mut self, workflow: &str, commit: &str, secret: &str) -> Ran {
        let (workflow, workspace) = (yaml::read(workflow), self.workspace());
        let server = format!("file://{}", self.forge.display());
        let given = |text: &str| {
            let known = [("github.server_url", server.as_str()), ("github.repository", "lighthouse.git"), ("github.token", "")];
            let secrets = ["secrets.CORACLE_TOKEN", "secrets.CORACLE_SSH_KEY"].map(|name| (name, secret));
            let all = known.into_iter().chain(secrets);
            all.fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{{ {name} }}}}"), value))
        };
        let mut last = None;
        for step in workflow["jobs"]["deploy"]["steps"].as_array().unwrap() {
            let mut variables = vec![("GITHUB_SHA".to_owned(), commit.to_owned())];
            for (name, value) in step["env"].as_object().unwrap() {
                variables.push((name.clone(), given(value.as_str().unwrap())));
            }
            let directory = workspace.join(step["working-directory"].as_str().unwrap_or("."));
            let ran = self.bash(&directory, step["run"].as_str().unwrap(), &variables).await;
            let failed = ran.code != Some(0);
            last = Some(ran);
            if failed {
                break;
            }
        }
        last.expect("there are steps")
    }

    /// The script of a GitLab job, in the clone that its runner makes.
    async fn gitlab(&mut self, workflow: &str, commit: &str, secret: (&str, &str)) -> Ran {
        let (workflow, workspace) = (yaml::read(workflow), self.workspace());
        let forge = self.forge.join("lighthouse.git").display().to_string();
        self.env.git(&workspace, &["clone", "-q", &forge, "clone"]).await.succeeds();
        let clone = workspace.join("clone");
        self.env.git(&clone, &["checkout", "-q", "--detach", commit]).await.succeeds();
        let job = &workflow["coracle"];
        let mut variables = vec![("CI_COMMIT_SHA".to_owned(), commit.to_owned()), (secret.0.to_owned(), secret.1.to_owned())];
        for (name, value) in job["variables"].as_object().unwrap() {
            variables.push((name.clone(), value.as_str().unwrap().to_owned()));
        }
        self.bash(&clone, job["script"][0].as_str().unwrap(), &variables).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_that_are_written_deploy_what_is_pushed() {
    let env = server().await;
    let light = env.app("static");
    let tree = light.tree.path().to_owned();
    let key = env.person("runner", "deployer", "lighthouse").await;
    let made = env.coracle(&["people", "token", "create", "runner", "--label", "ci"]).await;
    let token = made.succeeds().stdout.trim().to_owned();
    let forge = env.path("forge");
    std::fs::create_dir(&forge).unwrap();
    env.git(&forge, &["init", "-q", "--bare", "lighthouse.git"]).await.succeeds();
    light.git(&env, &["init", "-q", "-b", "main"]).await.succeeds();
    let ca = env.path("ca.pem");
    std::fs::write(&ca, env.coracle(&["certs", "--authority"]).await.succeeds().stdout.clone()).unwrap();
    let mut runner = Runner { env: &env, forge, ca, jobs: 0 };

    // Over TLS with a token. The server says itself where it is reached.
    let by_token = workflow(&env, &tree, &["github"]).await;
    let first = runner.pushed(&light, "first").await;
    let unset = runner.github(&by_token, &first, "").await;
    unset.says("CORACLE_TOKEN").says("set this secret first");
    assert_ne!(unset.code, Some(0));
    let last = if token.ends_with('0') { '1' } else { '0' };
    let wrong = runner.github(&by_token, &first, &format!("{}{last}", &token[..token.len() - 1])).await;
    assert_ne!(wrong.code, Some(0), "{wrong}");
    wrong.does_not_say(&token[..token.len() - 1]);
    let live = runner.github(&by_token, &first, &token).await;
    live.succeeds().says("remote: ✓ v1 of lighthouse is live").does_not_say(&token);
    light.get("/").await.has_status(200);

    // A change that does not hold fails the job with its cause, and what is live stays.
    light.tree.change("coracle.toml", "root = \"public\"", "root = \"nowhere\"");
    let broken = runner.pushed(&light, "broken").await;
    let by_token_there = workflow(&env, &env.path("home"), &["gitlab", "-a", "lighthouse"]).await;
    let failed = runner.gitlab(&by_token_there, &broken, ("CORACLE_TOKEN", &token)).await;
    failed.fails().says("nowhere").says("[remote rejected]").does_not_say(&token);
    light.get("/").await.has_status(200);
    light.tree.change("coracle.toml", "root = \"nowhere\"", "root = \"public\"").write("public/index.html", "<p>second</p>");
    let mended = runner.pushed(&light, "mended").await;
    runner.gitlab(&by_token_there, &mended, ("CORACLE_TOKEN", &token)).await.succeeds();
    light.get("/").await.says("second");

    // With a key, by the server's own door.
    let by_key = workflow(&env, &tree, &["github", "--key", "--host", "127.0.0.1"]).await;
    light.tree.write("public/index.html", "<p>third</p>");
    let third = runner.pushed(&light, "third").await;
    let secret = std::fs::read_to_string(&key.path).unwrap();
    runner.github(&by_key, &third, &secret).await.succeeds();
    light.get("/").await.says("third");
    let by_key = workflow(&env, &tree, &["gitlab", "--key", "--host", "127.0.0.1"]).await;
    light.tree.write("public/index.html", "<p>fourth</p>");
    let fourth = runner.pushed(&light, "fourth").await;
    runner.gitlab(&by_key, &fourth, ("CORACLE_SSH_KEY", key.path.to_str().unwrap())).await.succeeds();
    light.get("/").await.says("fourth");
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_over_tls_is_a_remote() {
    let env = server().await;
    let key = env.person("ana", "deployer", "lighthouse").await;
    let made = env.coracle(&["people", "token", "create", "ana", "--label", "laptop"]).await;
    let token = made.succeeds().stdout.trim().to_owned();
    let url = env.client().version().await.unwrap().api_url.expect("the API has a host");
    let laptop = Laptop::of(&env, "laptop", &key);
    let ca = env.path("ca.pem");
    std::fs::write(&ca, env.coracle(&["certs", "--authority"]).await.succeeds().stdout.clone()).unwrap();

    laptop.coracle(&["remote", "add", "prod", &url]).await.is_refused().says("nobody can be asked").says("--token-stdin");
    let with = async |token: &str, words: &[&str]| {
        let file = env.path("token");
        std::fs::write(&file, token).unwrap();
        let mut command =
            laptop.command(&env.path("laptop"), &[&["remote", "add", "prod", &url, "--token-stdin"], words].concat());
        command.stdin(std::fs::File::open(&file).unwrap());
        Ran::as_it_is(command).await
    };
    with(&token, &[]).await.fails().says("nobody you trust has signed its certificate").says("--ca");
    let trusting = ["--default", "--ca", ca.to_str().unwrap()];
    with("coracle_c1_wrong", &trusting).await.fails().says("this token is not known here, or was revoked");
    assert!(!laptop.config().exists());
    with(&token, &trusting).await.succeeds().says("you are ana").does_not_say(&token);
    let mode = std::os::unix::fs::PermissionsExt::mode(&laptop.config().metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    laptop.coracle(&["remote", "list"]).await.succeeds().says("kept").does_not_say(&token);

    let light = env.app("static");
    laptop.coracle_in(light.tree.path(), &["deploy"]).await.succeeds().says("v1 of lighthouse is live");
    laptop.coracle(&["status", "-a", "lighthouse"]).await.succeeds();
    laptop.coracle(&["people"]).await.fails().says("the administrator's");
    // Without TLS there is nothing under that name.
    let plain = coracle_tests::browser::ask(env.address(), "localhost", http::Method::GET, "/v1/version", String::new()).await;
    assert_eq!(plain.unwrap().status, 404);
    env.coracle(&["people", "remove", "ana"]).await.succeeds();
    laptop.coracle(&["status", "-a", "lighthouse"]).await.fails().says("this token is not known here, or was revoked");
    env.leaves_nothing().await;
}
