//! What was typed wrongly is exit code 2, what failed is 1, and neither changes anything.

use serde_json::json;

use crate::program::{Desk, files_below};
use crate::scripted::Scripted;

#[test]
fn mistakes_in_what_is_typed_are_exit_code_2() {
    let desk = Desk::new();
    for words in [
        &["nonsense"][..],
        &["deploy", "--nonsense"],
        &["-a", "../etc", "status"],
        &["-a", "shop;rm", "status"],
        &["-a", "sh\u{f6}p", "status"],
        &["rollback", "-a", "shop", "v0"],
        &["ps", "scale", "-a", "shop", "web"],
        &["config", "set", "-a", "shop", "1BAD=x"],
        &["secrets", "set", "-a", "shop", "KEY=hunter2"],
        &["status", "-a", "shop", "--server", "nonsense"],
        &["deploy", "-a", "shop", "no-such-directory"],
        &["logs", "-a", "shop", "--since", "yesterday"],
        &["exec", "-a", "shop", "-i", "web.1", "--", "true"],
    ] {
        let ended = desk.coracle(words);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{words:?}: {ended:?}");
        assert!(!ended.err.is_empty() && !ended.err.contains("hunter2"), "{words:?}: {ended:?}");
    }
}

#[test]
fn no_server_is_exit_code_1_and_says_how_to_start_one() {
    let desk = Desk::new();
    desk.coracle(&["apps"]).code(1).err_has("error: cannot reach the server").err_has("next: ").err_has("coracle server run");
    let ended = desk.coracle(&["apps", "--json"]);
    ended.code(1);
    assert_eq!(ended.json()["error"]["kind"], "failed");
}

#[test]
fn the_app_is_the_one_typed_else_the_manifests_else_the_directorys() {
    let asked = |desk: &Desk, words: &[&str]| {
        let server = Scripted::start(|_, answer| {
            answer.json(404, &json!({"type": "urn:coracle:problem:not-found", "title": "-", "status": 404, "detail": "there is no app", "kind": "not-found"}))
        });
        let option = server.option();
        desk.coracle(&[words, &[&option]].concat()).code(1).err_has("there is no app");
        server.heard().line
    };
    let plain = Desk::with_shop(&[]);
    assert_eq!(asked(&plain, &["status"]), "GET /v1/apps/shop");
    let named = Desk::with_shop(&[("coracle.toml", "app = \"bakery\"\n")]);
    assert_eq!(asked(&named, &["status"]), "GET /v1/apps/bakery");
    assert_eq!(asked(&named, &["status", "-a", "cafe"]), "GET /v1/apps/cafe");
    let nameless = Desk::with_shop(&[("coracle.toml", "[http]\nhealth = \"/up\"\n")]);
    assert_eq!(asked(&nameless, &["status"]), "GET /v1/apps/shop");
}

#[test]
fn a_directory_whose_name_is_no_app_name_is_not_guessed_from() {
    let desk = Desk::new();
    let odd = desk.home.path().join("Not A Name");
    std::fs::create_dir(&odd).unwrap();
    let mut command = desk.command(&["status"]);
    command.current_dir(odd);
    crate::program::Running::start(command).end().code(2).err_has("which app?").err_has("-a NAME");
}

#[test]
fn a_wrong_manifest_is_shown_with_its_line_and_nothing_is_sent() {
    let server = Scripted::start(|_, answer| answer.json(200, &json!({})));
    let desk = Desk::with_shop(&[("coracle.toml", "app = \"shop\"\n\n[http]\nhelth = \"/up\"\n"), ("app.py", "")]);
    let ended = desk.coracle(&["deploy", &server.option()]);
    ended.code(2).err_has("coracle.toml has a mistake").err_has("helth").err_has("4").err_has("^").err_has("health");
    assert!(server.heard_nothing_else());
}

/// A pipe that nobody writes to.
fn pipe(path: &std::path::Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn a_manifest_that_is_no_plain_file_is_refused_at_once() {
    let desk = Desk::with_shop(&[]);
    let manifest = desk.shop().join("coracle.toml");
    let refused = || {
        let workflow = ["ci", "init", "gitlab", "--url", "https://coracle.example.com", "--stdout"];
        for words in [&["policy"][..], &["status"], &["ci", "run"], &["deploy", "--plan"], &workflow] {
            let ended = desk.coracle(words);
            assert_eq!(ended.code, Some(2), "{words:?}: {ended:?}");
            assert!(ended.err.contains("coracle.toml: it is not a regular file\nnext: "), "{words:?}: {ended:?}");
        }
    };
    pipe(&manifest);
    refused();
    std::fs::remove_file(&manifest).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &manifest).unwrap();
    refused();
}

#[test]
fn pipes_among_the_files_of_an_app_hold_nobody_up() {
    let desk = Desk::with_shop(&[("coracle.toml", "app = \"shop\"\n[processes.web]\ncommand = \"./serve\"\n")]);
    for name in ["Procfile", "Dockerfile", ".coracleignore", ".dockerignore", ".env", ".env.production", "id_rsa", "compose.yaml"]
    {
        pipe(&desk.shop().join(name));
    }
    desk.coracle(&["policy"]);
    let built = desk.coracle(&["init", "--dockerfile"]);
    assert!(built.code.is_some(), "{built:?}");

    let compose = "services: {web: {build: ., configs: [c]}}\nconfigs: {c: {file: ./pipe}}\n";
    let desk = Desk::with_shop(&[("compose.yaml", compose)]);
    for name in ["Dockerfile", "pipe"] {
        pipe(&desk.shop().join(name));
    }
    desk.coracle(&["policy"]);
}

#[test]
fn an_app_that_is_not_the_manifests_is_refused_before_anything_is_sent() {
    let server = Scripted::start(|_, answer| answer.json(200, &json!({})));
    let desk = Desk::with_shop(&[("coracle.toml", "app = \"shop\"\n")]);
    desk.coracle(&["deploy", "-a", "cafe", &server.option()]).code(2).err_has("names the app shop, but cafe was typed");
    assert!(server.heard_nothing_else());
}

#[test]
fn an_environment_without_a_manifest_is_refused_before_anything_is_sent() {
    let server = Scripted::start(|_, answer| answer.json(200, &json!({})));
    let desk = Desk::with_shop(&[("app.py", "")]);
    desk.coracle(&["deploy", "-e", "staging", &server.option()]).code(2).err_has("staging");
    assert!(server.heard_nothing_else());
}

#[test]
fn init_writes_a_manifest_that_is_valid_and_never_overwrites_one() {
    let desk = Desk::with_shop(&[("Procfile", "web: python3 app.py\n")]);
    desk.coracle(&["init", "--ignore-file"]).code(0).out_has("wrote coracle.toml").err_has("next: coracle deploy");
    assert_eq!(files_below(&desk.shop()), [".coracleignore", "Procfile", "coracle.toml"]);
    // It is read again by every command that needs the app's name.
    desk.coracle(&["status"]).code(1).err_has("cannot reach the server");
    std::fs::write(desk.shop().join("coracle.toml"), "app = \"mine\"\n").unwrap();
    desk.coracle(&["init"]).code(1).err_has("exists already").err_has("-y");
    assert_eq!(std::fs::read_to_string(desk.shop().join("coracle.toml")).unwrap(), "app = \"mine\"\n");
    desk.coracle(&["init", "-y", "-a", "other"]).code(0);
    assert!(std::fs::read_to_string(desk.shop().join("coracle.toml")).unwrap().contains("other"));
}

#[test]
fn init_prints_or_writes_the_dockerfile_of_an_app_that_has_none() {
    let flask = ("app.py", "from flask import Flask\napp = Flask(__name__)\n");
    let desk =
        Desk::with_shop(&[flask, ("requirements.txt", "flask\n"), ("coracle.toml", "app = \"shop\"\nhttp.health = \"/up\"\n")]);
    let printed = desk.coracle(&["init", "--dockerfile"]);
    printed.code(0).out_has("gunicorn==27.0.1").out_has("\"/up\",\"shop.localhost\"]");
    assert!(printed.out.starts_with("# Written by Coracle: found requirements.txt;"), "{}", printed.out);
    assert_eq!(files_below(&desk.shop()), ["app.py", "coracle.toml", "requirements.txt"]);
    desk.coracle(&["init", "--dockerfile", "--write"]).code(0).out_has("wrote Dockerfile");
    assert_eq!(std::fs::read_to_string(desk.shop().join("Dockerfile")).unwrap().trim_end(), printed.out.trim_end());
    // From then on it is the app's own.
    desk.coracle(&["init", "--dockerfile", "--write"]).code(1).err_has("built from its own Dockerfile");
    desk.coracle(&["init", "--write"]).code(2).err_has("--dockerfile");

    // What is not sent is not there, and what is wrong is said as a deployment would say it.
    let desk = Desk::with_shop(&[flask, ("uv.lock", ""), ("poetry.lock", ""), (".coracleignore", "uv.lock\n")]);
    desk.coracle(&["init", "--dockerfile"]).code(1).err_has("poetry.lock, but no pyproject.toml");
    std::fs::remove_file(desk.shop().join(".coracleignore")).unwrap();
    desk.coracle(&["init", "--dockerfile"]).code(1).err_has("uv.lock (uv) and poetry.lock (Poetry)");
    let desk = Desk::with_shop(&[flask, ("compose.yaml", "services: {}\n")]);
    desk.coracle(&["init", "--dockerfile"]).code(1).err_has("compose.yaml describes this app");
}

#[test]
fn destroying_needs_a_confirmation_that_a_script_must_give() {
    let status = json!({"name": "shop", "state": "stopped", "release": null, "hosts": [], "urls": [], "processes": [],
        "instances": [], "deployment": null, "created_at": "2026-11-21T00:00:00Z"});
    let server = Scripted::start(move |request, answer| match request.line.as_str() {
        "GET /v1/apps/shop" => answer.json(200, &status),
        "GET /v1/apps/shop/previews" => answer.json(200, &json!({"previews": []})),
        _ => _ = answer.say("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
    });
    let desk = Desk::new();
    desk.coracle(&["destroy", "-a", "shop", &server.option()])
        .code(2)
        .err_has("destroying shop needs a confirmation")
        .err_has("add -y");
    let looks = ["GET /v1/apps/shop", "GET /v1/apps/shop/previews"];
    assert_eq!(looks, looks.map(|_| server.heard().line));
    assert!(server.heard_nothing_else());
    desk.coracle(&["destroy", "-a", "shop", "-y", &server.option()]).code(0).out_has("shop is gone");
    assert_eq!(looks, looks.map(|_| server.heard().line));
    assert_eq!(server.heard().line, "DELETE /v1/apps/shop");
}

#[test]
fn a_secret_is_read_from_standard_input_or_a_file_and_shown_nowhere() {
    let server = Scripted::start(|_, answer| answer.json(200, &json!({"entries": []})));
    let desk = Desk::new();
    std::fs::write(desk.home.path().join("key"), "from file\n").unwrap();
    let option = server.option();
    for (input, words, value) in
        [("hunter2\n", &["secrets", "set", "KEY"][..], "hunter2"), ("", &["secrets", "set", "KEY", "--file", "key"], "from file")]
    {
        let ended = desk.coracle_reads(&[words, &["-a", "shop", "-v", &option]].concat(), input);
        ended.code(0).out_has("stored");
        assert!(!format!("{ended:?}").contains(value), "{ended:?}");
        let request = server.heard();
        assert_eq!(request.line, "PATCH /v1/apps/shop/config");
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["changes"], json!([{"name": "KEY", "value": value, "secret": true}]));
    }
}

#[test]
fn completions_and_manual_pages_are_made_for_every_command() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        desk.coracle(&["completions", shell]).code(0).out_has("deploy");
    }
    desk.coracle(&["man"]).code(0).out_has(".TH coracle 1");
    desk.coracle(&["man", "pages"]).code(0);
    let pages = files_below(&desk.home.path().join("pages"));
    for page in ["coracle.1", "coracle-deploy.1", "coracle-ps-scale.1", "coracle-server-run.1"] {
        assert!(pages.iter().any(|found| found == page), "{page} in {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.contains("shim")), "{pages:?}");
}

#[test]
fn help_and_versions_are_answers_not_errors() {
    let desk = Desk::new();
    desk.coracle(&["--help"]).code(0).out_has("Usage: coracle");
    desk.coracle(&["deploy", "-h"]).code(0).out_has("--plan");
    desk.coracle(&["--version"]).code(0).out_has(env!("CARGO_PKG_VERSION"));
    assert_eq!(desk.coracle(&["version", "--json"]).code(0).json()["version"], env!("CARGO_PKG_VERSION"));
    let bare = desk.coracle(&[]);
    bare.code(2).err_has("Usage: coracle");
}
