//! What a process asks of its container, in the engine's words.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, PortBinding, ResourcesUlimits,
};
use coracle_engine::Bind;
use coracle_model::container::{Confinement, ContainerSettings, HealthCheck, HealthTest};
use coracle_model::{ByteSize, Span};

/// What Docker leaves a container by default and a web app does not need. What stays: changing owners and users, binding
/// low ports, signalling its own children.
const DROPPED_CAPABILITIES: [&str; 7] = ["AUDIT_WRITE", "FSETID", "MKNOD", "NET_RAW", "SETFCAP", "SETPCAP", "SYS_CHROOT"];

/// How often a check is tried before it has passed first, where the engine can do that.
const EAGER: Span = Span::seconds(1);

/// Writes the settings into a description. What the description says of command and labels already stands over them.
pub(super) fn apply(settings: &ContainerSettings, body: &mut ContainerCreateBody, has_start_interval: bool) {
    if body.entrypoint.is_none() {
        // An empty entrypoint is written as one empty word; a list without words would leave the image's in place.
        body.entrypoint = settings.entrypoint.clone().map(|words| if words.is_empty() { vec![String::new()] } else { words });
        body.cmd = settings.arguments.clone();
    }
    body.user = settings.user.clone();
    body.working_dir = settings.working_dir.clone();
    body.hostname = settings.hostname.clone();
    body.domainname = settings.domainname.clone();
    body.stop_signal = settings.stop_signal.clone();
    body.tty = settings.tty.then_some(true);
    body.open_stdin = settings.stdin_open.then_some(true);
    let ours = body.labels.take().unwrap_or_default();
    body.labels = Some(settings.labels.clone().into_iter().chain(ours).collect());
    if let Some(health) = &settings.health {
        body.healthcheck = Some(health_config(health, has_start_interval));
    }
    let exposed = settings.ports.iter().map(|port| format!("{}/{}", port.target, port.protocol));
    let exposed: Vec<String> = body.exposed_ports.take().unwrap_or_default().into_iter().chain(exposed).collect();
    body.exposed_ports = (!exposed.is_empty()).then_some(exposed);
}

/// Writes the settings into the part of a description that is about the machine.
pub(super) fn apply_to_host(settings: &ContainerSettings, host: &mut HostConfig) {
    confine(settings, host);
    limit(settings, host);
    host.tmpfs = some_map(settings.tmpfs.iter().map(|tmpfs| (tmpfs.path.clone(), tmpfs.options.clone())));
    host.readonly_rootfs = settings.read_only.then_some(true);
    host.extra_hosts = some(&settings.extra_hosts);
    host.dns = some(&settings.dns);
    host.dns_search = some(&settings.dns_search);
    host.dns_options = some(&settings.dns_opt);
    host.group_add = some(&settings.group_add);
    host.sysctls = some_map(settings.sysctls.clone());
    host.devices = some(&settings.devices.iter().map(|device| device_mapping(device)).collect::<Vec<_>>());
    host.pid_mode = settings.pid.clone();
    host.ipc_mode = settings.ipc.clone();
    host.userns_mode = settings.userns.clone();
    host.runtime = settings.runtime.clone();
    if let Some(logging) = &settings.logging {
        let config = some_map(logging.options.clone());
        host.log_config = Some(HostConfigLogConfig { typ: Some(logging.driver.clone()), config });
    }
    let mut bindings = host.port_bindings.take().unwrap_or_default();
    for port in &settings.ports {
        let address = port.address.map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string());
        let binding = PortBinding { host_ip: Some(address), host_port: Some(port.host.unwrap_or(0).to_string()) };
        let of_target = bindings.entry(format!("{}/{}", port.target, port.protocol)).or_insert_with(|| Some(Vec::new()));
        of_target.get_or_insert_default().push(binding);
    }
    host.port_bindings = (!bindings.is_empty()).then_some(bindings);
}

fn confine(settings: &ContainerSettings, host: &mut HostConfig) {
    let tight = settings.confinement == Confinement::Tight;
    let bare = |name: &String| name.trim_start_matches("CAP_").to_ascii_uppercase();
    let added: Vec<String> = settings.cap_add.iter().map(bare).collect();
    let all = added.iter().any(|name| name == "ALL");
    let default = DROPPED_CAPABILITIES.iter().filter(|_| tight && !all).map(|name| (*name).to_owned());
    let mut dropped: Vec<String> = default.filter(|name| !added.contains(name)).collect();
    dropped.extend(settings.cap_drop.iter().map(bare));
    dropped.sort();
    dropped.dedup();
    host.cap_add = some(&added);
    host.cap_drop = some(&dropped);
    let mut options: Vec<String> = settings.security_opt.iter().map(|option| security_option(option)).collect();
    if tight && !options.iter().any(|option| option.starts_with("no-new-privileges")) {
        options.push("no-new-privileges".to_owned());
    }
    host.security_opt = some(&options);
    host.privileged = settings.privileged.then_some(true);
    host.init = Some(settings.init.unwrap_or(tight));
}

/// Compose allows `seccomp:unconfined` as well as `seccomp=unconfined`; the engine wants the second.
fn security_option(option: &str) -> String {
    match option.split_once(':') {
        Some((name, value)) if !option.contains('=') => format!("{name}={value}"),
        _ => option.to_owned(),
    }
}

fn limit(settings: &ContainerSettings, host: &mut HostConfig) {
    let ulimit = |(name, limit): (&String, &coracle_model::container::Ulimit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    };
    host.ulimits = some(&settings.ulimits.iter().map(ulimit).collect::<Vec<_>>());
    host.shm_size = settings.shm_size.map(bytes);
    host.memory_reservation = settings.memory_reservation.map(bytes);
    host.memory_swap = settings.memory_swap.or(host.memory_swap);
    host.cpu_shares = settings.cpu_shares;
    host.cpuset_cpus = settings.cpuset.clone();
    host.oom_score_adj = settings.oom_score_adj;
}

/// A file or directory of the machine inside the container.
pub(super) fn bind(bind: &Bind) -> Mount {
    let propagation = bind.propagation.as_deref().and_then(|text| text.parse::<MountBindOptionsPropagationEnum>().ok());
    Mount {
        typ: Some(MountType::BIND),
        source: Some(bind.source.to_string_lossy().into_owned()),
        target: Some(bind.path.clone()),
        read_only: Some(bind.read_only),
        bind_options: propagation.map(|propagation| MountBindOptions { propagation: Some(propagation), ..Default::default() }),
        ..Default::default()
    }
}

/// A volume without a name, which goes with the container.
pub(super) fn anonymous(path: &str) -> Mount {
    Mount { typ: Some(MountType::VOLUME), target: Some(path.to_owned()), ..Default::default() }
}

fn health_config(health: &HealthCheck, has_start_interval: bool) -> HealthConfig {
    let test = match &health.test {
        HealthTest::Disabled => return HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() },
        HealthTest::OfImage => None,
        HealthTest::Exec(argv) => Some([vec!["CMD".to_owned()], argv.clone()].concat()),
        HealthTest::Shell(line) => Some(vec!["CMD-SHELL".to_owned(), line.clone()]),
    };
    let interval = health.interval.unwrap_or(Span::seconds(30));
    // Before the first regular check nothing counts against the container; looking earlier only finds it well sooner.
    let (start_period, start_interval) = match has_start_interval {
        true => (health.start_period.or(Some(interval)), health.start_interval.or(Some(EAGER.min(interval)))),
        false => (health.start_period, None),
    };
    HealthConfig {
        test,
        interval: health.interval.map(nanos),
        timeout: health.timeout.map(nanos),
        retries: health.retries.map(i64::from),
        start_period: start_period.map(nanos),
        start_interval: start_interval.map(nanos),
    }
}

/// `/dev/x`, `/dev/x:/dev/y` or `/dev/x:/dev/y:rwm`.
fn device_mapping(text: &str) -> DeviceMapping {
    let mut pieces = text.splitn(3, ':');
    let host = pieces.next().map(str::to_owned);
    let inside = pieces.next().map(str::to_owned).or_else(|| host.clone());
    let permissions = pieces.next().unwrap_or("rwm").to_owned();
    DeviceMapping { path_on_host: host, path_in_container: inside, cgroup_permissions: Some(permissions) }
}

fn nanos(span: Span) -> i64 {
    i64::try_from(span.duration().as_nanos()).unwrap_or(i64::MAX)
}

fn bytes(size: ByteSize) -> i64 {
    i64::try_from(size.get()).unwrap_or(i64::MAX)
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn some_map(map: impl IntoIterator<Item = (String, String)>) -> Option<HashMap<String, String>> {
    let map: HashMap<String, String> = map.into_iter().collect();
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn host(settings: &ContainerSettings) -> HostConfig {
        let mut host = HostConfig::default();
        apply_to_host(settings, &mut host);
        host
    }

    #[test]
    fn the_default_is_tight_and_what_is_added_is_not_dropped() {
        let default = host(&ContainerSettings::default());
        assert_eq!(default.cap_drop.unwrap(), DROPPED_CAPABILITIES);
        assert_eq!((default.security_opt.unwrap(), default.init), (vec!["no-new-privileges".to_owned()], Some(true)));
        let raw = ContainerSettings { cap_add: vec!["CAP_NET_RAW".into()], ..Default::default() };
        assert!(!host(&raw).cap_drop.unwrap().contains(&"NET_RAW".to_owned()));
        let engine = host(&ContainerSettings { confinement: Confinement::Engine, ..Default::default() });
        assert_eq!((engine.cap_drop, engine.security_opt, engine.init), (None, None, Some(false)));
    }

    #[test]
    fn both_ways_to_write_a_security_option_are_one() {
        assert_eq!(security_option("seccomp:unconfined"), "seccomp=unconfined");
        assert_eq!(security_option("label=type:x"), "label=type:x");
        assert_eq!(security_option("no-new-privileges"), "no-new-privileges");
    }

    #[test]
    fn a_published_port_is_on_loopback_unless_it_says_otherwise() {
        let port = |address: Option<&str>| coracle_model::container::PublishedPort {
            target: 80,
            protocol: Default::default(),
            host: Some(8080),
            address: address.map(|address| address.parse().unwrap()),
        };
        let settings = ContainerSettings { ports: vec![port(None), port(Some("0.0.0.0"))], ..Default::default() };
        let bindings = host(&settings).port_bindings.unwrap().remove("80/tcp").unwrap().unwrap();
        let addresses: Vec<_> = bindings.iter().map(|binding| binding.host_ip.as_deref().unwrap()).collect();
        assert_eq!(addresses, ["127.0.0.1", "0.0.0.0"]);
    }

    #[test]
    fn devices_are_seen_where_they_are_unless_they_say_otherwise() {
        let text = |text| {
            let device = device_mapping(text);
            (device.path_on_host.unwrap(), device.path_in_container.unwrap(), device.cgroup_permissions.unwrap())
        };
        assert_eq!(text("/dev/a"), ("/dev/a".into(), "/dev/a".into(), "rwm".into()));
        assert_eq!(text("/dev/a:/dev/b:r"), ("/dev/a".into(), "/dev/b".into(), "r".into()));
    }
}
