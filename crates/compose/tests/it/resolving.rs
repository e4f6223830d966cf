//! The model that files come to: forms, defaults, files of variables, contradictions, printing.

use serde_json::{Value, json};

use crate::projects::{Folder, one, s, service};

fn key(body: &str, key: &str) -> Value {
    s(&service(body))[key].clone()
}

#[test]
fn every_form_comes_to_its_long_one() {
    for (body, name, expected) in [
        ("command: sh -c 'a b'", "command", json!(["sh", "-c", "a b"])),
        ("command: []", "command", json!([])),
        ("dns: 1.1.1.1", "dns", json!(["1.1.1.1"])),
        ("env_file: []", "env_file", Value::Null),
        (
            "devices: ['/dev/a', '/dev/b:/dev/c:r']",
            "devices",
            json!([{"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"}, {"source": "/dev/b", "target": "/dev/c", "permissions": "r"}]),
        ),
        (
            "healthcheck: {test: curl x, interval: 90s, retries: '3'}",
            "healthcheck",
            json!({"test": ["CMD-SHELL", "curl x"], "interval": "1m30s", "retries": 3}),
        ),
        ("mem_limit: 1.5gb", "mem_limit", json!("1610612736")),
        ("memswap_limit: -1", "memswap_limit", json!("-1")),
        ("ulimits: {nproc: '5'}", "ulimits", json!({"nproc": 5})),
        ("gpus: all", "gpus", json!([{"count": -1}])),
        ("extra_hosts: {b: ['[::1]', 2.2.2.2], a: 1.1.1.1}", "extra_hosts", json!(["a=1.1.1.1", "b=2.2.2.2", "b=::1"])),
        ("labels: [a=b, c]", "labels", json!({"a": "b", "c": ""})),
        ("environment: {A: 1.10, B: true, C: , D: 0755}", "environment", json!({"A": "1.1", "B": "true", "C": null, "D": "493"})),
        ("expose: [80, '81-82']", "expose", json!(["80", "81-82"])),
        ("init: false", "init", json!(false)),
        ("privileged: false", "privileged", Value::Null),
        ("stop_grace_period: 1m", "stop_grace_period", json!("1m0s")),
        ("storage_opt: {size: 20}", "storage_opt", json!({"size": "20"})),
        ("logging: {driver: x, options: {a: 1, b: }}", "logging", json!({"driver": "x", "options": {"a": "1", "b": ""}})),
        ("deploy: {}", "deploy", json!({"resources": {}, "placement": {}})),
        (
            "scale: 2\ndeploy: {mode: replicated}",
            "deploy",
            json!({"mode": "replicated", "replicas": 2, "resources": {}, "placement": {}}),
        ),
        (
            "blkio_config: {weight_device: [{path: /dev/a, weight: 1}]}",
            "blkio_config",
            json!({"weight_device": [{"Path": "/dev/a", "Weight": 1}]}),
        ),
        (
            "provider: {type: p, options: {a: [1, b], c: true}}",
            "provider",
            json!({"type": "p", "options": {"a": ["1", "b"], "c": ["true"]}}),
        ),
        (
            "volumes: ['/a:/b/../c:ro', {type: tmpfs, target: /t, tmpfs: {size: 1k}}]",
            "volumes",
            json!([{"type": "bind", "source": "/a", "target": "/c", "read_only": true, "bind": {}}, {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1024"}}]),
        ),
        (
            "volumes: [{type: bind, source: ., target: /t, bind: {create_host_path: false}}]",
            "volumes",
            json!([{"type": "bind", "source": "$DIR", "target": "/t", "bind": {"create_host_path": false}}]),
        ),
        ("volumes: ['~/x:/x']", "volumes", json!([{"type": "bind", "source": "/home/jo/x", "target": "/x", "bind": {}}])),
    ] {
        assert_eq!(key(body, name), expected, "{body}");
    }
}

#[test]
fn builds_get_their_defaults() {
    let folder =
        service("build:\n  args: [A, B, C=c]\n  additional_contexts: [x=./x, y=https://h/y.git]\n  ssh: [default]").env("A", "a");
    assert_eq!(
        s(&folder)["build"],
        json!({"context": "$DIR", "dockerfile": "Dockerfile", "args": {"A": "a", "C": "c"}, "additional_contexts": {"x": "$DIR/x", "y": "https://h/y.git"}, "ssh": ["default"]})
    );
}

#[test]
fn resources_get_names() {
    let value = one("name: p\nservices: {s: {image: a, networks: [n], secrets: [k], configs: [c]}}\nnetworks: {n: , e: {external: true}, f: {external: {name: old}}}\nvolumes: {v: , w: {name: own}}\nsecrets: {k: {environment: K}}\nconfigs: {c: {content: x}}").value();
    assert_eq!(
        value["networks"],
        json!({"n": {"name": "p_n"}, "e": {"name": "e", "external": true}, "f": {"name": "old", "external": true}})
    );
    assert_eq!(value["volumes"], json!({"v": {"name": "p_v"}, "w": {"name": "own"}}));
    assert_eq!(value["services"]["s"]["secrets"], json!([{"source": "k", "target": "/run/secrets/k"}]));
    assert_eq!(value["services"]["s"]["configs"], json!([{"source": "c"}]));
}

#[test]
fn dependencies_follow_from_links_and_shared_namespaces() {
    let value = one("services:\n  s: {image: a, links: ['l:db'], network_mode: 'service:n', volumes_from: ['v:ro', 'container:c'], depends_on: {l: {condition: service_healthy}}}\n  l: {image: a}\n  n: {image: a}\n  v: {image: a}").value();
    let dependency = |restart: Option<bool>, condition: &str| {
        let mut value = json!({"condition": condition, "required": true});
        if let Some(restart) = restart {
            value["restart"] = restart.into();
        }
        value
    };
    assert_eq!(
        value["services"]["s"]["depends_on"],
        json!({"l": dependency(None, "service_healthy"), "n": dependency(Some(true), "service_started"), "v": dependency(None, "service_started")})
    );
    assert!(value["services"]["s"]["networks"].is_null());
}

#[test]
fn environment_and_label_files_are_read_under_what_is_written() {
    let folder = Folder::with(&[
        ("compose.yaml", "services:\n  s:\n    image: a\n    env_file: [one.env, {path: none.env, required: false}, {path: raw.env, format: raw}]\n    environment: [B=own, D]\n    label_file: ./l\n    labels: {y: own}"),
        ("one.env", "A=1\nB=2\nC=${D}-${B}\n"),
        ("raw.env", "R='$A'\n"),
        ("l", "x=1\ny=2\n"),
    ])
    .env("D", "d");
    let service = s(&folder);
    assert_eq!(service["environment"], json!({"A": "1", "B": "own", "C": "d-own", "D": "d", "R": "'$A'"}));
    assert_eq!(service["labels"], json!({"x": "1", "y": "own"}));
    assert!(service["env_file"].is_null() && service["label_file"].is_null());
    let error = self::service("env_file: missing.env").error();
    assert!(error.contains("services.s: env file $DIR/missing.env not found"), "{error}");
}

#[test]
fn contradictions_are_found() {
    for (text, expected) in [
        ("services: {s: {}}", "service \"s\" has neither an image nor a build context specified"),
        ("services: {s: {image: a, volumes: ['vol:/v']}}", "refers to undefined volume vol"),
        ("services: {s: {image: a, secrets: [k]}}", "refers to undefined secret k"),
        ("services: {s: {image: a, configs: [k]}}", "refers to undefined config k"),
        ("services: {s: {image: a, depends_on: [t]}, t: {image: a, depends_on: [s]}}", "dependency cycle detected: s -> t -> s"),
        ("services: {s: {image: a, depends_on: [s]}}", "dependency cycle detected: s -> s"),
        ("services: {s: {image: a, network_mode: host, networks: [n]}}\nnetworks: {n: }", "mutually exclusive"),
        ("services: {s: {build: {dockerfile: D, dockerfile_inline: FROM x}}}", "mutually exclusive"),
        ("services: {s: {image: a, healthcheck: {test: [curl]}}}", "healthcheck.test must start either by"),
        (
            "services: {s: {image: a, scale: 2, deploy: {replicas: 3}}}",
            "can't set distinct values on 'scale' and 'deploy.replicas'",
        ),
        ("services: {s: {image: a, container_name: cc, scale: 2}}", "can't set container_name and scale"),
        ("services: {s: {image: a, container_name: cc}, t: {image: a, container_name: cc}}", "already in use by service s"),
        ("services: {s: {image: a, tmpfs: /a, volumes: ['/b:/a']}}", "target /a already mounted as services.s.tmpfs[0]"),
        ("services: {s: {image: a, develop: {watch: [{path: ., action: sync}]}}}", "target is required"),
        (
            "services: {s: {image: a}}\nvolumes: {v: {external: true, driver: d}}",
            "conflicting parameters \"external\" and \"driver\"",
        ),
        ("services: {s: {image: a}}\nsecrets: {k: {file: f, environment: E}}", "mutually exclusive"),
        ("services: {s: {image: a}}\nconfigs: {c: {}}", "one of file|environment|content must be set"),
        ("services: {s: {image: a, gpus: [{count: 1, device_ids: [a]}]}}", "attributes are exclusive"),
    ] {
        let error = one(text).error();
        assert!(error.starts_with("$DIR/compose.yaml:") && error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn the_typed_model_has_what_json_has() {
    let project = one("x-top: 1\nservices:\n  s:\n    image: a\n    x-coracle: {stateful: true}\n    ports: ['127.0.0.1:80:8080/udp']\n    volumes: ['vol:/v']\n    ulimits: {nproc: 1, nofile: {soft: 1, hard: 2}}\n    deploy: {resources: {limits: {cpus: '0.5', memory: 1k}}}\nvolumes: {vol: {labels: [a=b], x-v: 1}}").load().project;
    let service = &project.services["s"];
    assert_eq!(service.extensions["x-coracle"], json!({"stateful": true}));
    assert_eq!(
        (service.ports[0].target, service.ports[0].published.as_deref(), service.ports[0].protocol.as_str()),
        (8080, Some("80"), "udp")
    );
    assert_eq!(service.volumes[0].kind, "volume");
    assert_eq!(service.ulimits["nofile"], coracle_compose::service::Ulimit::Range { soft: 1, hard: 2 });
    let limits = service.deploy.as_ref().unwrap().resources.limits.as_ref().unwrap();
    assert_eq!((limits.cpus, limits.memory.as_deref()), (Some(0.5), Some("1024")));
    assert_eq!(project.volumes["vol"].labels["a"], "b");
    assert_eq!((&project.volumes["vol"].extensions["x-v"], &project.extensions["x-top"]), (&json!(1), &json!(1)));
}

#[test]
fn warnings_are_told_once() {
    let loaded = one("version: '3'\nservices:\n  s: {image: '$NONE $NONE', init: yes}").load();
    assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
    assert!(loaded.value["version"].is_null());
}

#[test]
fn the_yaml_that_is_printed_is_the_same_project() {
    let folder = one(
        "services:\n  s:\n    image: 'a:1'\n    command: ['sh', '-c', \"a\\nb\\n\", '', 'yes', '0755', ' x']\n    environment: {A: 'null', B: '1.0', C: '${D:-x}', E: 'a: b # c'}\n    ports: ['1:2']\n    labels: {traefik.http.routers.a.rule: 'Host(`a`) && Path(`/x`)'}",
    );
    let yaml = folder.load().to_yaml();
    let again = one(&yaml.replace('$', "$$"));
    assert_eq!(again.load().value.to_string(), folder.load().value.to_string(), "{yaml}");
}
