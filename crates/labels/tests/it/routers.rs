//! Which routers and services there are.

use coracle_labels::{Container, Health, Kind, Options, Status, configure};

use crate::sketch::{assert_told, configured, container, everything, servers, told};

const RULE: &str = "traefik.http.routers.shop.rule";

#[test]
fn a_container_without_labels_gets_the_default_rule_and_a_service_of_its_name() {
    let configuration = configured(&[container("shop_1", &[])]);
    let router = &configuration.routers["shop-1"];
    assert_eq!((router.rule.as_str(), router.service.as_str(), router.default_rule), ("Host(`shop-1`)", "shop-1", true));
    assert_eq!(servers(&configuration, "shop-1"), ["http://10.0.0.49:80"]);
    assert!(configuration.problems.is_empty());
}

#[test]
fn compose_names_services_before_containers_do() {
    let labels = [("com.docker.compose.project", "my_site"), ("com.docker.compose.service", "web")];
    let configuration = configured(&[container("my_site-web-1", &labels)]);
    assert_eq!(configuration.routers["web-my-site"].rule, "Host(`web-my-site`)");
    // Both have to be there.
    let configuration = configured(&[container("c", &labels[..1])]);
    assert!(configuration.routers.contains_key("c"));
}

#[test]
fn only_labelled_containers_are_routed_unless_all_are() {
    let quiet = container("quiet", &[("other.label", "x"), ("traefik.domain", "x")]);
    let labelled = container("labelled", &[("Traefik.HTTP.Routers.a.Rule", "Host(`a`)")]);
    let enabled = container("enabled", &[("traefik.enable", "true")]);
    let disabled = container("disabled", &[("traefik.enable", "false"), (RULE, "Host(`b`)")]);
    let containers = [quiet, labelled, enabled, disabled];
    let routers = |options: &Options| configure(&containers, options).routers.into_keys().collect::<Vec<_>>();
    assert_eq!(routers(&Options::default()), ["a", "enabled"]);
    assert_eq!(routers(&everything()), ["a", "enabled", "quiet"]);
    let told = told(&configure(&containers, &Options::default()));
    assert_told(&told, Kind::Ignored, &["disabled", "traefik.enable is false"]);
    assert_told(&told, Kind::Ignored, &["quiet", "traefik.enable=true"]);
}

#[test]
fn a_router_leads_to_the_only_service() {
    let named = [(RULE, "Host(`a`)"), ("traefik.http.services.front.loadbalancer.passhostheader", "true")];
    let configuration = configured(&[container("c", &named)]);
    assert_eq!(configuration.routers["shop"].service, "front");
    assert_eq!(configuration.services.len(), 1);
    // A router that says where it leads to is taken at its word.
    let configuration = configured(&[container("c", &[(RULE, "Host(`a`)"), ("traefik.http.routers.shop.service", "else")])]);
    assert_eq!(configuration.routers["shop"].service, "else");
}

#[test]
fn a_router_of_several_services_has_to_name_one() {
    let two = [
        (RULE, "Host(`a`)"),
        ("traefik.http.routers.api.service", "back"),
        ("traefik.http.services.front.loadbalancer.server.port", "80"),
        ("traefik.http.services.back.loadbalancer.server.port", "81"),
    ];
    let configuration = configured(&[container("c", &two)]);
    assert_eq!(configuration.routers.keys().collect::<Vec<_>>(), ["api"]);
    assert_eq!((servers(&configuration, "front"), servers(&configuration, "back")).0, ["http://10.0.0.99:80"]);
    assert_eq!(servers(&configuration, "back"), ["http://10.0.0.99:81"]);
    assert_told(&told(&configuration), Kind::Refused, &["router shop", "several services"]);
    // Nor is a router made where there is none.
    let configuration = configured(&[container("c", &two[2..])]);
    assert!(configuration.routers.is_empty() && configuration.services.len() == 2);
    assert_told(&told(&configuration), Kind::Refused, &["several services"]);
}

#[test]
fn routers_without_a_rule_get_the_default_one_beside_those_with_one() {
    let labels = [(RULE, "Path(`/`)"), ("traefik.http.routers.other.entrypoints", "web, websecure")];
    let configuration = configured(&[container("c", &labels)]);
    assert_eq!(configuration.routers["other"].rule, "Host(`c`)");
    assert_eq!(configuration.routers["other"].entry_points, ["web", "websecure"]);
    assert!(!configuration.routers["shop"].default_rule);
}

#[test]
fn a_default_rule_that_cannot_be_made_costs_the_router_and_not_the_service() {
    for (rule, word) in [("Host(`{{ .Nobody }}`)", ".Nobody"), ("", "empty")] {
        let options = Options { default_rule: rule.parse().unwrap(), ..everything() };
        let configuration = configure(&[container("c", &[])], &options);
        assert!(configuration.routers.is_empty(), "{rule}");
        assert_eq!(servers(&configuration, "c").len(), 1);
        assert_told(&told(&configuration), Kind::Refused, &["router c", word]);
    }
}

#[test]
fn containers_that_are_not_well_are_not_routed() {
    let with = |health| Container { health: Some(health), ..container("c", &[]) };
    assert_eq!(configured(&[with(Health::Healthy)]).routers.len(), 1);
    for health in [Health::Starting, Health::Unhealthy] {
        let configuration = configured(&[with(health)]);
        assert!(configuration.routers.is_empty() && configuration.services.is_empty());
        assert_told(&told(&configuration), Kind::Ignored, &["not healthy"]);
        // The service is kept for those who want 503 in place of 404.
        let options = Options { allow_empty_services: true, ..everything() };
        let configuration = configure(&[with(health)], &options);
        assert_eq!((configuration.routers.len(), servers(&configuration, "c").len()), (1, 0));
    }
}

#[test]
fn containers_that_do_not_run_keep_their_name_if_they_want_to() {
    let stopped = |labels: &[(&str, &str)]| Container { status: Status::Other, ..container("c", labels) };
    assert!(configured(&[stopped(&[])]).routers.is_empty());
    let kept = [("traefik.docker.allowNonRunning", "true"), ("traefik.http.services.front.loadbalancer.server.port", "8080")];
    let configuration = configured(&[stopped(&kept)]);
    assert_eq!(configuration.routers["c"].service, "front");
    assert!(servers(&configuration, "front").is_empty());
}

#[test]
fn constraints_are_about_labels() {
    let options = Options { constraints: Some("Label(`tier`, `web`)".parse().unwrap()), ..everything() };
    let configuration = configure(&[container("a", &[("tier", "web")]), container("b", &[("tier", "db")])], &options);
    assert_eq!(configuration.routers.keys().collect::<Vec<_>>(), ["a"]);
    assert_told(&told(&configuration), Kind::Ignored, &["b", "constraints"]);
}

#[test]
fn a_mistake_in_the_labels_leaves_the_container_aside_and_names_the_label() {
    for (label, value, words) in [
        ("traefik.http.routers.a.rul", "x", ["traefik.http.routers.a.rul", "did you mean \"rule\""]),
        ("traefik.http.routers.a.priority", "high", ["traefik.http.routers.a.priority", "\"high\" is no number"]),
        ("traefik.http.services.a", "", ["service a", "no loadbalancer"]),
        ("traefik.http.services.a.loadbalancer", "", ["traefik.http.services.a.loadbalancer", "cannot stand alone"]),
        ("traefik.http.services.a.weighted.services", "x", ["service a", "no weighted service"]),
        ("traefik.http.services.a.loadbalancer.passhostheader", "yes", ["passhostheader", "neither true nor false"]),
        ("traefik.http.services.a.loadbalancer.healthcheck.interval", "soon", ["interval", "no duration"]),
        ("traefik.htt.p", "", ["traefik.http", "did you mean"]),
        ("traefik.http.", "", ["traefik.http.", "empty name"]),
        ("traefik.enable", "maybe", ["traefik.enable", "neither true nor false"]),
        ("traefik.docker.netwrok", "x", ["traefik.docker.netwrok", "network"]),
        ("traefik.tcp.services.a", "", ["tcp service a", "no load balancer"]),
        ("traefik.udp.services.a", "", ["udp service a", "no load balancer"]),
    ] {
        let configuration = configured(&[container("c", &[(label, value)])]);
        let told = told(&configuration);
        let kind = if label == "traefik.htt.p" { Kind::Unsupported } else { Kind::Refused };
        assert_told(&told, kind, &words);
        assert_eq!(configuration.routers.is_empty(), kind == Kind::Refused, "{label}");
    }
}

#[test]
fn what_is_not_http_is_named_and_takes_nothing_else_along() {
    let only = configured(&[container("c", &[("traefik.tcp.routers.db.rule", "HostSNI(`*`)")])]);
    assert!(only.routers.is_empty() && only.services.is_empty());
    assert_told(&told(&only), Kind::Unsupported, &["traefik.tcp", "HTTP only"]);
    let both = configured(&[container("c", &[("traefik.udp.services.dns.loadbalancer.server.port", "53"), (RULE, "Path(`/`)")])]);
    assert_eq!(both.routers.len(), 1);
    assert_told(&told(&both), Kind::Unsupported, &["traefik.udp", "HTTP only"]);
    let stores = configured(&[container("c", &[("traefik.tls.stores.default.defaultgeneratedcert.resolver", "le")])]);
    assert_eq!(stores.routers.len(), 1);
    assert_told(&told(&stores), Kind::Unsupported, &["traefik.tls.stores"]);
}
