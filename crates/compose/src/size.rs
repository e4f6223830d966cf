//! Sizes in bytes: `64`, `512k`, `1.5gb`, `512 MiB`. All units are powers of 1024, whether or not an `i` says so, as everywhere
//! in Docker's tools.

use thiserror::Error;

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid size {text:?}; write it like \"64m\" or \"1.5gb\"")]
pub struct SizeError {
    /// The text.
    pub text: String,
}

/// Reads a size and gives its bytes, fractions cut off. The unit is one of b, k, m, g, t, p in either case, each but the first
/// optionally followed by `b` or `ib`, with at most one space before it; without one, the number counts bytes.
///
/// # Errors
/// Negative numbers, unknown units, numbers past `i64`.
pub fn parse(text: &str) -> Result<i64, SizeError> {
    bytes(text).ok_or_else(|| SizeError { text: text.to_owned() })
}

fn bytes(text: &str) -> Option<i64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')?;
    let (number, unit) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    // Rust reads the words for infinity and not-a-number as floats; a size has neither.
    if !number.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-')) || number.contains(['i', 'n', 'I', 'N'])
    {
        return None;
    }
    let number: f64 = number.parse().ok()?;
    let size = number * factor(unit)?;
    // Beyond this bound the conversion would cut the number, not its fraction.
    (0.0..9.223_372_036_854_775e18).contains(&size).then_some(size as i64)
}

fn factor(unit: &str) -> Option<f64> {
    let unit = unit.to_ascii_lowercase();
    let mut letters = unit.chars();
    let power = match letters.next() {
        None => return Some(1.0),
        Some('b') => return letters.next().is_none().then_some(1.0),
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some(_) => return None,
    };
    matches!(letters.as_str(), "" | "b" | "ib").then(|| 1024_f64.powi(power))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("64", 64),
            ("10B", 10),
            ("10b", 10),
            ("1k", 1024),
            ("1K", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("50m", 52_428_800),
            ("512 MiB", 536_870_912),
            ("1.5gb", 1_610_612_736),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
            (".5k", 512),
            ("1.k", 1024),
            ("0.3", 0),
            ("1e3", 1000),
            ("+1k", 1024),
            ("5 ", 5),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "", "k", "-1", "-1k", "1x", "1kk", "1bk", "1kib2", "1 kibs", "1  k", " 1k", "inf", "nan", "inf1", "1.2.3", "1,5g",
            "9999999p", "32.c", "1 2",
        ] {
            assert_eq!(parse(text), Err(SizeError { text: text.to_owned() }), "{text}");
        }
    }
}
