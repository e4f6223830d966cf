//! `[listen]`: where the proxy takes connections. Names are the author's; a value is an address, several, or a table.

use std::net::{IpAddr, Ipv6Addr};

use crate::Listener;
use coracle_toml_reading::Entry;

use crate::reading::Reader;

const KEYS: &[&str] = &["address", "tls", "proxy_protocol"];
const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Without `[listen]`: HTTP on port 80 and HTTPS on port 443 of all addresses.
pub(crate) fn read(reader: &mut Reader<'_>, entry: Option<&Entry<'_, '_>>) -> Vec<Listener> {
    let Some(entry) = entry else {
        let usual =
            |name: &str, port, tls| Listener { name: name.to_owned(), address: (ANY, port).into(), tls, proxy_protocol: None };
        return vec![usual("http", 80, false), usual("https", 443, true)];
    };
    let mut listeners: Vec<Listener> = Vec::new();
    let entries = reader.named(entry);
    if entries.is_empty() && entry.is_table() {
        reader.wrong_key(entry, "names no listener", Some("write http = \":80\""));
    }
    for entry in entries {
        for (at, listener) in one(reader, &entry) {
            if listener.address.port() != 0 && listeners.iter().any(|other| other.address == listener.address) {
                reader.wrong(&at, format!("{} is listed twice", listener.address), None);
            }
            listeners.push(listener);
        }
    }
    listeners
}

fn one<'a, 'i>(reader: &mut Reader<'_>, entry: &Entry<'a, 'i>) -> Vec<(Entry<'a, 'i>, Listener)> {
    let (mut tls, mut proxy_protocol) = (None, None);
    let addresses = if entry.is_table() {
        let Some(mut section) = reader.sub(entry, KEYS) else { return Vec::new() };
        tls = section.take("tls").and_then(|entry| reader.boolean(&entry));
        proxy_protocol = section.take("proxy_protocol").map(|entry| {
            if entry.value.get_ref().as_bool().is_some() {
                let hint = "without a list anybody could claim to be any client";
                reader.wrong(&entry, "expected the addresses of the proxies before this one, as [\"10.0.0.0/8\"]", Some(hint));
                return Vec::new();
            }
            reader.networks(&entry)
        });
        section.take("address")
    } else {
        Some(entry.clone())
    };
    let Some(addresses) = addresses else {
        reader.wrong_key(entry, "has no address", Some("write address = \":80\""));
        return Vec::new();
    };
    let mut listeners = Vec::new();
    let items = reader.items(&addresses);
    if items.is_empty() {
        reader.wrong(&addresses, "names no address", Some("write \":80\""));
    }
    for item in items {
        let Some(address) = reader.address(&item, ANY) else { continue };
        let listener = Listener {
            name: entry.key.to_owned(),
            address,
            tls: tls.unwrap_or(entry.key == "https" || address.port() == 443),
            proxy_protocol: proxy_protocol.clone(),
        };
        listeners.push((item, listener));
    }
    listeners
}
