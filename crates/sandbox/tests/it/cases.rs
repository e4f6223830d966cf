//! Other projects' cases, read in place where a folder with them is named (`CORACLE_CASES`, else beside the repository).

use std::path::PathBuf;
use std::time::Duration;

use coracle_sandbox::{Execution, Reason};
use serde_json::Value;

use crate::host::{Done, Host};

fn rows() -> Option<Vec<Value>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases");
    let folder = std::env::var_os("CORACLE_CASES").map_or_else(beside, PathBuf::from);
    let text = std::fs::read_to_string(folder.join("exec/code_execution.jsonl")).ok()?;
    Some(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a test that did not run must be seen")]
async fn programs_of_other_projects() {
    let Some(rows) = rows() else {
        eprintln!("NOT TRIED: there are no cases of other projects here");
        return;
    };
    let Some(host) = Host::start(&["slots=2"]).await else { return };
    for row in rows.iter().filter(|row| row["code"].is_string()) {
        for _ in 0..row["repeat"].as_u64().unwrap_or(1) {
            let mut execution = Execution::new("default", row["code"].as_str().unwrap_or_default());
            execution.limits.wall = Some(Duration::from_secs(4));
            if row["expect"]["files_not_contain"].is_string() {
                execution.collect = vec!["**".to_owned()];
            }
            let done = host.run(&execution).await;
            check(row, &done);
        }
        host.quiet().await;
    }
}

fn check(row: &Value, done: &Done) {
    let (id, expect) = (&row["id"], &row["expect"]);
    let because = || format!("{id} {}: {}", row["title"], done.whole());
    let right = match expect["outcome"].as_str() {
        Some("ok") => done.end.reason == Reason::Ok,
        Some("timeout") => done.end.reason == Reason::Timeout,
        Some("oom") => done.end.reason == Reason::Oom,
        Some("error") => matches!(done.end.reason, Reason::ExitNonzero | Reason::Signal),
        _ => true,
    };
    assert!(right, "{}", because());
    let text = done.text();
    let holds = |key: &str, test: &dyn Fn(&str) -> bool| expect[key].as_str().is_none_or(test);
    assert!(holds("stdout", &|expected| text == expected), "{}", because());
    assert!(holds("stdout_contains", &|part| text.contains(part)), "{}", because());
    assert!(holds("stdout_not_contains", &|part| !text.contains(part)), "{}", because());
    let inside = |part: &str| done.files.iter().any(|file| String::from_utf8_lossy(&file.content).contains(part));
    assert!(holds("files_not_contain", &|part| !inside(part)), "{}", because());
    if let Some(code) = expect["exit_code"].as_i64() {
        assert_eq!(done.end.exit_code.map(i64::from), Some(code), "{}", because());
    }
    if let Some(codes) = expect["exit_code_in"].as_array() {
        let signal = done.end.signal.map(i64::from);
        let seen = [done.end.exit_code.map(i64::from), signal.map(|signal| -signal), signal.map(|signal| 128 + signal)];
        assert!(codes.iter().any(|code| seen.contains(&code.as_i64())), "{}", because());
    }
}
