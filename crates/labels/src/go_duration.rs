//! Durations as Go writes them: `1h30m`, `1.5s`, `250ms`; a bare number is in seconds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in nanoseconds, which may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct GoDuration(i64);

/// Units from the largest, with their nanoseconds. `h` and `m` are written with those below them, as Go does.
const UNITS: &[(&str, i64)] =
    &[("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000), ("ns", 1)];

impl GoDuration {
    pub(crate) const fn milliseconds(count: i64) -> Self {
        Self(count * 1_000_000)
    }

    /// Whole milliseconds; 0 for negative ones.
    pub(crate) fn as_milliseconds(self) -> u64 {
        u64::try_from(self.0 / 1_000_000).unwrap_or(0)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(seconds) = text.parse::<i64>() {
            return seconds.checked_mul(1_000_000_000).map(Self);
        }
        let (sign, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (-1.0, rest),
            None => (1.0, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest.is_empty() {
            return None;
        }
        let mut total = 0.0;
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len());
            let (unit, next) = after.split_at(letters);
            let unit = if matches!(unit, "µs" | "μs") { "us" } else { unit };
            let (_, nanoseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            total += number.parse::<f64>().ok()? * *nanoseconds as f64;
            rest = next;
        }
        (total < i64::MAX as f64).then_some(Self((sign * total) as i64))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, nanoseconds) in UNITS {
            let count = rest / nanoseconds.unsigned_abs();
            if count > 0 {
                write!(f, "{count}{name}")?;
                rest %= nanoseconds.unsigned_abs();
            }
        }
        Ok(())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no duration, as 10s or 1m30s")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, milliseconds, written) in [
            ("10", 10_000, "10s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("1.5s", 1500, "1s500ms"),
            ("250ms", 250, "250ms"),
            ("1µs", 0, "1us"),
            ("0", 0, "0s"),
            ("-1s", 0, "-1s"),
        ] {
            let duration = GoDuration::parse(text).unwrap();
            assert_eq!((duration.as_milliseconds(), duration.to_string().as_str()), (milliseconds, written), "{text}");
        }
        for text in ["", "s", "1x", "1s2", "-", "1..2s", "99999999999h"] {
            assert_eq!(GoDuration::parse(text), None, "{text}");
        }
    }
}
