//! Names that cannot be wrong: each newtype checks on construction, so a name that exists is a name that is safe in a
//! path, a container name, a host name label, a cgroup and a log line.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not valid: {rule}")]
pub struct NameError {
    /// What the text was meant to be: `app name`, `process name`, and so on.
    pub what: &'static str,
    /// The text, cut to a printable length.
    pub given: String,
    /// The rule it breaks, as a sentence fragment that a person can act on.
    pub rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, given: &str, rule: &'static str) -> Self {
        Self { what, given: given.chars().take(80).collect(), rule }
    }
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(NameError::new($what, text, $rule)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// A DNS label (RFC 1123 section 2.1) in lower case that begins with a letter, of at most `longest` bytes.
fn is_label(text: &str, longest: usize) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    bytes.len() <= longest
        && first.is_ascii_lowercase()
        && *last != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

text_name!(
    /// The name of an app: a DNS label, since it becomes one (`shop.localhost`).
    AppName,
    "app name",
    "use 1 to 40 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen",
    |text| is_label(text, 40)
);

text_name!(
    /// The name of a kind of process: `web`, `worker`, `cron.nightly`. The process called `web` receives HTTP requests.
    ProcessName,
    "process name",
    "use 1 to 32 lower-case letters, digits, hyphens, underscores and dots, beginning with a letter",
    |text| {
        text.len() <= 32
            && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
            && !text.contains("..")
            && !text.ends_with('.')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
    }
);

text_name!(
    /// The name of an environment variable (POSIX.1-2017, section 8.1, with lower case allowed).
    EnvName,
    "environment variable name",
    "use letters, digits and underscores, not beginning with a digit, at most 128",
    |text| {
        text.len() <= 128
            && text.as_bytes().first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }
);

text_name!(
    /// The name of a volume within its app.
    VolumeName,
    "volume name",
    "use 1 to 63 lower-case letters, digits, hyphens, underscores and dots, beginning with a letter or a digit",
    |text| {
        (1..=63).contains(&text.len())
            && text.as_bytes().first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && text.as_bytes().last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && !text.contains("..")
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
    }
);

text_name!(
    /// The name of a person who may use the server: what it is told by, in lists and in logs.
    PersonName,
    "person's name",
    "use 1 to 40 lower-case letters, digits, hyphens, underscores and dots, beginning with a letter",
    |text| {
        (1..=40).contains(&text.len())
            && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
    }
);

text_name!(
    /// Identifies one Coracle server among several on a machine; everything it creates carries it as a label.
    OwnerId,
    "owner id",
    "use 8 to 16 lower-case hexadecimal digits",
    |text| (8..=16).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

text_name!(
    /// A host that requests are matched by: a host name, `*.` and a host name (one label), or `*` for every host.
    HostPattern,
    "host",
    "use a host name such as shop.example.com, *.example.com for one more label, or * for every host; no port, no scheme, no path",
    |text| {
        let name = text.strip_prefix("*.").unwrap_or(text);
        text == "*"
            || (name.len() <= 253
                && name.split('.').all(|label| {
                    (1..=63).contains(&label.len())
                        && !label.starts_with('-')
                        && !label.ends_with('-')
                        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                }))
    }
);

impl ProcessName {
    /// The process that receives HTTP requests.
    pub fn web() -> Self {
        Self("web".to_owned())
    }

    /// Whether this process receives HTTP requests.
    pub fn is_web(&self) -> bool {
        self.0 == "web"
    }
}

/// The number of a release within its app, written `v3`. Numbers only grow; one that was given to a failed release is not
/// given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseNumber(NonZeroU32);

impl ReleaseNumber {
    /// The number of an app's first release.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The release with this number; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The bare number.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("v{}", self.0))
    }
}

impl FromStr for ReleaseNumber {
    type Err = NameError;
    /// Reads `v3` or `3`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix('v').unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits
            .parse()
            .ok()
            .filter(|_| plain)
            .map(Self)
            .ok_or_else(|| NameError::new("release", text, "use the number that `coracle releases` shows, such as v3"))
    }
}

/// Names one instance: the n-th copy of a process of a release. Written `shop.v3.web.1`; the index begins at 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    /// The app.
    pub app: AppName,
    /// The release it runs.
    pub release: ReleaseNumber,
    /// The process it is a copy of.
    pub process: ProcessName,
    /// Which copy, from 1.
    pub index: u16,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.app, self.release, self.process, self.index)
    }
}

impl FromStr for InstanceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = || NameError::new("instance", text, "use the form shop.v3.web.1, as `coracle ps` shows");
        // The process may contain dots, so take one piece from the right and two from the left.
        let (head, index) = text.rsplit_once('.').ok_or_else(bad)?;
        let mut pieces = head.splitn(3, '.');
        let (Some(app), Some(release), Some(process)) = (pieces.next(), pieces.next(), pieces.next()) else {
            return Err(bad());
        };
        let index = index.parse().ok().filter(|index| *index > 0).ok_or_else(bad)?;
        Ok(Self { app: app.parse()?, release: release.parse()?, process: process.parse()?, index })
    }
}

impl TryFrom<String> for InstanceId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn refused<T: FromStr>(texts: &[&str]) {
        for text in texts {
            assert!(text.parse::<T>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn hostile_app_names_are_refused() {
        refused::<AppName>(&["", "../etc", "a/b", "shop;rm", "Shop", "shöp", "-shop", "shop-", "9shop", "a b", "a\n", "a\0"]);
        refused::<AppName>(&[&"a".repeat(41)]);
        assert!("shop-2".parse::<AppName>().is_ok());
    }

    #[test]
    fn hosts_are_names_without_port_or_path() {
        refused::<HostPattern>(&["", "a:80", "http://a", "a/b", "*.*.a", "a..b", "-a", "A.com", "a b"]);
        for good in ["a", "shop.example.com", "*.example.com", "*"] {
            assert!(good.parse::<HostPattern>().is_ok(), "{good}");
        }
    }

    #[test]
    fn instance_ids_survive_a_round_trip_even_with_dotted_processes() {
        let id: InstanceId = "shop.v3.cron.nightly.2".parse().unwrap();
        assert_eq!(id.process.as_str(), "cron.nightly");
        assert_eq!(id.to_string(), "shop.v3.cron.nightly.2");
        refused::<InstanceId>(&["shop.v3.web", "shop.v3.web.0", "shop.3x.web.1", "../x.v3.web.1"]);
    }

    #[test]
    fn release_numbers_are_read_with_and_without_their_letter() {
        assert_eq!("v3".parse::<ReleaseNumber>().unwrap(), "3".parse().unwrap());
        refused::<ReleaseNumber>(&["", "v", "v0", "0", "+3", "v-1", "vv3", "v99999999999"]);
    }
}
