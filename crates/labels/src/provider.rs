//! From containers to a configuration, as Traefik's Docker provider goes about it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use crate::configuration::{Configuration, Kind, Problem};
use crate::container::{Container, NetworkMode, Port, Status};
use crate::decode::decode;
use crate::dynamic::{Labels, LoadBalancer, Router, Server, Service, StreamService};
use crate::merge::{Said, merge};
use crate::node::Node;
use crate::options::{Exposure, Options};

/// The labels that are looked at beside those of [`Own`]; whatever else begins with `traefik.` is nobody's affair.
const PREFIXES: &[&str] = &["traefik.http", "traefik.tcp", "traefik.udp", "traefik.tls.stores.default"];

/// How much of a container's id names it beside its name: as much as engines show.
const SHORT_ID: usize = 12;

/// What the labels of all containers come to. The order of `containers` makes no difference.
pub fn configure(containers: &[Container], options: &Options) -> Configuration {
    let mut said = BTreeMap::new();
    let mut problems = Vec::new();
    for container in containers {
        let mut one = One { container, options, own: Own::default(), problems: &mut problems };
        match one.says() {
            Ok(http) => {
                said.insert(container.key(), Said { container: container.name.clone(), http });
            }
            Err(Aside { kind, about, message }) => problems.push(Problem::new(kind, &container.name, about, message)),
        }
    }
    merge(said, problems)
}

/// Why a container is left aside.
struct Aside {
    kind: Kind,
    about: Option<String>,
    message: String,
}

impl Aside {
    fn ignored(message: impl Into<String>) -> Self {
        Self { kind: Kind::Ignored, about: None, message: message.into() }
    }

    fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, about: None, message: message.into() }
    }

    fn about(self, about: String) -> Self {
        Self { about: Some(about), ..self }
    }
}

/// Labels about the container itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Own {
    enable: Option<bool>,
    docker: Docker,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Docker {
    network: Option<String>,
    #[serde(rename = "lbswarm")]
    lb_swarm: bool,
    #[serde(rename = "allownonrunning")]
    allow_non_running: bool,
}

/// One container, while it is looked at.
struct One<'a> {
    container: &'a Container,
    options: &'a Options,
    own: Own,
    problems: &'a mut Vec<Problem>,
}

impl One<'_> {
    fn says(&mut self) -> Result<crate::dynamic::Http, Aside> {
        let labels = &self.container.labels;
        let own = Node::of(labels, &["traefik.docker.", "traefik.enable"]).map_err(|error| Aside::refused(error.to_string()))?;
        self.own = decode(&own).map_err(|error| Aside::refused(error.to_string()))?;
        self.is_kept()?;
        let root = Node::of(labels, PREFIXES).map_err(|error| Aside::refused(error.to_string()))?;
        let Labels { mut http, tcp, udp, tls } = decode(&root).map_err(|error| Aside::refused(error.to_string()))?;
        self.name_misspelt();
        if self.own.docker.lb_swarm {
            self.unsupported(None, "traefik.docker.lbswarm has no effect: there is no Swarm here");
        }
        if !tls.stores.is_empty() {
            self.unsupported(
                None,
                "traefik.tls.stores has no effect: the proxy's own options say which certificate is the usual one",
            );
        }
        let streams = [("tcp", tcp.is_there(), &tcp.services), ("udp", udp.is_there(), &udp.services)];
        for (protocol, _, services) in streams.iter().filter(|(_, is_there, _)| *is_there) {
            self.refuse_stream(protocol, services)?;
        }
        let only_streams = http.routers.is_empty() && http.middlewares.is_empty() && http.services.is_empty();
        if streams.iter().any(|(_, is_there, _)| *is_there) && only_streams {
            return Ok(http);
        }
        self.build_services(&mut http.services)?;
        self.build_routers(&mut http.routers, &http.services);
        Ok(http)
    }

    /// Labels that nobody reads are nobody's affair (default rules may ask for them), unless they look like a slip.
    fn name_misspelt(&mut self) {
        let known = ["http", "tcp", "udp", "tls", "docker", "enable"];
        for label in self.container.labels.keys() {
            let mut names = label.split('.').map(str::to_lowercase);
            let Some(second) = names.next().filter(|root| root == "traefik").and_then(|_| names.next()) else { continue };
            let nearest = known.iter().find(|known| strsim::damerau_levenshtein(known, &second) == 1);
            if let Some(nearest) = nearest.filter(|_| !known.contains(&second.as_str())) {
                let message = format!("nobody reads the label {label:?}; did you mean traefik.{nearest}?");
                self.problems.push(Problem::new(Kind::Unsupported, &self.container.name, None, message));
            }
        }
    }

    fn is_kept(&self) -> Result<(), Aside> {
        let names = || self.container.labels.keys();
        let is_labelled = || names().any(|name| name.get(..13).is_some_and(|start| start.eq_ignore_ascii_case("traefik.http.")));
        let exposed = match (self.own.enable, self.options.exposure) {
            (Some(enable), _) => enable,
            (None, Exposure::All) => true,
            (None, Exposure::Labelled) => is_labelled(),
        };
        if !exposed {
            return Err(Aside::ignored(match self.own.enable {
                Some(_) => "traefik.enable is false",
                None => "it has neither traefik.enable=true nor a label that begins with traefik.http.",
            }));
        }
        if self.options.constraints.as_ref().is_some_and(|constraints| !constraints.matches(&self.container.labels)) {
            return Err(Aside::ignored("its labels do not match the constraints"));
        }
        if self.container.status != Status::Running && !self.own.docker.allow_non_running {
            return Err(Aside::ignored("it does not run"));
        }
        if !self.container.is_well() && !self.options.allow_empty_services {
            return Err(Aside::ignored("it is not healthy"));
        }
        Ok(())
    }

    /// Whether the container is a server of its services, and not only their name.
    fn serves(&self) -> bool {
        self.container.is_well() && self.container.status == Status::Running
    }

    /// Whatever would make Traefik leave the container aside does so here as well; then it is said that nothing comes of it.
    fn refuse_stream(&mut self, protocol: &str, services: &BTreeMap<String, StreamService>) -> Result<(), Aside> {
        for (name, service) in services.iter().filter(|_| self.serves()) {
            let about = format!("{protocol} service {name}");
            let load_balancer = service.load_balancer.as_ref();
            let Some(load_balancer) = load_balancer else {
                return Err(Aside::refused("it has no load balancer").about(about));
            };
            let port = load_balancer.server.as_ref().map_or("", |server| server.port.as_str());
            self.address(port).map_err(|aside| aside.about(about))?;
        }
        if services.is_empty() && self.serves() {
            self.address("").map_err(|aside| aside.about(format!("{protocol} service {}", self.container.service_name())))?;
        }
        let message = format!("traefik.{protocol} labels have no effect: the proxy serves HTTP only");
        self.unsupported(None, message);
        Ok(())
    }

    fn build_services(&mut self, services: &mut BTreeMap<String, Service>) -> Result<(), Aside> {
        if services.is_empty() {
            let service = Service { load_balancer: Some(LoadBalancer::default()), ..Service::default() };
            services.insert(self.container.service_name(), service);
        }
        if !self.serves() {
            services.values_mut().filter_map(|service| service.load_balancer.as_mut()).for_each(|it| it.servers.clear());
            return Ok(());
        }
        for (name, service) in services {
            let about = || format!("service {name}");
            let Some(load_balancer) = &mut service.load_balancer else {
                let asked = [("weighted", &service.weighted), ("mirroring", &service.mirroring), ("failover", &service.failover)];
                let asked = asked.iter().find(|(_, asked)| asked.is_some());
                return Err(Aside::refused(match asked {
                    Some((kind, _)) => format!("labels can make a loadbalancer, and no {kind} service"),
                    None => "it has no loadbalancer".to_owned(),
                })
                .about(about()));
            };
            if load_balancer.servers.is_empty() {
                load_balancer.servers.push(Server::default());
            }
            self.complete(&mut load_balancer.servers[0]).map_err(|aside| aside.about(about()))?;
        }
        Ok(())
    }

    /// Makes the URL of the server that the container is.
    fn complete(&self, server: &mut Server) -> Result<(), Aside> {
        let short: String = self.container.id.chars().take(SHORT_ID).collect();
        server.container = format!("{}.{short}", self.container.name);
        let (scheme, port) = (std::mem::take(&mut server.scheme), std::mem::take(&mut server.port));
        if !server.url.is_empty() {
            return match scheme.is_empty() && port.is_empty() {
                true => Ok(()),
                false => Err(Aside::refused("server.url cannot be given together with server.scheme or server.port")),
            };
        }
        let (ip, port) = self.address(&port)?;
        let scheme = if scheme.is_empty() { "http" } else { &scheme };
        server.url = match ip {
            IpAddr::V4(ip) => format!("{scheme}://{ip}:{port}"),
            IpAddr::V6(ip) => format!("{scheme}://[{ip}]:{port}"),
        };
        Ok(())
    }

    /// Where the container is reached: at the port that a label names, or else at the lowest that it exposes.
    fn address(&self, port: &str) -> Result<(IpAddr, String), Aside> {
        let exposed = self.container.ports.iter().min_by_key(|port| port.number);
        let port = match (port, exposed) {
            ("", Some(exposed)) => exposed.number.to_string(),
            (port, _) => port.to_owned(),
        };
        if let Some(bound) = self.bound(&port) {
            return Ok(bound);
        }
        let ip = self.ip().ok_or_else(|| Aside::refused("it has no address in any network"))?;
        match port.is_empty() {
            true => Err(Aside::ignored("it exposes no port, and loadbalancer.server.port names none")),
            false => Ok((ip, port)),
        }
    }

    /// Where on the machine a port is published, if that is what counts and it is at one address.
    fn bound(&self, port: &str) -> Option<(IpAddr, String)> {
        let is_it = |exposed: &&Port| exposed.number.to_string() == port && matches!(exposed.protocol.as_str(), "tcp" | "udp");
        let exposed = self.container.ports.iter().filter(|_| self.options.use_bind_port_ip).find(is_it)?;
        let binding = exposed.bindings.first()?;
        let ip = binding.ip.filter(|ip| *ip != IpAddr::from([0, 0, 0, 0]))?;
        Some((ip, binding.port.to_string()))
    }

    fn ip(&self) -> Option<IpAddr> {
        let wanted = self.own.docker.network.as_ref().or(self.options.network.as_ref()).filter(|name| !name.is_empty());
        if let Some(addresses) = wanted.and_then(|name| self.container.networks.get(name)) {
            return *addresses;
        }
        match self.container.network_mode {
            NetworkMode::Host => Some(IpAddr::from([127, 0, 0, 1])),
            NetworkMode::Own => self.container.networks.values().find_map(|address| *address),
        }
    }

    fn build_routers(&mut self, routers: &mut BTreeMap<String, Router>, services: &BTreeMap<String, Service>) {
        let only = services.keys().next().filter(|_| services.len() == 1);
        if routers.is_empty() {
            match only {
                Some(_) => drop(routers.insert(self.container.service_name(), Router::default())),
                None => self.refuse(None, "no router is made for it: it has several services, so a router has to name one"),
            }
        }
        routers.retain(|name, router| {
            let refusal = self.complete_router(router, only).err();
            refusal.is_none_or(|why| {
                self.refuse(Some(format!("router {name}")), why);
                false
            })
        });
    }

    fn complete_router(&self, router: &mut Router, only: Option<&String>) -> Result<(), String> {
        if router.rule.is_empty() {
            let made = self.options.default_rule.render(self.container);
            router.rule = made.map_err(|error| format!("the default rule cannot be made for it: {error}"))?;
            router.default_rule = true;
            if router.rule.is_empty() {
                return Err("it has no rule, and the default rule is empty".to_owned());
            }
        }
        if router.service.is_empty() {
            let only = only.ok_or("the container has several services: name one by the router's `service`")?;
            router.service.clone_from(only);
        }
        Ok(())
    }

    fn refuse(&mut self, about: Option<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(Kind::Refused, &self.container.name, about, message));
    }

    fn unsupported(&mut self, about: Option<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(Kind::Unsupported, &self.container.name, about, message));
    }
}
