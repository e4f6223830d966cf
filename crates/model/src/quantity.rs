//! Quantities as people write them (`256M`, `30s`, `0.5`), held in one unit each.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A text that is not the quantity it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {what}")]
pub struct QuantityError {
    given: String,
    what: &'static str,
}

impl QuantityError {
    fn new(given: &str, what: &'static str) -> Self {
        Self { given: given.chars().take(80).collect(), what }
    }
}

/// Splits `12.5MB` into its number and its unit in lower case.
fn split_unit(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_ascii_lowercase()))
}

/// A number of bytes. Written `512K`, `256M`, `2G` in powers of 1024, with `B` or `iB` allowed behind the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError::new(text, "a size such as 256M or 2G");
        let (number, unit) = split_unit(text).ok_or_else(bad)?;
        let factor: u64 = match unit.as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(bad()),
        };
        let bytes = number * factor as f64;
        if bytes >= 1.0 && bytes < (1_u64 << 60) as f64 { Ok(Self(bytes as u64)) } else { Err(bad()) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
        match units.iter().find(|(_, shift)| self.0 >= 1 << shift) {
            Some((unit, shift)) if self.0.is_multiple_of(1 << shift) => f.pad(&format!("{}{unit}", self.0 >> shift)),
            Some((unit, shift)) => f.pad(&format!("{:.1}{unit}", self.0 as f64 / (1_u64 << shift) as f64)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

/// A share of processor time, in thousandths of one core. Written `0.5`, `2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cpus(u32);

impl Cpus {
    /// So many thousandths of a core.
    pub const fn milli(milli: u32) -> Self {
        Self(milli)
    }

    /// Thousandths of a core.
    pub const fn as_milli(self) -> u32 {
        self.0
    }
}

impl FromStr for Cpus {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let cores: Option<f64> = text.trim().parse().ok();
        match cores {
            Some(cores) if (0.01..=1024.0).contains(&cores) => Ok(Self((cores * 1000.0).round() as u32)),
            _ => Err(QuantityError::new(text, "a number of cores between 0.01 and 1024, such as 0.5")),
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}", f64::from(self.0) / 1000.0))
    }
}

/// A length of time in milliseconds. Written `250ms`, `30s`, `5m`, `1h`; the unit is required, except for `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(u64);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// So many milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(millis)
    }

    /// As the standard library's duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || QuantityError::new(text, "a length of time such as 250ms, 30s or 5m");
        let (number, unit) = split_unit(text).ok_or_else(bad)?;
        let factor = match unit.as_str() {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" | "min" => 60_000.0,
            "h" => 3_600_000.0,
            "" if number == 0.0 => 0.0,
            _ => return Err(bad()),
        };
        let millis = number * factor;
        // A day is longer than anything in a deployment should last.
        if millis <= 86_400_000.0 { Ok(Self(millis.round() as u64)) } else { Err(bad()) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0 => "0s".to_owned(),
            ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
            ms if ms > 1_000 => format!("{:.1}s", ms as f64 / 1_000.0),
            ms => format!("{ms}ms"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [("1", 1), ("512K", 512 << 10), ("256M", 256 << 20), ("1.5G", 3 << 29), ("2GiB", 2 << 30)] {
            assert_eq!(text.parse(), Ok(ByteSize::bytes(bytes)), "{text}");
        }
        for bad in ["", "M", "-1M", "1X", "0", "1e9G", "99999999999T", "NaN"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize::mib(256).to_string(), "256M");
        assert_eq!(ByteSize::bytes(3 << 29).to_string(), "1.5G");
    }

    #[test]
    fn spans_need_a_unit() {
        for (text, span) in
            [("250ms", Span::millis(250)), ("30s", Span::seconds(30)), ("5m", Span::seconds(300)), ("0", Span::seconds(0))]
        {
            assert_eq!(text.parse(), Ok(span), "{text}");
        }
        for bad in ["", "5", "s", "-5s", "5d", "1000h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_are_positive_and_finite() {
        assert_eq!("0.5".parse(), Ok(Cpus::milli(500)));
        for bad in ["", "0", "-1", "inf", "NaN", "2000"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }
}
