#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use coracle_model::container::{BindSource, Confinement, FileContent, HealthTest, RestartPolicy, Transport};
use coracle_model::stack::{ContextSource, PullPolicy};
use coracle_model::{Condition, Exposure, ProcessSource};
use tempfile::TempDir;

use super::*;
use crate::Options;

mod lifetimes;

/// A tree on disk that compose files describe.
struct Tree(TempDir);

impl Tree {
    fn new(compose: &str, files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (path, text) in files.iter().chain(&[("compose.yaml", compose)]) {
            let path = tree.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    fn deployable(&self, config: &[(&str, &str)]) -> Deployable {
        let options = Options {
            project_dir: Some(self.0.path().to_owned()),
            project_name: Some("shop".into()),
            environment: config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            working_dir: self.0.path().to_owned(),
            ..Options::default()
        };
        let loaded = crate::load(&options).unwrap_or_else(|error| panic!("{error}"));
        app_spec(&loaded, Surroundings { app: "shop".parse().unwrap(), tree: self.0.path(), closed: None, hosts: None })
    }

    fn spec(&self, config: &[(&str, &str)]) -> AppSpec {
        let made = self.deployable(config);
        assert!(made.mistakes.is_empty() && made.obstacles.is_empty(), "{:?} {:?}", made.mistakes, made.obstacles);
        assert_eq!(made.spec.check_stack(), Ok(()));
        made.spec
    }
}

fn from_text(compose: &str) -> AppSpec {
    Tree::new(compose, &[]).spec(&[])
}

fn refused(compose: &str, files: &[(&str, &str)]) -> Vec<String> {
    let made = Tree::new(compose, files).deployable(&[]);
    made.mistakes.iter().chain(&made.obstacles).map(ToString::to_string).collect()
}

fn part<'a>(spec: &'a AppSpec, name: &str) -> &'a ProcessSpec {
    spec.part(&name.parse().unwrap()).unwrap_or_else(|| panic!("there is no {name}"))
}

fn hosts(part: &ProcessSpec) -> Vec<String> {
    let Exposure::Http(http) = &part.exposure else { return Vec::new() };
    http.hosts.iter().map(ToString::to_string).collect()
}

#[test]
fn a_usual_stack_becomes_processes_tasks_and_a_database() {
    let compose = r#"
services:
  web:
    build: ./web
    command: gunicorn --bind 0.0.0.0:8000 "app:create_app()"
    ports: ["80:8000"]
    environment:
      DATABASE_URL: postgres://shop:${DB_PASS}@db/shop
      DOMAIN:
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
      cache: {condition: service_started}
  migrate:
    build: ./web
    command: ["./manage.py", "migrate"]
    depends_on: {db: {condition: service_healthy}}
  db:
    image: postgres:16
    restart: unless-stopped
    environment: {POSTGRES_PASSWORD: "${DB_PASS}"}
    healthcheck: {test: ["CMD-SHELL", "pg_isready -U $$POSTGRES_USER"], interval: 5s, timeout: 2s, retries: 10, start_period: 1m}
    volumes: ["pg_data:/var/lib/postgresql/data"]
  cache:
    image: redis:7
volumes: {pg_data: {}}
"#;
    let tree = Tree::new(compose, &[("web/Dockerfile", "FROM python:3.11\n")]);
    let spec = tree.spec(&[("DB_PASS", "hunter2"), ("DOMAIN", "shop.example")]);
    let names = |parts: &BTreeMap<ProcessName, ProcessSpec>| parts.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (names(&spec.processes), names(&spec.services)),
        (vec!["migrate".into(), "web".into()], vec!["cache".to_owned(), "db".to_owned()])
    );
    assert!(spec.is_stack() && part(&spec, "migrate").task && spec.engine == Some(EngineKind::Docker));
    let web = part(&spec, "web");
    let Some(ProcessSource::Build(build)) = &web.source else { panic!("{:?}", web.source) };
    assert_eq!((build.context.as_str(), build.dockerfile.as_deref()), ("web", Some("Dockerfile")));
    assert_eq!(web.source, part(&spec, "migrate").source, "what is built in the same way is built once");
    assert_eq!(web.container.arguments.as_deref().unwrap()[3], "app:create_app()");
    assert_eq!(web.container.env["DATABASE_URL"].expose(), "postgres://shop:hunter2@db/shop");
    assert_eq!(web.container.env["DOMAIN"].expose(), "shop.example");
    assert_eq!((hosts(web), web.container.confinement), (vec!["shop.localhost".to_owned()], Confinement::Engine));
    assert!(web.container.ports.is_empty(), "requests come by the proxy, which moves them");
    let wait = &web.depends_on[&"db".parse().unwrap()];
    assert_eq!((wait.condition, wait.required), (Condition::Healthy, true));
    let db = part(&spec, "db");
    assert_eq!(db.source, Some(ProcessSource::Image { reference: "postgres:16".into(), pull: PullPolicy::Missing }));
    assert_eq!((db.volumes[0].name.as_str(), db.volumes[0].path.as_str()), ("pg_data", "/var/lib/postgresql/data"));
    let health = db.container.health.as_ref().unwrap();
    assert_eq!(health.test, HealthTest::Shell("pg_isready -U $POSTGRES_USER".into()));
    assert_eq!(
        (health.interval, health.start_period, health.retries),
        (Some(Span::seconds(5)), Some(Span::seconds(60)), Some(10))
    );
    assert!(!format!("{spec:?}").contains("hunter2"));
}

#[test]
fn a_project_whose_every_service_keeps_data_is_an_app_all_the_same() {
    let compose = r#"
services:
  wordpress:
    image: wordpress
    ports: ["8080:80"]
    volumes: ["wordpress:/var/www/html"]
    depends_on: {db: {condition: service_healthy}}
  db:
    image: mariadb:10.6
    volumes: ["db:/var/lib/mysql"]
volumes: {wordpress: , db: }
"#;
    let spec = from_text(compose);
    assert!(spec.processes.is_empty() && spec.services_only && spec.is_stack());
    assert_eq!(hosts(part(&spec, "wordpress")), ["shop.localhost"]);
    assert!(!from_text("services: {web: {image: nginx, ports: ['80:80']}, db: {image: postgres}}").services_only);
}

#[test]
fn what_reaches_beyond_a_container_is_told() {
    let compose = r#"
services:
  traefik: {image: "traefik:v3", volumes: ["/var/run/docker.sock:/var/run/docker.sock:ro"]}
  probe: {image: probe, privileged: true, pid: host, cap_add: [ALL, net_raw], devices: ["/dev/kvm"], volumes: ["/:/host:ro"]}
  plain: {image: plain, cap_add: [NET_BIND_SERVICE], volumes: ["/srv/data:/data:ro"]}
"#;
    let notes = Tree::new(compose, &[]).deployable(&[]).notes;
    let of = |name: &str| notes.iter().filter(|note| note.starts_with(name)).cloned().collect::<Vec<_>>().join(" | ");
    let probe = of("probe is given");
    for word in ["privileged", "pid: host", "capabilities ALL;", "/dev/kvm", "the machine's /,", "may own the machine"] {
        assert!(probe.contains(word), "{word}: {probe}");
    }
    assert!(of("traefik is given").contains("the engine's socket /var/run/docker.sock"), "{notes:?}");
    assert!(of("traefik looks for").contains("leave traefik out") && of("plain").is_empty(), "{notes:?}");
}

#[test]
fn who_keeps_data_is_decided_by_word_image_and_volume() {
    let compose = r#"
services:
  api: {build: ./api, volumes: ["media:/media"]}
  front: {image: nginx, ports: ["8080:80"], volumes: ["media:/media:ro", "./nginx.conf:/etc/nginx/nginx.conf:ro"]}
  files: {image: gitea/gitea, volumes: ["files:/data"]}
  db: {build: ./db}
  cache: {image: "redis:7"}
  queue: {image: "redis:7", volumes: ["queue:/data"]}
  odd: {image: odd, volumes: ["odd:/data"], x-coracle: {stateful: false}}
  held: {image: held, x-coracle: {stateful: true}}
  local: {image: local, volumes: ["./pgdata:/data"]}
  source: {image: source, volumes: ["./api:/api"]}
volumes: {media: {}, files: {}, queue: {}, odd: {}}
"#;
    let files = [
        ("api/Dockerfile", "FROM debian"),
        ("db/Dockerfile", "FROM postgres:9\nADD dump.sql /docker-entrypoint-initdb.d/"),
        ("nginx.conf", "x"),
    ];
    let spec = Tree::new(compose, &files).spec(&[]);
    let services: Vec<_> = spec.services.keys().map(ToString::to_string).collect();
    assert_eq!(services, ["cache", "db", "files", "held", "local", "queue"]);
    assert_eq!(part(&spec, "local").container.binds[0].source, BindSource::Kept("pgdata".into()));
    assert_eq!(part(&spec, "source").container.binds[0].source, BindSource::Tree("api".into()));
    assert!(part(&spec, "front").volumes[0].read_only);
    // What is built from the tree changes with it; that it writes to a volume says how, not whether.
    assert_eq!(spec.strategy().0, coracle_model::Strategy::Recreate);
}

#[test]
fn every_setting_arrives() {
    let compose = r#"
services:
  Api_1:
    image: api
    container_name: the-api
    hostname: harbour
    entrypoint: ["/entry", "a b"]
    user: "1000:1000"
    working_dir: /srv
    read_only: true
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    shm_size: 64m
    init: true
    stop_signal: SIGQUIT
    stop_grace_period: 1m30s
    tmpfs: ["/run:size=1m", /tmp]
    extra_hosts: ["host.docker.internal:host-gateway"]
    dns: [192.0.2.1]
    group_add: ["44"]
    sysctls: {net.core.somaxconn: 1024}
    devices: ["/dev/null:/dev/x:r"]
    tty: true
    mem_limit: 512m
    cpus: 1.5
    pids_limit: -1
    logging: {driver: journald, options: {tag: x}}
    restart: on-failure:3
    ports: ["5000:5432", "127.0.0.1:53:53/udp", "0.0.0.0:2222:22"]
    networks: {default: {aliases: [backend]}, edge: {aliases: [shop]}}
    volumes: [/anonymous, {type: tmpfs, target: /cache, tmpfs: {size: 10m, mode: 0o1777}}, "/etc/localtime:/etc/localtime:ro"]
    healthcheck: {disable: true}
    deploy: {replicas: 1}
  web: {image: web, links: ["Api_1:api"], expose: ["80"]}
networks: {edge: {external: true, name: proxy-net}}
"#;
    let spec = from_text(compose);
    let api = part(&spec, "api_1");
    let container = &api.container;
    assert_eq!(container.aliases, ["Api_1", "backend", "harbour", "the-api", "api"]);
    assert_eq!((container.entrypoint.as_ref().unwrap().len(), container.user.as_deref()), (2, Some("1000:1000")));
    assert_eq!((container.ulimits["nofile"].soft, container.ulimits["nproc"].hard), (10, 5));
    assert_eq!((container.shm_size.unwrap().get(), container.stop_grace_period), (64 << 20, Some(Span::seconds(90))));
    assert_eq!(
        (container.tmpfs[0].options.as_str(), container.tmpfs[2].options.as_str()),
        ("size=1m", "size=10485760,mode=1777")
    );
    assert_eq!(container.extra_hosts, ["host.docker.internal:host-gateway"]);
    assert_eq!(container.devices, ["/dev/null:/dev/x:r"]);
    assert_eq!(
        (api.limits.memory.unwrap().get(), api.limits.cpus.unwrap().as_milli(), api.limits.pids),
        (512 << 20, 1500, 4_194_304)
    );
    assert_eq!(container.restart, RestartPolicy::OnFailure(Some(3)));
    let ports: Vec<_> =
        container.ports.iter().map(|port| (port.target, port.host, port.protocol, port.address.map(|a| a.to_string()))).collect();
    let expected = [
        (5432, Some(5000), Transport::Tcp, None),
        (53, Some(53), Transport::Udp, Some("127.0.0.1".to_owned())),
        (22, Some(2222), Transport::Tcp, Some("0.0.0.0".to_owned())),
    ];
    assert_eq!(ports, expected);
    assert_eq!(
        (container.networks[0].name.as_str(), container.networks[0].aliases.as_slice()),
        ("proxy-net", ["shop".to_owned()].as_slice())
    );
    assert_eq!(container.anonymous_volumes, ["/anonymous"]);
    assert_eq!(container.binds[0].source, BindSource::Host("/etc/localtime".into()));
    assert_eq!(container.health.as_ref().unwrap().test, HealthTest::Disabled);
    assert_eq!(part(&spec, "web").exposure, Exposure::Inside { port: 80 });
}

#[test]
fn files_come_from_the_tree_the_text_and_the_configuration() {
    let compose = r#"
services:
  api:
    image: api
    configs: [{source: conf, target: /etc/app.conf, mode: 0440, uid: "7"}, {source: shown, target: /etc/shown}]
    secrets: [plain, {source: token, target: other}, vault]
configs: {conf: {content: "colour=${COLOUR}"}, shown: {file: ./shown.conf}}
secrets: {plain: {file: ./plain.txt}, token: {environment: TOKEN}, vault: {external: true, name: api-key}}
"#;
    let tree = Tree::new(compose, &[("shown.conf", "x"), ("plain.txt", "y")]);
    let spec = tree.spec(&[("COLOUR", "blue"), ("TOKEN", "t0ken")]);
    let container = &part(&spec, "api").container;
    let binds: Vec<_> = container.binds.iter().map(|bind| (bind.path.as_str(), bind.source.clone())).collect();
    let expected =
        [("/etc/shown", BindSource::Tree("shown.conf".into())), ("/run/secrets/plain", BindSource::Tree("plain.txt".into()))];
    assert_eq!(binds, expected);
    let shown = |content: &FileContent| match content {
        FileContent::Inline(text) => text.expose().to_owned(),
        FileContent::Config(name) => format!("${name}"),
    };
    let files: Vec<_> =
        container.files.iter().map(|file| (file.path.as_str(), shown(&file.content), file.mode, file.uid)).collect();
    let expected = [
        ("/etc/app.conf", "colour=blue".to_owned(), 0o440, 7),
        ("/run/secrets/other", "t0ken".to_owned(), 0o444, 0),
        ("/run/secrets/vault", "$API_KEY".to_owned(), 0o444, 0),
    ];
    assert_eq!(files, expected);
    assert_eq!(spec.secrets, ["API_KEY".parse().unwrap()]);
}

#[test]
fn builds_say_what_they_need() {
    let compose = r#"
services:
  base: {build: {context: ., dockerfile: docker/base.Dockerfile, target: slim, args: {A: "1", B: }}}
  api:
    build:
      context: ./api
      dockerfile: ../docker/api.Dockerfile
      additional_contexts: {assets: ./assets, base: "service:base", os: "docker-image://debian:12"}
      cache_from: ["registry/x", "type=gha"]
      extra_hosts: ["a:192.0.2.1"]
"#;
    let files =
        [("docker/base.Dockerfile", "FROM x AS slim"), ("docker/api.Dockerfile", "FROM base"), ("api/x", ""), ("assets/x", "")];
    let spec = Tree::new(compose, &files).spec(&[("B", "two")]);
    let notes = Tree::new(compose, &files).deployable(&[]).notes;
    assert!(
        notes.iter().any(|note| note.ends_with("cache_from.1: type=gha has no effect here: only images are caches")),
        "{notes:?}"
    );
    let build = |name: &str| match &part(&spec, name).source {
        Some(ProcessSource::Build(build)) => build.clone(),
        other => panic!("{other:?}"),
    };
    let base = build("base");
    assert_eq!(
        (base.context.as_str(), base.dockerfile.as_deref(), base.target.as_deref()),
        (".", Some("docker/base.Dockerfile"), Some("slim"))
    );
    assert_eq!(base.args, [("A".into(), "1".into()), ("B".into(), "two".into())].into());
    let api = build("api");
    assert_eq!(api.extras.inline.as_deref(), Some("FROM base"), "a Dockerfile outside of its context comes along as text");
    let contexts = [
        ("assets".to_owned(), ContextSource::Folder("assets".into())),
        ("base".to_owned(), ContextSource::Process("base".parse().unwrap())),
        ("os".to_owned(), ContextSource::Image("debian:12".into())),
    ];
    assert_eq!(api.extras.contexts, contexts.into());
    assert_eq!((api.extras.cache_from, api.extras.extra_hosts), (vec!["registry/x".to_owned()], vec!["a:192.0.2.1".to_owned()]));
}

#[test]
fn builds_get_secrets_from_files_and_from_the_configuration() {
    let compose = r#"
services:
  api: {build: {context: ., secrets: [plain, {source: token, target: npm}, vault]}}
secrets: {plain: {file: ./plain.txt}, token: {environment: TOKEN}, vault: {external: true, name: api-key}}
"#;
    let tree = Tree::new(compose, &[("plain.txt", "from a file\n"), ("Dockerfile", "FROM x")]);
    let spec = tree.spec(&[("TOKEN", "t0ken"), ("API_KEY", "k3y")]);
    let Some(ProcessSource::Build(build)) = &part(&spec, "api").source else { panic!("no build") };
    let given: Vec<_> = build.extras.secrets.iter().map(|(id, value)| (id.as_str(), value.expose())).collect();
    assert_eq!(given, [("npm", "t0ken"), ("plain", "from a file\n"), ("vault", "k3y")]);
    assert!(!format!("{build:?}").contains("t0ken"), "what a log may show of it");
    assert!(!spec.secrets.contains(&"API_KEY".parse().unwrap()), "nobody asks for it when it runs");
    let told = tree.deployable(&[("TOKEN", "t0ken")]).mistakes;
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert!(matches!(&told[..], [only] if only.contains("vault has no value; `coracle secrets set API_KEY`")), "{told:?}");
    let outside = "services: {api: {build: {context: ., secrets: [s]}}}\nsecrets: {s: {file: ../elsewhere}}";
    let told = refused(outside, &[("Dockerfile", "FROM x")]);
    assert!(told.iter().any(|told| told.contains("the file of s lies outside")), "{told:?}");
    let told = refused("services: {api: {build: {context: ., ssh: [default]}}}", &[("Dockerfile", "FROM x")]);
    assert!(told.iter().any(|told| told.contains("services.api.build.ssh")), "{told:?}");
}

#[test]
fn requests_find_the_one_in_front_and_those_beside_it() {
    let spec = from_text(
        r#"
services:
  admin: {image: admin, ports: ["8081:8000"]}
  api: {image: api, ports: ["8000:8000", "9229:9229"]}
  client: {image: client, ports: ["80:80", "443:443"]}
  db: {image: "postgres:16", ports: ["5432:5432"]}
  blog:
    image: blog
    labels: ["traefik.enable=true", "traefik.http.routers.b.rule=Host(`blog.example`)", "traefik.http.services.b.loadbalancer.server.port=4000"]
  off: {image: off, labels: {traefik.enable: "false", traefik.http.routers.o.rule: "Host(`o`)"}}
"#,
    );
    assert_eq!(hosts(part(&spec, "client")), ["shop.localhost"]);
    assert_eq!(hosts(part(&spec, "admin")), ["admin.shop.localhost"]);
    assert_eq!(hosts(part(&spec, "api")), ["api.shop.localhost"]);
    assert_eq!(part(&spec, "blog").exposure, Exposure::Labels { port: Some(4000) });
    assert_eq!((&part(&spec, "db").exposure, &part(&spec, "off").exposure), (&Exposure::Hidden, &Exposure::Hidden));
    let kept = |name: &str| part(&spec, name).container.ports.iter().map(|port| port.host.unwrap()).collect::<Vec<_>>();
    assert_eq!((kept("client"), kept("api"), kept("db")), (vec![443], vec![9229], vec![5432]));
    let own = from_text(
        "services: {a: {image: a, ports: ['80:80'], x-coracle: {http: false}}, b: {image: b, x-coracle: {http: {hosts: [b.example], port: 99, health: /up}}}}\nx-coracle: {hosts: [x.example], keep: 3, drain: 5s}",
    );
    assert_eq!((hosts(part(&own, "a")), hosts(part(&own, "b"))), (vec![], vec!["b.example".to_owned()]));
    assert_eq!(part(&own, "a").container.ports[0].host, Some(80));
    assert_eq!((own.http.hosts[0].as_str(), own.deploy.keep, own.deploy.drain), ("x.example", 3, Span::seconds(5)));
}

#[test]
fn what_cannot_be_is_told_with_its_place() {
    let told = refused("services:\n  a:\n    image: a\n    mac_address: 92:d0:c6:0a:29:33\n    network_mode: host\n", &[]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("compose.yaml:4:5: services.a.mac_address: "), "{told:?}");
    let told = refused("services: {a: {image: a, ports: ['80:80']}, b: {image: b, ports: ['80:8080']}}", &[]);
    assert!(told[0].ends_with("services.b.ports.0: a publishes the port 80 of this machine as well"), "{told:?}");
    let told = refused("services: {a: {image: a, volumes: ['../other:/x', './none:/y:ro']}}", &[]);
    assert!(told[0].contains("lies outside") && told[1].contains("there is no none"), "{told:?}");
    let told = refused("services: {a: {build: ../other}}", &[]);
    assert!(told[0].contains("lies outside"), "{told:?}");
    let told = refused("services: {db: {image: 'postgres:16', deploy: {replicas: 2}}}", &[]);
    assert!(told[0].contains("cannot run twice"), "{told:?}");
    let told = refused("services: {a: {image: a}, A: {image: b}}", &[]);
    assert!(told[0].contains("another service that is called a here"), "{told:?}");
    let told = refused("services: {a: {image: a, deploy: {restart_policy: {condition: sometimes}}}}", &[]);
    assert!(told[0].contains("services.a.deploy.restart_policy.condition: \"sometimes\""), "{told:?}");
    let told = refused("services: {a: {image: a, x-coracle: {stateful: perhaps}}}\nx-coracle: {host: x}", &[]);
    assert!(
        told.iter().any(|told| told.contains("unknown key")) && told.iter().any(|told| told.contains("true or false")),
        "{told:?}"
    );
}

#[test]
fn what_a_database_writes_beside_its_file_outlives_releases_whatever_the_tree_holds() {
    let compose = r#"
services:
  db: {image: "postgres:16", volumes: ["./pgdata:/var/lib/postgresql/data", "./init.sql:/docker-entrypoint-initdb.d/init.sql"]}
  front: {image: nginx, volumes: ["./conf:/etc/nginx/conf.d"]}
"#;
    let files = [("pgdata/.gitkeep", ""), ("init.sql", "SELECT 1;"), ("conf/site.conf", "x")];
    let spec = Tree::new(compose, &files).spec(&[]);
    let sources = |name: &str| part(&spec, name).container.binds.iter().map(|bind| bind.source.clone()).collect::<Vec<_>>();
    assert_eq!(sources("db"), [BindSource::Kept("pgdata".into()), BindSource::Tree("init.sql".into())]);
    assert_eq!(sources("front"), [BindSource::Tree("conf".into())]);
}

#[test]
fn two_volumes_do_not_become_one() {
    let compose = r#"
services:
  one: {image: one, volumes: ["Data:/data"]}
  two: {image: two, volumes: ["data:/data"]}
volumes: {Data: {}, data: {}}
"#;
    let told = Tree::new(compose, &[]).deployable(&[]).mistakes;
    assert!(told.iter().any(|told| told.message.contains("one volume")), "{told:?}");
}
