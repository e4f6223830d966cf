//! What stands above the sections, and `[limits]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::reading::{Reader, Section};
use crate::{AccessLog, Limits};

const LIMITS: &[&str] = &[
    "header_read",
    "idle",
    "connect",
    "response",
    "stall",
    "upstream_idle",
    "upstream_idle_connections",
    "header_size",
    "header_fields",
    "connections_per_client",
];

pub(crate) struct Settings {
    pub(crate) trusted_proxies: Vec<IpNet>,
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
        connections_per_client: count("connections_per_client", 1..=1_000_000),
    }
}
