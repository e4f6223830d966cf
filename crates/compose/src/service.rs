//! A service and its parts, typed: what `services.NAME` of a resolved model holds.
//!
//! Every field is named as the key it comes from and holds that key's value; a key that was not written is `None`, empty
//! or false. A service's `x-` keys are its `extensions`. Sizes are bytes in decimal, durations are Go's (`1m30s`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Names to texts.
pub type Texts = BTreeMap<String, String>;
/// Names to texts, or to nothing: the value is then the process's that runs the project.
pub type Variables = BTreeMap<String, Option<String>>;

macro_rules! parts {
    ($($(#[$about:meta])* $part:ident { $($key:ident $(= $name:literal)? : $type:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Default, Deserialize)]
        #[serde(default)]
        #[allow(missing_docs, reason = "each field is the key of its name in the Compose Specification")]
        pub struct $part {
            $($(#[serde(rename = $name)])? pub $key: $type,)*
        }
    )*};
}

parts! {
    /// `services.NAME`.
    Service {
        annotations: Texts,
        attach: Option<bool>,
        blkio_config: Option<Value>,
        build: Option<Box<Build>>,
        cap_add: Vec<String>,
        cap_drop: Vec<String>,
        cgroup: Option<String>,
        cgroup_parent: Option<String>,
        command: Option<Vec<String>>,
        configs: Vec<FileMount>,
        container_name: Option<String>,
        cpu_count: Option<i64>,
        cpu_percent: Option<f64>,
        cpu_period: Option<i64>,
        cpu_quota: Option<i64>,
        cpu_rt_period: Option<i64>,
        cpu_rt_runtime: Option<i64>,
        cpu_shares: Option<i64>,
        cpus: Option<f64>,
        cpuset: Option<String>,
        credential_spec: Option<Value>,
        depends_on: BTreeMap<String, Dependency>,
        deploy: Option<Box<Deploy>>,
        develop: Option<Box<Develop>>,
        device_cgroup_rules: Vec<String>,
        devices: Vec<Device>,
        dns: Vec<String>,
        dns_opt: Vec<String>,
        dns_search: Vec<String>,
        domainname: Option<String>,
        entrypoint: Option<Vec<String>>,
        environment: Variables,
        expose: Vec<String>,
        external_links: Vec<String>,
        extra_hosts: Vec<String>,
        gpus: Vec<DeviceRequest>,
        group_add: Vec<String>,
        healthcheck: Option<Box<Healthcheck>>,
        hostname: Option<String>,
        image: Option<String>,
        init: Option<bool>,
        ipc: Option<String>,
        isolation: Option<String>,
        labels: Texts,
        links: Vec<String>,
        logging: Option<Box<Logging>>,
        mac_address: Option<String>,
        mem_limit: Option<String>,
        mem_reservation: Option<String>,
        mem_swappiness: Option<String>,
        memswap_limit: Option<String>,
        models: BTreeMap<String, Value>,
        network_mode: Option<String>,
        networks: BTreeMap<String, Option<Box<Attachment>>>,
        oom_kill_disable: bool,
        oom_score_adj: i64,
        pid: Option<String>,
        pids_limit: Option<i64>,
        platform: Option<String>,
        ports: Vec<Port>,
        post_start: Vec<Hook>,
        pre_stop: Vec<Hook>,
        privileged: bool,
        profiles: Vec<String>,
        provider: Option<Value>,
        pull_policy: Option<String>,
        pull_refresh_after: Option<String>,
        read_only: bool,
        restart: Option<String>,
        runtime: Option<String>,
        scale: Option<u32>,
        secrets: Vec<FileMount>,
        security_opt: Vec<String>,
        shm_size: Option<String>,
        stdin_open: bool,
        stop_grace_period: Option<String>,
        stop_signal: Option<String>,
        storage_opt: Texts,
        sysctls: Texts,
        tmpfs: Vec<String>,
        tty: bool,
        ulimits: BTreeMap<String, Ulimit>,
        use_api_socket: bool,
        user: Option<String>,
        userns_mode: Option<String>,
        uts: Option<String>,
        volumes: Vec<Mount>,
        volumes_from: Vec<String>,
        working_dir: Option<String>,
        extensions: BTreeMap<String, Value>,
    }

    /// `build`.
    Build {
        context: Option<String>,
        dockerfile: Option<String>,
        dockerfile_inline: Option<String>,
        entitlements: Vec<String>,
        args: Variables,
        ssh: Vec<String>,
        labels: Texts,
        cache_from: Vec<String>,
        cache_to: Vec<String>,
        no_cache: bool,
        no_cache_filter: Vec<String>,
        additional_contexts: Texts,
        network: Option<String>,
        provenance: Option<String>,
        sbom: Option<String>,
        pull: bool,
        target: Option<String>,
        shm_size: Option<String>,
        extra_hosts: Vec<String>,
        isolation: Option<String>,
        privileged: bool,
        secrets: Vec<FileMount>,
        tags: Vec<String>,
        ulimits: BTreeMap<String, Ulimit>,
        platforms: Vec<String>,
    }

    /// An entry of `configs` or `secrets`.
    FileMount {
        source: String,
        target: Option<String>,
        uid: Option<String>,
        gid: Option<String>,
        mode: Option<String>,
    }

    /// An entry of `depends_on`.
    Dependency {
        condition: String,
        required: bool,
        restart: bool,
    }

    /// `deploy`.
    Deploy {
        mode: Option<String>,
        endpoint_mode: Option<String>,
        replicas: Option<u32>,
        labels: Texts,
        rollback_config: Option<Update>,
        update_config: Option<Update>,
        resources: Resources,
        restart_policy: Option<RestartPolicy>,
        placement: Placement,
    }

    /// `deploy.update_config` and `deploy.rollback_config`.
    Update {
        parallelism: Option<u64>,
        delay: Option<String>,
        failure_action: Option<String>,
        monitor: Option<String>,
        max_failure_ratio: f64,
        order: Option<String>,
    }

    /// `deploy.resources`.
    Resources {
        limits: Option<Resource>,
        reservations: Option<Resource>,
    }

    /// `deploy.resources.limits` and `deploy.resources.reservations`.
    Resource {
        cpus: Option<f64>,
        memory: Option<String>,
        pids: Option<i64>,
        devices: Vec<DeviceRequest>,
        generic_resources: Vec<Value>,
    }

    /// `deploy.restart_policy`.
    RestartPolicy {
        condition: Option<String>,
        delay: Option<String>,
        max_attempts: Option<u64>,
        window: Option<String>,
    }

    /// `deploy.placement`.
    Placement {
        constraints: Vec<String>,
        preferences: Vec<Value>,
        max_replicas_per_node: u64,
    }

    /// `develop`.
    Develop {
        watch: Vec<Watch>,
    }

    /// An entry of `develop.watch`.
    Watch {
        path: String,
        action: String,
        target: Option<String>,
        ignore: Vec<String>,
        include: Vec<String>,
        exec: Option<Hook>,
        initial_sync: bool,
    }

    /// An entry of `devices`.
    Device {
        source: String,
        target: Option<String>,
        permissions: Option<String>,
    }

    /// An entry of `gpus` or of reserved devices; a count of -1 is all of them.
    DeviceRequest {
        capabilities: Vec<String>,
        count: i64,
        device_ids: Vec<String>,
        driver: Option<String>,
        options: Texts,
    }

    /// `healthcheck`.
    Healthcheck {
        test: Vec<String>,
        interval: Option<String>,
        timeout: Option<String>,
        start_period: Option<String>,
        start_interval: Option<String>,
        retries: Option<u64>,
        disable: bool,
    }

    /// An entry of `post_start` or `pre_stop`.
    Hook {
        command: Vec<String>,
        user: Option<String>,
        privileged: bool,
        working_dir: Option<String>,
        environment: Variables,
    }

    /// `logging`.
    Logging {
        driver: Option<String>,
        options: Texts,
    }

    /// What `networks` says of one network.
    Attachment {
        aliases: Vec<String>,
        interface_name: Option<String>,
        ipv4_address: Option<String>,
        ipv6_address: Option<String>,
        link_local_ips: Vec<String>,
        mac_address: Option<String>,
        driver_opts: Texts,
        priority: i64,
        gw_priority: i64,
    }

    /// An entry of `ports`. `published` may be a range to choose from.
    Port {
        target: u16,
        published: Option<String>,
        host_ip: Option<String>,
        protocol: String,
        mode: String,
        app_protocol: Option<String>,
        name: Option<String>,
    }

    /// An entry of `volumes`.
    Mount {
        kind = "type": String,
        source: Option<String>,
        target: String,
        read_only: bool,
        consistency: Option<String>,
        bind: Option<Box<BindMount>>,
        volume: Option<Box<VolumeMount>>,
        tmpfs: Option<Box<TmpfsMount>>,
        image: Option<Box<ImageMount>>,
    }

    /// `bind` of a mount. `create_host_path` is `None` where it has its default, which is true.
    BindMount {
        propagation: Option<String>,
        create_host_path: Option<bool>,
        recursive: Option<String>,
        selinux: Option<String>,
    }

    /// `volume` of a mount.
    VolumeMount {
        labels: Texts,
        nocopy: bool,
        subpath: Option<String>,
    }

    /// `tmpfs` of a mount.
    TmpfsMount {
        size: Option<String>,
        mode: Option<u32>,
    }

    /// `image` of a mount.
    ImageMount {
        subpath: Option<String>,
    }
}

/// One limit for both, or a soft and a hard one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "Value")]
pub enum Ulimit {
    /// The soft and hard limit.
    Single(i64),
    /// Two limits.
    Range {
        /// What the process starts with.
        soft: i64,
        /// What it may raise it to.
        hard: i64,
    },
}

impl From<Value> for Ulimit {
    fn from(value: Value) -> Self {
        let number = |value: &Value| value.as_i64().unwrap_or(0);
        if value.is_object() {
            Self::Range { soft: number(&value["soft"]), hard: number(&value["hard"]) }
        } else {
            Self::Single(number(&value))
        }
    }
}
