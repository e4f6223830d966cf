//! What stands above the sections, and `[limits]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use coracle_toml_reading::{Entry, cut};
use ipnet::IpNet;

use crate::reading::{Reader, Section};
use crate::{AccessLog, ENCODED_CHARACTERS, Limits};

const LIMITS: &[&str] = &[
    "header_read",
    "idle",
    "connect",
    "response",
    "body_rate",
    "stall",
    "upstream_idle",
    "upstream_idle_connections",
    "header_size",
    "header_fields",
    "http2_streams",
    "connections_per_client",
];

/// Fields of one connection (RFC 9110, 7.6.1), and those that frame a message.
const OF_CONNECTION: &[&str] =
    &["connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "content-length", "upgrade", "http2-settings"];

pub(crate) struct Settings {
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) forwarded_server: Option<String>,
    pub(crate) forwarded_append: Option<bool>,
    pub(crate) forwarded_scheme: Option<bool>,
    pub(crate) connection_fields: Vec<String>,
    pub(crate) encoded_characters: Option<Vec<&'static str>>,
    pub(crate) limits: Limits,
    pub(crate) access_log: AccessLog,
    pub(crate) workers: Option<usize>,
    pub(crate) drain: Option<Duration>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) control_socket: Option<PathBuf>,
    pub(crate) state_dir: Option<PathBuf>,
}

pub(crate) fn read(reader: &mut Reader<'_>, root: &mut Section<'_, '_>) -> Settings {
    let access_log = root.take("access_log").and_then(|entry| match entry.value.get_ref().as_str() {
        Some("off") => Some(AccessLog::Off),
        Some("stdout") => Some(AccessLog::Stdout),
        _ => reader.path(&entry).map(AccessLog::File),
    });
    Settings {
        trusted_proxies: root.take("trusted_proxies").map(|entry| reader.networks(&entry)).unwrap_or_default(),
        forwarded_server: root.take("forwarded_server").and_then(|entry| forwarded_server(reader, &entry)),
        forwarded_append: root.take("forwarded_append").and_then(|entry| reader.boolean(&entry)),
        forwarded_scheme: root.take("forwarded_scheme").and_then(|entry| reader.boolean(&entry)),
        connection_fields: root.take("connection_fields").map(|entry| field_names(reader, &entry)).unwrap_or_default(),
        encoded_characters: root.take("encoded_characters").map(|entry| encoded_characters(reader, &entry)),
        limits: limits(reader, root),
        access_log: access_log.unwrap_or_default(),
        workers: root.take("workers").and_then(|entry| reader.integer(&entry, 1..=1024)),
        drain: root.take("drain").and_then(|entry| reader.duration(&entry)),
        // Numbers about all requests are nobody else's business unless an address says so.
        metrics: root.take("metrics").and_then(|entry| reader.address(&entry, IpAddr::V4(Ipv4Addr::LOCALHOST))),
        control_socket: root.take("control_socket").and_then(|entry| reader.path(&entry)),
        state_dir: root.take("state_dir").and_then(|entry| reader.path(&entry)),
    }
}

/// What can be the value of a field.
fn forwarded_server(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<String> {
    let name = reader.text(entry)?;
    if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.wrong(entry, "must be printable ASCII characters without spaces", None);
    }
    Some(name.to_owned())
}

/// Names of fields (RFC 9110, 5.1), in lower case. Those that frame a message or belong to one connection are nobody's to pass on.
fn field_names(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Vec<String> {
    let mut names = Vec::new();
    for (item, text) in reader.texts(entry) {
        let name = text.to_ascii_lowercase();
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        if !is_name {
            reader.wrong(&item, format!("{:?} is no name of a header field", cut(text)), None);
        } else if OF_CONNECTION.contains(&name.as_str()) {
            reader.wrong(&item, "belongs to one connection and is never passed on", None);
        }
        names.push(name);
    }
    names
}

fn encoded_characters(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Vec<&'static str> {
    let choices = ENCODED_CHARACTERS.map(|name| (name, name));
    reader.items(entry).iter().filter_map(|item| reader.choice(item, &choices)).collect()
}

fn limits(reader: &mut Reader<'_>, root: &mut Section<'_, '_>) -> Limits {
    let Some(mut section) = root.take("limits").and_then(|entry| reader.sub(&entry, LIMITS)) else { return Limits::default() };
    let mut time = |reader: &mut Reader<'_>, key| {
        let entry = section.take(key)?;
        let time = reader.duration(&entry)?;
        if time.is_zero() {
            reader.wrong(&entry, "must be more than nothing", None);
        }
        Some(time)
    };
    let [header_read, idle, connect, response, stall, upstream_idle] =
        ["header_read", "idle", "connect", "response", "stall", "upstream_idle"].map(|key| time(reader, key));
    let header_bytes = section.take("header_size").and_then(|entry| {
        let bytes = reader.bytes(&entry)?;
        if !(8 << 10..=1 << 20).contains(&bytes) {
            reader.wrong(&entry, "must be from 8KB to 1MB", None);
        }
        usize::try_from(bytes).ok()
    });
    let body_rate = section.take("body_rate").and_then(|entry| reader.bytes(&entry));
    let http2_streams = section.take("http2_streams").and_then(|entry| reader.integer(&entry, 1..=10_000));
    let mut count = |key, range| section.take(key).and_then(|entry| reader.integer(&entry, range));
    Limits {
        header_read,
        idle,
        connect,
        response,
        stall,
        upstream_idle,
        header_bytes,
        upstream_idle_connections: count("upstream_idle_connections", 0..=100_000),
        header_fields: count("header_fields", 10..=10_000),
        body_rate,
        http2_streams,
        connections_per_client: count("connections_per_client", 1..=1_000_000),
    }
}
