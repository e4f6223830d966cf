//! JSON values as YAML, as people write it: blocks, two spaces, quotes only where they are needed.

use serde_json::Value;

use crate::scalar;

/// Prints a value as a YAML document.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                pad(indent, out);
                text(key, indent, out);
                out.push(':');
                below(value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                pad(indent, out);
                out.push('-');
                match item {
                    Value::Object(map) if !map.is_empty() => {
                        let mut inner = String::new();
                        block(item, indent + 2, &mut inner);
                        out.push(' ');
                        // The first key stands behind the dash.
                        out.push_str(&inner[indent + 2..]);
                    }
                    _ => below(item, indent, out),
                }
            }
        }
        _ => {
            flow(value, indent, out);
            out.push('\n');
        }
    }
}

/// What stands behind a colon or dash.
fn below(value: &Value, indent: usize, out: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        out.push('\n');
        block(value, indent + 2, out);
    } else {
        out.push(' ');
        flow(value, indent, out);
        out.push('\n');
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn flow(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(value) => text(value, indent, out),
        other => out.push_str(&other.to_string()),
    }
}

/// A text, in quotes if it would be read as something else.
fn text(value: &str, indent: usize, out: &mut String) {
    if value.contains('\n') && is_block_safe(value) {
        let chomp = if value.ends_with('\n') { "" } else { "-" };
        out.push('|');
        out.push_str(chomp);
        for line in value.strip_suffix('\n').unwrap_or(value).split('\n') {
            out.push('\n');
            if !line.is_empty() {
                pad(indent + 2, out);
                out.push_str(line);
            }
        }
    } else if is_plain(value) {
        out.push_str(value);
    } else {
        // JSON's quoting is YAML's double-quoted style.
        out.push_str(&Value::from(value).to_string());
    }
}

/// Whether a text of several lines can stand as a literal block.
fn is_block_safe(value: &str) -> bool {
    !value.starts_with([' ', '\n', '\t'])
        && !value.ends_with("\n\n")
        && value.chars().all(|letter| letter == '\n' || letter == '\t' || !is_special(letter))
        && value.lines().all(|line| !line.ends_with(' '))
}

fn is_special(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn is_plain(value: &str) -> bool {
    let Some(first) = value.chars().next() else { return false };
    let reserved_word = matches!(value.to_ascii_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off" | "<<" | "=");
    !reserved_word
        && scalar::stays_text(value)
        && !"-?:,[]{}#&*!|>'\"%@` ".contains(first)
        && !value.ends_with([' ', ':'])
        && !value.contains(": ")
        && !value.contains(" #")
        && !value.chars().any(is_special)
        && !looks_like_time(value)
}

/// Dates and times of day, which some readers take for numbers.
fn looks_like_time(value: &str) -> bool {
    value.starts_with(|first: char| first.is_ascii_digit())
        && value.bytes().all(|byte| byte.is_ascii_digit() || b":-.TZ+ ".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use serde_json::json;

    use super::*;
    use crate::budget::Budget;

    #[test]
    fn what_is_printed_is_read_as_the_same() {
        let value = json!({
            "a": {"list": ["x", {"k": "v", "n": null}, [], ["deep"]], "empty": {}},
            "texts": ["", "yes", "0755", "1:30", "# no", "a: b", "- x", "multi\nline\n", "trailing ", "tab\there", "null", "é", "a\n\n b", "2001-01-01"],
            "numbers": [1, 2.5, true],
            "key: odd": "x",
        });
        let yaml = to_yaml(&value);
        let read = crate::yaml::read(&yaml, 0, &mut Budget::default()).unwrap().remove(0).unwrap();
        let again = crate::render::render(&read, &crate::schema::ANY.kept(), &crate::trail::Trail::TOP).unwrap().unwrap();
        assert_eq!(again, value, "{yaml}");
    }
}
