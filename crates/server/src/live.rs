//! What the proxy says about itself, in the words of the wire: with the names of apps, of which it knows nothing.

use std::collections::BTreeMap;

use coracle_api as api;
use coracle_model::{AppName, Release};
use coracle_proxy::certs::{CertificateStatus, Source, State};
use coracle_proxy::control::{RouteStatus, ServiceTarget, TargetState};
use coracle_proxy_table::{Admission, CertificateSource, Table};

/// Which apps are reached at which hosts.
pub(crate) struct Hosts<'r>(BTreeMap<&'r str, Vec<&'r AppName>>);

impl<'r> Hosts<'r> {
    pub(crate) fn of(releases: &'r [Release]) -> Self {
        let mut hosts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for release in releases {
            for host in &release.spec.http.hosts {
                hosts.entry(host.as_str()).or_default().push(&release.app);
            }
        }
        Self(hosts)
    }
}

/// The routes as the proxy serves by them.
pub(crate) fn routes(generation: u64, routes: Vec<RouteStatus>, apps: &[AppName]) -> api::RouteList {
    let routes = routes.into_iter().map(|route| {
        let service = route.service.as_ref();
        api::Route {
            app: service.and_then(|service| app(&service.id.0, apps)),
            priority: Some(route.priority),
            tls: route.tls,
            certificate: source_of(route.certificate).to_owned(),
            middlewares: route.middlewares.iter().map(|it| it.id.0.clone()).collect(),
            admission: admission(service.map(|service| &service.admission)).to_owned(),
            targets: service.map(|service| service.targets.iter().map(target).collect()).unwrap_or_default(),
            service: route.service.map(|service| service.id.0),
            id: route.id.0,
            rule: route.rule,
        }
    });
    api::RouteList { generation, live: true, routes: routes.collect() }
}

fn target(target: &ServiceTarget) -> api::RouteTarget {
    let state = match target.state {
        TargetState::Up => "up",
        TargetState::Down => "down",
        TargetState::Ejected => "ejected",
        TargetState::Starting => "starting",
    };
    api::RouteTarget {
        id: target.id.0.clone(),
        address: target.address.to_string(),
        state: Some(state.to_owned()),
        in_flight: Some(target.in_flight as u64),
    }
}

/// The routes as the proxy was told them.
pub(crate) fn told(table: &Table, apps: &[AppName]) -> api::RouteList {
    let routes = table.routes.iter().map(|route| {
        let service = route.service.as_ref().and_then(|id| table.services.get(id));
        let targets = service.map(|service| service.targets.as_slice()).unwrap_or_default();
        let targets = targets.iter().map(|target| api::RouteTarget {
            id: target.id.0.clone(),
            address: target.address.to_string(),
            state: None,
            in_flight: None,
        });
        api::Route {
            id: route.id.0.clone(),
            app: route.service.as_ref().and_then(|id| app(&id.0, apps)),
            rule: route.rule.clone(),
            priority: route.priority,
            tls: route.tls,
            certificate: source_of(route.certificate).to_owned(),
            middlewares: route.middlewares.iter().map(|id| id.0.clone()).collect(),
            service: route.service.as_ref().map(|id| id.0.clone()),
            admission: admission(service.map(|service| &service.admission)).to_owned(),
            targets: targets.collect(),
        }
    });
    let mut routes: Vec<api::Route> = routes.collect();
    routes.sort_by(|a, b| (&a.service, &a.id).cmp(&(&b.service, &b.id)));
    api::RouteList { generation: table.generation, live: false, routes }
}

/// The service of an app has the app's name, or one below it.
fn app(service: &str, apps: &[AppName]) -> Option<AppName> {
    let is_of = |app: &&AppName| service.strip_prefix(app.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    apps.iter().find(is_of).cloned()
}

fn admission(admission: Option<&Admission>) -> &'static str {
    match admission {
        Some(Admission::Open) => "open",
        Some(Admission::Hold { .. }) => "hold",
        Some(Admission::Closed { .. }) | None => "closed",
    }
}

fn source_of(source: CertificateSource) -> &'static str {
    match source {
        CertificateSource::Given => "given",
        CertificateSource::Acme => "acme",
        CertificateSource::Local => "local",
    }
}

/// How a certificate stands, and for which apps.
pub(crate) fn certificate(status: CertificateStatus, hosts: &Hosts<'_>) -> api::Certificate {
    let (state, reason, next_attempt) = match status.state {
        State::Waiting { next_attempt } => (api::CertificateState::Waiting, None, next_attempt),
        State::Ordering => (api::CertificateState::Ordering, None, None),
        State::Active { renewal } => (api::CertificateState::Active, None, renewal),
        State::Failing { reason, next_attempt, .. } => (api::CertificateState::Failing, Some(reason), next_attempt),
    };
    // One of given files is for all names that are in it.
    let given = status.certificate.iter().flat_map(|facts| &facts.names);
    let mut apps: Vec<AppName> = given
        .chain([&status.name])
        .filter_map(|name| hosts.0.get(name.as_str()))
        .flat_map(|apps| apps.iter().map(|app| (*app).clone()))
        .collect();
    apps.sort();
    apps.dedup();
    let facts = status.certificate;
    api::Certificate {
        name: status.name,
        apps,
        source: match status.source {
            Source::Acme => api::CertificateSource::Acme,
            Source::Local => api::CertificateSource::Local,
            Source::Given => api::CertificateSource::Given,
        },
        state,
        reason,
        next_attempt,
        issuer: facts.as_ref().map(|facts| facts.issuer.clone()),
        not_before: facts.as_ref().map(|facts| facts.not_before),
        not_after: facts.as_ref().map(|facts| facts.not_after),
        serial: facts.map(|facts| facts.serial),
        remarks: status.remarks,
    }
}
