//! A running compose project beside the app that its files describe: what of it is what, what the app takes over, and what
//! people have to know before that happens.

use std::collections::BTreeSet;
use std::net::IpAddr;

use coracle_api::{Problem, ProblemKind};
use coracle_engine::Predecessor;
use coracle_model::container::BindSource;
use coracle_model::{Adopted, AdoptedMount, AdoptedPort, AppName, AppSpec, Exposure, ProcessName};

use super::record::{Door, Kept, Record};

/// How long a container may take to end that does not say.
const GRACE_MS: u64 = 10_000;

/// A project on the engine.
pub(super) struct Project {
    pub(super) name: String,
    /// Its containers, also those that do not run.
    pub(super) containers: Vec<Predecessor>,
    /// Its volumes: as the engine calls them, by what its files call them.
    pub(super) volumes: std::collections::BTreeMap<String, String>,
}

impl Project {
    /// What the app takes over.
    pub(super) fn adopted(&self, spec: &AppSpec) -> Result<Adopted, Problem> {
        let mut adopted = Adopted { project: self.name.clone(), ..Adopted::default() };
        for (_, part) in spec.parts() {
            for volume in part.volumes.iter().filter(|volume| volume.external.is_none()) {
                let known = self.volumes.iter().find(|(name, _)| name.eq_ignore_ascii_case(volume.name.as_str()));
                adopted.volumes.extend(known.map(|(_, real)| (volume.name.clone(), real.clone())));
            }
        }
        for container in &self.containers {
            let part = self.part_of(spec, container)?;
            self.adopt_mounts(spec, container, &part, &mut adopted);
            if container.running {
                adopted.ports.extend(ports(spec, container, &part));
            }
        }
        adopted.ports.sort();
        adopted.ports.dedup();
        Ok(adopted)
    }

    fn adopt_mounts(&self, spec: &AppSpec, container: &Predecessor, part: &ProcessName, adopted: &mut Adopted) {
        let Some(described) = spec.part(part) else { return };
        for mounted in &container.mounts {
            let path = mounted.path.clone();
            let what = match &mounted.volume {
                Some(name) => match described.volumes.iter().find(|volume| volume.path == path) {
                    // By its name, so that others who mount it find it too.
                    Some(volume) if volume.external.is_none() => {
                        adopted.volumes.entry(volume.name.clone()).or_insert_with(|| name.clone());
                        continue;
                    }
                    Some(_) => continue,
                    None => AdoptedMount::Volume(name.clone()),
                },
                None => {
                    let is_kept = |bind: &&coracle_model::container::BindMount| {
                        bind.path == path && !bind.read_only && matches!(bind.source, BindSource::Kept(_))
                    };
                    match described.container.binds.iter().find(is_kept) {
                        Some(_) => AdoptedMount::Directory(mounted.source.clone()),
                        None => continue,
                    }
                }
            };
            adopted.mounts.entry(part.clone()).or_default().insert(path, what);
        }
    }

    /// What is written down of it. The containers that do not run need nothing done to them.
    pub(super) fn record(&self, app: &AppName, spec: &AppSpec, adopted: &Adopted, remove_old: bool) -> Result<Record, Problem> {
        let mut containers = Vec::new();
        for container in self.containers.iter().filter(|container| container.running) {
            let part = self.part_of(spec, container)?;
            let own = ports(spec, container, &part);
            containers.push(Kept {
                id: container.id.clone(),
                name: container.name.clone(),
                restart: container.restart.clone(),
                grace_ms: container.grace.map_or(GRACE_MS, |grace| grace.as_millis() as u64),
                target: target(spec, &part).filter(|_| !own.is_empty()),
                listeners: own.iter().map(AdoptedPort::listener).collect(),
                part,
            });
        }
        let door =
            |port: &AdoptedPort| Door { listener: port.listener(), address: port.address, port: port.port, temporary: None };
        let doors = adopted.ports.iter().map(door).collect();
        Ok(Record { app: app.clone(), project: self.name.clone(), release: None, remove_old, containers, doors })
    }

    /// The part of the app that a container is: the one that is called as its service is.
    fn part_of(&self, spec: &AppSpec, container: &Predecessor) -> Result<ProcessName, Problem> {
        let service = container.service.as_str();
        let named = service.parse().ok().filter(|name| spec.part(name).is_some());
        // A service whose name no process can have keeps it as an alias.
        let by_alias = || spec.parts().find(|(_, part)| part.container.aliases.iter().any(|alias| alias == service));
        named.or_else(|| by_alias().map(|(name, _)| name.clone())).ok_or_else(|| {
            let detail = format!(
                "{} of the project {} is a service {service}, which the files do not describe",
                container.name, self.name
            );
            Problem::new(ProblemKind::Invalid, detail).hint(format!(
                "name the files and profiles that it was started with (-f, --profile), or remove it: docker rm -f {}",
                container.name
            ))
        })
    }

    /// What is going to happen, for the person who asked; one sentence each.
    pub(super) fn notes(
        &self,
        spec: &AppSpec,
        adopted: &Adopted,
        in_front: bool,
        remove_old: bool,
    ) -> Result<Vec<String>, Problem> {
        let mut notes = vec![format!("takes the place of the compose project {}, which serves until then", self.name)];
        let running: BTreeSet<ProcessName> = self
            .containers
            .iter()
            .filter(|container| container.running)
            .map(|container| self.part_of(spec, container))
            .collect::<Result<_, _>>()?;
        for name in adopted.volume_names() {
            notes.push(format!("the volume {name} is used as it is, nothing is copied; `coracle destroy` leaves it"));
        }
        let directories = adopted.mounts.values().flatten().filter_map(|(_, mount)| match mount {
            AdoptedMount::Directory(source) => Some(source),
            AdoptedMount::Volume(_) => None,
        });
        notes.extend(directories.map(|source| format!("the directory {source} is used where it is, nothing is copied")));
        let data: Vec<&str> = spec.services.keys().filter(|name| running.contains(*name)).map(ProcessName::as_str).collect();
        if !data.is_empty() {
            let names = data.join(", ");
            notes.push(match in_front {
                true => format!("{names}: stops in the project and starts in the app, on the same data; requests wait in the proxy from then until the release is healthy"),
                false => format!("{names}: stops in the project and starts in the app, on the same data; what needs it in the project fails from then until the switch"),
            });
        }
        for (name, part) in spec.parts() {
            let fresh =
                part.volumes.iter().filter(|volume| volume.external.is_none() && !adopted.volumes.contains_key(&volume.name));
            notes.extend(
                fresh.map(|volume| {
                    format!("{name} begins with an empty volume {}: the project has none of that name", volume.name)
                }),
            );
            if !running.contains(name) {
                notes.push(format!("{name} does not run in the project; it is started"));
            }
        }
        notes.extend(self.notes_on_ports(spec, adopted, in_front));
        notes.push(match remove_old {
            true => format!("afterwards the containers of {} are removed; volumes and networks stay", self.name),
            false => format!(
                "afterwards the containers of {} are stopped and kept, and do not start by themselves any more",
                self.name
            ),
        });
        Ok(notes)
    }

    fn notes_on_ports(&self, spec: &AppSpec, adopted: &Adopted, in_front: bool) -> Vec<String> {
        let mut notes = Vec::new();
        for port in &adopted.ports {
            let at = port.address.map_or_else(|| format!("port {}", port.port), |address| format!("{address}:{}", port.port));
            notes.push(match in_front {
                true => format!(
                    "{at} goes on leading to {}: new connections are led to the proxy by a rule before Docker's, without a gap (IPv4; over IPv6 \
                     until the old container stops); connections that are open then have 10 s to end",
                    port.part
                ),
                false => format!(
                    "{at} goes on leading to {}; connections are refused for the moment between the old container's end and the proxy's \
                     beginning, since this server may not change iptables",
                    port.part
                ),
            });
        }
        notes.extend(self.notes_on_ipv6(spec));
        if !adopted.ports.is_empty() {
            notes.push("a firewall that Docker's published ports went past (ufw, firewalld) applies to the proxy: allow these ports there".to_owned());
        }
        for (name, part) in spec.parts() {
            for port in part.container.ports.iter().filter(|port| port.address.is_none()) {
                if let Some(host) = port.host.filter(|host| self.publishes_openly(*host)) {
                    notes.push(format!("port {host} of {name} is reached from this machine only afterwards; write 0.0.0.0:{host} in the file to keep it open"));
                }
            }
        }
        notes
    }

    /// The proxy takes over ports of IPv4. What is published for requests over IPv6 alone is reached at the app's hosts
    /// afterwards, and no longer at its port.
    fn notes_on_ipv6(&self, spec: &AppSpec) -> Vec<String> {
        let mut notes = Vec::new();
        for container in self.containers.iter().filter(|container| container.running) {
            let Ok(part) = self.part_of(spec, container) else { continue };
            let leads = container.ports.iter().filter(|port| port.protocol == "tcp" && Some(port.number) == target(spec, &part));
            for (address, port) in leads.flat_map(|port| &port.published) {
                if let Some(address) = address.filter(IpAddr::is_ipv6) {
                    notes.push(format!(
                        "[{address}]:{port} leads to {part} over IPv6 alone, which is not taken over: afterwards requests reach {part} at the \
                         app's hosts only; publish the port over IPv4, too, to keep its number"
                    ));
                }
            }
        }
        notes
    }

    fn publishes_openly(&self, host: u16) -> bool {
        let published = self.containers.iter().flat_map(|container| &container.ports).flat_map(|port| &port.published);
        published.into_iter().any(|(address, port)| *port == host && address.is_none())
    }
}

/// The port inside by which the proxy reaches a part.
fn target(spec: &AppSpec, part: &ProcessName) -> Option<u16> {
    match &spec.part(part)?.exposure {
        Exposure::Http(http) => http.port,
        Exposure::Labels { port } => *port,
        _ => None,
    }
}

/// The ports of the machine that lead to what the proxy will lead requests to. Others are published by the engine, as before.
fn ports(spec: &AppSpec, container: &Predecessor, part: &ProcessName) -> Vec<AdoptedPort> {
    let target = target(spec, part);
    let leads = container.ports.iter().filter(|port| port.protocol == "tcp" && Some(port.number) == target);
    let published: BTreeSet<(Option<IpAddr>, u16)> = leads.flat_map(|port| port.published.iter().copied()).collect();
    // What is published at all addresses of IPv4 and of IPv6 is one port to us; of IPv6 alone it stays Docker's word.
    let of_ipv4 = published.into_iter().filter(|(address, _)| address.is_none_or(|address| address.is_ipv4()));
    of_ipv4.map(|(address, port)| AdoptedPort { part: part.clone(), address, port }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use coracle_engine::{ExposedPort, Health, Restart};
    use coracle_model::{HttpSpec, ProcessSpec};

    use super::*;

    #[test]
    fn what_is_published_over_ipv6_alone_is_not_taken_over_in_silence() {
        let mut spec = AppSpec::named("shop".parse().unwrap());
        let http = HttpSpec { port: Some(80), ..HttpSpec::default_for(&spec.app) };
        let web = ProcessSpec { exposure: Exposure::Http(Box::new(http)), ..ProcessSpec::default() };
        spec.processes.insert("web".parse().unwrap(), web);
        let published = vec![("::1".parse().ok(), 8080), ("127.0.0.1".parse().ok(), 8081)];
        let web = Predecessor {
            id: "abc".to_owned(),
            name: "shop-web-1".to_owned(),
            project: "shop".to_owned(),
            service: "web".to_owned(),
            number: 1,
            working_dir: None,
            config_files: Vec::new(),
            environment_files: Vec::new(),
            running: true,
            health: Health::Unchecked,
            mounts: Vec::new(),
            addresses: Vec::new(),
            ports: vec![ExposedPort { number: 80, protocol: "tcp".to_owned(), published }],
            restart: Restart::default(),
            grace: None,
        };
        let project = Project { name: "shop".to_owned(), containers: vec![web], volumes: Default::default() };
        let adopted = project.adopted(&spec).unwrap();
        assert_eq!(adopted.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [8081]);
        let notes = project.notes(&spec, &adopted, true, false).unwrap();
        assert!(notes.iter().any(|note| note.starts_with("[::1]:8080 leads to web over IPv6 alone")), "{notes:?}");
    }
}
