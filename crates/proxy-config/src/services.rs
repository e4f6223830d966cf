//! `[services.NAME]`: who answers, and how requests are shared out among them. Sites say the same about themselves.

use std::net::{IpAddr, Ipv4Addr};

use coracle_proxy_table::{Admission, Balance, Ejection, HealthCheck, Protocol, SameSite, Service, Sticky, Target, TargetId};
use coracle_toml_reading::Entry;

use crate::reading::{Reader, Section};
use crate::table::Draft;

/// How requests are shared out: keys of services, and of routes and sites with targets of their own.
pub(crate) const SHARING_KEYS: &[&str] =
    &["balance", "sticky", "health", "ejection", "slow_start", "response_timeout", "protocol", "closed", "hold"];
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) fn read(reader: &mut Reader<'_>, entries: &[Entry<'_, '_>], draft: &mut Draft) {
    let keys = [&["targets"], SHARING_KEYS].concat();
    for entry in entries {
        let Some(mut section) = reader.sub(entry, &keys) else { continue };
        let targets = section.take("targets");
        if targets.is_none() && section.peek("closed").is_none() {
            reader.wrong_key(entry, "has no targets", Some("write targets = [\"127.0.0.1:3000\"]"));
        }
        let service = service(reader, &mut section, targets.as_ref());
        draft.add_service(entry.key, service);
        draft.place(reader, "services", entry.key, entry);
    }
}

/// A service of these targets, and what the section says about sharing requests out.
pub(crate) fn service(reader: &mut Reader<'_>, section: &mut Section<'_, '_>, targets: Option<&Entry<'_, '_>>) -> Service {
    let mut service = Service::new(Admission::Open, Vec::new());
    if let Some(entry) = targets {
        (service.targets, service.protocol) = self::targets(reader, entry);
    }
    for key in SHARING_KEYS {
        if let Some(entry) = section.take(key) {
            sharing(reader, &entry, &mut service);
        }
    }
    service
}

/// Notes what the section says about sharing requests out where there is nobody to share them.
pub(crate) fn refuse_sharing(reader: &mut Reader<'_>, section: &mut Section<'_, '_>) {
    for key in SHARING_KEYS {
        if let Some(entry) = section.take(key) {
            reader.wrong_key(&entry, "belongs to targets; here are none", Some("write it under [services.NAME]"));
        }
    }
}

fn sharing(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, service: &mut Service) {
    match entry.key {
        "balance" => {
            let kinds = [("round-robin", Balance::RoundRobin), ("least-loaded", Balance::LeastLoaded)];
            service.balance = reader.choice(entry, &kinds).unwrap_or_default();
        }
        "protocol" => {
            let kinds = [("http1", Protocol::Http1), ("h2c", Protocol::H2c)];
            service.protocol = reader.choice(entry, &kinds).unwrap_or_default();
        }
        "sticky" => service.sticky = sticky(reader, entry),
        "health" => service.health = health(reader, entry),
        "ejection" => service.ejection = ejection(reader, entry),
        "slow_start" => service.slow_start_ms = reader.milliseconds(entry).unwrap_or_default(),
        "response_timeout" => service.response_timeout_ms = reader.milliseconds(entry),
        "closed" => service.admission = closed(reader, entry),
        _ => service.admission = hold(reader, entry).unwrap_or_default(),
    }
}

/// Addresses, each alone or with a weight. One scheme before an address says what they speak.
fn targets(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> (Vec<Target>, Protocol) {
    let (mut targets, mut protocols): (Vec<Target>, Vec<Protocol>) = (Vec::new(), Vec::new());
    for item in reader.items(entry) {
        let Some((target, protocol)) = target(reader, &item) else { continue };
        if targets.iter().any(|other| other.id == target.id) {
            reader.wrong(
                &item,
                format!("{} is listed twice", target.id.0),
                Some("give it more weight by { address = …, weight = 2 }"),
            );
        }
        if protocols.first().is_some_and(|first| *first != protocol) {
            reader.wrong(&item, "speaks another protocol than the first target", Some("make two services of them"));
        }
        protocols.push(protocol);
        targets.push(target);
    }
    if targets.is_empty() && entry.value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
        reader.wrong(entry, "is empty", None);
    }
    (targets, protocols.first().copied().unwrap_or_default())
}

fn target(reader: &mut Reader<'_>, item: &Entry<'_, '_>) -> Option<(Target, Protocol)> {
    if !item.is_table() {
        let (address, protocol) = target_address(reader, item)?;
        return Some((Target::new(address.to_string(), address), protocol));
    }
    let mut section = reader.sub(item, &["address", "weight", "id"])?;
    let Some(entry) = section.take("address") else {
        reader.wrong(item, "has no address", Some("write { address = \"127.0.0.1:3000\", weight = 1 }"));
        return None;
    };
    let (address, protocol) = target_address(reader, &entry)?;
    let id = section.take("id").and_then(|entry| reader.text(&entry)).map_or_else(|| address.to_string(), str::to_owned);
    let weight = section.take("weight").and_then(|entry| reader.integer(&entry, 0..=1_000_000)).unwrap_or(1);
    Some((Target { id: TargetId(id), address, weight }, protocol))
}

fn target_address(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<(std::net::SocketAddr, Protocol)> {
    let Some((scheme, rest)) = entry.value.get_ref().as_str().and_then(|text| text.split_once("://")) else {
        let address = reader.address(entry, LOCALHOST)?;
        return not_port_zero(reader, entry, address).map(|address| (address, Protocol::Http1));
    };
    let protocol = match scheme {
        "http" => Protocol::Http1,
        "h2c" => Protocol::H2c,
        _ => {
            reader.wrong(entry, "targets speak http:// or h2c://, both without TLS", None);
            return None;
        }
    };
    let Some(address) = crate::reading::socket_address(rest.trim_end_matches('/'), LOCALHOST) else {
        let message = format!("expected an IP address with a port and without a path, as {scheme}://127.0.0.1:3000");
        reader.wrong(entry, message, Some("names are not looked up; a path is added by the middleware add-prefix"));
        return None;
    };
    not_port_zero(reader, entry, address).map(|address| (address, protocol))
}

fn not_port_zero(reader: &mut Reader<'_>, entry: &Entry<'_, '_>, address: std::net::SocketAddr) -> Option<std::net::SocketAddr> {
    if address.port() == 0 || address.ip().is_unspecified() {
        reader.wrong(entry, "is nothing that can be connected to", None);
        return None;
    }
    Some(address)
}

/// `true`, a cookie's name, or a table.
fn sticky(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<Sticky> {
    let usual = |cookie: &str| Sticky {
        cookie: cookie.to_owned(),
        secure: false,
        http_only: true,
        same_site: Some(SameSite::Lax),
        max_age_s: None,
    };
    if let Some(is_on) = entry.value.get_ref().as_bool() {
        return is_on.then(|| usual("coracle_target"));
    }
    if !entry.is_table() {
        return cookie_name(reader, entry).map(usual);
    }
    let mut section = reader.sub(entry, &["cookie", "secure", "http_only", "same_site", "max_age"])?;
    let mut sticky = usual("coracle_target");
    if let Some(name) = section.take("cookie").and_then(|entry| cookie_name(reader, &entry)) {
        name.clone_into(&mut sticky.cookie);
    }
    if let Some(entry) = section.take("secure") {
        sticky.secure = reader.boolean(&entry)?;
    }
    if let Some(entry) = section.take("http_only") {
        sticky.http_only = reader.boolean(&entry)?;
    }
    if let Some(entry) = section.take("same_site") {
        let kinds = [("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];
        sticky.same_site = reader.choice(&entry, &kinds);
        if sticky.same_site == Some(SameSite::None) && !sticky.secure {
            reader.wrong(&entry, "browsers refuse such a cookie unless secure = true", None);
        }
    }
    sticky.max_age_s = section.take("max_age").and_then(|entry| reader.milliseconds(&entry)).map(|ms| ms / 1000);
    Some(sticky)
}

fn cookie_name<'a>(reader: &mut Reader<'_>, entry: &Entry<'a, '_>) -> Option<&'a str> {
    let name = reader.text(entry)?;
    // A token, RFC 6265, 4.1.1.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.bytes().all(is_token) {
        reader.wrong(entry, "is no name for a cookie", Some("letters, digits, - and _ are safe"));
    }
    Some(name)
}

/// A path, or a table.
fn health(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<HealthCheck> {
    let mut check = HealthCheck { path: String::new(), interval_ms: 10_000, timeout_ms: 5_000, status: None, host: None };
    if !entry.is_table() {
        check.path = health_path(reader, entry)?;
        return Some(check);
    }
    let mut section = reader.sub(entry, &["path", "interval", "timeout", "status", "host"])?;
    match section.take("path") {
        Some(entry) => check.path = health_path(reader, &entry)?,
        None => reader.wrong_key(entry, "has no path", Some("write path = \"/healthz\"")),
    }
    for (key, field) in [("interval", &mut check.interval_ms), ("timeout", &mut check.timeout_ms)] {
        let Some(entry) = section.take(key) else { continue };
        *field = reader.milliseconds(&entry)?;
        if *field < 100 {
            reader.wrong(&entry, "must be at least 100ms", None);
        }
    }
    check.status = section.take("status").and_then(|entry| reader.integer(&entry, 100..=599));
    check.host = section.take("host").and_then(|entry| reader.text(&entry)).map(str::to_owned);
    Some(check)
}

fn health_path(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<String> {
    let path = reader.text(entry)?;
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        reader.wrong(entry, "is no path, as /healthz", None);
    }
    Some(path.to_owned())
}

/// `true`, or a table.
fn ejection(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<Ejection> {
    let mut ejection = Ejection { failures: 5, for_ms: 10_000 };
    if let Some(is_on) = entry.value.get_ref().as_bool() {
        return is_on.then_some(ejection);
    }
    let mut section = reader.sub(entry, &["failures", "for"])?;
    if let Some(entry) = section.take("failures") {
        ejection.failures = reader.integer(&entry, 1..=1_000_000)?;
    }
    if let Some(entry) = section.take("for") {
        ejection.for_ms = reader.milliseconds(&entry)?;
    }
    Some(ejection)
}

/// `true`, what clients are told, or a table.
fn closed(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Admission {
    let usual = |message: &str| Admission::Closed { message: message.to_owned(), retry_after_s: 60 };
    match entry.value.get_ref().as_bool() {
        Some(true) => return usual("closed for now"),
        Some(false) => return Admission::Open,
        None => {}
    }
    if !entry.is_table() {
        return reader.text(entry).map(usual).unwrap_or_default();
    }
    let Some(mut section) = reader.sub(entry, &["message", "retry_after"]) else { return Admission::Open };
    let message = section.take("message").and_then(|entry| reader.text(&entry)).unwrap_or("closed for now");
    let retry_after_s =
        section.take("retry_after").and_then(|entry| reader.milliseconds(&entry)).map_or(60, |ms| ms.div_ceil(1000));
    Admission::Closed { message: message.to_owned(), retry_after_s }
}

fn hold(reader: &mut Reader<'_>, entry: &Entry<'_, '_>) -> Option<Admission> {
    let mut section = reader.sub(entry, &["deadline", "max_waiting"])?;
    let deadline = section.take("deadline").map(|entry| reader.milliseconds(&entry));
    let max_waiting = section.take("max_waiting").map(|entry| reader.integer(&entry, 1..=1_000_000));
    Some(Admission::Hold { deadline_ms: deadline.unwrap_or(Some(30_000))?, max_waiting: max_waiting.unwrap_or(Some(1_000))? })
}
