//! What the program says of containers' labels.

use serde_json::{Value, json};

use crate::program::Desk;
use crate::scripted::Scripted;

fn inspected(labels: &Value) -> String {
    let container = json!({
        "Id": "0123456789abcdef", "Name": "/blog", "State": { "Status": "running" }, "Config": { "Labels": labels },
        "NetworkSettings": { "Ports": { "80/tcp": null }, "Networks": { "bridge": { "IPAddress": "172.17.0.2" } } },
    });
    json!([container]).to_string()
}

fn desk(labels: &Value) -> Desk {
    Desk::with_shop(&[("containers.json", &inspected(labels))])
}

#[test]
fn what_labels_would_do_is_told_in_traefiks_words_and_in_those_of_a_table() {
    let desk =
        desk(&json!({ "traefik.http.routers.blog.rule": "Host(`blog.example`)", "traefik.http.routers.blog.tls.options": "o" }));
    let ended = desk.coracle(&["proxy", "labels", "--containers", "containers.json", "--json"]);
    ended.code(0);
    let said = ended.json();
    assert_eq!(said["routers"]["blog"]["service"], "blog");
    assert_eq!(said["services"]["blog"]["loadBalancer"]["servers"], json!([{ "url": "http://172.17.0.2:80" }]));
    assert_eq!(said["table"]["services"]["blog@docker"]["targets"][0]["id"], "blog.0123456789ab:80@docker");
    assert_eq!((&said["problems"][0]["kind"], &said["problems"][0]["about"]), (&json!("unsupported"), &json!("router blog")));
    let table = desk.coracle(&["proxy", "labels", "--containers", "containers.json"]);
    table.code(0);
    table.out_has("Host(`blog.example`)").out_has("http://172.17.0.2:80").out_has("tls.options=o has no effect");
}

#[test]
fn options_are_those_of_traefiks_docker_provider() {
    let desk = desk(&json!({ "tier": "web" }));
    let words = ["proxy", "labels", "--containers", "containers.json", "--json"];
    let routers = |more: &[&str]| {
        let ended = desk.coracle(&[&words[..], more].concat());
        ended.code(0);
        ended.json()["routers"].clone()
    };
    assert_eq!(routers(&[]), json!({}));
    let rule = ["--exposed-by-default", "--default-rule", "Host(`{{ .ContainerName }}.{{ index .Labels \"tier\" }}`)"];
    assert_eq!(routers(&rule)["blog"]["rule"], "Host(`blog.web`)");
    assert_eq!(routers(&["--exposed-by-default", "--constraints", "Label(`tier`, `db`)"]), json!({}));
    desk.coracle(&[&words[..], &["--default-rule", "{{ .Name"]].concat()).code(2).err_has("not closed");
    desk.coracle(&[&words[..], &["--constraints", "tier=web"]].concat()).code(2).err_has("Label(name, value)");
}

#[test]
fn what_is_no_inspection_fails() {
    let desk = Desk::with_shop(&[("containers.json", "{}")]);
    desk.coracle(&["proxy", "labels", "--containers", "containers.json"]).code(1).err_has("docker inspect");
    desk.coracle(&["proxy", "labels", "--containers", "nothing.json"]).code(1).err_has("nothing.json");
}

#[test]
fn without_containers_the_server_is_asked() {
    let discovery = json!({
        "on": true, "containers": 1,
        "configuration": { "routers": { "blog": { "rule": "Host(`blog.example`)", "service": "blog" } }, "services": {}, "middlewares": {} },
        "problems": [{ "kind": "conflict", "containers": ["a", "b"], "about": "router shop", "message": "defined several times" }],
    });
    let server = Scripted::start(move |_, answer| answer.json(200, &discovery));
    let ended = Desk::new().coracle(&["proxy", "labels", &server.option()]);
    ended.code(0);
    assert_eq!(server.heard().line, "GET /v1/discovery");
    ended.out_has("Host(`blog.example`)").out_has("conflict").out_has("a, b").out_has("router shop");
    // What the server was started with is not asked anew.
    Desk::new().coracle(&["proxy", "labels", "--exposed-by-default", &server.option()]).code(2).err_has("--exposed-by-default");
}

#[test]
fn a_server_that_discovers_nothing_says_so() {
    let off = json!({ "on": false, "configuration": {}, "problems": [] });
    let server = Scripted::start(move |_, answer| answer.json(200, &off));
    Desk::new().coracle(&["proxy", "labels", &server.option()]).code(1).err_has("--no-discover");
}
