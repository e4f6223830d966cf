//! Containers in a line, and questions about what becomes of them.

use coracle_labels::{Configuration, Container, Entrance, Exposure, Kind, Options, Part, Port, configure, part};
use serde_json::Value;

/// A container that runs, has port 80 and is in the network `bridge`, at an address of its own.
pub(crate) fn container(name: &str, labels: &[(&str, &str)]) -> Container {
    Container {
        id: format!("{name}-0123456789"),
        name: name.to_owned(),
        labels: labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect(),
        ports: vec![port(80)],
        networks: [("bridge".to_owned(), Some([10, 0, 0, name.bytes().last().unwrap_or(1)].into()))].into(),
        ..Container::default()
    }
}

pub(crate) fn port(number: u16) -> Port {
    Port { number, protocol: "tcp".to_owned(), bindings: Vec::new() }
}

pub(crate) fn everything() -> Options {
    Options { exposure: Exposure::All, ..Options::default() }
}

pub(crate) fn configured(containers: &[Container]) -> Configuration {
    configure(containers, &everything())
}

/// The servers' URLs of a service.
pub(crate) fn servers(configuration: &Configuration, service: &str) -> Vec<String> {
    let service = configuration.services.get(service).unwrap_or_else(|| panic!("no service {service}: {configuration:?}"));
    service.load_balancer.as_ref().unwrap().servers.iter().map(|server| server.url.clone()).collect()
}

/// `kind about: message` of each problem.
pub(crate) fn told(configuration: &Configuration) -> Vec<(Kind, String)> {
    configuration.problems.iter().map(|problem| (problem.kind, problem.to_string())).collect()
}

/// That one of what is told is of the kind and says all of the words.
#[track_caller]
pub(crate) fn assert_told(told: &[(Kind, String)], kind: Kind, words: &[&str]) {
    let is_it = |(of, text): &(Kind, String)| *of == kind && words.iter().all(|word| text.contains(word));
    assert!(told.iter().any(is_it), "nothing {} says {words:?}: {told:#?}", kind.as_str());
}

/// A machine that listens for TLS and orders certificates.
pub(crate) const OPEN: Entrance = Entrance { tls_port: Some(443), acme: true, redirect: true };

pub(crate) fn tabled(containers: &[Container], entrance: Entrance) -> Part {
    let options = everything();
    part(&configure(containers, &options), &options, entrance)
}

pub(crate) fn told_of(part: &Part) -> Vec<(Kind, String)> {
    part.problems.iter().map(|problem| (problem.kind, problem.to_string())).collect()
}

pub(crate) fn json(part: &Part) -> Value {
    serde_json::to_value(&part.table).unwrap()
}
