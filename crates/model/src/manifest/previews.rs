//! The table `[previews]`.

use coracle_toml_reading::{Entry, Values, cut};
use toml::de::{DeTable, DeValue};

use super::tables::environment;
use super::values::{Keys, entries};
use crate::names::EnvName;
use crate::preview::{CopiedConfig, Lifetime, PreviewPolicy};

const PREVIEWS: Keys = Keys { known: &["branches", "host", "ttl", "max", "config", "secrets", "env"], planned: &[] };

/// The most previews that an app may ask for.
const MOST: u16 = 100;

pub(super) fn read(values: &mut Values<'_>, section: &Entry<'_, '_>, table: &DeTable<'_>) -> PreviewPolicy {
    let mut policy = PreviewPolicy {
        branches: Vec::new(),
        host: None,
        ttl: Lifetime::USUAL,
        max: PreviewPolicy::MAX,
        config: CopiedConfig::default(),
        secrets: Vec::new(),
        env: std::collections::BTreeMap::new(),
    };
    for entry in entries(values, &section.path, table, &PREVIEWS) {
        match entry.key {
            "branches" => policy.branches = values.list(&entry).unwrap_or_default(),
            "host" => policy.host = values.parsed(&entry),
            "ttl" => policy.ttl = values.parsed(&entry).unwrap_or(policy.ttl),
            "max" => policy.max = values.integer(&entry, 1..=MOST).unwrap_or(policy.max),
            "config" => policy.config = config(values, &entry).unwrap_or_default(),
            "secrets" => policy.secrets = values.list(&entry).unwrap_or_default(),
            "env" => {
                if let Some(table) = values.table(&entry) {
                    policy.env = environment(values, &entry.path, table);
                }
            }
            _ => unreachable!("every known key is handled"),
        }
    }
    if policy.branches.is_empty() && values.mistakes.is_empty() {
        let hint = "write branches = [\"feature/*\"], say; [\"**\"] is every branch";
        values.wrong_key(section, "says of no branch that it gets a preview", Some(hint));
    }
    let ours = |name: &&EnvName| name.as_str() == "PORT";
    let named = policy.secrets.iter().chain(policy.env.keys()).find(ours).is_some();
    if named {
        values.wrong_key(section, "PORT is set by Coracle itself", None);
    }
    if let Some(name) = policy.secrets.iter().find(|name| policy.env.contains_key(*name)) {
        values.wrong_key(section, format!("{name} is in `secrets` and in `env`"), None);
    }
    policy
}

fn config(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<CopiedConfig> {
    if matches!(entry.value.get_ref(), DeValue::Array(_)) {
        return values.list(entry).map(CopiedConfig::Named);
    }
    match values.text(entry)? {
        "copy" => Some(CopiedConfig::Copy),
        "none" => Some(CopiedConfig::None),
        other => {
            let hint = "use \"copy\", \"none\" or a list of names";
            values.wrong(entry, format!("config {:?} is not known", cut(other)), Some(hint));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::manifest::Manifest;

    fn policy(text: &str) -> Result<Option<PreviewPolicy>, String> {
        let manifest = Manifest::parse(text).map_err(|errors| errors.to_string())?;
        Ok(manifest.resolve(Some("shop".parse().unwrap()), None).unwrap().previews.map(|policy| *policy))
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        assert_eq!(policy("app = \"shop\"\n"), Ok(None));
        let least = policy("[previews]\nbranches = [\"feature/*\"]\n").unwrap().unwrap();
        assert_eq!((least.ttl, least.max, least.config.clone()), (Lifetime::USUAL, 5, CopiedConfig::Copy));
        assert!(least.covers("feature/x") && !least.covers("feature/x/y") && !least.covers("main"));
        let all = "[previews]\nbranches = [\"**\"]\nhost = \"{branch}.p.example\"\nttl = \"2h\"\nmax = 2\nconfig = [\"A\"]\nsecrets = [\"B\"]\nenv = { C = \"d\" }\n";
        let all = policy(all).unwrap().unwrap();
        assert_eq!((all.max, all.ttl.seconds(), all.secrets.len(), all.env.len()), (2, 7_200, 1, 1));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, told) in [
            ("[previews]\n", "no branch"),
            ("[previews]\nbranches = []\n", "no branch"),
            ("[previews]\nbranches = [\"/x\"]\n", "slash"),
            ("[previews]\nbranches = [\"x\"]\nhost = \"x.example\"\n", "{branch}"),
            ("[previews]\nbranches = [\"x\"]\nttl = \"3\"\n", "time to live"),
            ("[previews]\nbranches = [\"x\"]\nmax = 0\n", "max"),
            ("[previews]\nbranches = [\"x\"]\nconfig = \"all\"\n", "config"),
            ("[previews]\nbranches = [\"x\"]\nbranch = 1\n", "branches"),
            ("[previews]\nbranches = [\"x\"]\nsecrets = [\"A\"]\nenv = { A = \"b\" }\n", "secrets"),
            ("[environments.staging.previews]\nbranches = [\"x\"]\n", "previews"),
        ] {
            let error = policy(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
