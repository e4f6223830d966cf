//! The parts of a service that have many keys of their own: `build`, `deploy`, `develop`, `healthcheck`, hooks.

use super::*;

pub(super) const SHM_SIZE: Rule = BYTES;

/// A config or secret in a service.
pub(super) const FILE_MOUNT: Rule = object(&Object {
    keys: &[
        ("source", TEXT),
        ("target", TEXT),
        ("uid", TEXT),
        ("gid", TEXT),
        ("mode", scalar(NUMBER | STRING, Scalar::FileMode).kept()),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
})
.short(Short::Field("source"));

const ULIMIT: Rule = rule(Shape::Ulimit).merge(Merge::Ulimit).cast().kept();
pub(super) const ULIMITS: Rule = rule(Shape::Map(&ULIMIT));

pub(super) const BUILD: Rule = object(&Object {
    keys: &[
        ("context", TEXT.path(PathRule::Context)),
        ("dockerfile", TEXT),
        ("dockerfile_inline", TEXT),
        ("entitlements", TEXTS),
        ("args", rule(Shape::Pairs(true)).merge(Merge::Append).unique(Unique::Key)),
        ("ssh", rule(Shape::Ssh).path(PathRule::Ssh)),
        ("labels", pairs()),
        ("cache_from", TEXTS),
        ("cache_to", TEXTS),
        ("no_cache", BOOL),
        ("no_cache_filter", ONE_OR_MORE),
        ("additional_contexts", pairs().path(PathRule::Contexts)),
        ("network", TEXT),
        ("provenance", scalar(STRING | BOOLEAN, Scalar::Text)),
        ("sbom", scalar(STRING | BOOLEAN, Scalar::Text)),
        ("pull", BOOL),
        ("target", TEXT),
        ("shm_size", WHOLE_BYTES),
        ("extra_hosts", rule(Shape::Hosts).merge(Merge::AppendNew)),
        ("isolation", TEXT),
        ("privileged", BOOL),
        ("secrets", list(&FILE_MOUNT)),
        ("tags", TEXTS.unique(Unique::Key)),
        ("ulimits", ULIMITS),
        ("platforms", TEXTS),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
})
.short(Short::Field("context"))
.merge(Merge::Build);

const UPDATE: Rule = object(&Object {
    keys: &[
        ("parallelism", INT_CAST.kept()),
        ("delay", DURATION),
        ("failure_action", TEXT),
        ("monitor", DURATION),
        ("max_failure_ratio", FLOAT_CAST),
        ("order", TEXT.values(&["start-first", "stop-first"])),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});

const DEVICE_REQUEST: Rule = object(&Object {
    keys: &[
        ("capabilities", TEXT_SET),
        ("count", scalar(STRING | INTEGER, Scalar::Count)),
        ("device_ids", TEXT_SET),
        ("driver", TEXT),
        ("options", rule(Shape::Pairs(false))),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});
pub(super) const GPUS: Rule = list(&DEVICE_REQUEST).short(Short::Gpus);

const GENERIC_RESOURCE: Rule = object(&Object {
    keys: &[(
        "discrete_resource_spec",
        object(&Object {
            keys: &[("kind", TEXT.empty(Empty::Kept)), ("value", WHOLE_CAST.kept())],
            required: &[],
            extensible: true,
            nullable: false,
            capitals: false,
        }),
    )],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});

const LIMITS: Rule = object(&Object {
    keys: &[("cpus", scalar(NUMBER | STRING, Scalar::Float)), ("memory", scalar(STRING, Scalar::Bytes)), ("pids", INT)],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});

const RESERVATIONS: Rule = object(&Object {
    keys: &[
        ("cpus", scalar(NUMBER | STRING, Scalar::Float)),
        ("memory", scalar(STRING, Scalar::Bytes)),
        ("generic_resources", list(&GENERIC_RESOURCE)),
        ("devices", list(&DEVICE_REQUEST)),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});

const PREFERENCE: Rule =
    object(&Object { keys: &[("spread", TEXT)], required: &[], extensible: true, nullable: false, capitals: false });

pub(super) const DEPLOY: Rule = object(&Object {
    keys: &[
        ("mode", TEXT),
        ("endpoint_mode", TEXT),
        ("replicas", INT_CAST.kept()),
        ("labels", pairs()),
        ("rollback_config", UPDATE),
        ("update_config", UPDATE),
        (
            "resources",
            object(&Object {
                keys: &[("limits", LIMITS), ("reservations", RESERVATIONS)],
                required: &[],
                extensible: true,
                nullable: false,
                capitals: false,
            })
            .empty(Empty::Always),
        ),
        (
            "restart_policy",
            object(&Object {
                keys: &[
                    ("condition", TEXT),
                    ("delay", DURATION.kept()),
                    ("max_attempts", INT_CAST.kept()),
                    ("window", DURATION.kept()),
                ],
                required: &[],
                extensible: true,
                nullable: false,
                capitals: false,
            }),
        ),
        (
            "placement",
            object(&Object {
                keys: &[("constraints", TEXTS), ("preferences", list(&PREFERENCE)), ("max_replicas_per_node", INT_CAST)],
                required: &[],
                extensible: true,
                nullable: false,
                capitals: false,
            })
            .empty(Empty::Always),
        ),
    ],
    required: &[],
    extensible: true,
    nullable: true,
    capitals: false,
});

pub(super) const HOOK: Rule = object(&Object {
    keys: &[
        ("command", rule(Shape::Command).merge(Merge::Replace)),
        ("user", TEXT),
        ("privileged", BOOL),
        ("working_dir", TEXT),
        ("environment", rule(Shape::Pairs(true)).merge(Merge::Append).unique(Unique::Key)),
    ],
    required: &["command"],
    extensible: true,
    nullable: false,
    capitals: false,
});

const WATCH: Rule = object(&Object {
    keys: &[
        ("ignore", ONE_OR_MORE),
        ("include", ONE_OR_MORE),
        ("path", TEXT.path(PathRule::Link).empty(Empty::Kept)),
        ("action", TEXT.values(&["rebuild", "sync", "restart", "sync+restart", "sync+exec"]).empty(Empty::Kept)),
        ("target", TEXT),
        ("exec", HOOK),
        ("initial_sync", scalar(BOOLEAN, Scalar::Bool)),
    ],
    required: &["path", "action"],
    extensible: true,
    nullable: false,
    capitals: false,
});

pub(super) const DEVELOP: Rule =
    object(&Object { keys: &[("watch", list(&WATCH))], required: &[], extensible: true, nullable: true, capitals: false });

pub(super) const HEALTHCHECK: Rule = object(&Object {
    keys: &[
        ("disable", BOOL_CAST),
        ("interval", DURATION.kept()),
        ("retries", WHOLE_CAST.kept()),
        ("test", rule(Shape::Test).merge(Merge::Replace)),
        ("timeout", DURATION.kept()),
        ("start_period", DURATION.kept()),
        ("start_interval", DURATION.kept()),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});

const RATE: Rule = object(&Object {
    keys: &[("path", TEXT.empty(Empty::Kept)), ("rate", WHOLE_BYTES.kept())],
    required: &[],
    extensible: false,
    nullable: false,
    capitals: true,
});

const WEIGHT: Rule = object(&Object {
    keys: &[("path", TEXT.empty(Empty::Kept)), ("weight", INT.kept())],
    required: &[],
    extensible: false,
    nullable: false,
    capitals: true,
});

pub(super) const BLKIO: Rule = object(&Object {
    keys: &[
        ("device_read_bps", list(&RATE)),
        ("device_read_iops", list(&RATE)),
        ("device_write_bps", list(&RATE)),
        ("device_write_iops", list(&RATE)),
        ("weight", INT),
        ("weight_device", list(&WEIGHT)),
    ],
    required: &[],
    extensible: false,
    nullable: false,
    capitals: false,
});
