//! What an app's other branches get: apps of their own, for a while. The section `[previews]` as types.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{AppName, EnvName, HostPattern};
use crate::pattern::Pattern;

/// Which branches get a preview, and what a preview is. It is believed of an active release alone: a branch does not say what it
/// is given itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewPolicy {
    /// Branches that get one.
    pub branches: Vec<Pattern>,
    /// Where each is reached. `None`: beneath the app's own host.
    pub host: Option<HostTemplate>,
    /// How long each lives after the last push.
    pub ttl: Lifetime,
    /// How many there may be at once.
    pub max: u16,
    /// What each gets of the app's configuration that is no secret.
    pub config: CopiedConfig,
    /// Secrets that each gets all the same.
    pub secrets: Vec<EnvName>,
    /// Plain variables of previews alone; they lie over `[env]`.
    pub env: BTreeMap<EnvName, String>,
}

impl PreviewPolicy {
    /// How many there may be if the file does not say.
    pub const MAX: u16 = 5;

    /// Whether a branch gets a preview.
    pub fn covers(&self, branch: &str) -> bool {
        self.branches.iter().any(|pattern| pattern.is(branch))
    }
}

/// What a preview gets of the app's configuration that is no secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopiedConfig {
    /// What was set plainly, and looks like no secret.
    #[default]
    Copy,
    /// Nothing.
    None,
    /// What is named.
    Named(Vec<EnvName>),
}

/// How long a preview lives, in seconds. Written `90s`, `30m`, `12h`, `3d` or `2w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lifetime(u32);

impl Lifetime {
    /// Three days.
    pub const USUAL: Self = Self(3 * 86_400);
    /// The longest that can be asked for: 90 days.
    const LONGEST: u64 = 90 * 86_400;

    /// In seconds.
    pub const fn seconds(self) -> u32 {
        self.0
    }
}

impl FromStr for Lifetime {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{:?} is not a time to live: use 1s to 90d, as in 12h or 3d", text.chars().take(40).collect::<String>());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return Err(wrong()),
        };
        let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        let seconds = seconds.filter(|seconds| (1..=Self::LONGEST).contains(seconds)).ok_or_else(wrong)?;
        u32::try_from(seconds).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
        let (factor, unit) = units.into_iter().find(|(factor, _)| self.0.is_multiple_of(*factor)).unwrap_or((1, "s"));
        f.pad(&format!("{}{unit}", self.0 / factor))
    }
}

/// A host with a place for what tells previews apart: `{branch}.preview.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostTemplate(String);

impl HostTemplate {
    /// What stands for the branch, as it is part of the preview's name.
    const BRANCH: &'static str = "{branch}";
    /// What stands for the preview's name.
    const APP: &'static str = "{app}";

    /// One label more than this host.
    pub fn beneath(host: &HostPattern) -> Option<Self> {
        format!("{}.{host}", Self::BRANCH).parse().ok()
    }

    /// The host of a preview; `branch` is the part of its name that tells it from others of its app. `None`: it would be too long.
    pub fn host(&self, app: &AppName, branch: &str) -> Option<HostPattern> {
        self.0.replace(Self::BRANCH, branch).replace(Self::APP, app.as_str()).parse().ok()
    }
}

impl FromStr for HostTemplate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let filled = text.replace(Self::BRANCH, "x").replace(Self::APP, "x");
        let is_host = filled.parse::<HostPattern>().is_ok() && !filled.starts_with('*');
        if is_host && (text.contains(Self::BRANCH) || text.contains(Self::APP)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{shown:?} is not the host of previews: write {{branch}} or {{app}} where they differ, as in \"{{branch}}.preview.example.com\""
            ))
        }
    }
}

impl TryFrom<String> for HostTemplate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<HostTemplate> for String {
    fn from(template: HostTemplate) -> Self {
        template.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_to_live_are_whole_units() {
        for (text, seconds, shown) in
            [("3d", 259_200, "3d"), ("90s", 90, "90s"), ("48h", 172_800, "2d"), ("2w", 1_209_600, "14d")]
        {
            let lifetime: Lifetime = text.parse().unwrap();
            assert_eq!((lifetime.seconds(), lifetime.to_string().as_str()), (seconds, shown), "{text}");
        }
        for wrong in ["", "3", "d", "0d", "-1d", "91d", "1.5d", "3 d", "99999999999999999999s", "3y"] {
            assert!(wrong.parse::<Lifetime>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_host_differs_from_preview_to_preview() {
        let template: HostTemplate = "{branch}.preview.example.com".parse().unwrap();
        let app = "shop-feature-x".parse().unwrap();
        assert_eq!(template.host(&app, "feature-x").unwrap().as_str(), "feature-x.preview.example.com");
        let by_app: HostTemplate = "p-{app}.example.com".parse().unwrap();
        assert_eq!(by_app.host(&app, "feature-x").unwrap().as_str(), "p-shop-feature-x.example.com");
        assert_eq!(by_app.host(&"a".repeat(40).parse().unwrap(), "x").unwrap().as_str().len(), 54);
        for wrong in ["preview.example.com", "*.{branch}.example.com", "{branch}", "{branch", "{branch}/x", "", "{x}.example.com"]
        {
            assert_eq!(wrong.parse::<HostTemplate>().is_ok(), wrong == "{branch}", "{wrong:?}");
        }
    }
}
