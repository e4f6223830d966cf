//! How sizes and times are typed, and where things usually are.

use std::path::PathBuf;
use std::time::Duration;

/// `512`, `64KiB`, `256MiB`, `1GiB`, and the same with powers of ten: `64kB`, `256MB`, `1GB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        _ => return Err(format!("{unit:?} is no unit of size; write 64KiB, 256MiB or 1GiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no size such as 256MiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is too much"))
}

/// `500ms`, `10s`, `2m`, `1h`, and a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{unit:?} is no unit of time; write 500ms, 10s, 2m or 1h")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no time such as 10s"))?;
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| format!("{text} is too long"))
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Where state is kept when nothing else is said.
pub(crate) fn state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/pyrunner");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("pyrunner")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        assert_eq!(
            (bytes("256MiB"), bytes("64 KiB"), bytes("7"), bytes("1GB")),
            (Ok(256 << 20), Ok(65536), Ok(7), Ok(1_000_000_000))
        );
        assert_eq!(
            (duration("500ms"), duration("10"), duration("2m")),
            (Ok(Duration::from_millis(500)), Ok(Duration::from_secs(10)), Ok(Duration::from_secs(120)))
        );
        for wrong in ["", "MiB", "-1", "1.5s", "5 parsecs", "99999999999999999999"] {
            assert!(bytes(wrong).is_err() && duration(wrong).is_err(), "{wrong}");
        }
    }
}
