//! The Compose Specification as one table: for every key what it may be, how two files' values merge, when two list
//! entries are the same, how a path in it is made absolute, and what it looks like in the resolved model.
//!
//! Everything that walks a compose tree (interpolation, merging, validation, the canonical form, path resolution,
//! printing) walks it beside this table, so a key is described here and nowhere else.

mod resources;
mod service;
mod top;

pub(crate) use service::SERVICE;
pub(crate) use top::TOP;

/// JSON types that a scalar may be written as.
pub(crate) type Accept = u8;
pub(crate) const STRING: Accept = 1;
pub(crate) const INTEGER: Accept = 2;
/// Any number, whole ones too.
pub(crate) const NUMBER: Accept = 4;
pub(crate) const BOOLEAN: Accept = 8;
pub(crate) const NULL: Accept = 16;

/// What a scalar is in the resolved model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Text,
    Bool,
    Int,
    /// A single-precision number, as `cpus` is.
    Float,
    /// A size, printed as a string of bytes.
    Bytes,
    /// A duration as Go prints it: `1m30s`.
    Duration,
    /// Permissions, printed in octal: `"0440"`.
    FileMode,
    /// A number of devices, `all` being -1.
    Count,
}

/// The shape of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Whatever is written: `x-` keys.
    Any,
    Scalar(Accept, Scalar),
    List(&'static Rule),
    /// A list in which equal entries are a mistake.
    Set(&'static Rule),
    Object(&'static Object),
    /// A mapping whose keys the writer chooses.
    Map(&'static Rule),
    /// Names to settings: `services`, `networks`, where `x-` keys are names like others.
    Names(&'static Rule),
    /// A list of `KEY=value` or a mapping; the flag says whether a key without a value stays without one.
    Pairs(bool),
    /// `extra_hosts`: `host=ip`, `host:ip` or a mapping, to one or several addresses.
    Hosts,
    /// `command`, `entrypoint`: words, or a line to be split into words.
    Command,
    /// `healthcheck.test`.
    Test,
    /// `true`, or a mapping with the name (the old form).
    External,
    /// One number, or a soft and a hard one.
    Ulimit,
    /// `build.ssh`: names to sockets or keys.
    Ssh,
    /// Provider options: names to one or several scalars.
    Options,
}

/// The fixed keys of a mapping.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) keys: &'static [(&'static str, Rule)],
    pub(crate) required: &'static [&'static str],
    /// Whether `x-` keys may stand here.
    pub(crate) extensible: bool,
    /// Whether nothing (`deploy:`) may stand instead.
    pub(crate) nullable: bool,
    /// Whether the reference prints the keys with a capital, as it does below `blkio_config`.
    pub(crate) capitals: bool,
}

impl Object {
    pub(crate) fn rule(&self, key: &str) -> Option<&'static Rule> {
        self.keys.iter().find(|(name, _)| *name == key).map(|(_, rule)| rule)
    }
}

/// How a later file's value meets an earlier one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    /// Mappings key by key, lists one after the other, the later scalar.
    Deep,
    /// The later value alone.
    Replace,
    /// As lists of `KEY=value` or of texts, one after the other.
    Append,
    /// As [`Merge::Append`], without what is there already.
    AppendNew,
    /// A text is the context.
    Build,
    /// A list of names is a mapping with the default condition.
    Dependencies,
    /// A list of names is a mapping to nothing.
    Names,
    /// Deep if the driver is the same one, else the later value alone.
    Logging,
    /// Deep if both are mappings, else the later value alone.
    Ulimit,
    /// Pools with the same subnet are merged.
    Pools,
}

/// When two entries of a list are the same, so that the later one takes the place of the earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unique {
    No,
    /// What stands before `=`, or all of it.
    Key,
    /// The mount's target.
    Volume,
    /// The target, which is below this folder if only a source is given.
    Mount(&'static str),
    Port,
    /// The file's path.
    EnvFile,
    /// The path in the container.
    Device,
}

/// The forms that stand for a longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Short {
    None,
    /// A text is a mapping with this one key.
    Field(&'static str),
    /// A text is a list of one.
    One,
    /// A text is an env file that must exist; `required` is true if it is not said.
    EnvFile,
    /// A list of names is a mapping to nothing.
    Names,
    /// A list of names is a mapping to the default condition.
    Dependencies,
    /// `[[ip:]published:]target[/protocol]`, one entry for each port of a range.
    Port,
    /// `[source:]target[:mode]`.
    Volume,
    /// `source[:target[:permissions]]`.
    Device,
    /// `all`.
    Gpus,
}

/// How a path is made absolute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathRule {
    None,
    /// Relative to the project's directory; `~` is the home directory.
    File,
    /// As [`PathRule::File`] unless it is an address or another builder's word.
    Context,
    /// As [`PathRule::Context`], for each value of a mapping or of `key=value` entries.
    Contexts,
    /// As [`PathRule::File`], and symbolic links are followed.
    Link,
    /// The source of a bind mount.
    Mount,
    /// The device of a local volume that is a bind mount in disguise.
    LocalDriver,
    /// The keys' files of `build.ssh`.
    Ssh,
}

/// What becomes of a value that is empty, zero or false in the resolved model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Empty {
    /// It is left out.
    Omitted,
    /// It is kept if it was written.
    Kept,
    /// It is there even if it was not written.
    Always,
    /// It is left out if it is *true*, its default.
    OmittedIfTrue,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) shape: Shape,
    pub(crate) short: Short,
    pub(crate) merge: Merge,
    pub(crate) unique: Unique,
    pub(crate) path: PathRule,
    pub(crate) empty: Empty,
    /// Whether text is turned into the scalar right after interpolation, so that `${PORT}` may stand for a number
    /// where the schema wants one.
    pub(crate) cast: bool,
    /// The only values allowed; empty for any.
    pub(crate) values: &'static [&'static str],
    /// The allowed range of an integer.
    pub(crate) range: Option<(i64, i64)>,
    /// What a text must look like.
    pub(crate) form: Option<Form>,
}

/// A condition on a text, and how a person is told of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    pub(crate) holds: fn(&str) -> bool,
    pub(crate) described: &'static str,
}

pub(crate) const fn rule(shape: Shape) -> Rule {
    Rule {
        shape,
        short: Short::None,
        merge: Merge::Deep,
        unique: Unique::No,
        path: PathRule::None,
        empty: Empty::Omitted,
        cast: false,
        values: &[],
        range: None,
        form: None,
    }
}

pub(crate) const fn scalar(accept: Accept, scalar: Scalar) -> Rule {
    rule(Shape::Scalar(accept, scalar))
}

pub(crate) const fn list(item: &'static Rule) -> Rule {
    rule(Shape::List(item))
}

pub(crate) const fn set(item: &'static Rule) -> Rule {
    rule(Shape::Set(item))
}

pub(crate) const fn object(object: &'static Object) -> Rule {
    rule(Shape::Object(object)).kept()
}

/// Settings in the form of a list of `KEY=value` or of a mapping.
pub(crate) const fn pairs() -> Rule {
    rule(Shape::Pairs(false)).merge(Merge::Append).unique(Unique::Key)
}

impl Rule {
    pub(crate) const fn merge(mut self, merge: Merge) -> Self {
        self.merge = merge;
        self
    }

    pub(crate) const fn unique(mut self, unique: Unique) -> Self {
        self.unique = unique;
        self
    }

    pub(crate) const fn short(mut self, short: Short) -> Self {
        self.short = short;
        self
    }

    pub(crate) const fn path(mut self, path: PathRule) -> Self {
        self.path = path;
        self
    }

    pub(crate) const fn empty(mut self, empty: Empty) -> Self {
        self.empty = empty;
        self
    }

    pub(crate) const fn kept(self) -> Self {
        self.empty(Empty::Kept)
    }

    pub(crate) const fn cast(mut self) -> Self {
        self.cast = true;
        self
    }

    pub(crate) const fn values(mut self, values: &'static [&'static str]) -> Self {
        self.values = values;
        self
    }

    pub(crate) const fn range(mut self, low: i64, high: i64) -> Self {
        self.range = Some((low, high));
        self
    }

    pub(crate) const fn form(mut self, holds: fn(&str) -> bool, described: &'static str) -> Self {
        self.form = Some(Form { holds, described });
        self
    }

    /// The row for a key below this one, whatever the key is.
    pub(crate) fn child(&self, key: &str) -> &'static Rule {
        match self.shape {
            Shape::Object(object) => object.rule(key).unwrap_or(&ANY),
            Shape::Map(value) | Shape::Names(value) => value,
            Shape::Ulimit => &INT_CAST,
            _ => &ANY,
        }
    }

    /// The row for the entries of a list.
    pub(crate) fn item(&self) -> &'static Rule {
        match self.shape {
            Shape::List(item) | Shape::Set(item) => item,
            _ => &ANY,
        }
    }
}

pub(crate) const ANY: Rule = rule(Shape::Any);
pub(crate) const TEXT: Rule = scalar(STRING, Scalar::Text);
pub(crate) const TEXT_OR_NULL: Rule = scalar(STRING | NULL, Scalar::Text);
pub(crate) const TEXT_OR_NUMBER: Rule = scalar(STRING | NUMBER, Scalar::Text);
pub(crate) const BOOL: Rule = scalar(BOOLEAN | STRING, Scalar::Bool);
pub(crate) const BOOL_CAST: Rule = BOOL.cast();
pub(crate) const INT: Rule = scalar(INTEGER | STRING, Scalar::Int);
pub(crate) const INT_CAST: Rule = INT.cast();
/// A number that the model keeps as a whole one.
pub(crate) const WHOLE_CAST: Rule = scalar(NUMBER | STRING, Scalar::Int).cast();
pub(crate) const FLOAT_CAST: Rule = scalar(NUMBER | STRING, Scalar::Float).cast();
pub(crate) const BYTES: Rule = scalar(NUMBER | STRING, Scalar::Bytes);
pub(crate) const WHOLE_BYTES: Rule = scalar(INTEGER | STRING, Scalar::Bytes);
pub(crate) const DURATION: Rule = scalar(STRING, Scalar::Duration);
pub(crate) const TEXTS: Rule = list(&TEXT);
pub(crate) const TEXT_SET: Rule = set(&TEXT);
/// A text or a list of texts.
pub(crate) const ONE_OR_MORE: Rule = TEXT_SET.short(Short::One);
/// Names to texts or numbers, null where `nullable`: driver and logging options.
pub(crate) const DRIVER_OPTIONS: Rule = rule(Shape::Map(&TEXT_OR_NUMBER));
pub(crate) const LOGGING_OPTIONS: Rule = rule(Shape::Map(&TEXT_NUMBER_NULL));
const TEXT_NUMBER_NULL: Rule = scalar(STRING | NUMBER | NULL, Scalar::Text).kept();
