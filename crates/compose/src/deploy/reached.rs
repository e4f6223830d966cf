//! Who sends requests to which service, and which ports of the machine lead to one.
//!
//! A service with `traefik.*` labels is routed as they say. Otherwise a published port that speaks HTTP becomes a route:
//! requests come through the proxy, which moves them from release to release, and the machine's port itself is not taken.
//! The first such service is the app to the world; others are reached at `<service>.<host>`. Every other published port
//! leads into the container from the machine's loopback, or from where the file says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use coracle_model::container::{PublishedPort, Transport};
use coracle_model::{Exposure, HostPattern, HttpSpec, ProcessName};
use serde_json::Value;

use super::{Made, Maker};
use crate::service::{Port, Service};

/// Ports inside of which something else than HTTP without TLS is known to be spoken.
const NOT_HTTP: [u16; 40] = [
    20, 21, 22, 23, 25, 53, 110, 111, 123, 143, 161, 389, 443, 445, 465, 587, 636, 853, 993, 995, 1194, 1433, 1521, 1883, 2049,
    2181, 3306, 3389, 5222, 5432, 5671, 5672, 6379, 8443, 8883, 9042, 9092, 11211, 27017, 51820,
];

/// Names that people give to the service that is the app to the world.
const FRONTS: [&str; 10] = ["web", "app", "frontend", "client", "nginx", "proxy", "site", "www", "server", "ui"];

/// What stands behind `traefik.http.services.NAME.` and names the port.
const LABELLED_PORT: &str = ".loadbalancer.server.port";

impl Maker<'_> {
    /// Two services that want one port of the machine cannot both have it, wherever it leads.
    pub(super) fn check_ports(&mut self) {
        let mut taken: BTreeMap<&str, Vec<(&str, &Port)>> = BTreeMap::new();
        let mut clashes = Vec::new();
        for (name, service) in &self.project.services {
            for (index, port) in service.ports.iter().enumerate() {
                let Some(published) = port.published.as_deref() else { continue };
                let taken = taken.entry(published).or_default();
                let clash = taken.iter().find(|(other, known)| *other != name && collide(known, port));
                if let Some((other, _)) = clash {
                    clashes.push((
                        name.clone(),
                        index,
                        format!("{other} publishes the port {published} of this machine as well"),
                    ));
                }
                taken.push((name, port));
                self.claimed.extend(published.parse().ok().map(|number: u16| (port.protocol.clone(), number)));
            }
        }
        for (name, index, message) in clashes {
            self.wrong(&["services", &name, "ports", &index.to_string()], message);
        }
    }

    /// Decides about every part.
    pub(super) fn expose(&mut self, hosts: &[HostPattern], made: &mut BTreeMap<ProcessName, Made>) {
        let services: Vec<(String, ProcessName)> = self.names.clone().into_iter().collect();
        let mut by_port: Vec<(String, ProcessName, u16)> = Vec::new();
        for (service, name) in &services {
            let Some(definition) = self.project.services.get(service) else { continue };
            let Some(Made { part, keeps, .. }) = made.get_mut(name) else { continue };
            let word = Self::word_of(definition, "http");
            let http = http_port(definition, *keeps);
            let routed = match word {
                Some(Value::Bool(false)) => false,
                Some(Value::Object(own)) => {
                    let spec = self.own_http(service, &own, http.map(|port| port.target), hosts);
                    part.exposure = Exposure::Http(Box::new(spec));
                    true
                }
                Some(_) => {
                    self.wrong(
                        &["services", service, "x-coracle", "http"],
                        "must be false, or say hosts, port, health, path_prefix",
                    );
                    false
                }
                None if is_labelled(definition) => {
                    part.exposure = Exposure::Labels { port: labelled_port(definition).or(http.map(|port| port.target)) };
                    true
                }
                None => {
                    by_port.extend(http.map(|port| (service.clone(), name.clone(), port.target)));
                    if let Some(port) = inner_port(definition).filter(|_| http.is_none() && !*keeps) {
                        part.exposure = Exposure::Inside { port };
                    }
                    http.is_some()
                }
            };
            let kept = definition.ports.iter().enumerate();
            let kept = kept.filter(|(_, port)| !routed || !http.is_some_and(|http| same_target(http, port)));
            let kept: Vec<PublishedPort> = kept.filter_map(|(at, port)| self.published(service, at, port)).collect();
            part.container.ports = kept;
        }
        self.route_by_port(hosts, by_port, made);
    }

    fn route_by_port(
        &mut self,
        hosts: &[HostPattern],
        mut by_port: Vec<(String, ProcessName, u16)>,
        made: &mut BTreeMap<ProcessName, Made>,
    ) {
        // Those that work behind others come after those that are in front, whatever their names.
        let front = |name: &ProcessName| FRONTS.iter().position(|front| name.as_str() == *front).unwrap_or(FRONTS.len());
        by_port.sort_by_key(|(service, name, _)| (self.lowest_published(service), front(name), name.clone()));
        for (index, (service, name, port)) in by_port.into_iter().enumerate() {
            let hosts: Vec<HostPattern> = match index {
                0 => hosts.to_vec(),
                _ => hosts.iter().filter_map(|host| beside(&name, host)).collect(),
            };
            let shown = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            self.notes.push(format!("{service} is reached at {shown}, since it publishes port {port}"));
            if let Some(Made { part, .. }) = made.get_mut(&name) {
                part.exposure = Exposure::Http(Box::new(http_at(hosts, Some(port))));
            }
        }
    }

    /// Port 80 of the machine before all others: whoever has it is meant to be in front.
    fn lowest_published(&self, service: &str) -> bool {
        let ports = self.project.services.get(service).map(|service| service.ports.as_slice()).unwrap_or_default();
        !ports.iter().any(|port| matches!(port.published.as_deref(), Some("80" | "443")))
    }

    fn own_http(
        &mut self,
        service: &str,
        own: &serde_json::Map<String, Value>,
        port: Option<u16>,
        hosts: &[HostPattern],
    ) -> HttpSpec {
        let mut spec = http_at(hosts.to_vec(), port);
        for (key, value) in own {
            let path = ["services", service, "x-coracle", "http", key.as_str()];
            match key.as_str() {
                "hosts" => {
                    let named = value.as_array().into_iter().flatten().map(|host| host.as_str().unwrap_or_default().parse());
                    spec.hosts = self.read(&path, named.collect::<Result<_, _>>()).unwrap_or(spec.hosts);
                }
                "port" => spec.port = self.read(&path, serde_json::from_value(value.clone())),
                "health" => spec.health = value.as_str().filter(|path| path.starts_with('/')).map(str::to_owned),
                "path_prefix" => spec.path_prefix = value.as_str().unwrap_or("/").to_owned(),
                "strip_prefix" => spec.strip_prefix = value.as_bool().unwrap_or(false),
                _ => self.wrong(&path, "unknown key; known here: hosts, port, health, path_prefix, strip_prefix"),
            }
        }
        spec
    }

    fn published(&mut self, service: &str, at: usize, port: &Port) -> Option<PublishedPort> {
        let at = at.to_string();
        let path = ["services", service, "ports", at.as_str()];
        let protocol = match port.protocol.as_str() {
            "" | "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            "sctp" => Transport::Sctp,
            other => {
                self.wrong(&path, format!("{other:?} is no protocol"));
                return None;
            }
        };
        let address = match port.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
            None => None,
            Some(text) => Some(self.read(&path, text.trim_matches(['[', ']']).parse::<IpAddr>())?),
        };
        let host = match port.published.as_deref().filter(|text| !text.is_empty()) {
            None => None,
            Some(published) => Some(self.number(&path, published, &port.protocol)?),
        };
        Some(PublishedPort { target: port.target, protocol, host, address })
    }

    /// The port of the machine that is published. Of a range it is the first that nothing else in the file has: what is free
    /// on the machine may be another one with every release, and a service that differs is a service that is replaced.
    fn number(&mut self, path: &[&str], published: &str, protocol: &str) -> Option<u16> {
        let (first, last) = published.split_once('-').unwrap_or((published, published));
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else {
            self.wrong(path, format!("{published:?} is no port of this machine"));
            return None;
        };
        if first == last {
            return Some(first);
        }
        let free = (first..=last).find(|number| !self.claimed.contains(&(protocol.to_owned(), *number)));
        match free {
            Some(number) => {
                self.claimed.insert((protocol.to_owned(), number));
                self.notes.push(format!("{} is published at port {number}, the first of {published}", path[1]));
            }
            None => self.wrong(path, format!("every port of {published} is published by something else in this file")),
        }
        free
    }
}

/// The port by which requests of the web reach a service: the one that speaks HTTP most likely. What keeps data is a web
/// app only if its port is one that browsers are sent to.
fn http_port(service: &Service, keeps_data: bool) -> Option<&Port> {
    let is_open = |port: &&Port| matches!(port.protocol.as_str(), "" | "tcp");
    let says_so = |port: &&Port| port.app_protocol.as_deref().is_some_and(|protocol| protocol.starts_with("http"));
    let may_be = |port: &&Port| {
        let of_browsers = matches!(port.target, 80 | 8000 | 8080 | 8888 | 3000 | 5000 | 9000);
        !NOT_HTTP.contains(&port.target) && (!keeps_data || of_browsers)
    };
    let mut open = service.ports.iter().filter(is_open);
    open.clone().find(says_so).or_else(|| open.find(may_be))
}

fn same_target(one: &Port, other: &Port) -> bool {
    one.target == other.target && one.protocol == other.protocol
}

fn collide(one: &Port, other: &Port) -> bool {
    let everywhere = |port: &Port| matches!(port.host_ip.as_deref(), None | Some("" | "0.0.0.0" | "::"));
    let same_address = one.host_ip == other.host_ip || everywhere(one) || everywhere(other);
    let is_fixed = one.published.as_deref().is_some_and(|published| !published.contains('-'));
    is_fixed && one.published == other.published && one.protocol == other.protocol && same_address
}

fn http_at(hosts: Vec<HostPattern>, port: Option<u16>) -> HttpSpec {
    HttpSpec {
        hosts,
        path_prefix: "/".to_owned(),
        strip_prefix: false,
        port,
        health: None,
        tls: Default::default(),
        redirect: None,
        canonical_host: None,
        middlewares: Vec::new(),
    }
}

/// `api.shop.localhost` for the service `api` beside `shop.localhost`.
fn beside(name: &ProcessName, host: &HostPattern) -> Option<HostPattern> {
    let label = name.as_str().replace(['_', '.'], "-");
    (!host.as_str().contains('*')).then(|| format!("{label}.{host}").parse().ok()).flatten()
}

/// Whether Traefik would route a service.
fn is_labelled(service: &Service) -> bool {
    let is = |key: &str, prefix: &str| key.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let enabled = service.labels.iter().find(|(key, _)| key.eq_ignore_ascii_case("traefik.enable")).map(|(_, value)| value);
    let routed = service.labels.keys().any(|key| is(key, "traefik.http."));
    match enabled {
        Some(value) => value.eq_ignore_ascii_case("true") || value == "1",
        None => routed,
    }
}

fn labelled_port(service: &Service) -> Option<u16> {
    let labelled = service.labels.iter().find(|(key, _)| key.to_ascii_lowercase().ends_with(LABELLED_PORT));
    labelled.and_then(|(_, value)| value.parse().ok()).or_else(|| inner_port(service))
}

/// The first TCP port that a service says other services may ask.
fn inner_port(service: &Service) -> Option<u16> {
    service.expose.iter().find_map(|port| port.strip_suffix("/tcp").unwrap_or(port).parse().ok())
}
