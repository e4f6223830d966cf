//! What a plain YAML scalar means, as go-yaml resolves it, and how Go prints a number.
//!
//! The rules are YAML 1.2's core schema with some of YAML 1.1: `0755` is octal, `1_000` is a thousand, but `yes`, `on`
//! and `1:30` are text. Dates stay text: no key of a compose file is a date.

use crate::node::Data;

/// The value of a plain (unquoted) scalar.
pub(crate) fn resolve(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Data::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Data::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Data::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return Data::Text(text.to_owned());
    }
    number(text).unwrap_or_else(|| Data::Text(text.to_owned()))
}

/// The number that a scalar is, if it is one.
pub(crate) fn number(text: &str) -> Option<Data> {
    let plain: std::borrow::Cow<'_, str> = if text.contains('_') { text.replace('_', "").into() } else { text.into() };
    if let Some(value) = integer(&plain) {
        // What Go keeps as an unsigned number is only ever printed.
        return Some(i64::try_from(value).map_or_else(|_| Data::Text(value.to_string()), Data::Int));
    }
    let value = is_decimal(&plain).then(|| plain.parse::<f64>().ok()).flatten();
    value.filter(|value| value.is_finite()).map(Data::Float)
}

/// An integer with Go's prefixes: `0x`, `0o`, `0b`, and a leading zero for octal. It is one of 64 bits, signed or not.
fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -magnitude } else { magnitude };
    (value >= i128::from(i64::MIN)).then_some(value)
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn is_decimal(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    mantissa_ok && exponent.is_none_or(digits)
}

/// Whether a text, read again without quotes, would still be this text.
pub(crate) fn stays_text(text: &str) -> bool {
    matches!(resolve(text), Data::Text(_))
}

/// A float as Go's `fmt.Sprint` prints it: the shortest digits, with an exponent from a million on.
pub(crate) fn print_float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", power.abs());
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn plain_scalars_mean_what_go_yaml_says() {
        for (text, expected) in [
            ("0755", Data::Int(493)),
            ("0o17", Data::Int(15)),
            ("0x1F", Data::Int(31)),
            ("1_000", Data::Int(1000)),
            ("-12", Data::Int(-12)),
            ("08", Data::Float(8.0)),
            ("1.10", Data::Float(1.1)),
            (".5", Data::Float(0.5)),
            ("1e3", Data::Float(1000.0)),
            ("yes", Data::Text("yes".into())),
            ("1:30", Data::Text("1:30".into())),
            ("-", Data::Text("-".into())),
            ("2001-01-01", Data::Text("2001-01-01".into())),
            ("1.2.3", Data::Text("1.2.3".into())),
            ("12345678901234567890", Data::Text("12345678901234567890".into())),
            ("0xFFFFFFFFFFFFFFFF", Data::Text("18446744073709551615".into())),
            ("-12345678901234567890", Data::Float(-12_345_678_901_234_567_890.0)),
            ("123456789012345678901", Data::Float(123_456_789_012_345_678_901.0)),
            ("1e400", Data::Text("1e400".into())),
            ("~", Data::Null),
            ("False", Data::Bool(false)),
        ] {
            assert_eq!(resolve(text), expected, "{text}");
        }
    }

    #[test]
    fn floats_are_printed_as_go_prints_them() {
        for (value, expected) in [
            (123_456.0, "123456"),
            (2.5, "2.5"),
            (100.0, "100"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1_000_000.0, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
        ] {
            assert_eq!(print_float(value), expected);
        }
    }
}
