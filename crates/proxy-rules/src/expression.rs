//! Rules as questions joined by and, or and not; made from what was written, in either dialect.

use crate::matcher::{HostName, Matcher, network, refused};
use crate::pattern::Pattern;
use crate::request::{Request, plain_host};
use crate::syntax::{Argument, Call, Node, one_or};
use crate::{Dialect, Facts, RuleError, template};

/// A rule, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Is(Matcher),
}

/// The matchers of v3, with how many texts each takes at least and at most.
const V3: &[(&str, usize, usize)] = &[
    ("Host", 1, 1),
    ("HostRegexp", 1, 1),
    ("Path", 1, 1),
    ("PathPrefix", 1, 1),
    ("PathRegexp", 1, 1),
    ("Method", 1, 1),
    ("Header", 2, 2),
    ("HeaderRegexp", 2, 2),
    ("Query", 1, 2),
    ("QueryRegexp", 1, 2),
    ("ClientIP", 1, 1),
];

/// The matchers of v2.
const V2: &[(&str, usize, usize)] = &[
    ("Host", 1, usize::MAX),
    ("HostHeader", 1, usize::MAX),
    ("HostRegexp", 1, usize::MAX),
    ("Path", 1, usize::MAX),
    ("PathPrefix", 1, usize::MAX),
    ("Method", 1, usize::MAX),
    ("Headers", 2, usize::MAX),
    ("HeadersRegexp", 2, usize::MAX),
    ("Query", 1, usize::MAX),
    ("ClientIP", 1, usize::MAX),
];

/// Whether either dialect has a matcher of this name.
pub(crate) fn is_known(name: &str) -> bool {
    V3.iter().chain(V2).any(|(known, ..)| known.eq_ignore_ascii_case(name))
}

impl Expression {
    pub(crate) fn build(node: &Node, dialect: Dialect) -> Result<Self, RuleError> {
        let all = |nodes: &[Node]| nodes.iter().map(|node| Self::build(node, dialect)).collect::<Result<Vec<_>, _>>();
        match node {
            Node::All(nodes) => Ok(all_of(all(nodes)?)),
            Node::Any(nodes) => Ok(any_of(all(nodes)?)),
            Node::Not(node) => Ok(Self::Not(Box::new(Self::build(node, dialect)?))),
            Node::Call(call) => Self::call(call, dialect),
        }
    }

    fn call(call: &Call, dialect: Dialect) -> Result<Self, RuleError> {
        let known = if dialect == Dialect::V3 { V3 } else { V2 };
        let Some(&(name, least, most)) = known.iter().find(|(name, ..)| name.eq_ignore_ascii_case(&call.name)) else {
            return Err(unknown(call, dialect));
        };
        let given = call.arguments.len();
        if given < least || given > most {
            let wanted = match (least, most) {
                (least, usize::MAX) => format!("{least} or more"),
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least} to {most}"),
            };
            let texts = if wanted == "1" { "text" } else { "texts" };
            return Err(refused(call.end, name, format!("expected {wanted} {texts} between quotes, found {given}")));
        }
        if let Some(empty) = call.arguments.iter().find(|argument| argument.value.is_empty()) {
            return Err(refused(empty.offset, name, "expected a text, found an empty one"));
        }
        match dialect {
            Dialect::V3 => v3(name, &call.arguments).map(Self::Is),
            Dialect::V2 => v2(name, call),
        }
    }

    pub(crate) fn is_match<F: Facts>(&self, request: &Request<'_, F>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.is_match(request)),
            Self::Any(parts) => parts.iter().any(|part| part.is_match(request)),
            Self::Not(part) => !part.is_match(request),
            Self::Is(matcher) => matcher.is_match(request),
        }
    }

    /// Writes it in v3; `false` if it cannot be said there.
    pub(crate) fn write_v3(&self, into: &mut String) -> bool {
        match self {
            Self::All(parts) => joined(parts, " && ", into),
            Self::Any(parts) => joined(parts, " || ", into),
            Self::Not(part) => {
                into.push('!');
                part.write_within(true, into)
            }
            Self::Is(matcher) => matcher.write_v3(into),
        }
    }

    fn write_within(&self, needs_parentheses: bool, into: &mut String) -> bool {
        if needs_parentheses && matches!(self, Self::All(_) | Self::Any(_)) {
            into.push('(');
            let said = self.write_v3(into);
            into.push(')');
            return said;
        }
        self.write_v3(into)
    }
}

/// `&&` binds more tightly than `||`: only the latter needs parentheses within the former.
fn joined(parts: &[Expression], operator: &str, into: &mut String) -> bool {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            into.push_str(operator);
        }
        if !part.write_within(operator == " && ", into) {
            return false;
        }
    }
    true
}

/// An error for a name that the dialect does not have, with what was probably meant.
fn unknown(call: &Call, dialect: Dialect) -> RuleError {
    let (here, ours, theirs, there) = match dialect {
        Dialect::V3 => ("v3", V3, V2, "v2"),
        Dialect::V2 => ("v2", V2, V3, "v3"),
    };
    let name = &call.name;
    if name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("HostSNI")) || name.eq_ignore_ascii_case("ALPN") {
        return RuleError::new(call.offset, format!("{name} is for TCP routes; for HTTP it is Host"));
    }
    let is_theirs = theirs.iter().any(|(known, ..)| known.eq_ignore_ascii_case(name));
    let of_there = if is_theirs { format!(" (it is one of {there})") } else { String::new() };
    let nearest = ours.iter().map(|(known, ..)| (distance(name, known), *known)).min();
    let meant = match nearest {
        Some((distance, known)) if distance <= 1 + name.len() / 3 => format!("did you mean {known}?"),
        _ => format!("there are {}", ours.iter().map(|(known, ..)| *known).collect::<Vec<_>>().join(", ")),
    };
    RuleError::new(call.offset, format!("no matcher of {here} is called {name}{of_there}; {meant}"))
}

/// How many letters must be changed, added or taken away to come from one name to the other, whatever their case.
fn distance(from: &str, to: &str) -> usize {
    let to = to.to_ascii_lowercase().into_bytes();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    // What is far too long is near to nothing; the work stays bounded.
    for (line, byte) in from.bytes().take(32).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(byte.to_ascii_lowercase() != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

fn v3(name: &'static str, arguments: &[Argument]) -> Result<Matcher, RuleError> {
    let argument = |at: usize| arguments.get(at).map(|argument| argument.value.clone());
    let text = argument(0).unwrap_or_default();
    let at = |index: usize| arguments.get(index).map_or(0, |argument| argument.offset);
    let pattern =
        |index: usize| Pattern::new(&argument(index).unwrap_or_default()).map_err(|reason| refused(at(index), name, reason));
    Ok(match name {
        "Host" => Matcher::Host(HostName::parse(&text).map_err(|reason| refused(at(0), name, reason))?),
        "HostRegexp" => {
            ascii(&arguments[0], name)?;
            Matcher::HostRegexp(pattern(0)?)
        }
        "Path" => Matcher::Path(path(&arguments[0], name)?),
        "PathPrefix" => Matcher::PathPrefix(path(&arguments[0], name)?),
        "PathRegexp" => Matcher::PathRegexp(pattern(0)?),
        "Method" => Matcher::Method(text.to_ascii_uppercase()),
        "Header" => Matcher::Header { name: text, value: argument(1).unwrap_or_default() },
        "HeaderRegexp" => Matcher::HeaderRegexp { name: text, value: pattern(1)? },
        "QueryRegexp" if arguments.len() == 2 => Matcher::QueryRegexp { key: text, value: pattern(1)? },
        "Query" | "QueryRegexp" => Matcher::Query { key: text, value: argument(1).unwrap_or_default() },
        _ => Matcher::ClientIp(network(&text).map_err(|reason| refused(at(0), name, reason))?),
    })
}

fn v2(name: &'static str, call: &Call) -> Result<Expression, RuleError> {
    let each = |make: &dyn Fn(&Argument) -> Result<Matcher, RuleError>| {
        let parts = call.arguments.iter().map(|argument| make(argument).map(Expression::Is)).collect::<Result<Vec<_>, _>>()?;
        Ok(any_of(parts))
    };
    match name {
        "Host" | "HostHeader" => each(&|argument| {
            ascii(argument, name)?;
            Ok(Matcher::Host(HostName::Exact(plain_host(&argument.value).to_ascii_lowercase())))
        }),
        "HostRegexp" => each(&|argument| {
            ascii(argument, name)?;
            let pattern = v2_pattern(argument, name, "[^.]+")?;
            compiled(argument, name, &format!("(?i)^{pattern}$")).map(Matcher::HostRegexp)
        }),
        "Path" | "PathPrefix" => each(&|argument| {
            let path = path(argument, name)?;
            let is_whole = name == "Path";
            if !template::is_template(&path) {
                return Ok(if is_whole { Matcher::Path(path) } else { Matcher::PathPrefix(path) });
            }
            let pattern = v2_pattern(argument, name, "[^/]+")?;
            let end = if is_whole { "$" } else { "" };
            compiled(argument, name, &format!("^{pattern}{end}")).map(Matcher::PathRegexp)
        }),
        "Method" => each(&|argument| Ok(Matcher::Method(argument.value.to_ascii_uppercase()))),
        "Headers" | "HeadersRegexp" => v2_headers(name, call),
        "Query" => v2_query(call),
        _ => each(&|argument| {
            network(&argument.value).map(Matcher::ClientIp).map_err(|reason| refused(argument.offset, name, reason))
        }),
    }
}

/// Names and values in turn; all must fit. Of a name given twice, the last counts.
fn v2_headers(name: &'static str, call: &Call) -> Result<Expression, RuleError> {
    let (pairs, odd) = call.arguments.as_chunks::<2>();
    if let [alone] = odd {
        return Err(refused(alone.offset, name, format!("the header {:?} has no value", alone.value)));
    }
    let mut parts: Vec<(&str, Matcher)> = Vec::new();
    for [field, value] in pairs {
        parts.retain(|(earlier, _)| !earlier.eq_ignore_ascii_case(&field.value));
        let matcher = if name == "Headers" {
            Matcher::Header { name: field.value.clone(), value: value.value.clone() }
        } else {
            Matcher::HeaderRegexp { name: field.value.clone(), value: compiled(value, name, &value.value)? }
        };
        parts.push((&field.value, matcher));
    }
    Ok(all_of(parts.into_iter().map(|(_, matcher)| Expression::Is(matcher)).collect()))
}

/// `key=value` each, or keys and values in turn; a value may be a template, and an empty one is any.
fn v2_query(call: &Call) -> Result<Expression, RuleError> {
    let mut texts: Vec<(usize, &str)> = Vec::new();
    for argument in &call.arguments {
        let pieces = argument.value.splitn(2, '=');
        texts.extend(pieces.map(|piece| (argument.offset, piece)));
    }
    let (pairs, odd) = texts.as_chunks::<2>();
    if let [(offset, alone)] = odd {
        return Err(refused(*offset, "Query", format!("{alone:?} has no value; expected `key=value`")));
    }
    let mut parts = Vec::new();
    for [(offset, key), (_, value)] in pairs {
        let wrong = |reason| refused(*offset, "Query", reason);
        let pattern = if value.is_empty() { ".*".to_owned() } else { template::pattern(value, ".*").map_err(wrong)? };
        let value = Pattern::new(&format!("^(?:{pattern})$")).map_err(wrong)?;
        parts.push(Expression::Is(Matcher::FirstQuery { key: (*key).to_owned(), value }));
    }
    Ok(all_of(parts))
}

fn v2_pattern(argument: &Argument, name: &str, usual: &str) -> Result<String, RuleError> {
    template::pattern(&argument.value, usual).map_err(|reason| refused(argument.offset, name, reason))
}

fn compiled(argument: &Argument, name: &str, pattern: &str) -> Result<Pattern, RuleError> {
    Pattern::new(pattern).map_err(|reason| refused(argument.offset, name, reason))
}

/// All of these; those that are "all" themselves need no parentheses.
fn all_of(parts: Vec<Expression>) -> Expression {
    let inner = |part| if let Expression::All(inner) = part { inner } else { vec![part] };
    one_or(parts.into_iter().flat_map(inner).collect(), Expression::All)
}

/// As [`all_of`], for any of them.
fn any_of(parts: Vec<Expression>) -> Expression {
    let inner = |part| if let Expression::Any(inner) = part { inner } else { vec![part] };
    one_or(parts.into_iter().flat_map(inner).collect(), Expression::Any)
}

fn path(argument: &Argument, name: &str) -> Result<String, RuleError> {
    if !argument.value.starts_with('/') {
        return Err(refused(argument.offset, name, format!("{:?} does not begin with a /", argument.value)));
    }
    Ok(argument.value.clone())
}

fn ascii(argument: &Argument, name: &str) -> Result<(), RuleError> {
    if argument.value.is_ascii() {
        return Ok(());
    }
    let reason = format!("{:?} is not ASCII; write an international name in its xn-- form", argument.value);
    Err(refused(argument.offset, name, reason))
}
