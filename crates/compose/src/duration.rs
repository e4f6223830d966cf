//! Durations: `1m30s`, `1.5h`, `250ms`, `1w2d`, read as the reference loader reads them and printed as it prints them.
//!
//! The grammar is Go's (`time.ParseDuration`) with the units `d` and `w` added. A number without a unit is refused, except zero.

use std::fmt;

use thiserror::Error;

const MICROSECOND: i64 = 1_000;
const MILLISECOND: i64 = 1_000 * MICROSECOND;
const SECOND: i64 = 1_000 * MILLISECOND;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// A span of time in nanoseconds; negative ones can be written, if rarely meant. Prints in Go's form: `1m30s`, `1.5s`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration {
    nanoseconds: i64,
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Not a sequence of numbers and units, or too long a time.
    #[error("invalid duration {text:?}; write it like \"1m30s\"")]
    Invalid {
        /// The text.
        text: String,
    },
    /// A number without a unit.
    #[error("missing unit in duration {text:?}; write it like \"30s\"")]
    MissingUnit {
        /// The text.
        text: String,
    },
    /// A unit that is none.
    #[error("unknown unit {unit:?} in duration {text:?}; the units are ns, us, ms, s, m, h, d and w")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The text.
        text: String,
    },
}

/// Reads a duration.
///
/// # Errors
/// See [`DurationError`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let invalid = || DurationError::Invalid { text: text.to_owned() };
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Ok(Duration::default());
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut rest = unsigned;
    let mut nanoseconds = 0_i64;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        if name.is_empty() {
            return Err(DurationError::MissingUnit { text: text.to_owned() });
        }
        let unit = unit(name).ok_or_else(|| DurationError::UnknownUnit { unit: name.to_owned(), text: text.to_owned() })?;
        let count: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        nanoseconds = count
            .checked_mul(unit)
            .and_then(|part| part.checked_add(fraction_of(fraction, unit)))
            .and_then(|part| nanoseconds.checked_add(part))
            .ok_or_else(invalid)?;
        rest = after;
    }
    Ok(Duration { nanoseconds: if text.starts_with('-') { -nanoseconds } else { nanoseconds } })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit(name: &str) -> Option<i64> {
    Some(match name {
        "ns" => 1,
        // The micro sign and the Greek letter mu look alike; both are written.
        "us" | "\u{B5}s" | "\u{3BC}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => 24 * HOUR,
        "w" => 7 * 24 * HOUR,
        _ => return None,
    })
}

/// The part of `unit` that the digits after a decimal point stand for, cut to whole nanoseconds.
fn fraction_of(digits: &str, unit: i64) -> i64 {
    let unit = i128::from(unit);
    let (mut value, mut scale) = (0_i128, 1_i128);
    // No unit has more than 15 digits of nanoseconds: what stands behind the eighteenth digit cannot count.
    for digit in digits.bytes().take(18) {
        value = value * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    i64::try_from(value * unit / scale).unwrap_or(0)
}

impl Duration {
    /// The length in nanoseconds.
    #[must_use]
    pub fn as_nanoseconds(self) -> i64 {
        self.nanoseconds
    }

    /// The standard library's type; `None` where the duration is negative.
    #[must_use]
    pub fn to_std(self) -> Option<std::time::Duration> {
        u64::try_from(self.nanoseconds).ok().map(std::time::Duration::from_nanos)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.nanoseconds.unsigned_abs();
        if self.nanoseconds < 0 {
            f.write_str("-")?;
        }
        let [micro, milli, second, minute] = [MICROSECOND, MILLISECOND, SECOND, MINUTE].map(i64::unsigned_abs);
        match nanoseconds {
            0 => f.write_str("0s"),
            n if n < micro => write!(f, "{n}ns"),
            n if n < milli => write!(f, "{}\u{B5}s", Decimal { value: n, unit: micro }),
            n if n < second => write!(f, "{}ms", Decimal { value: n, unit: milli }),
            n => {
                let (minutes, seconds) = (n / minute, n % minute);
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", Decimal { value: seconds, unit: second })
            }
        }
    }
}

/// `value / unit` without trailing zeros; `unit` is a power of ten.
struct Decimal {
    value: u64,
    unit: u64,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value / self.unit)?;
        let fraction = self.value % self.unit;
        if fraction == 0 {
            return Ok(());
        }
        let width = self.unit.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        write!(f, ".{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, printed) in [
            ("90s", "1m30s"),
            ("1m30s", "1m30s"),
            ("1.5s", "1.5s"),
            ("0", "0s"),
            ("0s", "0s"),
            ("-0", "0s"),
            ("+5s", "5s"),
            ("-1.5h", "-1h30m0s"),
            ("1h", "1h0m0s"),
            ("60m5s", "1h0m5s"),
            ("36h", "36h0m0s"),
            ("1d", "24h0m0s"),
            ("1w", "168h0m0s"),
            ("100ms", "100ms"),
            ("1500ms", "1.5s"),
            ("1us", "1\u{B5}s"),
            ("1500ns", "1.5\u{B5}s"),
            ("2\u{3BC}s", "2\u{B5}s"),
            ("7ns", "7ns"),
            (".5s", "500ms"),
            ("1.s", "1s"),
            ("0.1s0.1s", "200ms"),
            ("1m0.001s", "1m0.001s"),
            ("2562047h47m16.854775807s", "2562047h47m16.854775807s"),
            ("0.3333333333333333333h", "19m59.999999999s"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for text in ["", "-", "s", ".s", "1h-5m", " 1s", "99999999999999999999s", "9999999999h", "5 s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("10").unwrap_err().to_string(), "missing unit in duration \"10\"; write it like \"30s\"");
        assert!(parse("1y").unwrap_err().to_string().contains("\"y\""));
        assert!(parse("1S").is_err());
    }

    #[test]
    fn conversions() {
        assert_eq!(parse("1.5s").unwrap().as_nanoseconds(), 1_500_000_000);
        assert_eq!(parse("2m").unwrap().to_std(), Some(std::time::Duration::from_secs(120)));
        assert_eq!(parse("-1s").unwrap().to_std(), None);
    }
}
