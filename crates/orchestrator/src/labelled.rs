//! Routes that the `traefik.*` labels of an app's own parts ask for. What labels mean is `coracle-labels`' to say; here it is
//! seen to that they lead to the instances of the active release that are healthy, and that their names are the app's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use coracle_labels::{Container, Entrance, Kind, Options, Port, Problem, configure, part};
use coracle_model::{AppName, Exposure, InstanceId, ProcessName, Release};
use coracle_proxy_table::{Admission, Middleware, MiddlewareId, Route, RouteId, Service, ServiceId, Table, Target, TargetId};

use crate::routes::{TlsOffer, place_among_manifests};
use crate::table::target_id;

/// What every name of the labels' provider ends with.
const PROVIDER: &str = "@docker";

/// Stands for a part that has no healthy instance, so that its routes are there all the same (RFC 5737: an address of nobody).
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A part of an app that labels route, with its healthy instances.
pub(crate) struct Labelled<'a> {
    pub part: &'a ProcessName,
    pub instances: Vec<(&'a InstanceId, SocketAddr)>,
    /// What becomes of requests while it has none.
    pub otherwise: Admission,
}

/// Whether labels say where requests for this part come from.
pub(crate) fn is_labelled(release: &Release, part: &ProcessName) -> bool {
    release.spec.part(part).is_some_and(|spec| matches!(spec.exposure, Exposure::Labels { .. }))
}

/// Adds what the labels of these parts come to.
pub(crate) fn add(table: &mut Table, release: &Release, parts: &[Labelled<'_>], offer: TlsOffer) {
    let mut made = routed(release, parts, offer).0;
    for service in made.services.values_mut() {
        lead_to_instances(service, parts);
    }
    made.routes.iter_mut().for_each(place_among_manifests);
    let is_new = |id: &RouteId| !table.routes.iter().any(|route| route.id == *id);
    let routes: Vec<_> = made.routes.into_iter().filter(|route| is_new(&route.id)).collect();
    table.routes.extend(routes);
    table.middlewares.extend(made.middlewares);
    table.services.extend(made.services);
}

/// What labels of a release come to, for the person who deploys it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// What of them has no effect.
    pub problems: Vec<String>,
    /// The rules that requests must match.
    pub rules: Vec<String>,
    /// Whether they ask for routes and none of these is right: nobody would reach what they lead to.
    pub lead_nowhere: bool,
}

/// What the labels of a release come to.
pub(crate) fn told(release: &Release, offer: TlsOffer) -> Told {
    let (table, problems) = without_instances(release, offer);
    let is_wrong = |problem: &Problem| matches!(problem.kind, Kind::Refused | Kind::Conflict);
    Told {
        lead_nowhere: table.routes.is_empty() && problems.iter().any(is_wrong),
        problems: problems.iter().map(ToString::to_string).collect(),
        rules: table.routes.into_iter().map(|route| route.rule).collect(),
    }
}

/// The names by which requests come to the labelled parts of a release, each once.
pub(crate) fn hosts(release: &Release) -> Vec<String> {
    let (table, _) = without_instances(release, TlsOffer::default());
    let mut hosts: Vec<String> = Vec::new();
    for host in table.routes.iter().flat_map(coracle_labels::hosts_of) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// What labels come to, with services that nobody answers, and what of them has no effect.
pub(crate) fn without_instances(release: &Release, offer: TlsOffer) -> (Table, Vec<Problem>) {
    let names: Vec<ProcessName> = release.serving().into_iter().filter(|part| is_labelled(release, part)).collect();
    let parts: Vec<Labelled<'_>> =
        names.iter().map(|part| Labelled { part, instances: Vec::new(), otherwise: Admission::Open }).collect();
    routed(release, &parts, offer)
}

fn routed(release: &Release, parts: &[Labelled<'_>], offer: TlsOffer) -> (Table, Vec<Problem>) {
    if parts.is_empty() {
        return (Table::default(), Vec::new());
    }
    let containers: Vec<Container> = parts.iter().flat_map(|part| containers(release, part)).collect();
    let options = Options::default();
    let entrance = Entrance { tls_port: offer.port, acme: offer.acme, redirect: true };
    let made = part(&configure(&containers, &options), &options, entrance);
    (named_by_app(made.table, &release.app), made.problems)
}

/// The instances as the labels' provider would see their containers; a stand-in where there are none.
fn containers(release: &Release, labelled: &Labelled<'_>) -> Vec<Container> {
    let Some(spec) = release.spec.part(labelled.part) else { return Vec::new() };
    let mut labels = spec.container.labels.clone();
    // Instances are reached in the release's own network, whatever the file calls it.
    labels.retain(|name, _| {
        !name.eq_ignore_ascii_case("traefik.docker.network") && !name.eq_ignore_ascii_case("traefik.swarm.network")
    });
    labels.insert("com.docker.compose.project".to_owned(), release.app.to_string());
    labels.insert("com.docker.compose.service".to_owned(), labelled.part.to_string());
    let container = |id: String, address: SocketAddr| Container {
        name: id.clone(),
        id,
        labels: labels.clone(),
        ports: vec![Port { number: address.port(), protocol: "tcp".to_owned(), bindings: Vec::new() }],
        networks: BTreeMap::from([("release".to_owned(), Some(address.ip()))]),
        ..Container::default()
    };
    if labelled.instances.is_empty() {
        let port = match spec.exposure {
            Exposure::Labels { port } => port,
            _ => None,
        };
        let port = port.or(release.artifact_of(labelled.part).port).unwrap_or(80);
        return vec![container(format!("{}.{}", release.app, labelled.part), SocketAddr::new(NOBODY, port))];
    }
    labelled.instances.iter().map(|(id, address)| container(id.to_string(), *address)).collect()
}

/// The targets are the instances, under the names by which they are drained.
fn lead_to_instances(service: &mut Service, parts: &[Labelled<'_>]) {
    let nobodys: Vec<Target> = service.targets.iter().filter(|target| target.address.ip() == NOBODY).cloned().collect();
    service.targets.retain(|target| target.address.ip() != NOBODY);
    for target in &mut service.targets {
        let mut instances = parts.iter().flat_map(|part| &part.instances);
        let found = instances.find(|(_, address)| address.ip() == target.address.ip() && !address.ip().is_loopback());
        let found =
            found.or_else(|| parts.iter().flat_map(|part| &part.instances).find(|(_, address)| *address == target.address));
        if let Some((id, address)) = found {
            // An instance may listen at further ports, for further services.
            let own = target_id(id);
            target.id = if *address == target.address { own } else { further_target(id, target.address.port()) };
        }
    }
    if service.targets.is_empty() {
        let of_part = |part: &&Labelled<'_>| nobodys.iter().any(|target| target.id.0.contains(&format!(".{}:", part.part)));
        let part = parts.iter().find(of_part).or_else(|| parts.iter().find(|part| part.instances.is_empty()));
        service.admission = part.map_or(Admission::Open, |part| part.otherwise.clone());
    }
}

/// The targets of an instance at further ports, which its part's labels name.
pub(crate) fn further_targets(release: &Release, id: &InstanceId) -> Vec<TargetId> {
    const PORT: &str = ".loadbalancer.server.port";
    let labels = release.spec.part(&id.process).map(|part| &part.container.labels);
    let ports = labels.into_iter().flatten().filter(|(name, _)| name.to_ascii_lowercase().ends_with(PORT));
    ports.map(|(_, port)| further_target(id, port.trim())).collect()
}

fn further_target(id: &InstanceId, port: impl std::fmt::Display) -> TargetId {
    TargetId(format!("{}:{port}", target_id(id).0))
}

/// Names end with the app's instead of the provider's: those of two apps are two, and those of discovered containers are
/// others still.
fn named_by_app(table: Table, app: &AppName) -> Table {
    let own = |name: String| match name.strip_suffix(PROVIDER) {
        Some(bare) => format!("{bare}#{app}"),
        None => name,
    };
    let route = |mut route: Route| {
        route.id = RouteId(own(route.id.0));
        route.middlewares = route.middlewares.into_iter().map(|id| MiddlewareId(own(id.0))).collect();
        route.service = route.service.map(|id| ServiceId(own(id.0)));
        route
    };
    let middleware = |(id, mut middleware): (MiddlewareId, Middleware)| {
        if let Middleware::ErrorPages(pages) = &mut middleware {
            pages.service = pages.service.take().map(|id| ServiceId(own(id.0)));
        }
        (MiddlewareId(own(id.0)), middleware)
    };
    Table {
        generation: table.generation,
        routes: table.routes.into_iter().map(route).collect(),
        middlewares: table.middlewares.into_iter().map(middleware).collect(),
        services: table.services.into_iter().map(|(id, service)| (ServiceId(own(id.0)), service)).collect(),
    }
}

/// Whether a service of the table is one that labels of this app made.
pub(crate) fn is_of(app: &AppName, id: &ServiceId) -> bool {
    id.0.strip_suffix(app.as_str()).is_some_and(|rest| rest.ends_with('#'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use coracle_model::{EngineKind, ProcessSpec};

    use super::*;
    use crate::table::to_be;

    fn release(labels: &[(&str, &str)]) -> Release {
        let mut spec = coracle_model::AppSpec::named("shop".parse().unwrap());
        let mut web = ProcessSpec { exposure: Exposure::Labels { port: Some(8000) }, ..ProcessSpec::default() };
        web.container.labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        spec.processes.insert("web".parse().unwrap(), web);
        Release { number: "v2".parse().unwrap(), ..to_be(&spec, EngineKind::Docker) }
    }

    const LABELS: [(&str, &str); 5] = [
        ("traefik.enable", "true"),
        ("traefik.docker.network", "edge"),
        ("traefik.http.routers.shop.rule", "Host(`shop.example`)"),
        ("traefik.http.routers.shop.middlewares", "auth"),
        ("traefik.http.middlewares.auth.basicauth.users", "a:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/"),
    ];

    #[test]
    fn labels_lead_to_the_instances_of_the_release_under_names_of_the_app() {
        let (release, web): (Release, ProcessName) = (release(&LABELS), "web".parse().unwrap());
        let id: InstanceId = "shop.v2.web.1".parse().unwrap();
        let address: SocketAddr = "172.18.0.5:8000".parse().unwrap();
        let labelled = Labelled { part: &web, instances: vec![(&id, address)], otherwise: Admission::Open };
        let mut table = Table::default();
        add(&mut table, &release, &[labelled], TlsOffer::default());
        assert_eq!((table.routes.len(), table.routes[0].rule.as_str()), (1, "Host(`shop.example`)"));
        assert!(table.check().is_ok() && !serde_json::to_string(&table).unwrap().contains("@docker"));
        let service = table.services.values().next().unwrap();
        assert_eq!((service.targets[0].id.0.as_str(), service.targets[0].address), ("shop.v2.web.1", address));
        assert!(is_of(&release.app, table.services.keys().next().unwrap()));
        assert!(table.routes[0].middlewares[0].0.ends_with("#shop"), "{:?}", table.routes[0]);
    }

    #[test]
    fn what_looks_like_a_name_of_the_providers_and_is_none_stays() {
        let labels = [
            ("traefik.http.routers.shop.rule", "Header(`X-From`, `me@docker`)"),
            ("traefik.http.routers.shop.middlewares", "pages"),
            ("traefik.http.middlewares.pages.errors.status", "500"),
            ("traefik.http.middlewares.pages.errors.service", "shop"),
            ("traefik.http.middlewares.pages.errors.query", "/@docker"),
            ("traefik.http.services.shop.loadbalancer.server.port", "8000"),
        ];
        let (release, web): (Release, ProcessName) = (release(&labels), "web".parse().unwrap());
        let labelled = Labelled { part: &web, instances: Vec::new(), otherwise: Admission::Open };
        let mut table = Table::default();
        add(&mut table, &release, &[labelled], TlsOffer::default());
        assert_eq!(table.routes[0].rule, "Header(`X-From`, `me@docker`)");
        let Middleware::ErrorPages(pages) = table.middlewares.values().next().unwrap() else { panic!("{table:?}") };
        assert_eq!((&pages.service, pages.query.as_deref()), (&Some(ServiceId("shop#shop".to_owned())), Some("/@docker")));
        assert_eq!(table.check(), Ok(()));
    }

    #[test]
    fn labels_whose_every_rule_is_wrong_lead_nowhere() {
        let mut labels = LABELS;
        labels[2].1 = "Host(``)";
        let told = told(&release(&labels), TlsOffer::default());
        assert!(told.lead_nowhere && told.rules.is_empty() && told.problems[0].contains("cannot be read"), "{told:?}");
        let hostless = [("traefik.http.routers.shop.rule", "PathPrefix(`/`)")];
        assert!(!super::told(&release(&hostless), TlsOffer::default()).lead_nowhere);
        let both = [LABELS[2], ("traefik.http.routers.www.rule", "Host(`www.shop.example`) || Host(`shop.example`)")];
        assert_eq!(hosts(&release(&both)), ["shop.example", "www.shop.example"]);
    }

    #[test]
    fn requests_wait_where_no_instance_is_healthy() {
        let (release, web): (Release, ProcessName) = (release(&LABELS), "web".parse().unwrap());
        let hold = Admission::Hold { deadline_ms: 1, max_waiting: 1 };
        let labelled = Labelled { part: &web, instances: Vec::new(), otherwise: hold.clone() };
        let mut table = Table::default();
        add(&mut table, &release, &[labelled], TlsOffer::default());
        let service = table.services.values().next().unwrap();
        assert_eq!((service.targets.len(), &service.admission), (0, &hold));
        let rules = vec!["Host(`shop.example`)".to_owned()];
        assert_eq!(told(&release, TlsOffer::default()), Told { rules, ..Told::default() });
    }
}
