//! Reading the values that this file has beyond those that any has: relative paths, addresses, networks, sections.

use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_toml_reading::{Entry, Mistakes, Values, cut, entries, meant};
use ipnet::IpNet;
use toml::de::DeTable;

/// The choice that people mean by `false`.
const OFF: &str = "off";

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
    values: Values<'t>,
    folder: PathBuf,
}

impl<'t> Deref for Reader<'t> {
    type Target = Values<'t>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.values
    }
}

impl<'t> Reader<'t> {
    pub(crate) fn new(values: Values<'t>, folder: &Path) -> Self {
        Self { values, folder: folder.to_owned() }
    }

    /// What was read, if nothing was wrong.
    pub(crate) fn finish<T>(self, read: T) -> Result<T, Mistakes> {
        self.values.mistakes.finish().map(|()| read)
    }

    /// A table whose keys are fixed. Unknown ones are noted.
    pub(crate) fn section<'a, 'i>(&mut self, path: &str, table: &'a DeTable<'i>, known: &[&str]) -> Section<'a, 'i> {
        let mut entries = entries(path, table);
        entries.retain(|entry| {
            let is_known = known.contains(&entry.key);
            if !is_known {
                let hint = meant(entry.key, known.iter().copied());
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
        let entries = entries(&entry.path, table);
        for entry in &entries {
            let is_readable =
                !entry.key.is_empty() && entry.key.len() <= 300 && entry.key.chars().all(|c| c.is_ascii_graphic() && c != '#');
            if !is_readable {
                self.wrong_key(entry, "a name is 1 to 300 printable ASCII characters without spaces and #", None);
            }
        }
        entries
    }

    /// A text that is not empty and has no NUL bytes.
    pub(crate) fn text<'a>(&mut self, entry: &Entry<'a, '_>) -> Option<&'a str> {
        let text = self.values.text(entry)?;
        if text.trim().is_empty() {
            self.wrong(entry, "is empty", None);
            return None;
        }
        Some(text)
    }

    /// One of several words.
    pub(crate) fn choice<T: Copy>(&mut self, entry: &Entry<'_, '_>, choices: &[(&str, T)]) -> Option<T> {
        if entry.value.get_ref().as_bool() == Some(false) && choices.iter().any(|(word, _)| *word == OFF) {
            self.wrong_type(entry, "a string", Some(format!("write {OFF:?}")));
            return None;
        }
        let text = self.text(entry)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.wrong(entry, format!("must be one of {}", words.join(", ")), None);
        }
        found
    }

    pub(crate) fn duration(&mut self, entry: &Entry<'_, '_>) -> Option<Duration> {
        self.milliseconds(entry).map(Duration::from_millis)
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
            return self.integer(entry, 0_u16..=u16::MAX).map(|port| SocketAddr::new(any, port));
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
