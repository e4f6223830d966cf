//! From text to the type that a key has: what a variable's value becomes, and a quoted number.

use crate::node::{Data, Node};
use crate::schema::{Rule, Scalar, Shape};
use crate::warnings::Warnings;

/// Turns a text into the value that the rule's key has; anything else stays.
///
/// # Errors
/// Why the text is no such value.
pub(crate) fn cast(node: &mut Node, rule: &Rule, warnings: &mut Warnings) -> Result<(), String> {
    let Data::Text(text) = &node.data else { return Ok(()) };
    let data = match rule.shape {
        Shape::External | Shape::Scalar(_, Scalar::Bool) => Some(Data::Bool(boolean(text, warnings)?)),
        Shape::Ulimit | Shape::Scalar(_, Scalar::Int) => Some(Data::Int(integer(text)?)),
        Shape::Scalar(_, Scalar::Float) => Some(Data::Float(float(text)?)),
        _ => None,
    };
    if let Some(data) = data {
        node.data = data;
    }
    Ok(())
}

/// A boolean as YAML 1.1 had them; all but `true` and `false` deserve a warning.
pub(crate) fn boolean(text: &str, warnings: &mut Warnings) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        "1" | "t" | "y" | "yes" | "on" => {
            warnings.add(format!("`{text}` for a boolean is not supported by YAML 1.2; write `true`"));
            Ok(true)
        }
        "0" | "f" | "n" | "no" | "off" => {
            warnings.add(format!("`{text}` for a boolean is not supported by YAML 1.2; write `false`"));
            Ok(false)
        }
        _ => Err(format!("invalid boolean: `{text}`")),
    }
}

/// A whole decimal number.
pub(crate) fn integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("invalid integer: `{text}`"))
}

/// A decimal number.
pub(crate) fn float(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or_else(|| format!("invalid number: `{text}`"))
}
