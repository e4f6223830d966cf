//! Variables in compose values: `$NAME`, `${NAME}`, and the operators `:-  -  :?  ?  :+  +`, nested, with `$$` for a dollar sign.
//!
//! The grammar is that of the Compose Specification's section "Interpolation", the corner cases those of the reference loader:
//! a `$` that begins nothing is text; a `${` that does not end in a well-formed reference on its own line is an error; braces
//! inside a default value must balance. What an operator does not need it does not evaluate. This module knows nothing of YAML,
//! files or the process environment: the caller looks names up.

use thiserror::Error;

/// How deep references may nest in each other's defaults. Real files stop at three; the limit keeps hostile ones off the stack.
const MAX_DEPTH: usize = 64;

/// How long a text may become, in bytes: as long as the longest file that the loader reads.
const MAX_LENGTH: usize = 16 * 1024 * 1024;

/// A template with its variables filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interpolated {
    /// The text after substitution.
    pub text: String,
    /// Names that were referred to without an operator and had no value, each once, in order of use, the first 64 of them: each
    /// became an empty string, which deserves a warning.
    pub missing: Vec<String>,
}

/// So many missing names are told of one text.
const MAX_MISSING: usize = 64;

/// Why a template has no value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InterpolationError {
    /// A `${` that begins no well-formed reference.
    #[error("invalid interpolation format {template:?}; you may need to escape any $ with another $")]
    Invalid {
        /// The template, or the part of it (a default value) that is at fault.
        template: String,
    },
    /// `${NAME:?reason}` or `${NAME?reason}` whose variable has no value.
    #[error("required variable {variable} is missing a value{}{reason}", if .reason.is_empty() { "" } else { ": " })]
    Required {
        /// The variable.
        variable: String,
        /// The file's own words on why it is needed, interpolated; may be empty.
        reason: String,
    },
    /// References nested deeper than any honest file has them.
    #[error("references are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The values are so long, or used so often, that the text is longer than any file may be.
    #[error("with its variables filled in, the text is longer than {} MiB", MAX_LENGTH / 1024 / 1024)]
    TooLong,
}

/// Fills in the variables of `template`; `lookup` answers a name with its value, or `None` where it is unset.
///
/// # Errors
/// A malformed reference, or a required variable without a value. The first one in the text is reported.
pub fn interpolate(template: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Interpolated, InterpolationError> {
    let mut result = Interpolated::default();
    expand(template, lookup, 0, &mut result)?;
    Ok(result)
}

/// What stands between a name and its alternative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operator {
    kind: OperatorKind,
    /// Whether the colon was there: an empty value then counts as none.
    empty_is_unset: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OperatorKind {
    /// `-`: the alternative stands in for a missing value.
    Default,
    /// `?`: a missing value is an error, the alternative its reason.
    Required,
    /// `+`: the alternative stands in for a present value.
    Presence,
}

/// A `${...}` as it was found: `${name}` where `operator` is `None`.
struct Reference<'t> {
    name: &'t str,
    operator: Option<(Operator, &'t str)>,
    /// Length of the whole reference in bytes, from the dollar sign to the closing brace.
    length: usize,
}

fn expand(
    template: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    depth: usize,
    out: &mut Interpolated,
) -> Result<(), InterpolationError> {
    if depth > MAX_DEPTH {
        return Err(InterpolationError::TooDeep);
    }
    let mut line = Line::default();
    let mut at = 0;
    while let Some(offset) = template[at..].find('$') {
        out.text.push_str(&template[at..at + offset]);
        at += offset;
        let after = &template[at + 1..];
        if after.starts_with('$') {
            out.text.push('$');
            at += 2;
        } else if after.starts_with('{') {
            let last_brace = line.last_brace(template, at);
            let reference = braced(&template[at..], last_brace.map(|brace| brace - at))
                .ok_or_else(|| InterpolationError::Invalid { template: template.to_owned() })?;
            resolve(&reference, lookup, depth, out)?;
            within_bounds(out)?;
            at += reference.length;
        } else {
            let length = name_length(after);
            if length == 0 {
                out.text.push('$');
            } else {
                plain(&after[..length], lookup, out);
                within_bounds(out)?;
            }
            at += 1 + length;
        }
    }
    out.text.push_str(&template[at..]);
    Ok(())
}

fn within_bounds(out: &Interpolated) -> Result<(), InterpolationError> {
    if out.text.len() > MAX_LENGTH { Err(InterpolationError::TooLong) } else { Ok(()) }
}

/// Where the line that is being read ends its last reference; remembered so that a long line is searched once.
#[derive(Default)]
struct Line {
    end: usize,
    last_brace: Option<usize>,
}

impl Line {
    /// The last `}` of the line `at` is on, if it lies behind `at`.
    fn last_brace(&mut self, template: &str, at: usize) -> Option<usize> {
        if at >= self.end {
            self.end = template[at..].find('\n').map_or(template.len(), |newline| at + newline);
            self.last_brace = template[at..self.end].rfind('}').map(|brace| at + brace);
        }
        self.last_brace.filter(|brace| *brace > at)
    }
}

fn plain(name: &str, lookup: &dyn Fn(&str) -> Option<String>, out: &mut Interpolated) {
    match lookup(name) {
        Some(value) => out.text.push_str(&value),
        None if out.missing.len() < MAX_MISSING && !out.missing.iter().any(|known| known == name) => {
            out.missing.push(name.to_owned());
        }
        None => {}
    }
}

fn resolve(
    reference: &Reference<'_>,
    lookup: &dyn Fn(&str) -> Option<String>,
    depth: usize,
    out: &mut Interpolated,
) -> Result<(), InterpolationError> {
    let Some((operator, alternative)) = reference.operator else {
        plain(reference.name, lookup, out);
        return Ok(());
    };
    let value = lookup(reference.name);
    let present = value.as_ref().is_some_and(|value| !(operator.empty_is_unset && value.is_empty()));
    match (operator.kind, present) {
        (OperatorKind::Default, false) | (OperatorKind::Presence, true) => expand(alternative, lookup, depth + 1, out)?,
        (OperatorKind::Required, false) => {
            let mut reason = Interpolated::default();
            expand(alternative, lookup, depth + 1, &mut reason)?;
            return Err(InterpolationError::Required { variable: reference.name.to_owned(), reason: reason.text });
        }
        (OperatorKind::Default | OperatorKind::Required, true) | (OperatorKind::Presence, false) => {
            out.text.push_str(&value.unwrap_or_default());
        }
    }
    Ok(())
}

/// Reads the reference that `text` begins with (`${`). `last_brace` is the offset of the last `}` on the line: a reference with
/// an operator reaches to the brace that balances its own, and where none does, to that last one.
fn braced(text: &str, last_brace: Option<usize>) -> Option<Reference<'_>> {
    let inner = &text[2..];
    let length = name_length(inner);
    if length == 0 {
        return None;
    }
    let (name, rest) = inner.split_at(length);
    if rest.starts_with('}') {
        return Some(Reference { name, operator: None, length: 2 + length + 1 });
    }
    let (empty_is_unset, sign) = rest.strip_prefix(':').map_or((false, rest), |sign| (true, sign));
    let kind = match sign.bytes().next()? {
        b'-' => OperatorKind::Default,
        b'?' => OperatorKind::Required,
        b'+' => OperatorKind::Presence,
        _ => return None,
    };
    let start = text.len() - sign.len() + 1;
    let last_brace = last_brace.filter(|brace| *brace >= start)?;
    let end = balancing_brace(&text[..=last_brace]).unwrap_or(last_brace);
    let alternative = &text[start..end.max(start)];
    Some(Reference { name, operator: Some((Operator { kind, empty_is_unset }, alternative)), length: end + 1 })
}

/// The offset of the `}` that closes the first `{`. The character after an opening brace is never looked at: the reference
/// loader skips it, so that `{}` counts as opened only.
fn balancing_brace(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'{' => {
                open += 1;
                bytes.next();
            }
            b'}' if open <= 1 => return (open == 1).then_some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Length in bytes of the variable name that `text` begins with: `[A-Za-z_][A-Za-z0-9_]*`, zero if it begins with none.
fn name_length(text: &str) -> usize {
    let mut length = 0;
    for character in text.chars() {
        let fits = match character {
            '_' | 'a'..='z' | 'A'..='Z' => true,
            '0'..='9' => length > 0,
            // Case folding makes these two the letters s and k; the reference loader matches names ignoring case.
            '\u{17F}' | '\u{212A}' => true,
            _ => false,
        };
        if !fits {
            break;
        }
        length += character.len_utf8();
    }
    length
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.example".to_owned()),
            "EMPTY" => Some(String::new()),
            "MONEY" => Some("$5 ${HOST}".to_owned()),
            _ => None,
        }
    }

    fn text(template: &str) -> String {
        interpolate(template, &lookup).unwrap().text
    }

    fn error(template: &str) -> InterpolationError {
        interpolate(template, &lookup).unwrap_err()
    }

    #[track_caller]
    fn invalid(template: &str, at_fault: &str) {
        assert_eq!(error(template), InterpolationError::Invalid { template: at_fault.to_owned() });
    }

    #[track_caller]
    fn required(template: &str, variable: &str, reason: &str) {
        assert_eq!(error(template), InterpolationError::Required { variable: variable.to_owned(), reason: reason.to_owned() });
    }

    #[test]
    fn plain_references() {
        assert_eq!(text("postgres://$HOST:5432/${HOST}"), "postgres://db.example:5432/db.example");
        assert_eq!(text("$HOST-x $HOST.y $HOSTé"), "db.example-x db.example.y db.exampleé");
        assert_eq!(text("no variables at all"), "no variables at all");
        assert_eq!(text(""), "");
    }

    #[test]
    fn values_are_not_read_again() {
        assert_eq!(text("$MONEY ${MONEY}"), "$5 ${HOST} $5 ${HOST}");
        assert_eq!(text("${UNSET:-$MONEY}"), "$5 ${HOST}");
    }

    #[test]
    fn dollars_that_begin_nothing_are_text() {
        assert_eq!(text("$"), "$");
        assert_eq!(text("5$ $1 $- $} $é $\n$"), "5$ $1 $- $} $é $\n$");
        assert_eq!(text("^[a-z]+$"), "^[a-z]+$");
    }

    #[test]
    fn two_dollars_are_one() {
        assert_eq!(text("$$"), "$");
        assert_eq!(text("$$HOST $${HOST} $$$HOST $$$$"), "$HOST ${HOST} $db.example $$");
        assert_eq!(text("$$(date) $${"), "$(date) ${");
    }

    #[test]
    fn missing_values_are_named_once() {
        let result = interpolate("a $NONE b ${NADA} ${NONE:-x} ${NONE+y} $NONE", &lookup).unwrap();
        assert_eq!(result.text, "a  b  x  ");
        assert_eq!(result.missing, ["NONE", "NADA"]);
    }

    #[test]
    fn defaults() {
        assert_eq!(text("${NONE:-d} ${NONE-d} ${EMPTY:-d} ${EMPTY-d}| ${HOST:-d} ${HOST-d}"), "d d d | db.example db.example");
        assert_eq!(text("${NONE:-}${NONE-}"), "");
        assert_eq!(text("${NONE:-/a:-b?c+d}"), "/a:-b?c+d");
        assert_eq!(text("${NONE-a:-b}"), "a:-b");
    }

    #[test]
    fn presence() {
        assert_eq!(text("[${NONE:+p}][${NONE+p}][${EMPTY:+p}][${EMPTY+p}][${HOST:+p}][${HOST+p}]"), "[][][][p][p][p]");
        assert_eq!(text("${HOST:+at $HOST}"), "at db.example");
    }

    #[test]
    fn requirements() {
        required("${NONE:?set it}", "NONE", "set it");
        required("${EMPTY:?set it}", "EMPTY", "set it");
        required("${NONE?}", "NONE", "");
        required("${NONE?:x}", "NONE", ":x");
        required("${NONE:?not ${HOST}}", "NONE", "not db.example");
        assert_eq!(text("${EMPTY?set it}${HOST:?set it}"), "db.example");
        assert_eq!(error("${NONE?}").to_string(), "required variable NONE is missing a value");
        assert_eq!(error("${NONE?why}").to_string(), "required variable NONE is missing a value: why");
    }

    #[test]
    fn what_is_not_needed_is_not_evaluated() {
        assert_eq!(text("${HOST:-${NONE:?never asked}}"), "db.example");
        assert_eq!(text("${NONE:+${NONE:?never asked}}"), "");
        assert!(interpolate("${HOST:-$NONE}", &lookup).unwrap().missing.is_empty());
    }

    #[test]
    fn nesting() {
        assert_eq!(text("${NONE:-${EMPTY:-${HOST}}_x} ${NONE-$HOST}"), "db.example_x db.example");
        assert_eq!(text("${NONE:-${HOST} and ${HOST}}!"), "db.example and db.example!");
        assert_eq!(text("${NONE:-${EMPTY:-a}${EMPTY:-b}}-${NONE:-c}"), "ab-c");
    }

    #[test]
    fn braces_in_defaults_balance() {
        assert_eq!(text("${NONE:-{\"a\":{\"b\":1}}}/x"), "{\"a\":{\"b\":1}}/x");
        assert_eq!(text("{{ ${NONE:-{x}} }}"), "{{ {x} }}");
        assert_eq!(text("${NONE:-{}}"), "{}");
        assert_eq!(text("${NONE:-a}} b}"), "a} b}");
    }

    #[test]
    fn malformed_references() {
        for template in
            ["${", "${}", "${ }", "${ HOST}", "${HOST }", "${HOST!}", "${HOST:}", "${1}", "${-x}", "${HOST", "${NONE:-x", "${é}"]
        {
            invalid(template, template);
        }
        invalid("${NONE:-${oops!}}", "${oops!}");
    }

    #[test]
    fn a_reference_ends_on_its_own_line() {
        invalid("${NONE:-a\nb}", "${NONE:-a\nb}");
        assert_eq!(text("${NONE:-a}\n${NONE:-b}\n}"), "a\nb\n}");
    }

    #[test]
    fn hostile_input_ends() {
        let long = |_: &str| Some("x".repeat(1024 * 1024));
        assert_eq!(interpolate(&"$A".repeat(100), &long), Err(InterpolationError::TooLong));
        assert_eq!(interpolate(&"${A:+${A}}".repeat(100), &long), Err(InterpolationError::TooLong));
        assert_eq!(
            error(&"${A:-".repeat(5000).chars().chain("}".repeat(5000).chars()).collect::<String>()),
            InterpolationError::TooDeep
        );
        assert_eq!(text(&"${A:-x}".repeat(100_000)).len(), 100_000);
        assert_eq!(text(&"$".repeat(100_001)).len(), 50_001);
    }
}
