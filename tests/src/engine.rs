//! The engines that stories are told on, and what to do where one is missing.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use coracle_model::EngineKind;

/// Whether a Docker Engine answers. Asked once.
pub fn docker_answers() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    let ask = || Command::new("docker").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    *ANSWER.get_or_init(|| ask().is_ok_and(|status| status.success()))
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether stories can be told on this engine here. If not, says so loudly; under `CI=true` that is a failure.
#[track_caller]
pub fn can_tell(engine: EngineKind, story: &str) -> bool {
    match engine {
        EngineKind::Docker if !docker_answers() => skip(story, "no Docker Engine answers"),
        _ => true,
    }
}

/// Whether a story that needs root can be told. If not, says so loudly; under `CI=true` that is a failure.
#[track_caller]
pub fn can_tell_as_root(story: &str) -> bool {
    is_root() || skip(story, "needs root")
}

/// Writes down that a story is not told, and answers `false`.
#[track_caller]
pub fn skip(story: &str, why: &str) -> bool {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{story}: {why}, and CI=true allows no skipping");
    eprintln!("SKIPPED {story}: {why}");
    if let Some(list) = std::env::var_os("CORACLE_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(list);
        file.and_then(|mut file| writeln!(file, "{story}: {why}")).expect("the list of skipped stories can be written");
    }
    false
}

/// Runs `docker` with these words; what it printed, or what it complained about.
pub async fn docker(words: &[&str]) -> Result<String, String> {
    let output = tokio::process::Command::new("docker").args(words).stdin(Stdio::null()).output().await.unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(format!("docker {words:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
