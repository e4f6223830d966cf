//! Pushes that are small and become large, and repositories that try to run something: refused with a cause, and the server is none
//! the worse for it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::{App, Env, Ran};
use rustix::process::Pid;
use tokio::io::AsyncWriteExt;

/// Bytes that no program of git's may have resident.
const MOST_RESIDENT: u64 = 300 << 20;

/// Git with something on its standard input; what it answers.
async fn told(env: &Env, app: &App, words: &[&str], input: &[u8]) -> String {
    let mut command = env.git_command(app.tree.path(), words);
    let mut git = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = git.stdin.take().unwrap();
    stdin.write_all(input).await.unwrap();
    drop(stdin);
    let answer = git.wait_with_output().await.unwrap();
    assert!(answer.status.success(), "{words:?}: {answer:?}");
    String::from_utf8(answer.stdout).unwrap().trim().to_owned()
}

/// A commit of this tree, on top of nothing.
async fn commit(env: &Env, app: &App, tree: &str) -> String {
    told(env, app, &["commit-tree", "-m", "bomb", tree], b"").await
}

/// The most memory that each descendant of the server was seen with, by its name.
fn watch(server: Pid, seen: &mut BTreeMap<String, u64>) {
    let mut parents = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        let name = field("Name:").unwrap_or_default();
        parents.insert(pid, (i32::try_from(number("PPid:")).unwrap(), name, number("VmHWM:") << 10));
    }
    for (name, resident) in parents.iter().filter_map(|(pid, (_, name, resident))| {
        let is_below = std::iter::successors(Some(*pid), |pid| parents.get(pid).map(|(parent, ..)| *parent))
            .take(8)
            .skip(1)
            .any(|pid| pid == server.as_raw_nonzero().get());
        (is_below && name.starts_with("git")).then_some((name, resident))
    }) {
        let most = seen.entry(name.clone()).or_default();
        *most = (*most).max(*resident);
    }
}

/// Pushes a commit, and looks at the memory of the server's programs meanwhile.
async fn pushed(env: &Env, app: &App, commit: &str, branch: &str) -> Ran {
    let server = env.server_pid();
    let refspec = format!("{commit}:refs/heads/{branch}");
    let words = ["push", "--force", "coracle", &refspec];
    let pushing = app.git(env, &words);
    tokio::pin!(pushing);
    let mut seen = BTreeMap::new();
    let ran = loop {
        tokio::select! {
            ran = &mut pushing => break ran,
            () = tokio::time::sleep(Duration::from_millis(20)) => watch(server, &mut seen),
        }
    };
    let too_much = seen.iter().find(|(_, resident)| **resident > MOST_RESIDENT);
    assert!(!seen.is_empty() && too_much.is_none(), "{seen:?}");
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_small_and_becomes_large_is_refused() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = env.app("static");
    light.becomes_a_repository(&env).await;
    light.push(&env, &["main"]).await.succeeds();
    let good = light.head(&env).await;
    let before = coracle_tests::memory::resident(env.server_pid());

    // Folders that contain one folder many times, which does as well: ten to the tenth files in eleven objects.
    let blob = told(&env, &light, &["hash-object", "-w", "--stdin"], b"x").await;
    let entries = |mode: &str, kind: &str, id: &str| (0..10).map(|n| format!("{mode} {kind} {id}\tf{n}\n")).collect::<String>();
    let mut tree = told(&env, &light, &["mktree"], entries("100644", "blob", &blob).as_bytes()).await;
    for _ in 0..9 {
        tree = told(&env, &light, &["mktree"], entries("040000", "tree", &tree).as_bytes()).await;
    }
    let bomb = commit(&env, &light, &tree).await;
    pushed(&env, &light, &bomb, "main").await.fails().says("(the commit has more than 100000 files)");

    // A file of nothing, ten times: more than a gigabyte in a hundred kilobytes.
    let nothing = vec![0; 120 << 20];
    let blob = told(&env, &light, &["hash-object", "-w", "--stdin"], &nothing).await;
    drop(nothing);
    let tree = told(&env, &light, &["mktree"], entries("100644", "blob", &blob).as_bytes()).await;
    let bomb = commit(&env, &light, &tree).await;
    pushed(&env, &light, &bomb, "main").await.fails().says("(the archive holds more than 1024 MiB)");

    let after = coracle_tests::memory::resident(env.server_pid());
    assert!(after < before + (64 << 20), "{before} {after}");
    assert_eq!(std::fs::read_dir(env.state().join("incoming")).unwrap().count(), 0);
    assert_eq!(light.remote_ref(&env, "refs/heads/main").await, Some(good));
    light.get("/").await.has_status(200);
    light.commits(&env, "next").await;
    light.push(&env, &["main"]).await.succeeds();
    env.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_would_run_something_elsewhere_is_refused() {
    let env = Env::start_for_pushes(EngineKind::Process).await;
    let light = env.app("static");
    light.becomes_a_repository(&env).await;
    light.push(&env, &["main"]).await.succeeds();
    let pwned = env.path("pwned");
    let touch = format!("touch {}", pwned.display());
    let blob = async |text: &str| told(&env, &light, &["hash-object", "-w", "--stdin"], text.as_bytes()).await;
    let mut bad = Vec::new();
    for url in [format!("ext::sh -c {}", touch.replace(' ', "%20")), format!("-u{touch}"), "file:///etc".to_owned()] {
        let modules = blob(&format!("[submodule \"x\"]\n\tpath = x\n\turl = {url}\n\tupdate = !{touch}\n")).await;
        bad.push((format!("100644 blob {modules}\t.gitmodules\n"), "fsck"));
    }
    let link = blob("/etc").await;
    bad.push((format!("120000 blob {link}\t.git\n"), "fsck"));
    bad.push((format!("120000 blob {link}\t.gitmodules\n"), "fsck"));
    let config = blob(&format!("[core]\n\tfsmonitor = \"{touch}\"\n\tsshCommand = \"{touch}\"\n")).await;
    let folder = told(&env, &light, &["mktree"], format!("100644 blob {config}\tconfig\n").as_bytes()).await;
    bad.push((format!("040000 tree {folder}\t.GIT\n"), "fsck"));
    for (entry, cause) in bad {
        let tree = told(&env, &light, &["mktree"], entry.as_bytes()).await;
        let commit = commit(&env, &light, &tree).await;
        let refused = light.git(&env, &["push", "--force", "coracle", &format!("{commit}:refs/heads/main")]).await;
        refused.fails().says(cause);
    }
    // A commit that talks to terminals is one like any other, and what it says is not repeated.
    light.commits(&env, "\u{1b}]0;pwned\u{7}\u{1b}[2J\r\nremote: ok `touch pwned` $(touch pwned)").await;
    let pushed = light.push(&env, &["main"]).await;
    assert!(!pushed.succeeds().stderr.lines().any(|line| line.starts_with("remote:") && line.contains(['\u{1b}', '\u{7}'])));
    assert!(!pwned.exists());
    env.leaves_nothing().await;
}
