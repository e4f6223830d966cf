//! Several containers, one name.

use coracle_labels::{Kind, configure};

use crate::sketch::{assert_told, configured, container, everything, servers, told};

const COMPOSE: [(&str, &str); 2] = [("com.docker.compose.project", "p"), ("com.docker.compose.service", "web")];

fn replica(name: &str, more: &[(&str, &str)]) -> coracle_labels::Container {
    container(name, &[&COMPOSE[..], more].concat())
}

#[test]
fn replicas_are_servers_of_one_service_in_the_order_of_their_ids() {
    let replicas = [replica("b", &[]), replica("a", &[])];
    let configuration = configured(&replicas);
    assert_eq!(servers(&configuration, "web-p"), ["http://10.0.0.97:80", "http://10.0.0.98:80"]);
    assert_eq!(configuration.routers.len(), 1);
    assert!(configuration.problems.is_empty());
    // The order in which they are listed makes no difference.
    let [b, a] = replicas;
    assert_eq!(configure(&[a, b], &everything()), configuration);
}

#[test]
fn replicas_at_the_same_address_are_one_server() {
    let url = [("traefik.http.services.s.loadbalancer.server.url", "http://192.0.2.1:80")];
    assert_eq!(servers(&configured(&[replica("a", &url), replica("b", &url)]), "s"), ["http://192.0.2.1:80"]);
}

#[test]
fn equal_definitions_are_one_and_different_ones_none() {
    for (label, same, other, about) in [
        ("traefik.http.middlewares.m.inflightreq.amount", "42", "41", "middleware m"),
        ("traefik.http.routers.r.rule", "Host(`a`)", "Host(`b`)", "router r"),
        ("traefik.http.services.s.loadbalancer.passhostheader", "true", "false", "service s"),
    ] {
        let agreed = configured(&[replica("a", &[(label, same)]), replica("b", &[(label, same)])]);
        assert!(agreed.problems.is_empty(), "{:?}", told(&agreed));
        // A third that says the same as the first does not mend it.
        let three = [replica("a", &[(label, same)]), replica("b", &[(label, other)]), replica("c", &[(label, same)])];
        let contradicted = configured(&three);
        let names = [
            contradicted.routers.keys().collect::<Vec<_>>(),
            contradicted.services.keys().collect(),
            contradicted.middlewares.keys().collect(),
        ];
        let dropped = about.split(' ').nth(1).unwrap();
        assert!(!names.iter().flatten().any(|name| *name == dropped), "{about}: {names:?}");
        assert_told(&told(&contradicted), Kind::Conflict, &["a, b, c", about]);
    }
}

#[test]
fn a_router_whose_service_is_contradicted_stays_in_traefik_s_words() {
    let labels = |value| {
        [
            ("traefik.http.services.s.loadbalancer.sticky.cookie", "true"),
            ("traefik.http.services.s.loadbalancer.passhostheader", value),
        ]
    };
    let configuration = configured(&[replica("a", &labels("true")), replica("b", &labels("false"))]);
    assert_eq!(configuration.routers["web-p"].service, "s");
    assert!(configuration.services.is_empty());
}

#[test]
fn routers_that_differ_in_their_service_contradict_each_other() {
    let rule = [("traefik.http.routers.r.rule", "Host(`a`)")];
    let configuration = configured(&[container("a", &rule), container("b", &rule)]);
    assert!(configuration.routers.is_empty());
    assert_eq!(configuration.services.len(), 2);
    assert_told(&told(&configuration), Kind::Conflict, &["router r"]);
}
