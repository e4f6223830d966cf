//! Finding files, names, variables and profiles; YAML; errors with their place.

use serde_json::json;

use crate::projects::{Folder, one, s, service};

const S: &str = "services:\n  s: {image: a}";

#[test]
fn the_usual_files_are_found_in_the_folder_or_above() {
    let mut folder = Folder::with(&[
        ("docker-compose.yml", S),
        ("docker-compose.override.yml", "services:\n  s: {image: b}"),
        ("deep/er/x", ""),
    ]);
    assert_eq!(s(&folder)["image"], "b");
    let root = folder.path().to_path_buf();
    folder.options.working_dir = root.join("deep/er");
    let loaded = folder.load();
    assert_eq!(loaded.project.directory, root);
    assert_eq!(loaded.project.files().len(), 2);
    let folder = Folder::with(&[("compose.yaml", S), ("docker-compose.yml", S)]);
    assert!(folder.load().warnings[0].starts_with("Found multiple config files"));
}

#[test]
fn files_are_named_by_option_or_variable() {
    let folder = Folder::with(&[("a.yml", S), ("x/b.yml", "services:\n  s: {tty: true}")]);
    let folder = folder.env("COMPOSE_FILE", "a.yml:x/b.yml");
    assert_eq!(s(&folder)["tty"], true);
    let folder = folder.env("COMPOSE_PATH_SEPARATOR", ",").env("COMPOSE_FILE", "a.yml,x/b.yml");
    assert_eq!(s(&folder)["tty"], true);
    assert!(s(&folder.files(&["a.yml"]))["tty"].is_null());
}

#[test]
fn standard_input_is_a_file() {
    let mut folder = Folder::with(&[]).files(&["-"]);
    folder.options.stdin = Some("services:\n  s: {build: .}".to_owned());
    assert_eq!(s(&folder)["build"]["context"], "$DIR");
}

#[test]
fn nothing_found_says_where_was_looked() {
    let folder = Folder::with(&[]);
    assert!(folder.error().starts_with("no configuration file provided: not found in $DIR or above"));
}

#[test]
fn the_name_is_given_or_written_or_the_folders() {
    let name = |folder: &Folder| folder.load().project.name;
    let named = || one("name: Written_Name!\nservices:\n  s: {image: '${COMPOSE_PROJECT_NAME}'}");
    assert_eq!(name(&one(S)), "proj");
    assert_eq!(name(&named()), "written_name");
    assert_eq!(s(&named())["image"], "written_name");
    let from_environment = named().env("COMPOSE_PROJECT_NAME", "env");
    assert_eq!(name(&from_environment), "env");
    let mut given = from_environment;
    given.options.project_name = Some("given".to_owned());
    assert_eq!(name(&given), "given");
    given.options.project_name = Some("Not Good".to_owned());
    assert!(given.error().starts_with("invalid project name \"Not Good\""));
}

#[test]
fn variables_come_from_the_process_then_from_files() {
    let text = "services:\n  s: {image: '$A $B $C'}";
    let files = [("compose.yaml", text), (".env", "A=dot\nB=dot\nC=${B}x"), ("e1", "B=one\nC=one"), ("e2", "C=two-$B")];
    assert_eq!(s(&Folder::with(&files).env("A", "process"))["image"], "process dot dotx");
    let mut folder = Folder::with(&files).env("A", "process");
    folder.options.env_files = vec!["e1".into(), "e2".into()];
    assert_eq!(s(&folder)["image"], "process one two-one");
    let folder = Folder::with(&files).env("COMPOSE_DISABLE_ENV_FILE", "1");
    assert_eq!(folder.load().warnings.len(), 3);
}

#[test]
fn variables_become_what_the_key_is() {
    let folder = service("privileged: $YES\nscale: ${N}\ncpus: '$F'\ndeploy: {replicas: '$N'}\nports: [{target: $N}]")
        .env("YES", "yes")
        .env("N", "3")
        .env("F", "0.5");
    let service = s(&folder);
    assert_eq!((&service["privileged"], &service["scale"], &service["cpus"]), (&json!(true), &json!(3), &json!(0.5)));
    assert_eq!(service["ports"][0]["target"], 3);
    let error = service_error("scale: ${N:-many}");
    assert_eq!(error, "$DIR/compose.yaml:4:12: services.s.scale: invalid integer: `many`");
}

fn service_error(body: &str) -> String {
    service(body).error()
}

#[test]
fn a_required_variable_is_asked_for() {
    let error = service_error("hostname: ${DOMAIN:?the public name}");
    assert_eq!(
        error,
        "$DIR/compose.yaml:4:15: services.s.hostname: required variable DOMAIN is missing a value: the public name \
         (set DOMAIN in the environment or in .env)"
    );
}

#[test]
fn profiles_choose_services() {
    let text = "services:\n  s: {image: s}\n  d: {image: d, profiles: [debug], env_file: missing}\n  o: {image: o, depends_on: {d: {condition: service_started, required: false}}}";
    let loaded = one(text).load();
    assert_eq!(loaded.project.services.keys().collect::<Vec<_>>(), ["o", "s"]);
    assert_eq!(loaded.project.disabled.keys().collect::<Vec<_>>(), ["d"]);
    let text = text.replace(", env_file: missing", "");
    for folder in [one(&text).profile("debug"), one(&text).profile("*"), one(&text).env("COMPOSE_PROFILES", "x, debug")] {
        assert_eq!(folder.load().project.services.len(), 3);
    }
    let error = one("services:\n  d: {image: d, profiles: [p]}\n  s: {image: s, depends_on: [d]}").error();
    assert!(error.contains("depends on undefined service \"d\"") && error.contains("a profile that is not active"), "{error}");
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let value = one("x-base: &b {image: a, tty: true}\nx-list: &l [{init: true}, {tty: false, user: u}]\nservices:\n  s: {<<: *b, image: c}\n  t: {<<: [*b, {user: v}]}\n  u: {<<: *l, image: z}\n  v: *b").value();
    assert_eq!(value["services"]["s"]["image"], "c");
    assert_eq!(value["services"]["s"]["tty"], true);
    assert_eq!(value["services"]["t"]["user"], "v");
    assert_eq!(value["services"]["u"]["init"], true);
    assert_eq!(value["services"]["v"]["image"], "a");
    assert_eq!(value["x-base"], json!({"image": "a", "tty": true}));
    // In quotes it is a name like others.
    assert_eq!(s(&service("environment: {\"<<\": x}"))["environment"], json!({"<<": "x"}));
}

#[test]
fn yaml_that_no_compose_file_may_be() {
    for (text, expected) in [
        (
            "services:\n  s: {image: a}\n  s: {image: b}",
            "$DIR/compose.yaml:3:3: services: the key `s` is here twice; the first one is in line 2",
        ),
        (
            "services:\n  1: {image: a}",
            "$DIR/compose.yaml:2:3: services: a key must be a string, and this is none: 1 (put the key in quotes)",
        ),
        ("x-a: &a\nservices: {s: {<<: *a, image: a}}", "$DIR/compose.yaml:2:16: `<<` takes a mapping"),
        ("x-a: &a [*a]", "$DIR/compose.yaml:1:10: an anchor contains itself"),
        ("- a", "$DIR/compose.yaml:1:1: top-level object must be a mapping"),
        ("x: [", "$DIR/compose.yaml:2:1: this is not YAML"),
        ("", "empty compose file"),
    ] {
        let error = one(text).error();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn bombs_are_refused() {
    let bomb: String = ('b'..='j')
        .map(|letter| {
            let before = char::from(letter as u8 - 1);
            format!("x-{letter}: &{letter} [{}]\n", vec![format!("*{before}"); 9].join(","))
        })
        .collect();
    assert!(one(&format!("x-a: &a [l,l,l,l,l,l,l,l,l]\n{bomb}services: {{}}")).error().contains("the project is larger than"));
    assert!(one(&format!("x: {}", "{a: ".repeat(200))).error().contains("more than 64 levels"));
    let long = one(&format!("services:\n  s: {{image: '{}'}}", "$A".repeat(1_000))).env("A", &"a".repeat(100_000));
    assert!(long.error().contains("its variables are longer than 16 MiB together"));
    let ports = ["'1-65535'", "'1-65535/udp'"].join(", ");
    assert!(service(&format!("ports: [{ports}]")).error().contains("the project is larger than"));
    assert!(one(&"- ".repeat(100_000)).error().contains("more than 64 levels"));
    let chain: String = (1..1_000).map(|n| format!("  s{n}: {{extends: s{}}}\n", n - 1)).rev().collect();
    assert!(one(&format!("services:\n{chain}  s0: {{image: a}}\n")).error().contains("circular reference"));
}

#[test]
fn a_misspelt_key_names_the_nearest_one() {
    for (body, expected) in [
        (
            "enviroment: {A: b}",
            "$DIR/compose.yaml:4:5: services.s.enviroment: `enviroment` is not a key that can stand here (did you mean `environment`?)",
        ),
        (
            "healthcheck: {tests: x}",
            "services.s.healthcheck.tests: `tests` is not a key that can stand here (did you mean `test`?)",
        ),
        ("ports: [{targt: 80}]", "services.s.ports[0].targt: `targt` is not a key that can stand here (did you mean `target`?)"),
        ("frobnicate: 1", "(keys of your own begin with `x-`)"),
    ] {
        let error = service_error(body);
        assert!(error.contains(expected), "{error}");
    }
    let error = one("services:\n  s: {image: a, networks: [fornt]}\nnetworks: {front: }").error();
    assert!(error.ends_with("(did you mean `front`?)"), "{error}");
}

#[test]
fn values_of_the_wrong_type_are_refused_with_their_place() {
    for (body, expected) in [
        ("ports: 80", "$DIR/compose.yaml:4:12: services.s.ports: must be a list, not integer"),
        ("environment:", "services.s.environment: must be a mapping or list, not null"),
        ("image: {a: b}", "the key `image` is here twice"),
        ("privileged: [true]", "services.s.privileged: must be a string or boolean, not list"),
        ("cgroup: me", "services.s.cgroup: `me` is not one of host, private"),
        ("oom_score_adj: 5000", "services.s.oom_score_adj: 5000 is not within -1000 and 1000"),
        ("healthcheck: {interval: soon}", "services.s.healthcheck.interval: "),
        ("mem_limit: lots", "services.s.mem_limit: "),
        ("security_opt: [a, a]", "services.s.security_opt[1]: this entry is in the list twice"),
        ("volumes: [{target: /a}]", "services.s.volumes[0]: the key `type` is missing"),
        ("command: [1]", "services.s.command[0]: must be a string, not integer"),
        ("ports: ['a:b']", "services.s.ports[0]: "),
        ("cpu_percent: 50.5", "services.s.cpu_percent: must be a string or integer"),
        ("deploy: {resources: {reservations: {devices: [{count: 1}]}}}", "devices[0]: must say which `capabilities`"),
        ("env_file: [{path: compose.yaml, format: json}]", "unsupported env_file format \"json\""),
    ] {
        let error = service_error(body);
        assert!(error.contains(expected), "{body}: {error}");
    }
}

#[test]
fn every_value_can_be_traced() {
    let folder = Folder::with(&[
        ("compose.yaml", "services:\n  s:\n    image: a\n    ports:\n      - 80:80\n"),
        ("compose.override.yaml", "services:\n  s:\n    privileged: true\n"),
    ]);
    let project = folder.load().project;
    let place = |path: &[&str]| project.position(path).unwrap().to_string().replace(&*folder.path().to_string_lossy(), "$DIR");
    assert_eq!(place(&["services", "s", "image"]), "$DIR/compose.yaml:3:5");
    assert_eq!(place(&["services", "s", "ports", "0", "target"]), "$DIR/compose.yaml:5:9");
    assert_eq!(place(&["services", "s", "privileged"]), "$DIR/compose.override.yaml:3:5");
    assert_eq!(place(&["services", "s", "networks", "default"]), "$DIR/compose.yaml:2:3");
}

#[test]
fn raw_environment_files_are_read_as_by_docker_run() {
    let compose = "services:\n  s: {image: a, env_file: [{path: raw.env, format: raw}]}";
    let with = |text: &str| Folder::with(&[("compose.yaml", compose), ("raw.env", text)]).env("KNOWN", "k");
    let read = s(&with("\u{FEFF}A=\"q $X\" # no\n  # said\n\n \tB= two \nKNOWN\nUNKNOWN\nA.b-c=x=y"));
    assert_eq!(read["environment"], json!({"A": "\"q $X\" # no", "B": " two ", "KNOWN": "k", "A.b-c": "x=y"}));
    assert!(with("A=1\nexport B=2").error().contains("raw.env: line 2: the variable \"export B\" contains whitespace"));
    assert!(with("=1").error().contains("raw.env: line 1: there is no variable name"));
}

#[test]
fn short_forms_cost_what_they_stand_for() {
    let list = |key: &str, entry: &dyn Fn(usize) -> String, count: usize| {
        let entries: Vec<String> = (0..count).map(entry).collect();
        Folder::with(&[("compose.yaml", &format!("services: {{s: {{image: a, {key}: [{}]}}}}", entries.join(",")))])
    };
    assert!(list("volumes", &|index| format!("./v:/v{index}"), 42_000).error().contains("the project is larger than"));
    assert_eq!(list("cap_add", &|index| format!("C{index}"), 42_000).load().project.services["s"].cap_add.len(), 42_000);
}
