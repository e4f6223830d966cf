//! Where containers are reached.

use coracle_labels::{Binding, Container, Kind, NetworkMode, Options, Port, configure};

use crate::sketch::{assert_told, configured, container, everything, port, servers, told};

const PORT: &str = "traefik.http.services.s.loadbalancer.server.port";
const SCHEME: &str = "traefik.http.services.s.loadbalancer.server.scheme";
const URL: &str = "traefik.http.services.s.loadbalancer.server.url";

fn url(container: Container) -> String {
    let configuration = configured(&[container]);
    let service = configuration.services.keys().next().unwrap_or_else(|| panic!("{:?}", told(&configuration))).clone();
    servers(&configuration, &service).join(" ")
}

#[test]
fn the_port_is_the_label_s_or_the_lowest_one_exposed() {
    let exposed = |labels: &[(&str, &str)]| Container { ports: [8443, 443, 9000].map(port).into(), ..container("a", labels) };
    assert_eq!(url(exposed(&[])), "http://10.0.0.97:443");
    assert_eq!(url(exposed(&[(PORT, "9000")])), "http://10.0.0.97:9000");
    assert_eq!(url(exposed(&[(PORT, "")])), "http://10.0.0.97:443");
    // One that is not exposed is believed.
    assert_eq!(url(exposed(&[(PORT, "5000"), (SCHEME, "h2c")])), "h2c://10.0.0.97:5000");
}

#[test]
fn containers_without_a_port_are_left_aside_unless_a_label_names_one() {
    let without = |labels: &[(&str, &str)]| Container { ports: Vec::new(), ..container("a", labels) };
    for labels in [&[][..], &[("traefik.http.middlewares.m.compress", "true")], &[("traefik.http.routers.r.rule", "Path(`/`)")]] {
        let configuration = configured(&[without(labels)]);
        assert!(configuration.routers.is_empty() && configuration.services.is_empty() && configuration.middlewares.is_empty());
        assert_told(&told(&configuration), Kind::Ignored, &["exposes no port", "loadbalancer.server.port"]);
    }
    assert_eq!(url(without(&[(PORT, "5000")])), "http://10.0.0.97:5000");
}

#[test]
fn a_whole_url_stands_alone() {
    assert_eq!(url(container("a", &[(URL, "http://192.0.2.7:81")])), "http://192.0.2.7:81");
    assert_eq!(url(Container { ports: Vec::new(), ..container("a", &[(URL, "http://192.0.2.7:81")]) }), "http://192.0.2.7:81");
    for other in [(PORT, "80"), (SCHEME, "http")] {
        let configuration = configured(&[container("a", &[(URL, "http://192.0.2.7:81"), other])]);
        assert!(configuration.services.is_empty() && configuration.routers.is_empty());
        assert_told(&told(&configuration), Kind::Refused, &["service s", "server.url"]);
    }
}

#[test]
fn the_network_is_the_label_s_then_the_option_s_then_any() {
    let networks = [("front", [10, 1, 0, 1]), ("back", [10, 2, 0, 1])];
    let networks = networks.map(|(name, ip)| (name.to_owned(), Some(ip.into())));
    let within = |labels: &[(&str, &str)]| Container { networks: networks.clone().into(), ..container("a", labels) };
    let options = Options { network: Some("front".to_owned()), ..everything() };
    let reached = |container: Container, options: &Options| servers(&configure(&[container], options), "a").join(" ");
    assert_eq!(reached(within(&[]), &options), "http://10.1.0.1:80");
    assert_eq!(reached(within(&[("traefik.docker.network", "back")]), &options), "http://10.2.0.1:80");
    // One that it is not in counts as none named.
    assert_eq!(reached(within(&[("traefik.docker.network", "nowhere")]), &everything()), "http://10.2.0.1:80");
    let homeless = Container { networks: [("n".to_owned(), None)].into(), ..container("a", &[]) };
    assert_told(&told(&configured(&[homeless])), Kind::Refused, &["no address"]);
}

#[test]
fn the_machine_s_own_network_and_its_published_ports() {
    let host = Container { network_mode: NetworkMode::Host, networks: Default::default(), ..container("a", &[]) };
    assert_eq!(url(host), "http://127.0.0.1:80");
    let ipv6 = Container { networks: [("n".to_owned(), Some("fd00::2".parse().unwrap()))].into(), ..container("a", &[]) };
    assert_eq!(url(ipv6), "http://[fd00::2]:80");

    let published = |ip: Option<&str>, labels: &[(&str, &str)]| {
        let binding = Binding { ip: ip.map(|ip| ip.parse().unwrap()), port: 8081 };
        let ports = vec![port(79), Port { bindings: vec![binding], ..port(80) }];
        Container { ports, ..container("a", labels) }
    };
    let bound = Options { use_bind_port_ip: true, ..everything() };
    let reached = |container: Container, options: &Options| {
        let configuration = configure(&[container], options);
        let service = configuration.services.keys().next().unwrap().clone();
        servers(&configuration, &service).join(" ")
    };
    assert_eq!(reached(published(Some("192.0.2.1"), &[(PORT, "80")]), &bound), "http://192.0.2.1:8081");
    assert_eq!(reached(published(Some("192.0.2.1"), &[]), &bound), "http://10.0.0.97:79");
    assert_eq!(reached(published(None, &[(PORT, "80")]), &bound), "http://10.0.0.97:80");
    assert_eq!(reached(published(Some("192.0.2.1"), &[(PORT, "80")]), &everything()), "http://10.0.0.97:80");
}
