//! Images that are not the machine's own Python.

use std::path::Path;
use std::process::Command;

use coracle_sandbox::{ClientError, Execution, Image, Mode, Source};

use crate::host::{Host, finish, possible, until};

/// A root with an interpreter and what it needs, and nothing else: `/opt/python`, a library directory, no `/etc`.
fn make_root(root: &Path) {
    let script = r#"
set -e
python=$(readlink -f /usr/bin/python3)
mkdir -p "$1/usr/local/bin" "$1/usr/lib"
cp "$python" "$1/usr/local/bin/python3"
for file in $(ldd "$python" $(find /usr/lib/python3*/lib-dynload -name '_ctypes.*') | grep -o '/[^ :)]*\.so[^ :)]*' | sort -u); do
    mkdir -p "$1$(dirname "$file")"
    cp -L "$file" "$1$file"
done
version=$($python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
mkdir -p "$1/usr/local/lib/$version"
(cd "/usr/lib/$version" && tar -c --exclude=__pycache__ --exclude=test --exclude=sitecustomize.py --exclude='config-*' .) | tar -x -C "$1/usr/local/lib/$version"
echo own > "$1/marker"
"#;
    assert!(Command::new("sh").args(["-c", script, "sh"]).arg(root).status().unwrap().success());
}

#[tokio::test]
async fn a_directory_is_an_image_beside_the_machines_own() {
    if !possible() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    make_root(root.path());
    let setting = format!("directory={}", root.path().display());
    let Some(host) = Host::start(&["slots=1", &setting]).await else { return };
    for mode in [Mode::Zygote, Mode::Exec] {
        let mut execution = Execution::new(
            "directory",
            "import os, sys, json\nprint(open('/marker').read(), sys.prefix, os.path.exists('/usr/share'), os.getuid())",
        );
        execution.mode = mode;
        let done = finish(host.sandbox.execute(&execution).await.unwrap()).await;
        done.says("own\n /usr/local False 1000\n");
        execution.code =
            b"for p in '/marker', '/usr/x':\n    try: open(p, 'a')\n    except OSError as e: print(e.errno)".to_vec();
        finish(host.sandbox.execute(&execution).await.unwrap()).await.says("13\n30\n");
    }
    host.python("import os\nprint(os.path.exists('/marker'))").await.says("False\n");
    let images = host.sandbox.images().await.unwrap();
    let names: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["default", "directory"]);
    assert!(images.iter().all(|image| image.interpreter.starts_with("cpython 3.") && image.trouble.is_none()), "{images:?}");
    assert_eq!(std::fs::read_to_string(root.path().join("marker")).unwrap(), "own\n");
}

#[tokio::test]
async fn an_image_whose_interpreter_does_not_start_says_why_and_the_others_serve() {
    if !possible() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    std::fs::write(root.path().join("usr/bin/python3"), "not a program").unwrap();
    let setting = format!("directory={}", root.path().display());
    let Some(host) = Host::start(&["slots=1", "patience=300", &setting]).await else { return };
    host.python("print(1)").await.says("1\n");
    let execution = Execution::new("directory", "print(1)");
    let refused = host.sandbox.execute(&execution).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(refusal) if refusal.message.contains("zygote")), "{refused}");
    let mut failures = 0;
    while failures == 0 {
        failures = host.sandbox.health().await.unwrap().failures;
    }
    let images = host.sandbox.images().await.unwrap();
    assert!(images[0].trouble.is_none() && images[1].trouble.is_some(), "{images:?}");
}

#[test]
fn an_interpreter_is_looked_for_before_anything_is_started() {
    let empty = tempfile::tempdir().unwrap();
    let missing = Image::find("x", Source::Directory { path: empty.path().to_owned(), python: None }, 1).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "image x: no usable Python (not there: /usr/local/bin/python3, /usr/bin/python3); name the interpreter's path"
    );
    let no_directory = Image::find("x", Source::Directory { path: empty.path().join("no"), python: None }, 1).unwrap_err();
    assert!(no_directory.to_string().contains("No such file"), "{no_directory}");
    let no_python = Image::find("x", Source::Host { python: Some("/bin/false".into()) }, 1).unwrap_err();
    assert!(no_python.to_string().contains("/bin/false"), "{no_python}");
}

#[tokio::test]
async fn modules_imported_ahead_are_there_and_a_missing_one_is_no_harm() {
    let Some(host) = Host::start(&["slots=1", "preload=json,nosuchmodule,decimal"]).await else { return };
    host.python("import sys\nprint([name in sys.modules for name in ('json', 'decimal', 'nosuchmodule')])")
        .await
        .says("[True, True, False]\n");
}

#[tokio::test]
async fn a_zygote_is_replaced_in_time_with_another_layout_and_hash_seed() {
    let Some(host) = Host::start(&["slots=1", "copies=3"]).await else { return };
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10 {
        let done = host.python("print(hash('text'), id(None))").await;
        seen.insert(done.text());
    }
    assert!((3..=6).contains(&seen.len()), "{seen:?}");
    // An interpreter of one's own shares neither with anybody.
    let mut execution = Execution::new("default", "print(hash('text'), id(None))");
    execution.mode = Mode::Exec;
    let (one, other) = (host.run(&execution).await.text(), host.run(&execution).await.text());
    assert_ne!(one, other);
    until("old zygotes are gone", || {
        let text = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.pid())).unwrap_or_default();
        let root_python = |pid: &&str| {
            std::fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|text| text.contains("\nUid:\t0\t") && text.starts_with("Name:\tpython"))
        };
        text.split_whitespace().filter(root_python).count() <= 1
    })
    .await;
}
