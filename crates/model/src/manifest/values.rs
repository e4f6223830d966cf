//! Values that only a manifest has: keys of later versions, commands, cores.

use coracle_toml_reading::{Entry, Values, nearest};
use toml::de::{DeTable, DeValue};

use crate::command::CommandLine;
use crate::quantity::Cpus;

/// What may stand in a table.
pub struct Keys {
    /// Honoured.
    pub known: &'static [&'static str],
    /// Designed, but not yet honoured by this version.
    pub planned: &'static [&'static str],
}

/// The entries of a table whose keys are fixed, without those that were noted as unknown or unsupported.
pub fn entries<'a, 'i>(values: &mut Values<'_>, path: &str, table: &'a DeTable<'i>, keys: &Keys) -> Vec<Entry<'a, 'i>> {
    let mut entries = coracle_toml_reading::entries(path, table);
    entries.retain(|entry| {
        if entry.key.starts_with("x-") {
            return false;
        }
        if keys.known.contains(&entry.key) {
            return true;
        }
        if keys.planned.contains(&entry.key) {
            let hint = "remove it, or write x- before its name to keep it as a note";
            values.wrong_key(entry, "is not supported by this version of Coracle", Some(hint));
        } else {
            values.wrong_key(entry, "unknown key", Some(&meant(entry.key, keys)));
        }
        false
    });
    entries
}

/// A number of cores: `0.5`, `2` or the same in quotes.
pub(super) fn cpus(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Cpus> {
    let cpus = match entry.value.get_ref() {
        DeValue::Integer(number) => number.to_string().parse(),
        DeValue::Float(number) => number.to_string().parse(),
        _ => values.text(entry)?.parse(),
    };
    values.checked(entry, cpus)
}

/// A command line, or an argument vector that is taken as it is.
pub fn command(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<CommandLine> {
    let command = match entry.value.get_ref() {
        DeValue::String(text) => text.parse(),
        DeValue::Array(array) => {
            let argv: Option<Vec<_>> = array.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            match argv {
                Some(argv) => CommandLine::literal(argv),
                None => {
                    values.wrong(entry, "every item of a command must be a string", Some("put numbers in quotes"));
                    return None;
                }
            }
        }
        _ => {
            values.wrong_type(entry, "a command: a string or an array of strings", None);
            return None;
        }
    };
    values.checked(entry, command)
}

/// The nearest known key, or all of them if none is near.
fn meant(key: &str, keys: &Keys) -> String {
    match nearest(key, keys.known.iter().chain(keys.planned).copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("known keys here: {}", keys.known.join(", ")),
    }
}
