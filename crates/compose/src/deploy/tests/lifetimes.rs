//! What `depends_on`, names of one's own and ranges of ports come to.

use super::*;

#[test]
fn what_keeps_data_waits_for_no_process() {
    // A web server that has a volume for its certificates alone comes with the release that it waits for.
    let compose = r#"
services:
  app: {image: app}
  front: {image: caddy, depends_on: [app, db], volumes: ["caddy:/data", "./conf:/etc/caddy"]}
  report: {image: report, depends_on: [front], volumes: ["reports:/data"]}
  db: {image: "postgres:16"}
volumes: {caddy: {}, reports: {}}
"#;
    let tree = Tree::new(compose, &[("conf/Caddyfile", "x")]);
    let spec = tree.spec(&[]);
    let services: Vec<_> = spec.services.keys().map(ToString::to_string).collect();
    assert_eq!(services, ["db"]);
    assert_eq!(part(&spec, "front").depends_on.len(), 2);
    assert_eq!(part(&spec, "front").container.binds[0].source, BindSource::Kept("conf".into()));
    assert!(tree.deployable(&[]).notes.iter().any(|note| note.starts_with("front comes with every release")));

    let made =
        Tree::new("services:\n  app: {image: app}\n  db:\n    image: postgres:16\n    depends_on: [app]\n", &[]).deployable(&[]);
    let [obstacle] = &made.obstacles[..] else { panic!("{:?}", made.obstacles) };
    assert!(obstacle.of_releases, "while developing, everything is a part like any other");
    assert!(obstacle.to_string().starts_with("compose.yaml:5:18: services.db.depends_on.app: db keeps data"), "{obstacle}");
}

#[test]
fn of_a_range_of_ports_it_is_the_first_that_nobody_has_and_always_the_same() {
    let compose = r#"
services:
  a: {image: a, ports: ["7000-7003:5432"]}
  b: {image: b, ports: ["7000:22", "7000-7003:5432"]}
  c: {image: c, ports: ["7003:53/udp", "7000-7003:5432"]}
"#;
    let spec = from_text(compose);
    let ports = |name: &str| part(&spec, name).container.ports.iter().map(|port| port.host.unwrap()).collect::<Vec<_>>();
    assert_eq!((ports("a"), ports("b"), ports("c")), (vec![7001], vec![7000, 7002], vec![7003, 7003]));
    assert_eq!(from_text(compose), spec);
    let told = refused("services: {a: {image: a, ports: ['7000-7001:22']}, b: {image: b, ports: ['7000:22', '7001:23']}}", &[]);
    assert!(told[0].contains("services.a.ports.0: every port of 7000-7001"), "{told:?}");
    let told = refused("services: {a: {image: a, ports: [{target: 22, published: any}]}}", &[]);
    assert!(told[0].contains("no port of this machine"), "{told:?}");
}

#[test]
fn names_of_ones_own_are_refused_where_others_would_count_on_them() {
    let told = refused(
        "services: {a: {image: a, volumes: ['data:/data']}}\nvolumes: {data: {name: old_data}}\nnetworks: {default: {name: edge}}",
        &[],
    );
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("compose.yaml:3:22: networks.default.name: "), "{told:?}");
    assert!(told[1].starts_with("compose.yaml:2:18: volumes.data.name: "), "{told:?}");
}

#[test]
fn a_volume_that_is_a_directory_outlives_releases() {
    let compose = |options: &str| {
        format!(
            "services: {{a: {{build: ., volumes: ['data:/data']}}}}\nvolumes: {{data: {{driver: local, driver_opts: {options}}}}}"
        )
    };
    let files = [("Dockerfile", "FROM debian"), ("data/first", "x")];
    let spec = Tree::new(&compose("{type: none, o: bind, device: ./data}"), &files).spec(&[]);
    assert_eq!(part(&spec, "a").container.binds[0].source, BindSource::Kept("data".into()));
    let made = Tree::new(&compose("{type: nfs, o: addr=10.0.0.1, device: ':/x'}"), &files).deployable(&[]);
    assert!(made.obstacles[0].to_string().contains("volumes.data.driver_opts"), "{:?}", made.obstacles);
}

#[test]
fn networks_that_keep_services_apart_are_told() {
    let notes = |second: &str| {
        let compose = format!(
            "services: {{a: {{image: a, networks: [front]}}, b: {{image: b, networks: [{second}]}}}}\nnetworks: {{front: {{}}, back: {{}}}}"
        );
        Tree::new(&compose, &[]).deployable(&[]).notes
    };
    assert!(notes("back").iter().any(|note| note.contains("a and b have no network in common")));
    assert!(notes("back, front").is_empty());
}

#[test]
fn the_stacks_among_the_examples_are_deployed_as_they_are() {
    let examples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"));
    for (stack, stateful) in
        [("course", "db redis"), ("examist", "db"), ("heroku/shop", ""), ("heroku/blog", ""), ("heroku/cron", "")]
    {
        let tree = examples.join(stack);
        let options = Options {
            project_name: Some("shop".into()),
            environment: [("DOMAIN", "d"), ("SECRET_KEY", "s")].map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            working_dir: tree.clone(),
            ..Options::default()
        };
        let loaded = crate::load(&options).unwrap_or_else(|error| panic!("{stack}: {error}"));
        let made = app_spec(&loaded, Surroundings { app: "shop".parse().unwrap(), tree: &tree, closed: None, hosts: None });
        assert!(made.mistakes.is_empty() && made.obstacles.is_empty(), "{stack}: {:?} {:?}", made.mistakes, made.obstacles);
        let names: Vec<_> = made.spec.services.keys().map(ToString::to_string).collect();
        assert_eq!(names.join(" "), stateful, "{stack}");
    }
}
