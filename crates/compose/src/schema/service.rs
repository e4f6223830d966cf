//! The keys of a service.

use super::resources::{BLKIO, BUILD, DEPLOY, DEVELOP, FILE_MOUNT, GPUS, HEALTHCHECK, HOOK, SHM_SIZE, ULIMITS};
use super::*;

const fn plain(keys: &'static [(&'static str, Rule)]) -> Object {
    Object { keys, required: &[], extensible: true, nullable: false, capitals: false }
}

const PORT: Rule = object(&plain(&[
    ("name", TEXT),
    ("mode", TEXT),
    ("host_ip", TEXT),
    ("target", INT_CAST),
    ("published", scalar(STRING | INTEGER, Scalar::Text)),
    ("protocol", TEXT),
    ("app_protocol", TEXT),
]))
.short(Short::Port);

const MOUNT: Rule = object(&Object {
    keys: &[
        ("type", TEXT.values(&["bind", "volume", "tmpfs", "cluster", "npipe", "image"])),
        ("source", TEXT),
        ("target", TEXT),
        ("read_only", BOOL_CAST),
        ("consistency", TEXT),
        (
            "bind",
            object(&plain(&[
                ("propagation", TEXT),
                ("create_host_path", BOOL.empty(Empty::OmittedIfTrue)),
                ("recursive", TEXT.values(&["enabled", "disabled", "writable", "readonly"])),
                ("selinux", TEXT.values(&["z", "Z"])),
            ])),
        ),
        (
            "volume",
            object(&plain(&[
                ("labels", rule(Shape::Pairs(false)).merge(Merge::Append)),
                ("nocopy", BOOL_CAST),
                ("subpath", TEXT),
            ])),
        ),
        ("tmpfs", object(&plain(&[("size", WHOLE_BYTES.range(0, i64::MAX)), ("mode", scalar(NUMBER | STRING, Scalar::Int))]))),
        ("image", object(&plain(&[("subpath", TEXT)]))),
    ],
    required: &["type"],
    extensible: true,
    nullable: false,
    capitals: false,
})
.short(Short::Volume)
.path(PathRule::Mount);

const DEVICE: Rule = object(&Object {
    keys: &[("source", TEXT), ("target", TEXT), ("permissions", TEXT)],
    required: &["source"],
    extensible: true,
    nullable: false,
    capitals: false,
})
.short(Short::Device);

const DEPENDENCY: Rule = object(&Object {
    keys: &[
        ("restart", BOOL_CAST),
        ("required", scalar(BOOLEAN, Scalar::Bool).cast().empty(Empty::Always)),
        ("condition", TEXT.values(&["service_started", "service_healthy", "service_completed_successfully"])),
    ],
    required: &["condition"],
    extensible: true,
    nullable: false,
    capitals: false,
});

const NETWORK: Rule = object(&Object {
    keys: &[
        ("aliases", TEXT_SET.unique(Unique::Key)),
        ("interface_name", TEXT),
        ("ipv4_address", TEXT),
        ("ipv6_address", TEXT),
        ("link_local_ips", TEXT_SET.unique(Unique::Key)),
        ("mac_address", TEXT),
        ("driver_opts", DRIVER_OPTIONS),
        ("priority", scalar(NUMBER, Scalar::Int)),
        ("gw_priority", scalar(NUMBER, Scalar::Int)),
    ],
    required: &[],
    extensible: true,
    nullable: true,
    capitals: false,
});

const MODEL: Rule = object(&Object {
    keys: &[("endpoint_var", TEXT), ("model_var", TEXT)],
    required: &[],
    extensible: true,
    nullable: true,
    capitals: false,
});

const ENV_FILE: Rule = object(&Object {
    keys: &[("path", TEXT.path(PathRule::File)), ("format", TEXT), ("required", BOOL.empty(Empty::OmittedIfTrue))],
    required: &["path"],
    extensible: false,
    nullable: false,
    capitals: false,
})
.short(Short::EnvFile);

const EXTENDS: Rule = object(&Object {
    keys: &[("service", TEXT), ("file", TEXT)],
    required: &["service"],
    extensible: false,
    nullable: false,
    capitals: false,
})
.short(Short::Field("service"));

const LOGGING: Rule = object(&plain(&[("driver", TEXT), ("options", LOGGING_OPTIONS)])).merge(Merge::Logging);

const PROVIDER: Rule = object(&Object {
    keys: &[("type", TEXT), ("options", rule(Shape::Options))],
    required: &["type"],
    extensible: true,
    nullable: false,
    capitals: false,
});

const COMMAND: Rule = rule(Shape::Command).merge(Merge::Replace).kept();
const LABEL_FILE: Rule = TEXT.path(PathRule::File);
const STORAGE_OPTION: Rule = scalar(STRING | NUMBER | BOOLEAN | NULL, Scalar::Text);
const NUMBER_OR_TEXT_SET: Rule = set(&TEXT_OR_NUMBER);
/// A count that JSON writes as a whole number and that may be text.
const COUNT: Rule = INT_CAST.range(0, i64::MAX);

/// A service, as it stands below `services`.
pub(crate) static SERVICE: Object = plain(&[
    ("annotations", pairs()),
    ("attach", BOOL.kept()),
    ("blkio_config", BLKIO),
    ("build", BUILD),
    ("cap_add", TEXT_SET.unique(Unique::Key)),
    ("cap_drop", TEXT_SET.unique(Unique::Key)),
    ("cgroup", TEXT.values(&["host", "private"])),
    ("cgroup_parent", TEXT),
    ("command", COMMAND),
    ("configs", list(&FILE_MOUNT).unique(Unique::Mount(""))),
    ("container_name", TEXT.form(is_container_name, "a letter or digit, then letters, digits, `_`, `.` or `-`")),
    ("cpu_count", COUNT),
    ("cpu_percent", scalar(INTEGER | STRING, Scalar::Float).cast().range(0, 100)),
    ("cpu_period", WHOLE_CAST),
    ("cpu_quota", WHOLE_CAST),
    ("cpu_rt_period", WHOLE_CAST),
    ("cpu_rt_runtime", WHOLE_CAST),
    ("cpu_shares", WHOLE_CAST),
    ("cpus", FLOAT_CAST),
    ("cpuset", TEXT),
    ("credential_spec", object(&plain(&[("config", TEXT), ("file", TEXT), ("registry", TEXT)]))),
    ("depends_on", rule(Shape::Names(&DEPENDENCY)).short(Short::Dependencies).merge(Merge::Dependencies)),
    ("deploy", DEPLOY),
    ("develop", DEVELOP),
    ("device_cgroup_rules", TEXT_SET),
    ("devices", list(&DEVICE).unique(Unique::Device)),
    ("dns", ONE_OR_MORE.merge(Merge::Append).unique(Unique::Key)),
    ("dns_opt", TEXT_SET.merge(Merge::Append).unique(Unique::Key)),
    ("dns_search", ONE_OR_MORE.merge(Merge::Append).unique(Unique::Key)),
    ("domainname", TEXT),
    ("entrypoint", COMMAND),
    ("env_file", list(&ENV_FILE).short(Short::One).merge(Merge::Append).unique(Unique::EnvFile)),
    ("environment", rule(Shape::Pairs(true)).merge(Merge::Append).unique(Unique::Key)),
    ("expose", NUMBER_OR_TEXT_SET.unique(Unique::Key)),
    ("extends", EXTENDS),
    ("external_links", TEXT_SET),
    ("extra_hosts", rule(Shape::Hosts).merge(Merge::AppendNew)),
    ("gpus", GPUS),
    ("group_add", NUMBER_OR_TEXT_SET),
    ("healthcheck", HEALTHCHECK),
    ("hostname", TEXT),
    ("image", TEXT),
    ("init", BOOL_CAST.kept()),
    ("ipc", TEXT),
    ("isolation", TEXT),
    ("label_file", list(&LABEL_FILE).short(Short::One).merge(Merge::Append)),
    ("labels", pairs()),
    ("links", TEXT_SET.unique(Unique::Key)),
    ("logging", LOGGING),
    ("mac_address", TEXT),
    ("mem_limit", BYTES),
    ("mem_reservation", WHOLE_BYTES),
    ("mem_swappiness", WHOLE_BYTES),
    ("memswap_limit", BYTES),
    ("models", rule(Shape::Names(&MODEL)).short(Short::Names).merge(Merge::Names)),
    ("network_mode", TEXT),
    ("networks", rule(Shape::Names(&NETWORK)).short(Short::Names).merge(Merge::Names)),
    ("oom_kill_disable", BOOL_CAST),
    ("oom_score_adj", INT_CAST.range(-1000, 1000)),
    ("pid", TEXT_OR_NULL),
    ("pids_limit", WHOLE_CAST),
    ("platform", TEXT),
    ("ports", set(&PORT).unique(Unique::Port)),
    ("post_start", list(&HOOK)),
    ("pre_stop", list(&HOOK)),
    ("privileged", BOOL_CAST),
    ("profiles", TEXT_SET.unique(Unique::Key)),
    ("provider", PROVIDER),
    ("pull_policy", TEXT.form(is_pull_policy, "always, never, missing, build, refresh, daily, weekly or every_<duration>")),
    ("pull_refresh_after", TEXT),
    ("read_only", BOOL_CAST),
    ("restart", TEXT),
    ("runtime", TEXT),
    ("scale", INT_CAST.kept()),
    ("secrets", list(&FILE_MOUNT).unique(Unique::Mount("/run/secrets"))),
    ("security_opt", TEXT_SET),
    ("shm_size", SHM_SIZE),
    ("stdin_open", BOOL_CAST),
    ("stop_grace_period", DURATION.kept()),
    ("stop_signal", TEXT),
    ("storage_opt", rule(Shape::Map(&STORAGE_OPTION))),
    ("sysctls", pairs()),
    ("tmpfs", ONE_OR_MORE.merge(Merge::Append).unique(Unique::Key)),
    ("tty", BOOL_CAST),
    ("ulimits", ULIMITS),
    ("use_api_socket", scalar(BOOLEAN, Scalar::Bool)),
    ("user", TEXT),
    ("userns_mode", TEXT),
    ("uts", TEXT),
    ("volumes", set(&MOUNT).unique(Unique::Volume)),
    ("volumes_from", TEXT_SET),
    ("working_dir", TEXT),
]);

/// The schema's pattern `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, which need not match the whole name.
fn is_container_name(name: &str) -> bool {
    name.as_bytes()
        .windows(2)
        .any(|pair| pair[0].is_ascii_alphanumeric() && (pair[1].is_ascii_alphanumeric() || matches!(pair[1], b'_' | b'.' | b'-')))
}

/// The schema's pattern for `pull_policy`, which need not match the whole value.
fn is_pull_policy(policy: &str) -> bool {
    let words = ["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
    words.iter().any(|word| policy.contains(word))
        || policy.split("every_").skip(1).any(|period| {
            let digits = period.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && period[digits..].starts_with(['w', 'd', 'h', 'm', 's'])
        })
}
