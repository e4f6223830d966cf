//! A stack as people have it behind Traefik 2: what its own labels say, with Traefik itself taken out.

use coracle_labels::{Container, Kind, Options, configure, part};
use serde_json::json;

use crate::sketch::{OPEN, assert_told, container, json, port, told_of};

fn site(name: &str, host: &str, exposed: u16) -> Container {
    let rule = format!("Host(`{host}`)");
    let labels = [
        ("com.docker.compose.project", format!("{name}_blue")),
        ("com.docker.compose.service", "app".to_owned()),
        (&format!("traefik.http.routers.{name}.entrypoints"), "websecure".to_owned()),
        (&format!("traefik.http.routers.{name}.rule"), rule),
        (&format!("traefik.http.routers.{name}.tls"), "true".to_owned()),
        (&format!("traefik.http.routers.{name}.tls.certresolver"), "le".to_owned()),
        (&format!("traefik.http.services.{name}.loadbalancer.healthcheck.path"), "/".to_owned()),
        (&format!("traefik.http.services.{name}.loadbalancer.healthcheck.timeout"), "3s".to_owned()),
        (&format!("traefik.http.services.{name}.loadbalancer.healthcheck.interval"), "4s".to_owned()),
    ];
    let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
    Container { ports: vec![port(exposed)], ..container(name, &labels) }
}

/// The container of Traefik, whose labels people forget to take out with it.
fn traefik() -> Container {
    let labels = [
        ("traefik.http.routers.http-redirects.entrypoints", "web"),
        ("traefik.http.routers.http-redirects.rule", r"hostregexp(`{host:(www\.)?.+}`)"),
        ("traefik.http.routers.http-redirects.middlewares", "to-https"),
        ("traefik.http.routers.traefik.entrypoints", "websecure"),
        ("traefik.http.routers.traefik.rule", "Host(`proxy.example`)"),
        ("traefik.http.routers.traefik.service", "api@internal"),
        ("traefik.http.routers.traefik.middlewares", "admins"),
        ("traefik.http.middlewares.to-https.redirectregex.regex", r"^https?://(?:www\.)?(.+)"),
        ("traefik.http.middlewares.to-https.redirectregex.replacement", "https://${1}"),
        ("traefik.http.middlewares.to-https.redirectregex.permanent", "true"),
        ("traefik.http.middlewares.admins.basicauth.users", "ann:$2y$05$c0cvWwLZ"),
    ];
    container("traefik", &labels)
}

#[test]
fn the_sites_of_a_stack_are_served_over_tls_and_everybody_else_is_sent_there() {
    let cron = Container { ports: Vec::new(), ..container("cron", &[]) };
    let containers = [site("blog", "blog.example", 5000), site("docs", "docs.example", 80), cron];
    let options = Options::default();
    let part = part(&configure(&containers, &options), &options, OPEN);
    part.table.check().unwrap();
    let routes: Vec<_> = part
        .table
        .routes
        .iter()
        .map(|route| (route.id.0.as_str(), route.tls, route.service.as_ref().map(|service| service.0.as_str())))
        .collect();
    assert_eq!(
        routes,
        [
            ("blog@docker", Some(true), Some("blog@docker")),
            ("docs@docker", Some(true), Some("docs@docker")),
            ("blog-to-tls@docker", Some(false), None),
            ("docs-to-tls@docker", Some(false), None),
        ]
    );
    let blog = &json(&part)["services"]["blog@docker"];
    assert_eq!(blog["targets"][0]["address"], "10.0.0.103:5000");
    assert_eq!(blog["health"], json!({ "path": "/", "interval_ms": 4000, "timeout_ms": 3000 }));
    assert_eq!(json(&part)["routes"][0]["certificate"], "acme");
}

#[test]
fn blue_and_green_are_replicas_while_both_are_there() {
    let green = |mut container: Container| {
        container.labels.insert("com.docker.compose.project".to_owned(), "blog_green".to_owned());
        container.networks = [("bridge".to_owned(), Some([10, 0, 0, 200].into()))].into();
        Container { id: "green".to_owned(), ..container }
    };
    let both = [site("blog", "blog.example", 5000), green(site("blog", "blog.example", 5000))];
    let configuration = configure(&both, &Options::default());
    assert!(configuration.problems.is_empty(), "{:?}", configuration.problems);
    assert_eq!(crate::sketch::servers(&configuration, "blog"), ["http://10.0.0.103:5000", "http://10.0.0.200:5000"]);
}

#[test]
fn traefik_s_own_labels_do_what_can_be_done_without_it() {
    let options = Options::default();
    let part = part(&configure(&[traefik(), site("blog", "blog.example", 5000)], &options), &options, OPEN);
    let ids: Vec<&str> = part.table.routes.iter().map(|route| route.id.0.as_str()).collect();
    // Its own redirect is for every host: no other is made.
    assert_eq!(ids, ["blog@docker", "http-redirects@docker"]);
    assert_told(&told_of(&part), Kind::Refused, &["router traefik", "api@internal"]);
    part.table.check().unwrap();
}
