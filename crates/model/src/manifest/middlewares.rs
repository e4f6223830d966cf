//! `[middlewares.NAME.KIND]`: what `[http] middlewares` names. Kinds and settings are those of `proxy.toml`, less what would reach
//! beyond the app: files of the server's machine, and services.

use std::collections::{BTreeMap, BTreeSet};

use coracle_proxy_table::Middleware;
use coracle_toml_reading::{Entry, Values, entries};
use toml::de::DeTable;

/// Reads all of them.
pub(super) fn read(values: &mut Values<'_>, path: &str, table: &DeTable<'_>) -> BTreeMap<String, Middleware> {
    let mut middlewares = BTreeMap::new();
    for entry in entries(path, table) {
        if let Some(middleware) = one(values, &entry) {
            middlewares.insert(entry.key.to_owned(), middleware);
        }
    }
    middlewares
}

fn one(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Middleware> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if entry.key.is_empty() || entry.key.len() > 64 || !entry.key.bytes().all(is_name) {
        values.wrong_key(entry, "a middleware is named by 1 to 64 letters, digits, hyphens and underscores", None);
        return None;
    }
    let mut middleware = values.middleware(entry)?;
    if middleware.paths_mut().next().is_some() {
        let hint = "an app's own files are served by the app; users and pages may stand in the manifest itself";
        values.wrong_key(entry, "names a file or folder of the server's machine, which an app has none of", Some(hint));
        return None;
    }
    if middleware.service().is_some() {
        values.wrong_key(entry, "names a service, and an app has none but itself", None);
        return None;
    }
    Some(middleware)
}

/// The names that a manifest or one of its environments has.
pub(super) fn names<'a>(table: &'a DeTable<'_>) -> BTreeSet<&'a str> {
    let section = entries("", table).into_iter().find(|entry| entry.key == "middlewares");
    let section = section.and_then(|entry| entry.value.get_ref().as_table());
    section.into_iter().flatten().map(|(key, _)| key.get_ref().as_ref()).collect()
}

/// Notes what `[http] middlewares` names and is not there. `path` is that of the table which has the section.
pub(super) fn check_names(values: &mut Values<'_>, path: &str, table: &DeTable<'_>, known: &BTreeSet<&str>) {
    let Some(http) = entries(path, table).into_iter().find(|entry| entry.key == "http") else { return };
    let Some(section) = http.value.get_ref().as_table() else { return };
    let Some(list) = entries(&http.path, section).into_iter().find(|entry| entry.key == "middlewares") else { return };
    for (at, value) in list.value.get_ref().as_array().into_iter().flatten().enumerate() {
        let item = list.item(at, value);
        if let Some(name) = value.get_ref().as_str()
            && !known.contains(name)
        {
            values.unknown(&item, "middleware", name, known.iter().copied());
        }
    }
}
