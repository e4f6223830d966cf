//! What becomes of the keys of a compose file that do not take effect when a project is deployed, one row for each. Every other
//! key of the schema is honoured. `docs/reference/compose.md` says the same of each of them, and a test compares the two.

use serde_json::Value;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// It is an obstacle.
    Refused,
    /// It is told, and has no effect.
    Ignored,
    /// `coracle dev` alone takes notice of it.
    Development,
}

/// A key that does not take effect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Its path in the schema: names that a writer chooses are left out.
    pub(crate) key: &'static str,
    pub(crate) support: Support,
    pub(crate) why: &'static str,
    /// Values that nothing has to be said against, because they ask for what is so anyway.
    pub(crate) harmless: fn(&Value) -> bool,
}

const fn refused(key: &'static str, why: &'static str) -> Row {
    Row { key, support: Support::Refused, why, harmless: is_nothing }
}

const fn ignored(key: &'static str, why: &'static str) -> Row {
    Row { key, support: Support::Ignored, why, harmless: is_nothing }
}

impl Row {
    const fn unless(mut self, harmless: fn(&Value) -> bool) -> Self {
        self.harmless = harmless;
        self
    }
}

const MACHINE: &str = "is a setting of the machine that Coracle does not pass on";
const SWARM: &str = "is for Swarm";
const WINDOWS: &str = "is for Windows containers";
const PLACE: &str = "there is one machine";
const MODELS: &str = "Coracle runs no language models";
const WHOLE: &str = "a release replaces the one before it whole, and only once it is healthy";
const PACE: &str = "restarts wait longer each time, by Coracle's own measure; leave it out";
const BUILDER: &str = "the builder does not offer it";
const ADDRESS: &str = "two releases run at once, and an address is one's own; use names";
const REMARK: &str = "it is a remark that nobody reads here";

/// The keys that are not honoured, each below those that stand above it.
pub(crate) static NOT_HONOURED: &[Row] = &[
    refused("models", MODELS),
    ignored("version", "it is obsolete"),
    // A service's own.
    refused("services.annotations", MACHINE),
    Row { support: Support::Development, ..ignored("services.attach", "a server keeps the output of all") },
    refused("services.blkio_config", MACHINE),
    refused("services.cgroup", MACHINE),
    refused("services.cgroup_parent", MACHINE),
    refused("services.cpu_count", "is for Windows containers; use `cpus`"),
    refused("services.cpu_percent", "is for Windows containers; use `cpus`"),
    refused("services.cpu_rt_period", MACHINE),
    refused("services.cpu_rt_runtime", MACHINE),
    refused("services.credential_spec", WINDOWS),
    Row { support: Support::Development, ..ignored("services.develop", "`coracle dev` reads it") },
    refused("services.device_cgroup_rules", MACHINE),
    refused("services.external_links", "join the other project's network instead (`networks`, external)"),
    refused("services.gpus", MACHINE),
    refused("services.isolation", WINDOWS),
    refused("services.mac_address", ADDRESS),
    refused("services.mem_swappiness", MACHINE),
    refused("services.models", MODELS),
    refused("services.network_mode", "a release's containers share a network of their own").unless(is_bridge),
    refused("services.oom_kill_disable", MACHINE),
    refused("services.platform", "images run on the machine's own platform").unless(is_native),
    refused("services.post_start", "run it in the container's own entrypoint"),
    refused("services.pre_stop", "handle the stop signal instead"),
    refused("services.provider", "is for plugins of Compose"),
    refused("services.pull_refresh_after", "images change with releases, not with time"),
    refused("services.storage_opt", MACHINE),
    refused("services.use_api_socket", "a container that speaks to the engine is root on the machine"),
    refused("services.uts", MACHINE),
    refused("services.volumes_from", "name the volumes in both services"),
    // Below `build`.
    refused("services.build.cache_to", "the builder's cache stays on the server"),
    refused("services.build.entitlements", "builds have no rights beyond their own"),
    refused("services.build.isolation", WINDOWS),
    refused("services.build.no_cache_filter", "clear the cache of all steps with `no_cache`"),
    refused("services.build.platforms", "an image is built for the one machine that it runs on").unless(is_one),
    refused("services.build.privileged", "builds have no rights beyond their own"),
    refused("services.build.provenance", "images are not pushed, so nobody would read it").unless(is_no),
    refused("services.build.sbom", "images are not pushed, so nobody would read it").unless(is_no),
    refused("services.build.secrets.gid", "the builder gives secrets to the user that builds"),
    refused("services.build.secrets.mode", "the builder gives secrets to the user that builds"),
    refused("services.build.secrets.uid", "the builder gives secrets to the user that builds"),
    refused("services.build.ssh", "no agent of a developer's reaches the server"),
    ignored("services.build.tags", "images are named by release, and pinned by digest"),
    refused("services.build.ulimits", BUILDER),
    // Below `deploy`.
    refused("services.deploy.endpoint_mode", SWARM),
    ignored("services.deploy.labels", "they describe a service of Swarm; Traefik labels are read from `labels`"),
    refused("services.deploy.mode", "there is one machine; say how many with `replicas`").unless(is_replicated),
    refused("services.deploy.placement", PLACE),
    ignored("services.deploy.resources.reservations.cpus", "nothing is scheduled on one machine"),
    refused("services.deploy.resources.reservations.devices", MACHINE),
    refused("services.deploy.resources.reservations.generic_resources", SWARM),
    refused("services.deploy.restart_policy.delay", PACE),
    refused("services.deploy.restart_policy.window", PACE),
    refused("services.deploy.rollback_config", WHOLE),
    refused("services.deploy.update_config", WHOLE),
    // Below `networks`, `ports` and `volumes`.
    refused("services.networks.driver_opts", MACHINE),
    refused("services.networks.gw_priority", "the way out of a release is its own network's"),
    refused("services.networks.interface_name", "the engine names interfaces"),
    refused("services.networks.link_local_ips", ADDRESS),
    refused("services.networks.mac_address", ADDRESS),
    ignored("services.networks.priority", "a container joins its release's network first, then those of others"),
    ignored("services.ports.mode", "it is for Swarm").unless(is_ingress),
    ignored("services.ports.name", REMARK),
    refused("services.volumes.bind.recursive", "mounts below a directory come with it, as the engine has it"),
    refused("services.volumes.bind.selinux", "files are not labelled anew; say `security_opt: [label=disable]`")
        .unless(is_without_selinux),
    ignored("services.volumes.consistency", "it has no effect on Linux"),
    refused("services.volumes.image", "files of an image are copied with `COPY --from`"),
    ignored("services.volumes.volume.labels", REMARK),
    refused("services.volumes.volume.nocopy", "a new volume begins as the image has it"),
    refused("services.volumes.volume.subpath", "volumes are mounted whole"),
    // The top level's others.
    ignored("networks.attachable", SWARM),
    refused("networks.driver", "networks of a release are bridges").unless(is_bridge),
    refused("networks.driver_opts", MACHINE),
    refused("networks.enable_ipv4", "networks of a release have IPv4 addresses").unless(is_yes),
    refused("networks.enable_ipv6", "networks of a release have IPv4 addresses"),
    refused("networks.internal", "a release is one network, which has a way out"),
    refused("networks.ipam", "each release has a network of its own, so addresses cannot be fixed").unless(is_default_ipam),
    ignored("networks.labels", REMARK),
    refused("volumes.driver", "volumes are directories that the engine keeps").unless(is_local),
    ignored("volumes.labels", REMARK),
    refused("secrets.driver", SWARM),
    refused("secrets.driver_opts", SWARM),
    ignored("secrets.labels", REMARK),
    refused("secrets.template_driver", SWARM),
    ignored("configs.labels", REMARK),
    refused("configs.template_driver", SWARM),
];

/// The row of a key.
pub(crate) fn row(key: &str) -> Option<&'static Row> {
    NOT_HONOURED.iter().find(|row| key == row.key)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        // `placement: {}` is in every model that has `deploy`.
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn is_yes(value: &Value) -> bool {
    *value == true
}

fn is_no(value: &Value) -> bool {
    *value == "false"
}

fn is_replicated(value: &Value) -> bool {
    *value == "replicated"
}

fn is_ingress(value: &Value) -> bool {
    *value == "ingress"
}

fn is_bridge(value: &Value) -> bool {
    matches!(value.as_str(), Some("" | "bridge" | "default"))
}

fn is_local(value: &Value) -> bool {
    matches!(value.as_str(), Some("" | "local"))
}

fn is_default_ipam(value: &Value) -> bool {
    value
        .as_object()
        .is_some_and(|ipam| ipam.iter().all(|(key, value)| (key == "driver" && *value == "default") || is_nothing(value)))
}

fn is_one(value: &Value) -> bool {
    value.as_array().is_some_and(|values| values.len() <= 1)
}

/// Whether a platform is that of this machine.
fn is_native(platform: &Value) -> bool {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut pieces = platform.as_str().unwrap_or_default().split('/');
    (pieces.next(), pieces.next()) == (Some("linux"), Some(machine))
}

/// Where the kernel labels no files, the engine has nothing to label anew either.
fn is_without_selinux(_: &Value) -> bool {
    !std::path::Path::new("/sys/fs/selinux/enforce").exists()
}
