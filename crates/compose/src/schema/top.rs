//! The top of a compose file: `name`, `services`, `networks`, `volumes`, `configs`, `secrets`, `models`, `include`.

use super::*;

const EXTERNAL: Rule = rule(Shape::External).cast();
const LABELS: Rule = pairs();
const ONE_PATH: Rule = TEXTS.short(Short::One);

const POOL: Rule = object(&Object {
    keys: &[("subnet", TEXT), ("ip_range", TEXT), ("gateway", TEXT), ("aux_addresses", rule(Shape::Map(&TEXT)))],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});

const IPAM: Rule = rule(Shape::Object(&Object {
    keys: &[("driver", TEXT), ("config", list(&POOL).merge(Merge::Pools)), ("options", rule(Shape::Map(&TEXT)))],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
}));

const NETWORK: Rule = object(&Object {
    keys: &[
        ("name", TEXT),
        ("driver", TEXT),
        ("driver_opts", DRIVER_OPTIONS),
        ("ipam", IPAM),
        ("external", EXTERNAL),
        ("internal", BOOL_CAST),
        ("enable_ipv4", BOOL_CAST.kept()),
        ("enable_ipv6", BOOL_CAST.kept()),
        ("attachable", BOOL_CAST),
        ("labels", LABELS),
    ],
    required: &[],
    extensible: true,
    nullable: true,
    capitals: false,
});

const VOLUME: Rule = object(&Object {
    keys: &[("name", TEXT), ("driver", TEXT), ("driver_opts", DRIVER_OPTIONS), ("external", EXTERNAL), ("labels", LABELS)],
    required: &[],
    extensible: true,
    nullable: true,
    capitals: false,
})
.path(PathRule::LocalDriver);

const SECRET: Rule = object(&Object {
    keys: &[
        ("name", TEXT),
        ("environment", TEXT),
        ("file", TEXT.path(PathRule::File)),
        ("external", EXTERNAL),
        ("labels", LABELS),
        ("driver", TEXT),
        ("driver_opts", DRIVER_OPTIONS),
        ("template_driver", TEXT),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});

const CONFIG: Rule = object(&Object {
    keys: &[
        ("name", TEXT),
        ("content", TEXT),
        ("environment", TEXT),
        ("file", TEXT.path(PathRule::File)),
        ("external", EXTERNAL),
        ("labels", LABELS),
        ("template_driver", TEXT),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
});

const MODEL: Rule = object(&Object {
    keys: &[("name", TEXT), ("model", TEXT), ("context_size", scalar(INTEGER, Scalar::Int)), ("runtime_flags", TEXTS)],
    required: &["model"],
    extensible: true,
    nullable: false,
    capitals: false,
});

const INCLUDE: Rule = object(&Object {
    keys: &[("path", ONE_PATH), ("env_file", ONE_PATH), ("project_directory", TEXT)],
    required: &[],
    extensible: false,
    nullable: false,
    capitals: false,
})
.short(Short::Field("path"));

const SERVICES: Rule = rule(Shape::Names(&SERVICE_RULE)).empty(Empty::Always);
const SERVICE_RULE: Rule = object(&SERVICE);

/// A compose file.
pub(crate) static TOP: Rule = rule(Shape::Object(&Object {
    keys: &[
        ("version", TEXT),
        ("name", TEXT),
        ("include", list(&INCLUDE)),
        ("services", SERVICES),
        ("models", rule(Shape::Names(&MODEL))),
        ("networks", rule(Shape::Names(&NETWORK))),
        ("volumes", rule(Shape::Names(&VOLUME))),
        ("secrets", rule(Shape::Names(&SECRET))),
        ("configs", rule(Shape::Names(&CONFIG))),
    ],
    required: &[],
    extensible: true,
    nullable: false,
    capitals: false,
}));
