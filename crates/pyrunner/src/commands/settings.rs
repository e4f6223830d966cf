//! How sizes and times are typed, and where things usually are.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use coracle_sandbox::Limits;

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

/// A user who has no place of its own. A directory that everybody can write to is none: somebody else may have made it.
#[derive(Debug, thiserror::Error)]
#[error("neither {variable} nor HOME names a directory of this user's; name one with {option}")]
pub(crate) struct Homeless {
    variable: &'static str,
    option: &'static str,
}

/// Where something is kept when nothing else is said: root's place, or one in the user's home (XDG Base Directory
/// Specification).
pub(crate) fn home_of(
    of_root: &str,
    variable: &'static str,
    in_home: &str,
    name: &str,
    option: &'static str,
) -> Result<PathBuf, Homeless> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from(of_root));
    }
    in_home_of(|name| std::env::var_os(name), variable, in_home).map(|base| base.join(name)).ok_or(Homeless { variable, option })
}

/// The directory that a variable names, or the one below the home.
fn in_home_of(variables: impl Fn(&str) -> Option<OsString>, variable: &str, below: &str) -> Option<PathBuf> {
    let named = |name: &str| variables(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named(variable).or_else(|| named("HOME").map(|home| home.join(below)))
}

/// Where state is kept when nothing else is said.
pub(crate) fn state_dir() -> Result<PathBuf, Homeless> {
    home_of("/var/lib/pyrunner", "XDG_STATE_HOME", ".local/state", "pyrunner", "--state")
}

/// An interpreter's path. Whether it works is found out later; whether anything is there can be said at once.
pub(crate) fn interpreter(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err("name the interpreter by its whole path, such as /usr/bin/python3".to_owned());
    }
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Err("it is a directory; name the interpreter in it, such as bin/python3".to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err("there is no such file".to_owned()),
        // The API, which has no use for it, may not look at it.
        _ => Ok(path),
    }
}

/// A time that is not nothing.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.is_zero() { Err("nothing can be done in no time; give at least 1ms".to_owned()) } else { Ok(time) }
}

/// Memory that Python can start with.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let memory = bytes(text)?;
    if memory < Limits::LEAST_MEMORY {
        return Err(format!("Python does not start with so little; {}MiB is the least", Limits::LEAST_MEMORY >> 20));
    }
    Ok(memory)
}

/// A share of the processor.
pub(crate) fn cores(text: &str) -> Result<f64, String> {
    let cores: f64 = text.parse().map_err(|_| format!("{text:?} is no number such as 0.5"))?;
    if (0.01..=1024.0).contains(&cores) { Ok(cores) } else { Err("give 0.01 to 1024 cores".to_owned()) }
}

/// A number that is not 0.
pub(crate) fn some<T: TryFrom<u64> + Clone + Send + Sync + 'static>() -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(1..=u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_ones_own_is_named_or_at_home_and_nowhere_else() {
        let with = |variables: &'static [(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
            in_home_of(find, "XDG_STATE_HOME", ".local/state")
        };
        assert_eq!(with(&[("HOME", "/h")]), Some(PathBuf::from("/h/.local/state")));
        assert_eq!(with(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), Some(PathBuf::from("/s")));
        for homeless in [&[] as &[_], &[("HOME", "")], &[("HOME", "relative"), ("XDG_STATE_HOME", "")]] {
            assert_eq!(with(homeless), None, "{homeless:?}");
        }
        let told = Homeless { variable: "XDG_STATE_HOME", option: "--state" }.to_string();
        assert!(told.contains("--state") && told.contains("HOME"), "{told}");
    }

    #[test]
    fn what_nothing_could_come_of_is_refused() {
        assert!(memory("1").is_err() && memory("8MiB").is_ok() && some_time("0s").is_err() && some_time("1ms").is_ok());
        assert!(cores("0").is_err() && cores("NaN").is_err() && cores("0.01").is_ok());
        assert!(interpreter("python3").is_err() && interpreter("/").is_err() && interpreter("/no/such/python").is_err());
    }

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
