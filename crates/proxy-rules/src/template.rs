//! The `{name:regexp}` templates of dialect v2, as regular expressions.

use crate::pattern::{Pattern, quoted};

/// Whether a text is a template rather than plain.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains(['{', '}'])
}

/// The pattern that a template stands for, without anchors. `usual` is what a `{name}` alone takes.
pub(crate) fn pattern(template: &str, usual: &str) -> Result<String, String> {
    let mut pattern = String::new();
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        pattern.push_str(&quoted(&rest[..open]));
        let inner = inside_braces(&rest[open..]).ok_or_else(|| format!("the braces in {template:?} do not pair up"))?;
        let (name, own) = inner.split_once(':').unwrap_or((inner, usual));
        if name.is_empty() || own.is_empty() {
            return Err(format!("{{{inner}}} should be {{name}} or {{name:regexp}}"));
        }
        // Alone first: parentheses that pair up across two of them would pass otherwise.
        Pattern::new(own).map_err(|reason| format!("the regular expression in {{{inner}}}: {reason}"))?;
        pattern.push_str(&format!("(?:{own})"));
        rest = &rest[open + inner.len() + 2..];
    }
    pattern.push_str(&quoted(rest));
    Ok(pattern)
}

/// What stands between the brace that `text` begins with and the one that closes it.
fn inside_braces(text: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.checked_sub(1)?,
            _ => continue,
        }
        if depth == 0 {
            return Some(&text[1..at]);
        }
    }
    None
}
