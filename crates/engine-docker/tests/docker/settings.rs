//! What compose files ask of containers, against a real engine.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_engine::{Bind, EngineError, File, Health, InstanceSpec, InstanceState, NamedContext};
use coracle_model::container::{
    Confinement, ContainerSettings, ExternalNetwork, HealthCheck, HealthTest, PublishedPort, Tmpfs, Transport, Ulimit,
};
use coracle_model::plan::Recipe;
use coracle_model::stack::BuildExtras;
use coracle_model::{ByteSize, ReleaseNumber, Secret, Span};
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, Told, eventually, see};

const SLEEP: [&str; 2] = ["sleep", "300"];

fn number(number: u32) -> ReleaseNumber {
    ReleaseNumber::new(number).unwrap()
}

/// Runs a shell line inside a running instance and answers what it printed.
async fn inside(rig: &Rig, spec: &InstanceSpec, script: &str) -> String {
    let told = Told::default();
    let argv = ["sh", "-c", script].map(String::from);
    let exit = rig.engine.runtime.exec(&spec.id, &argv, &told.sink(), &CancellationToken::new()).await.unwrap();
    assert!(exit.success(), "{script}: {exit}: {}", told.text());
    told.text().trim_end().to_owned()
}

fn settings() -> ContainerSettings {
    ContainerSettings {
        confinement: Confinement::Engine,
        env: BTreeMap::from([("discovery.type".into(), "single-node".into()), ("COLOUR".into(), "own".into())]),
        user: Some("1234:1235".into()),
        working_dir: Some("/var/tmp".into()),
        read_only: true,
        cap_drop: vec!["ALL".into()],
        cap_add: vec!["CHOWN".into()],
        security_opt: vec!["no-new-privileges:true".into()],
        ulimits: BTreeMap::from([("nofile".into(), Ulimit { soft: 111, hard: 222 })]),
        shm_size: Some(ByteSize::mib(32)),
        stop_signal: Some("SIGUSR1".into()),
        tmpfs: vec![Tmpfs { path: "/scratch".into(), options: "size=1m,mode=1777".into() }],
        hostname: Some("harbour".into()),
        domainname: Some("example".into()),
        extra_hosts: vec!["elsewhere:192.0.2.7".into()],
        dns: vec!["192.0.2.53".into()],
        dns_search: vec!["corp.example".into()],
        dns_opt: vec!["ndots:3".into()],
        labels: BTreeMap::from([("team".into(), "blue".into()), ("dev.coracle.owner".into(), "somebody".into())]),
        group_add: vec!["4321".into()],
        sysctls: BTreeMap::from([("net.core.somaxconn".into(), "512".into())]),
        devices: vec!["/dev/zero:/dev/nothing:r".into()],
        oom_score_adj: Some(500),
        cpu_shares: Some(512),
        memory_reservation: Some(ByteSize::mib(16)),
        init: Some(true),
        ..ContainerSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_as_its_settings_say() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let mut spec = rig.spec("shop.v1.api.1", &image, &SLEEP);
    spec.env = vec![("COLOUR".parse().unwrap(), Secret::new("app"))];
    *spec.surroundings.container = settings();
    rig.engine.runtime.start(&spec).await.unwrap();
    // The limits of its own program: for one that is started beside it, runc races with its own runtime (opencontainers/runc 4266).
    let facts = "echo $(id -u):$(id -g) $(id -G | tr ' ' ,) $(pwd) $(awk '/open files/ { print $4 \"/\" $5 }' /proc/1/limits) $(hostname) $COLOUR \
        $(grep CapBnd /proc/self/status | cut -f2) $(grep NoNewPrivs /proc/self/status | cut -f2) $(cat /proc/sys/net/core/somaxconn) \
        $(head -c 3 /dev/nothing | wc -c) $(cat /proc/self/oom_score_adj)";
    let seen = inside(&rig, &spec, facts).await;
    assert_eq!(seen, "1234:1235 1235,4321 /var/tmp 111/222 harbour own 0000000000000001 1 512 3 500");
    assert_eq!(inside(&rig, &spec, "tr '\\0' '\\n' </proc/1/environ | grep discovery").await, "discovery.type=single-node");
    assert!(inside(&rig, &spec, "touch /x 2>&1 || true").await.contains("Read-only"));
    inside(&rig, &spec, "touch /scratch/x && df -k /scratch | grep -q 1024 && df -k /dev/shm | grep -q 32768").await;
    let resolver = inside(&rig, &spec, "cat /etc/resolv.conf /etc/hosts").await;
    for expected in ["corp.example", "ndots:3", "192.0.2.7"] {
        assert!(resolver.contains(expected), "{expected} is not in {resolver}");
    }
    let name = rig.container(&spec.id);
    let asked = "{{.Config.StopSignal}} {{.Config.Labels.team}} {{.HostConfig.CpuShares}} {{.HostConfig.MemoryReservation}} {{json .HostConfig.Dns}}";
    assert_eq!(rig.seen_by_docker(&["inspect", "-f", asked, &name]), ["SIGUSR1 blue 512 16777216 [\"192.0.2.53\"]"]);
    // Labels of ours are not for others to write, so the instance is still found.
    assert_eq!(rig.engine.runtime.list().await.unwrap().len(), 1);
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_compose_keep_or_replace_what_the_image_says() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("Dockerfile", "FROM debian:bookworm-slim\nCOPY owner /owner\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"image\"]\n");
    let image = rig.build(1).await.id;
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    for (entrypoint, arguments, expected) in [
        (None, None, "entry image"),
        (None, words(&["$HOME", "a  b"]), "entry $HOME a  b"),
        (words(&["echo", "other"]), None, "other"),
        (words(&["echo", "other"]), words(&["x"]), "other x"),
        (words(&[]), words(&["echo", "bare"]), "bare"),
    ] {
        let mut spec = rig.spec("shop.v1.task.1", &image, &["true"]);
        spec.command = None;
        (spec.surroundings.container.entrypoint, spec.surroundings.container.arguments) = (entrypoint, arguments);
        let told = Told::default();
        let (sink, cancel) = (told.sink(), CancellationToken::new());
        let exit = rig.engine.runtime.run(&spec, &sink, Duration::from_secs(30), &cancel).await.unwrap();
        assert!(exit.success(), "{exit}: {}", told.text());
        assert_eq!(told.text().trim_end(), expected);
    }
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_binds_are_there_at_the_start_even_on_a_read_only_root() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let mut spec = rig.spec("shop.v1.api.1", &image, &SLEEP);
    spec.surroundings.container.read_only = true;
    spec.surroundings.container.user = Some("1000".into());
    spec.surroundings.container.tmpfs = vec![Tmpfs { path: "/run".into(), options: String::new() }];
    let file =
        |path: &str, content: &str, mode| File { path: path.into(), content: Secret::new(content), uid: 1000, gid: 7, mode };
    spec.surroundings.files =
        vec![file("/run/secrets/token", "s3cret", 0o400), file("/etc/app/app.conf", "colour=blue\n", 0o444)];
    rig.file("page/index.html", "hello");
    let source = rig.dir.path().join("source/page");
    spec.surroundings.binds = vec![Bind { source, path: "/page".into(), read_only: true, propagation: None }];
    rig.engine.runtime.start(&spec).await.unwrap();
    let seen =
        inside(&rig, &spec, "cat /run/secrets/token /etc/app/app.conf /page/index.html; stat -c ' %a %u %g' /run/secrets/token")
            .await;
    assert_eq!(seen, "s3cretcolour=blue\nhello 400 1000 7");
    assert!(inside(&rig, &spec, "touch /page/x 2>&1 || true").await.contains("Read-only"));
    let inspected = rig.seen_by_docker(&["inspect", &rig.container(&spec.id)]).join("");
    assert!(!inspected.contains("s3cret"));
    let kept = rig.dir.path().join("state/docker-files/shop/shop.v1.api.1");
    assert!(kept.exists());
    rig.engine.runtime.stop(&spec.id, Duration::ZERO).await.unwrap();
    assert!(!kept.exists(), "what was written for an instance goes with it");
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_of_ones_own_decides() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let mut spec = rig.spec("shop.v1.api.1", &image, &SLEEP);
    let check = |line: &str| HealthCheck {
        test: HealthTest::Shell(line.into()),
        interval: Some(Span::millis(200)),
        timeout: Some(Span::seconds(2)),
        retries: Some(2),
        start_period: None,
        start_interval: None,
    };
    spec.surroundings.container.health = Some(check("test -e /tmp/ready"));
    rig.engine.runtime.start(&spec).await.unwrap();
    let health = async || match rig.engine.runtime.inspect(&spec.id).await.unwrap().unwrap().state {
        InstanceState::Running { health, .. } => health,
        InstanceState::Exited(exit) => panic!("{exit}"),
    };
    eventually("it is unhealthy", async || health().await == Health::Unhealthy).await;
    inside(&rig, &spec, "touch /tmp/ready").await;
    eventually("it is healthy", async || health().await == Health::Healthy).await;
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lives_with_the_app_is_reached_by_every_release_it_joined() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let mut db = rig.spec("shop.v1.db.1", &image, &SLEEP);
    db.surroundings.lives_with_app = true;
    db.surroundings.joins = vec![number(1)];
    db.surroundings.container.aliases = vec!["database".into()];
    db.volumes = vec!["pg_data:/data".parse().unwrap()];
    rig.engine.runtime.start(&db).await.unwrap();
    let (old, new) = (rig.spec("shop.v1.web.1", &image, &SLEEP), rig.spec("shop.v2.web.1", &image, &SLEEP));
    for web in [&old, &new] {
        rig.engine.runtime.start(web).await.unwrap();
    }
    inside(&rig, &old, "getent hosts db && getent hosts database").await;
    inside(&rig, &new, "! getent hosts db").await;
    for _ in 0..2 {
        rig.engine.runtime.join(&db.id, number(2), &["database".to_owned()]).await.unwrap();
    }
    inside(&rig, &new, "getent hosts db && getent hosts database && ! getent hosts web.nowhere").await;
    // The release it was started with goes; it stays, and so does its place with the other.
    rig.engine.runtime.stop(&old.id, Duration::ZERO).await.unwrap();
    rig.engine.runtime.remove_release(&rig.app, number(1)).await.unwrap();
    assert!(rig.engine.runtime.inspect(&db.id).await.unwrap().unwrap().is_running());
    inside(&rig, &new, "getent hosts database").await;
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_published_on_loopback_and_networks_of_others_are_joined() {
    let Some(rig) = Rig::new().await else { return };
    let image = rig.debian().await;
    let network = format!("others-{}", rig.owner);
    see(&["network", "create", &network]);
    let mut spec = rig.spec("shop.v1.api.1", &image, &SLEEP);
    let container = &mut spec.surroundings.container;
    container.ports = vec![PublishedPort { target: 53, protocol: Transport::Udp, host: None, address: None }];
    container.networks = vec![ExternalNetwork { name: network.clone(), aliases: vec!["shop-api".into()], address: None }];
    rig.engine.runtime.start(&spec).await.unwrap();
    let name = rig.container(&spec.id);
    let ports = rig.seen_by_docker(&["port", &name]);
    assert!(ports.len() == 1 && ports[0].starts_with("53/udp -> 127.0.0.1:"), "{ports:?}");
    let networks = rig.seen_by_docker(&["inspect", "-f", "{{range $n, $e := .NetworkSettings.Networks}}{{$n}} {{end}}", &name]);
    assert!(networks[0].contains(&network) && networks[0].contains(".shop.v1"), "{networks:?}");
    rig.engine.runtime.stop(&spec.id, Duration::ZERO).await.unwrap();
    see(&["network", "rm", &network]);
    let refused = rig.engine.runtime.start(&spec).await;
    assert!(
        matches!(&refused, Err(EngineError::CannotStart { cause, .. }) if cause.contains("there is no network")),
        "{refused:?}"
    );
    let mut spec = rig.spec("shop.v1.api.1", &image, &SLEEP);
    spec.volumes = vec!["data:/data".parse().unwrap()];
    spec.volumes[0].external = Some(format!("nobodys-{}", rig.owner));
    let refused = rig.engine.runtime.start(&spec).await;
    assert!(
        matches!(&refused, Err(EngineError::CannotStart { cause, .. }) if cause.contains("there is no volume")),
        "{refused:?}"
    );
    rig.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_built_from_further_sources_and_its_fingerprint_knows_them() {
    let Some(rig) = Rig::new().await else { return };
    rig.file("assets/logo", &format!("logo of {}\n", rig.owner));
    rig.file("app/greeting", "hello\n");
    let inline = "ARG BASE=debian:bookworm-slim\nFROM $BASE\nCOPY --from=assets /logo /logo\nCOPY greeting /greeting\nRUN cat /logo /greeting\n";
    let extras =
        BuildExtras { inline: Some(inline.into()), labels: [("team".into(), "blue".into())].into(), ..Default::default() };
    let recipe = Recipe::Dockerfile { path: String::new(), target: None, args: BTreeMap::new(), extras: Box::new(extras) };
    let mut request = rig.request(recipe, 1);
    request.source = rig.dir.path().join("source/app");
    request.part = Some("api".parse().unwrap());
    request.contexts = [("assets".to_owned(), NamedContext::Folder(rig.dir.path().join("source/assets")))].into();
    let told = Told::default();
    let built = rig.engine.builder.build(&request, &told.sink(), &CancellationToken::new()).await;
    let built = built.unwrap_or_else(|error| panic!("{error}\n{}", told.text()));
    assert!(told.text().contains(&format!("logo of {}", rig.owner)) && told.text().contains("hello"), "{}", told.text());
    let label = rig.seen_by_docker(&["image", "inspect", "-f", "{{.Config.Labels.team}} {{.RepoTags}}", built.id.as_str()]);
    assert_eq!(label, [format!("blue [coracle-{}/shop:v1.api]", rig.owner)]);

    let fingerprint = async || rig.engine.builder.fingerprint(&request).await.unwrap().unwrap();
    let first = fingerprint().await;
    rig.file("app/greeting", "hello\n");
    assert_eq!(fingerprint().await, first);
    rig.file("assets/logo", "another");
    assert_ne!(fingerprint().await, first);
    rig.clean().await;
}
