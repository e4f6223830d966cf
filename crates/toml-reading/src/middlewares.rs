//! `[middlewares.NAME.KIND]`: what is done on the way. Kinds and settings are those of the table, as they are; times and
//! sizes may also be written with their unit, under the setting's name without it (`period = "1m"` for `period_ms`).

use coracle_proxy_table::Middleware;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use crate::{Entry, Values, meant, quoted};

impl Values<'_> {
    /// One middleware: a table of one key, its kind, with its settings below. Files and services that it names are not looked
    /// at.
    pub fn middleware(&mut self, entry: &Entry<'_, '_>) -> Option<Middleware> {
        one(self, entry)
    }
}

fn one(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Middleware> {
    let table = values.table(entry)?;
    let kinds = expected(&serde_error("\u{1}", DeTable::new()));
    let mut kinds_here = table.iter();
    let (Some((kind, settings)), None) = (kinds_here.next(), kinds_here.next()) else {
        let message =
            if table.is_empty() { "says no kind" } else { "has more than one key; a middleware is one kind with its settings" };
        let hint = format!("write [{}.compress] with settings below; the kinds are {}", entry.path, kinds.join(", "));
        values.wrong_key(entry, message, Some(&hint));
        return None;
    };
    let kind_entry = Entry {
        key: kind.get_ref(),
        path: format!("{}.{}", entry.path, quoted(kind.get_ref())),
        key_span: kind.span(),
        value: settings,
    };
    if !kinds.iter().any(|known| known == kind_entry.key) {
        let hint = meant(kind_entry.key, kinds.iter().map(String::as_str));
        values.wrong_key(&kind_entry, "there is no middleware of this kind", hint.as_deref());
        return None;
    }
    let settings = values.table(&kind_entry)?;
    let known = settings_of(kind_entry.key);
    let quantities = quantities(values, &kind_entry, settings, &known)?;
    let mut replaced = settings.clone();
    for quantity in &quantities {
        replaced.remove(quantity.key);
        let Ok(number) = DeValue::parse(&quantity.number) else { continue };
        let at = quantity.span.clone();
        replaced.insert(Spanned::new(at.clone(), quantity.setting.as_str().into()), Spanned::new(at, number.into_inner()));
    }
    // Of several unknown settings serde names the first; all are told here.
    let unknown: Vec<_> =
        replaced.keys().filter(|key| !known.is_empty() && !known.iter().any(|name| name == key.get_ref())).collect();
    for key in &unknown {
        let path = format!("{}.{}", kind_entry.path, quoted(key.get_ref()));
        values.mistakes.add(key.span(), &path, "unknown key", meant(key.get_ref(), known.iter().map(String::as_str)));
    }
    if !unknown.is_empty() {
        return None;
    }
    deserialize(values, &kind_entry, replaced)
}

fn deserialize(values: &mut Values<'_>, entry: &Entry<'_, '_>, mut settings: DeTable<'_>) -> Option<Middleware> {
    loop {
        let error = match wrapped(entry.key, entry.value.span(), settings.clone()) {
            Ok(middleware) => return Some(middleware),
            Err(error) => error,
        };
        if !(error.message().ends_with("expected a sequence") && error.span().is_some_and(|span| listed(&mut settings, &span))) {
            tell(values, entry, &error);
            return None;
        }
    }
}

/// Where several values may stand, one alone needs no brackets: puts them around the one that stands there. False if there is none.
fn listed(settings: &mut DeTable<'_>, span: &std::ops::Range<usize>) -> bool {
    let is_it = |value: &Spanned<DeValue<'_>>| {
        value.span() == *span && matches!(value.get_ref(), DeValue::String(_) | DeValue::Integer(_))
    };
    let found = settings.iter().find(|(_, value)| is_it(value)).map(|(key, value)| (key.clone(), value.clone()));
    let Some((key, value)) = found else { return false };
    let mut list = DeArray::new();
    list.push(value);
    settings.insert(key, Spanned::new(span.clone(), DeValue::Array(list)));
    true
}

fn tell(values: &mut Values<'_>, entry: &Entry<'_, '_>, error: &toml::de::Error) {
    let span = error.span().filter(|span| !span.is_empty()).unwrap_or_else(|| entry.key_span.clone());
    let message = error.message();
    let known = expected(message);
    // An unknown key within a setting that is a table itself.
    match message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        Some((key, _)) => {
            let path = format!("{}…{}", entry.path, quoted(key));
            values.mistakes.add(span, &path, "unknown key", meant(key, known.iter().map(String::as_str)));
        }
        None => values.mistakes.add(span, &entry.path, plain(message), None),
    }
}

/// One of serde's messages in words of the file rather than of Rust.
fn plain(message: &str) -> String {
    let message = message.replace('`', "'");
    let Some((before, expected)) = message.rsplit_once("expected ") else { return message };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list, as [\"a\", \"b\"]",
        "a map" => "a table, as { name = \"value\" }",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        _ => return message,
    };
    format!("{before}expected {expected}")
}

fn wrapped<'i>(kind: &'i str, span: std::ops::Range<usize>, settings: DeTable<'i>) -> Result<Middleware, toml::de::Error> {
    let mut table = DeTable::new();
    table.insert(Spanned::new(span.clone(), kind.into()), Spanned::new(span.clone(), DeValue::Table(settings)));
    Middleware::deserialize(ValueDeserializer::from(Spanned::new(span, DeValue::Table(table))))
}

fn serde_error(kind: &str, settings: DeTable<'_>) -> String {
    wrapped(kind, 0..0, settings).err().map(|error| error.message().to_owned()).unwrap_or_default()
}

/// The settings that a kind has: asked of the type itself, so that they cannot differ.
fn settings_of(kind: &str) -> Vec<String> {
    let mut settings = DeTable::new();
    settings.insert(Spanned::new(0..0, "\u{1}".into()), Spanned::new(0..0, DeValue::Boolean(true)));
    expected(&serde_error(kind, settings))
}

/// The names between backticks after `expected` in one of serde's messages.
fn expected(message: &str) -> Vec<String> {
    let list = message.rsplit_once("expected ").map_or("", |(_, list)| list);
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A setting that is written with a unit.
struct Quantity<'a> {
    key: &'a str,
    setting: String,
    number: String,
    span: std::ops::Range<usize>,
}

/// The settings that are written with a unit, under names without it; `None` if one of them is none.
fn quantities<'a>(
    values: &mut Values<'_>,
    entry: &Entry<'_, '_>,
    settings: &'a DeTable<'_>,
    known: &[String],
) -> Option<Vec<Quantity<'a>>> {
    let mut found = Vec::new();
    let mut all_right = true;
    for (key, value) in settings {
        let name: &'a str = key.get_ref();
        if known.iter().any(|setting| setting == name) {
            continue;
        }
        let Some((setting, unit)) = ["_ms", "_s", "_seconds", "_bytes"]
            .iter()
            .map(|unit| (format!("{name}{unit}"), *unit))
            .find(|(setting, _)| known.contains(setting))
        else {
            continue;
        };
        let inner = Entry { key: name, path: format!("{}.{}", entry.path, quoted(name)), key_span: key.span(), value };
        let number = match unit {
            "_bytes" => values.bytes(&inner),
            "_ms" => values.milliseconds(&inner),
            _ => values.milliseconds(&inner).map(|milliseconds| milliseconds.div_ceil(1000)),
        };
        match number {
            Some(number) if settings.contains_key(setting.as_str()) => {
                values.wrong_key(&inner, format!("is said twice, here and as {setting} ({number})"), None);
                all_right = false;
            }
            Some(number) => found.push(Quantity { key: name, setting, number: number.to_string(), span: value.span() }),
            None => all_right = false,
        }
    }
    all_right.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_settings_are_asked_of_the_types() {
        let kinds = expected(&serde_error("\u{1}", DeTable::new()));
        assert!(kinds.contains(&"strip-prefix".to_owned()), "{kinds:?}");
        for kind in &kinds {
            assert!(!settings_of(kind).is_empty(), "{kind} seems to have no settings");
        }
        assert!(settings_of("rate-limit").contains(&"period_ms".to_owned()));
        assert_eq!(settings_of("strip-prefix"), ["prefixes"]);
    }
}
