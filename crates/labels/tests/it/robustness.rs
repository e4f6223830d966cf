//! Whatever labels say, the answer is an answer.

use std::collections::BTreeMap;

use coracle_labels::{Container, RuleTemplate, configure, containers_of_inspect, part};
use proptest::prelude::*;

use crate::sketch::{OPEN, container, everything};

fn label() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "traefik",
        "Traefik",
        "http",
        "tcp",
        "udp",
        "tls",
        "routers",
        "services",
        "middlewares",
        "a",
        "b",
        "rule",
        "service",
        "loadbalancer",
        "server",
        "port",
        "url",
        "sticky",
        "cookie",
        "chain",
        "compress",
        "headers",
        "domains[0]",
        "[",
        "",
        "enable",
        "docker",
        "network",
        "healthcheck",
        "interval",
        "plugin",
        "errors",
    ]);
    prop::collection::vec(word, 1..7).prop_map(|words| words.join("."))
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["", "true", "false", "80", "-1", "a", "a,b", "Host(`a`)", "http://[::1]:1", "1h", "b@docker"])
            .prop_map(str::to_owned),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn no_labels_break_it(labels in prop::collection::btree_map(label(), value(), 0..8)) {
        let containers = ["a", "b"].map(|name| Container { labels: labels.clone(), ..container(name, &[]) });
        let options = everything();
        let configuration = configure(&containers, &options);
        let part = part(&configuration, &options, OPEN);
        prop_assert!(part.table.check().is_ok(), "{:?}", part.table);
        prop_assert!(configuration.to_json().is_object());
        // Said twice, it comes to the same.
        prop_assert_eq!(configuration, configure(&containers, &options));
    }

    #[test]
    fn no_template_breaks_it(template in "(\\{\\{|\\}\\}|[-.|()$\"` a-z0-9]|index|if|end|else|with|printf|\\.Name|\\.Labels){0,24}") {
        if let Ok(template) = template.parse::<RuleTemplate>() {
            template.render(&container("a", &[])).ok();
        }
    }

    #[test]
    fn no_text_breaks_the_reader_of_inspections(text in any::<String>()) {
        containers_of_inspect(&text).ok();
    }
}

#[test]
fn inspections_are_read_as_engines_print_them() {
    let json = r#"[{
        "Id": "abc", "Name": "/shop", "State": { "Status": "running", "Health": { "Status": "starting" } },
        "Config": { "Labels": { "traefik.enable": "true" } }, "HostConfig": { "NetworkMode": "host" },
        "NetworkSettings": {
            "Ports": { "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }], "53/UDP": null },
            "Networks": { "front": { "IPAddress": "10.0.0.1" }, "six": { "IPAddress": "", "GlobalIPv6Address": "fd00::1" },
                          "none": { "IPAddress": "" } }
        }
    }]"#;
    let [shop] = &containers_of_inspect(json).unwrap()[..] else { panic!() };
    assert_eq!((shop.id.as_str(), shop.name.as_str()), ("abc", "shop"));
    assert_eq!(shop.labels, BTreeMap::from([("traefik.enable".to_owned(), "true".to_owned())]));
    let ports: Vec<_> = shop.ports.iter().map(|port| (port.number, port.protocol.as_str(), port.bindings.len())).collect();
    assert_eq!(ports, [(53, "udp", 0), (80, "tcp", 1)]);
    assert_eq!(shop.networks["front"], Some([10, 0, 0, 1].into()));
    assert_eq!((shop.networks["six"], shop.networks["none"]), (Some("fd00::1".parse().unwrap()), None));
    assert_eq!(shop.network_mode, coracle_labels::NetworkMode::Host);
    assert_eq!(shop.health, Some(coracle_labels::Health::Starting));
    let error = containers_of_inspect(r#"[{ "NetworkSettings": { "Ports": { "web": null } } }]"#).unwrap_err();
    assert!(error.to_string().contains("\"web\""), "{error}");
}
