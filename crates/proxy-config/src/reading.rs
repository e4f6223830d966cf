//! Reading single values: from what stands in the file to checked ones, with a mistake noted where that fails.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::mistake::{Collector, cut};
use crate::quantity;

/// A key with its value.
#[derive(Clone)]
pub(crate) struct Entry<'a, 'i> {
    pub(crate) key: &'a str,
    /// The key with the tables around it: `tls.redirect`.
    pub(crate) path: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) value: &'a Spanned<DeValue<'i>>,
}

impl<'a, 'i> Entry<'a, 'i> {
    /// One item of this array.
    pub(crate) fn item(&self, at: usize, value: &'a Spanned<DeValue<'i>>) -> Self {
        Self { key: self.key, path: format!("{}[{at}]", self.path), key_span: self.key_span.clone(), value }
    }

    pub(crate) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }
}

/// The entries of one table; each is taken once.
pub(crate) struct Section<'a, 'i> {
    entries: Vec<Entry<'a, 'i>>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(crate) fn take(&mut self, key: &str) -> Option<Entry<'a, 'i>> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.swap_remove(at))
    }

    pub(crate) fn peek(&self, key: &str) -> Option<&Entry<'a, 'i>> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// Reads values and notes mistakes.
pub(crate) struct Reader<'t> {
    pub(crate) mistakes: Collector<'t>,
    folder: PathBuf,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(mistakes: Collector<'t>, folder: &Path) -> Self {
        Self { mistakes, folder: folder.to_owned() }
    }

    /// Notes that an entry's value is wrong.
    pub(crate) fn wrong(&mut self, entry: &Entry<'_, '_>, message: impl Into<String>, hint: Option<&str>) {
        self.mistakes.add(entry.value.span(), &entry.path, message, hint.map(str::to_owned));
    }

    /// Notes that an entry should not be there, or something is missing at its place.
    pub(crate) fn wrong_key(&mut self, entry: &Entry<'_, '_>, message: impl Into<String>, hint: Option<&str>) {
        self.mistakes.add(entry.key_span.clone(), &entry.path, message, hint.map(str::to_owned));
    }

    /// Notes a value that names nothing there is.
    pub(crate) fn unknown<'n>(
        &mut self,
        entry: &Entry<'_, '_>,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) {
        let hint = nearest(name, known);
        self.mistakes.add(entry.value.span(), &entry.path, format!("there is no {what} {:?}", cut(name)), hint);
    }

    /// A table whose keys are fixed. Unknown ones are noted.
    pub(crate) fn section<'a, 'i>(&mut self, path: &str, table: &'a DeTable<'i>, known: &[&str]) -> Section<'a, 'i> {
        let mut entries = named(path, table);
        entries.retain(|entry| {
            let is_known = known.contains(&entry.key);
            if !is_known {
                let hint = nearest(entry.key, known.iter().copied());
                self.mistakes.add(entry.key_span.clone(), &entry.path, "unknown key", hint);
            }
            is_known
        });
        Section { entries }
    }

    /// As [`Reader::section`], for an entry that should be a table.
    pub(crate) fn sub<'a, 'i>(&mut self, entry: &Entry<'a, 'i>, known: &[&str]) -> Option<Section<'a, 'i>> {
        let table = self.table(entry)?;
        Some(self.section(&entry.path, table, known))
    }

    /// The entries of a table whose keys are names that the author chose, in the order of the file. Names that would be
    /// unreadable in logs are noted.
    pub(crate) fn named<'a, 'i>(&mut self, entry: &Entry<'a, 'i>) -> Vec<Entry<'a, 'i>> {
        let Some(table) = self.table(entry) else { return Vec::new() };
        let entries = named(&entry.path, table);
        for entry in &entries {
            let is_readable =
                !entry.key.is_empty() && entry.key.len() <= 300 && entry.key.chars().all(|c| c.is_ascii_graphic() && c != '#');
            if !is_readable {
                self.wrong_key(entry, "a name is 1 to 300 printable ASCII characters without spaces and #", None);
            }
        }
        entries
    }

    fn wrong_type(&mut self, entry: &Entry<'_, '_>, expected: &str, hint: Option<String>) {
        let found = match entry.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.mistakes.add(entry.value.span(), &entry.path, format!("expected {expected}, found {found}"), hint);
    }

    pub(crate) fn table<'a, 'i>(&mut self, entry: &Entry<'a, 'i>) -> Option<&'a DeTable<'i>> {
        let table = entry.value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(entry, "a table", Some(format!("write [{}] with its keys below", entry.path)));
        }
        table
    }

    /// A text that is not empty and has no NUL bytes.
    pub(crate) fn text<'a>(&mut self, entry: &Entry<'a, '_>) -> Option<&'a str> {
        match entry.value.get_ref() {
            DeValue::String(text) if text.contains('\0') => {
                self.wrong(entry, "contains a NUL byte", None);
                None
            }
            DeValue::String(text) if text.trim().is_empty() => {
                self.wrong(entry, "is empty", None);
                None
            }
            DeValue::String(text) => Some(text),
            _ => {
                self.wrong_type(entry, "a string", None);
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, entry: &Entry<'_, '_>) -> Option<bool> {
        let value = entry.value.get_ref().as_bool();
        if value.is_none() {
            self.wrong_type(entry, "true or false", None);
        }
        value
    }

    /// An integer within bounds.
    pub(crate) fn integer<T>(&mut self, entry: &Entry<'_, '_>, least: T, most: T) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let DeValue::Integer(digits) = entry.value.get_ref() else {
            self.wrong_type(entry, "an integer", None);
            return None;
        };
        let number = i128::from_str_radix(digits.as_str(), digits.radix()).ok().and_then(|number| T::try_from(number).ok());
        let value = number.filter(|number| *number >= least && *number <= most);
        if value.is_none() {
            self.wrong(entry, format!("must be a number from {least} to {most}"), None);
        }
        value
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&mut self, entry: &Entry<'_, '_>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(entry)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.wrong(entry, format!("must be one of {}", words.join(", ")), None);
        }
        found
    }

    /// A length of time with its unit, in milliseconds. No unit is guessed.
    pub(crate) fn milliseconds(&mut self, entry: &Entry<'_, '_>) -> Option<u64> {
        let hint = "a length of time as \"250ms\", \"30s\", \"5m\" or \"1h30m\"";
        let text = entry.value.get_ref().as_str();
        let value = text.and_then(quantity::milliseconds);
        if value.is_none() {
            self.wrong(entry, format!("expected {hint}"), None);
        }
        value
    }

    pub(crate) fn duration(&mut self, entry: &Entry<'_, '_>) -> Option<Duration> {
        self.milliseconds(entry).map(Duration::from_millis)
    }

    /// A number of bytes, with a unit or without.
    pub(crate) fn bytes(&mut self, entry: &Entry<'_, '_>) -> Option<u64> {
        let value = match entry.value.get_ref() {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            DeValue::String(text) => quantity::bytes(text),
            _ => None,
        };
        if value.is_none() {
            self.wrong(entry, "expected a size as \"64KB\" or \"10MB\"", None);
        }
        value
    }

    /// The items of an array; one value alone stands for an array of one.
    pub(crate) fn items<'a, 'i>(&mut self, entry: &Entry<'a, 'i>) -> Vec<Entry<'a, 'i>> {
        match entry.value.get_ref().as_array() {
            Some(array) => array.iter().enumerate().map(|(at, value)| entry.item(at, value)).collect(),
            None => vec![entry.clone()],
        }
    }

    /// As [`Reader::items`], of texts.
    pub(crate) fn texts<'a, 'i>(&mut self, entry: &Entry<'a, 'i>) -> Vec<(Entry<'a, 'i>, &'a str)> {
        self.items(entry).into_iter().filter_map(|item| self.text(&item).map(|text| (item, text))).collect()
    }

    /// A file or folder; relative to where the configuration lies.
    pub(crate) fn path(&mut self, entry: &Entry<'_, '_>) -> Option<PathBuf> {
        self.text(entry).map(|text| self.folder.join(text))
    }

    /// The same of a text that is known to be one.
    pub(crate) fn in_folder(&self, path: &str) -> String {
        self.folder.join(path).to_string_lossy().into_owned()
    }

    /// Addresses and networks. `private` stands for those that are not in the internet.
    pub(crate) fn networks(&mut self, entry: &Entry<'_, '_>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (item, text) in self.texts(entry) {
            if text == "private" {
                networks.extend(PRIVATE.iter().filter_map(|text| text.parse::<IpNet>().ok()));
                continue;
            }
            match text.parse::<IpNet>().map(|net| net.trunc()).or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(network) => networks.push(network),
                Err(_) => self.wrong(
                    &item,
                    "is no IP address or network, as 10.0.0.0/8",
                    Some("\"private\" stands for all private networks"),
                ),
            }
        }
        networks
    }

    /// An address with a port: `192.0.2.1:80`, `:80`, `localhost:80`, or the port alone. `any` is what an address without a host is.
    pub(crate) fn address(&mut self, entry: &Entry<'_, '_>, any: IpAddr) -> Option<SocketAddr> {
        if entry.value.get_ref().is_integer() {
            return self.integer(entry, 0_u16, u16::MAX).map(|port| SocketAddr::new(any, port));
        }
        let text = self.text(entry)?;
        let address = socket_address(text, any);
        if address.is_none() {
            let (message, hint) = match text.rsplit_once(':') {
                Some((host, port)) if port.parse::<u16>().is_ok() && !host.contains(':') => {
                    (format!("{:?} is no IP address", cut(host)), Some("names are not looked up; write the address that it has"))
                }
                None if text.parse::<IpAddr>().is_ok() => ("has no port".to_owned(), None),
                _ => ("is no address with a port, as 127.0.0.1:3000".to_owned(), None),
            };
            self.wrong(entry, message, hint);
        }
        address
    }
}

/// Networks that are not in the internet: RFC 1918, 4193, 3927, 6598, and the machine itself.
const PRIVATE: &[&str] = &[
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];

/// See [`Reader::address`].
pub(crate) fn socket_address(text: &str, any: IpAddr) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
    match host {
        "" => Some(SocketAddr::new(any, port)),
        "localhost" => Some(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port)),
        "*" => Some(SocketAddr::new(any, port)),
        _ => None,
    }
}

fn named<'a, 'i>(path: &str, table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let name: &'a str = key.get_ref();
            let path = if path.is_empty() { quoted(name) } else { format!("{path}.{}", quoted(name)) };
            Entry { key: name, path, key_span: key.span(), value }
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    entries
}

/// A key as it is written in TOML.
pub(crate) fn quoted(key: &str) -> String {
    let is_bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_bare { key.to_owned() } else { format!("\"{}\"", cut(key)) }
}

/// What was probably meant by a name that there is not.
pub(crate) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let near =
        |candidate: &&str| strsim::normalized_damerau_levenshtein(&name.to_ascii_lowercase(), &candidate.to_ascii_lowercase());
    let best = known.iter().copied().max_by(|one, other| near(one).total_cmp(&near(other)));
    match best {
        Some(best) if near(&best) >= 0.5 => Some(format!("did you mean {}?", quoted(best))),
        _ if known.is_empty() => None,
        _ if known.len() <= 30 => Some(format!("there are {}", known.join(", "))),
        _ => None,
    }
}
