//! From the text of `coracle.toml`, or of a server's policy file, to checked settings.

use coracle_model::manifest::FILE;
use coracle_model::policy::{Level, Rule};
use coracle_toml_reading::{Entry, Mistakes, Values, cut, entries, meant, nearest};
use toml::de::DeTable;

use crate::settings::{Policy, ServerPolicy, ServerSetting, Setting};

/// What a server's policy file is called in messages that know no better.
const SERVER_FILE: &str = "policy.toml";

impl Policy {
    /// Reads the section out of the text of a `coracle.toml`; the default if there is none. All mistakes are told at once,
    /// each with its place.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let document = coracle_toml_reading::parse(FILE, text)?;
        let mut values = Values::new(FILE, text);
        let mut policy = Self::default();
        for entry in entries("", &document).into_iter().filter(|entry| entry.key == "policy") {
            let Some(table) = values.table(&entry) else { continue };
            for (rule, said) in section(&mut values, &entry.path, table, false) {
                policy.rules.insert(rule, Setting { level: said.level, reason: said.reason });
            }
        }
        values.mistakes.finish()?;
        Ok(policy)
    }
}

impl ServerPolicy {
    /// Reads a server's policy: the same keys, at the top of the file or in a section `[policy]`, with `may_loosen` beside
    /// `level` and `reason`.
    pub fn parse(text: &str) -> Result<Self, Mistakes> {
        let document = coracle_toml_reading::parse(SERVER_FILE, text)?;
        let mut values = Values::new(SERVER_FILE, text);
        let mut policy = Self::default();
        let in_section = entries("", &document).into_iter().find(|entry| entry.key == "policy");
        let said = match in_section.filter(|_| document.len() == 1) {
            Some(entry) => match values.table(&entry) {
                Some(table) => section(&mut values, &entry.path, table, true),
                None => Vec::new(),
            },
            None => section(&mut values, "", &document, true),
        };
        policy.rules.extend(said);
        values.mistakes.finish()?;
        Ok(policy)
    }
}

fn section(values: &mut Values<'_>, path: &str, table: &DeTable<'_>, of_server: bool) -> Vec<(Rule, ServerSetting)> {
    let mut said = Vec::new();
    for entry in entries(path, table).into_iter().filter(|entry| !entry.key.starts_with("x-")) {
        match entry.key.parse::<Rule>() {
            Ok(rule) => said.extend(setting(values, &entry, of_server).map(|setting| (rule, setting))),
            Err(_) => {
                let rules = || Rule::ALL.iter().map(|rule| rule.as_str());
                let hint = match nearest(entry.key, rules()) {
                    Some(rule) => format!("did you mean `{rule}`?"),
                    None => format!("the rules are {}", rules().collect::<Vec<_>>().join(", ")),
                };
                values.wrong_key(&entry, "there is no such rule", Some(&hint));
            }
        }
    }
    said
}

/// `"off"`, or a table with the level and why.
fn setting(values: &mut Values<'_>, entry: &Entry<'_, '_>, of_server: bool) -> Option<ServerSetting> {
    if !entry.is_table() {
        return Some(ServerSetting { level: level(values, entry)?, may_loosen: false, reason: None });
    }
    let table = values.table(entry)?;
    let known: &[&str] = if of_server { &["level", "reason", "may_loosen"] } else { &["level", "reason"] };
    let (mut found, mut says_level, mut may_loosen, mut reason) = (None, false, false, None);
    for inner in entries(&entry.path, table) {
        match inner.key {
            "level" => (says_level, found) = (true, level(values, &inner)),
            "reason" => reason = values.text(&inner).map(|text| crate::observation::plain(text.trim())),
            "may_loosen" if of_server => may_loosen = values.boolean(&inner).unwrap_or_default(),
            "may_loosen" => {
                let hint = "this is said by the server's administrator, in the file of `coracle server run --policy`";
                values.wrong_key(&inner, "is not an app's to say", Some(hint));
            }
            other => {
                let hint = meant(other, known.iter().copied());
                values.wrong_key(&inner, "unknown key", hint.as_deref());
            }
        }
    }
    if !says_level {
        values.wrong_key(entry, "says no level", Some("write level = \"off\", \"warn\" or \"block\""));
    }
    Some(ServerSetting { level: found?, may_loosen, reason: reason.filter(|reason| !reason.is_empty()) })
}

fn level(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Level> {
    match values.text(entry)? {
        "off" => Some(Level::Off),
        "warn" => Some(Level::Warn),
        "block" => Some(Level::Block),
        other => {
            let message = format!("{:?} is no level", cut(other));
            values.wrong(entry, message, Some("use \"off\", \"warn\" or \"block\""));
            None
        }
    }
}
