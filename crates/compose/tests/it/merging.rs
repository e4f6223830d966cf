//! Two files over each other, `!reset`, `!override`, `extends`, `include`.

use serde_json::json;

use crate::projects::{Folder, one, over, s, two};

#[test]
fn lists_are_joined_and_entries_that_mean_the_same_replaced() {
    let merged = s(&over(
        "ports: ['80:80', '81:81']\nvolumes: ['aa:/data', './x:/x']\nenvironment: {A: 1, B: 2}\nexpose: [1, 2]\ncap_add: [A]",
        "ports: ['80:80', '82:82']\nvolumes: ['./b:/data']\nenvironment: ['B=3', C]\nexpose: ['2', 3]\ncap_add: [A, B]",
    ));
    assert_eq!(merged["ports"].as_array().unwrap().len(), 3);
    assert_eq!(merged["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(merged["volumes"][0]["source"], "$DIR/b");
    assert_eq!(merged["environment"], json!({"A": "1", "B": "3", "C": null}));
    assert_eq!(merged["expose"], json!(["1", "2", "3"]));
    assert_eq!(merged["cap_add"], json!(["A", "B"]));
}

#[test]
fn commands_are_replaced() {
    let merged =
        s(&over("command: [a, b]\nentrypoint: x\nhealthcheck: {test: a, retries: 1}", "command: c\nhealthcheck: {test: [NONE]}"));
    assert_eq!(merged["command"], json!(["c"]));
    assert_eq!(merged["entrypoint"], json!(["x"]));
    assert_eq!(merged["healthcheck"], json!({"test": ["NONE"], "retries": 1}));
}

#[test]
fn logging_options_are_joined_only_for_the_same_driver() {
    let base = "logging: {driver: json-file, options: {a: 1}}";
    assert_eq!(s(&over(base, "logging: {options: {b: 2}}"))["logging"]["options"], json!({"a": "1", "b": "2"}));
    assert_eq!(s(&over(base, "logging: {driver: syslog}"))["logging"], json!({"driver": "syslog"}));
}

#[test]
fn short_and_long_forms_meet() {
    let folder = two(
        "services:\n  s: {build: ./app, depends_on: [t], networks: [n], ulimits: {nofile: 1}}\n  t: {image: t}\nnetworks: {n: }",
        "services:\n  s: {build: {target: dev}, depends_on: {t: {condition: service_healthy}}, networks: {n: {aliases: [q]}}, ulimits: {nofile: {soft: 1, hard: 2}}}",
    );
    assert_eq!(
        s(&folder),
        json!({
            "build": {"context": "$DIR/app", "dockerfile": "Dockerfile", "target": "dev"},
            "depends_on": {"t": {"condition": "service_healthy", "required": true}},
            "networks": {"n": {"aliases": ["q"]}},
            "ulimits": {"nofile": {"soft": 1, "hard": 2}},
        })
    );
}

#[test]
fn reset_forgets_and_override_replaces() {
    let base = "ports: ['80:80']\nenvironment: {A: a, B: b}\ncommand: run\nlabels: {x: y}";
    let merged =
        s(&over(base, "ports: !reset []\nenvironment: !override {C: c}\ncommand: !reset null\nlabels: {x: !reset null, z: 1}"));
    assert_eq!(merged, json!({"image": "x", "networks": {"default": null}, "environment": {"C": "c"}, "labels": {"z": "1"}}));
}

#[test]
fn reset_takes_single_keys_out_of_mappings() {
    let merged = s(&over(
        "environment: {A: a, B: b}\ndeploy: {replicas: 3}",
        "environment:\n  A: !reset null\ndeploy: {replicas: !reset 0}",
    ));
    assert_eq!(merged["environment"], json!({"B": "b"}));
    assert!(merged["deploy"]["replicas"].is_null());
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let error = over("volumes: [a]", "volumes: {a: b}").error();
    assert!(error.starts_with("$DIR/b.yaml:4:14: services.s.volumes: "), "{error}");
}

#[test]
fn a_service_extends_another_of_its_file() {
    let value = one("services:\n  base: {image: a, environment: {A: 1}, ports: ['1:1']}\n  s: {extends: base, environment: [B=2], ports: ['2:2']}").value();
    assert_eq!(value["services"]["s"]["environment"], json!({"A": "1", "B": "2"}));
    assert_eq!(value["services"]["s"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(value["services"]["base"]["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn a_service_extends_one_of_another_file_whose_paths_stay_its_own() {
    let folder = Folder::with(&[
        ("compose.yaml", "services:\n  s: {extends: {file: lib/base.yaml, service: b}, volumes: ['./own:/own']}"),
        (
            "lib/base.yaml",
            "services:\n  b: {extends: {file: deep/core.yaml, service: c}, env_file: b.env, volumes: ['./lib:/lib']}",
        ),
        ("lib/b.env", "FROM=lib\n"),
        ("lib/deep/core.yaml", "services:\n  c: {build: ., volumes: ['./deep:/deep']}"),
    ]);
    let service = s(&folder);
    let sources: Vec<_> =
        service["volumes"].as_array().unwrap().iter().map(|volume| volume["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["$DIR/lib/deep/deep", "$DIR/lib/lib", "$DIR/own"]);
    assert_eq!(service["build"]["context"], "$DIR/lib/deep");
    assert_eq!(service["environment"], json!({"FROM": "lib"}));
}

#[test]
fn extends_with_reset_takes_the_base_without_it() {
    let value = one("services:\n  base: {image: a, command: run, ports: ['1:1']}\n  s: {extends: base, command: !reset null, ports: !override ['2:2']}").value();
    assert!(value["services"]["s"]["command"].is_null());
    assert_eq!(value["services"]["s"]["ports"].as_array().unwrap().len(), 1);
}

#[test]
fn extends_in_a_circle_is_refused() {
    let error = one("services:\n  a: {extends: b}\n  b: {extends: c}\n  c: {extends: a}").error();
    assert!(error.contains("circular reference: a in $DIR/compose.yaml extends b"), "{error}");
    let error = one("services:\n  a: {extends: nobody}").error();
    assert!(error.starts_with("$DIR/compose.yaml:2:16: services.a: ") && error.contains("\"nobody\" not found"), "{error}");
}

#[test]
fn included_files_live_in_their_own_directory_with_their_own_variables() {
    let folder = Folder::with(&[
        (
            "compose.yaml",
            "include:\n  - path: other/compose.yaml\n    env_file: other.env\n  - sub/compose.yaml\nservices:\n  s: {image: s, depends_on: [o]}",
        ),
        ("other.env", "TAG=from-env-file\n"),
        (
            "other/compose.yaml",
            "services:\n  o: {image: 'o:${TAG}', build: ., volumes: ['./d:/d', 'vol:/v'], environment: [TAG]}\nvolumes: {vol: }",
        ),
        ("sub/.env", "TAG=from-sub\nHOME=/not/this\n"),
        ("sub/compose.yaml", "services:\n  u: {image: 'u:${TAG}', working_dir: $HOME}"),
    ]);
    let value = folder.value();
    assert_eq!(value["services"]["o"]["image"], "o:from-env-file");
    assert_eq!(value["services"]["o"]["environment"], json!({"TAG": "from-env-file"}));
    assert_eq!(value["services"]["o"]["build"]["context"], "$DIR/other");
    assert_eq!(value["services"]["o"]["volumes"][0]["source"], "$DIR/other/d");
    assert_eq!(value["services"]["u"]["image"], "u:from-sub");
    assert_eq!(value["services"]["u"]["working_dir"], "/home/jo");
    assert_eq!(value["volumes"], json!({"vol": {"name": "proj_vol"}}));
}

#[test]
fn what_is_included_may_be_overridden() {
    let included = ("inc.yaml", "services:\n  s: {image: a, ports: ['1:1'], environment: {A: a}}");
    let folder = Folder::with(&[
        included,
        ("compose.yaml", "include: [inc.yaml]"),
        ("compose.override.yaml", "services:\n  s: {image: b}"),
    ]);
    assert_eq!(s(&folder)["image"], "b");
    let own = "include: [inc.yaml]\nservices:\n  s: {image: b, ports: !override ['2:2'], environment: [B=b]}";
    let service = s(&Folder::with(&[included, ("compose.yaml", own)]));
    assert_eq!((&service["image"], &service["ports"][0]["target"]), (&json!("b"), &json!(2)));
    assert_eq!(service["ports"].as_array().unwrap().len(), 1);
    assert_eq!(service["environment"], json!({"A": "a", "B": "b"}));
}

#[test]
fn includes_in_a_circle_are_refused() {
    let folder = Folder::with(&[("compose.yaml", "include: [b.yaml]"), ("b.yaml", "include: [compose.yaml]")]);
    assert!(folder.error().contains("include cycle detected"));
}

#[test]
fn several_documents_of_a_file_are_merged() {
    assert_eq!(s(&one("services:\n  s: {image: a, tty: true}\n---\nservices:\n  s: {image: b}"))["image"], "b");
}
