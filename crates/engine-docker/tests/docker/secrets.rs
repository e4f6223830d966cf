//! Secrets of builds, by BuildKit.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use coracle_engine::{BuildError, BuildRequest};
use coracle_model::plan::Recipe;
use coracle_model::stack::BuildExtras;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, Told};

/// A request for the Dockerfile of the tree with these secrets.
fn request(rig: &Rig, release: u32, secrets: &[(&str, &str)]) -> BuildRequest {
    let secrets = secrets.iter().map(|(id, value)| ((*id).to_owned(), (*value).into())).collect();
    let extras = Box::new(BuildExtras { secrets, ..BuildExtras::default() });
    rig.request(Recipe::Dockerfile { path: "Dockerfile".into(), target: None, args: BTreeMap::new(), extras }, release)
}

async fn build(rig: &Rig, release: u32, secrets: &[(&str, &str)], told: &Told) -> Result<coracle_model::Artifact, BuildError> {
    rig.engine.builder.build(&request(rig, release, secrets), &told.sink(), &CancellationToken::new()).await
}

/// Whether a text stands anywhere in an image: in its layers, its configuration, its history.
fn image_has(rig: &Rig, id: &str, text: &str) -> bool {
    let file = rig.dir.path().join("image.tar");
    let file = file.to_str().unwrap();
    rig.seen_by_docker(&["save", "--output", file, id]);
    Command::new("grep").args(["--quiet", "--text", "--fixed-strings", text, file]).status().unwrap().success()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_sees_its_secrets_and_the_image_does_not() {
    let Some(rig) = Rig::new().await else { return };
    // Long enough to be found by chance nowhere; written nowhere in this file, in the form it has.
    let (token, key) = (format!("token-{}-nekot", rig.owner), format!("line one {}\nline two\n", rig.owner));
    rig.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nCOPY owner /owner\n\
         RUN --mount=type=secret,id=token --mount=type=secret,id=key,target=/root/key,mode=0440 \\\n\
         \x20   md5sum < /run/secrets/token > /sum && md5sum < /root/key >> /sum && stat -c %a /root/key >> /sum && echo done\n\
         RUN test ! -s /run/secrets/token && test ! -s /root/key && cat /sum\nCMD [\"cat\", \"/sum\"]\n",
    );
    let told = Told::default();
    let artifact = build(&rig, 1, &[("token", &token), ("key", &key)], &told).await;
    let artifact = artifact.unwrap_or_else(|error| panic!("{error}\n{}", told.text()));
    let sums = rig.seen_by_docker(&["run", "--rm", artifact.id.as_str()]);
    let sum = |text: &str| {
        let mut child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    };
    assert_eq!(sums, [sum(&token), sum(&key), "440".to_owned()], "both were seen, whole");
    assert!(!told.text().contains(&token), "{}", told.text());
    let history = rig.seen_by_docker(&["history", "--no-trunc", artifact.id.as_str()]).join("\n");
    assert!(history.contains("--mount=type=secret") || history.contains("md5sum"), "{history}");
    for text in [token.as_str(), key.lines().next().unwrap()] {
        assert!(!history.contains(text) && !image_has(&rig, artifact.id.as_str(), text), "{text}");
    }
    // What is looked for that way is found: the search itself works.
    assert!(image_has(&rig, artifact.id.as_str(), &sum(&token)));
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_is_named_and_one_that_may_be_is_not_missed() {
    let Some(rig) = Rig::new().await else { return };
    rig.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nCOPY owner /owner\nRUN --mount=type=secret,id=absent,required=true true\n",
    );
    for (release, secrets) in [(1, &[][..]), (2, &[("other", "x")][..])] {
        let told = Told::default();
        match build(&rig, release, secrets, &told).await {
            Err(error @ BuildError::CannotBuild(_)) => {
                assert!(error.to_string().contains("absent") && error.to_string().contains("secret"), "{error}");
            }
            other => panic!("{other:?}\n{}", told.text()),
        }
    }
    rig.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nCOPY owner /owner\nRUN --mount=type=secret,id=absent test ! -e /run/secrets/absent\n",
    );
    let told = Told::default();
    build(&rig, 3, &[], &told).await.unwrap_or_else(|error| panic!("{error}\n{}", told.text()));
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_secret_arrives_whole_and_a_larger_one_is_refused() {
    let Some(rig) = Rig::new().await else { return };
    rig.file(
        "Dockerfile",
        "FROM debian:bookworm-slim\nCOPY owner /owner\nRUN --mount=type=secret,id=big wc -c < /run/secrets/big\n",
    );
    let told = Told::default();
    let largest = "b".repeat(500 * 1024);
    build(&rig, 1, &[("big", &largest)], &told).await.unwrap_or_else(|error| panic!("{error}\n{}", told.text()));
    assert!(told.lines().iter().any(|line| line.text.trim() == "512000"), "{}", told.text());
    let refused = build(&rig, 2, &[("big", &format!("{largest}b"))], &told).await.unwrap_err().to_string();
    assert!(refused.contains("big") && refused.contains("512001") && !refused.contains("bbb"), "{refused}");
    rig.clean().await;
}
