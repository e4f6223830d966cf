//! The routing table, made from what is active and what is ready.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_model::{
    AppName, AppSpec, Artifact, ArtifactId, EngineKind, HostPattern, InstanceId, Origin, ProcessName, Release, ReleaseNumber,
};
use coracle_proxy_table::{Admission, Route, Service, ServiceId, Table, Target, TargetId};
use coracle_store::{AppRecord, ServiceRecord};
use jiff::Timestamp;

use crate::core::{Core, Registry};
use crate::error::OrchestratorError;
use crate::incumbent;
use crate::labelled::{self, Labelled};
use crate::orchestrator::DeployRequest;
use crate::routes::{self, TlsOffer};

/// Requests to an app whose only instances have just died wait this long for the restart.
const HEALING_HOLD_MS: u64 = 15_000;
/// After so many failed restarts requests are answered with 503 instead of waiting.
pub(crate) const HEALING_ATTEMPTS: u32 = 3;
/// How many requests of an app may wait at once.
const MAX_WAITING: usize = 10_000;

/// The target that an instance is in the proxy's eyes.
pub(crate) fn target_id(id: &InstanceId) -> TargetId {
    TargetId(id.to_string())
}

impl Core {
    /// Makes the table and publishes it. Tables are published one after the other, each made from what is true then.
    pub(crate) async fn publish(&self) -> Result<(), OrchestratorError> {
        let mut last_generation = self.publishing.lock().await;
        let published = self.publish_after(&mut last_generation).await;
        self.unpublished.store(published.is_err(), Ordering::Relaxed);
        published
    }

    async fn publish_after(&self, last_generation: &mut u64) -> Result<(), OrchestratorError> {
        let mut active = Vec::new();
        for (record, release) in self.store.apps_with_releases().await? {
            if let Some(release) = release {
                let services = self.store.services(&record.name).await?;
                active.push(Active { record, release, services });
            }
        }
        // Generations grow across restarts too, since clocks do, and within one by counting.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let generation = now.max(*last_generation + 1);
        let mut table = make(generation, &active, &self.registry(), self.settings.tls);
        self.guests.join(&mut table, &*self.traffic).await;
        self.traffic.publish(table).await?;
        *last_generation = generation;
        Ok(())
    }

    /// The app that already answers for some of the requests that this release asks for, by the same host and path prefix or
    /// by the same rule.
    pub(crate) async fn route_conflict(&self, release: &Release) -> Result<Option<RouteConflict>, OrchestratorError> {
        let active = self.store.active_releases().await?;
        let conflict = |other: Release| {
            let of = contested(release, &other, self.settings.tls)?;
            Some(RouteConflict { of, other: other.app })
        };
        Ok(active.into_iter().filter(|other| other.app != release.app).find_map(conflict))
    }
}

impl Core {
    /// The app that already answers for some of the requests that a request to deploy asks for, as far as that is known before
    /// anything is built.
    pub(crate) async fn planned_conflict(&self, request: &DeployRequest) -> Result<Option<RouteConflict>, OrchestratorError> {
        match request.spec.is_stack() {
            true => self.route_conflict(&self.release_to_be(&request.spec)).await,
            false => Ok(None),
        }
    }

    /// What would be deployed, as far as that is known before anything is built.
    pub(crate) fn release_to_be(&self, spec: &AppSpec) -> Release {
        to_be(spec, self.settings.default_engine)
    }
}

/// What would be deployed on this engine, unless the description asks for another, as far as that is known before it is built.
pub(crate) fn to_be(spec: &AppSpec, usual: EngineKind) -> Release {
    Release {
        app: spec.app.clone(),
        number: ReleaseNumber::FIRST,
        artifact: Artifact::new(spec.engine.unwrap_or(usual), ArtifactId::new("")),
        artifacts: BTreeMap::new(),
        spec: spec.clone(),
        origin: Origin::Deploy { commit: None },
        created_at: Timestamp::UNIX_EPOCH,
    }
}

/// What a description asks for that a release of another app answers, in words: the host, or the rule.
pub fn contested_with(spec: &AppSpec, other: &Release) -> Option<String> {
    contested(&to_be(spec, EngineKind::Docker), other, TlsOffer::default())
}

/// The part of a table that the labels of a description come to. Nothing answers its services yet.
pub fn labelled_table(spec: &AppSpec) -> Table {
    labelled::without_instances(&to_be(spec, EngineKind::Docker), TlsOffer::default()).0
}

/// What both releases ask for, in words.
fn contested(release: &Release, other: &Release, offer: TlsOffer) -> Option<String> {
    let taken = hosts_of(other);
    if let Some((host, _)) = hosts_of(release).into_iter().find(|wanted| taken.contains(wanted)) {
        return Some(format!("the host {host}"));
    }
    let taken = routes_of(other, offer);
    let is_taken = |route: &Route| taken.iter().any(|other| take_the_same(route, other));
    routes_of(release, offer).into_iter().find(is_taken).map(|route| format!("the rule {}", route.rule))
}

/// Two apps that ask for the same requests.
#[derive(Debug)]
pub(crate) struct RouteConflict {
    /// What they both ask for.
    pub of: String,
    /// The app that has it.
    pub other: AppName,
}

/// Whether there are requests that both routes match, by the same rule.
fn take_the_same(one: &Route, other: &Route) -> bool {
    let apart = matches!((one.tls, other.tls), (Some(one), Some(other)) if one != other);
    !apart && coracle_labels::have_same_rule(one, other)
}

/// All routes that lead to a release, by its manifest or its labels.
fn routes_of(release: &Release, offer: TlsOffer) -> Vec<Route> {
    let mut table = Table::default();
    let parts = release.serving();
    let stands_in = |part| Labelled { part, instances: Vec::new(), otherwise: Admission::Open };
    let labelled: Vec<Labelled<'_>> = parts.iter().filter(|part| labelled::is_labelled(release, part)).map(stands_in).collect();
    labelled::add(&mut table, release, &labelled, offer);
    for http in parts.iter().filter_map(|part| release.http_of(part)) {
        routes::add(&mut table, http, &ServiceId(release.app.to_string()), offer);
    }
    table.routes
}

/// The hosts and path prefixes of a release, of all its parts that receive requests.
pub(crate) fn hosts_of(release: &Release) -> Vec<(&HostPattern, &str)> {
    let parts = release.serving();
    let reached = parts.iter().filter_map(|part| release.http_of(part));
    reached.flat_map(|http| http.hosts.iter().map(|host| (host, http.path_prefix.as_str()))).collect()
}

/// The names by which people reach a release, with the path prefix that they ask for there: what its manifest, its published
/// ports and its labels come to.
pub fn reached_at(release: &Release) -> Vec<(String, String)> {
    let own = hosts_of(release).into_iter().map(|(host, prefix)| (host.to_string(), prefix.to_owned()));
    let mut all: Vec<(String, String)> = own.collect();
    for host in labelled::hosts(release) {
        if !all.iter().any(|(known, _)| *known == host) {
            all.push((host, "/".to_owned()));
        }
    }
    all
}

/// What is active of an app.
struct Active {
    record: AppRecord,
    release: Release,
    services: Vec<ServiceRecord>,
}

impl Active {
    /// The service that requests for a part of the app go to: the app's own name for the process that is the app to others.
    fn service_id(&self, part: &ProcessName) -> ServiceId {
        incumbent::service_id(&self.record.name, part)
    }

    /// The release whose number the instances of a part bear.
    fn number_of(&self, part: &ProcessName) -> ReleaseNumber {
        let service = self.services.iter().find(|service| service.name == *part);
        service.map_or(self.release.number, |service| service.release)
    }

    /// A part that labels route, with its healthy instances, unless requests are held.
    fn labelled<'a>(&self, part: &'a ProcessName, registry: &'a Registry) -> Labelled<'a> {
        let service = service(self, part, registry);
        let is_held = matches!(service.admission, Admission::Hold { .. }) || service.targets.is_empty();
        let ready = registry.ready.iter().filter(|(id, _)| !is_held && self.is_instance(part, id));
        Labelled { part, instances: ready.map(|(id, address)| (id, *address)).collect(), otherwise: service.admission }
    }

    /// Whether this is an instance of the part that may receive requests.
    fn is_instance(&self, part: &ProcessName, id: &InstanceId) -> bool {
        id.app == self.record.name && id.process == *part && id.release == self.number_of(part)
    }
}

fn make(generation: u64, active: &[Active], registry: &Registry, offer: TlsOffer) -> Table {
    let mut table = Table { generation, ..Table::default() };
    for app in active {
        let parts = app.release.serving();
        let labelled = parts.iter().filter(|part| labelled::is_labelled(&app.release, part));
        let labelled: Vec<Labelled<'_>> = labelled.map(|part| app.labelled(part, registry)).collect();
        let stands = |id: &ServiceId| labelled::is_of(&app.record.name, id);
        if !labelled.is_empty()
            && registry.unseen.contains(&app.release.artifact.engine)
            && registry.inherited.services.keys().any(stands)
        {
            inherit_labelled(&mut table, app, registry);
        } else {
            labelled::add(&mut table, &app.release, &labelled, offer);
        }
        for part in parts.into_iter().filter(|part| !labelled::is_labelled(&app.release, part)) {
            let id = app.service_id(&part);
            let service = inherited(&id, app, &part, registry).unwrap_or_else(|| service(app, &part, registry));
            table.services.insert(id.clone(), service);
            if let Some(http) = app.release.http_of(&part) {
                routes::add(&mut table, http, &id, offer);
            }
        }
        add_adopted_ports(&mut table, app, registry);
    }
    for (app, standbys) in &registry.standbys {
        if active.iter().any(|active| active.record.name == *app) {
            continue;
        }
        let held = registry.live.get(app).and_then(|live| live.hold);
        incumbent::add_standbys(&mut table, app, standbys, held.map(hold));
    }
    table
}

/// Everything that comes in by a port which the app has taken over goes to the part that had it.
fn add_adopted_ports(table: &mut Table, app: &Active, registry: &Registry) {
    let Some(adopted) = &app.release.spec.adopted else { return };
    for port in adopted.ports.iter().filter(|port| app.release.serves(&port.part)) {
        let id = app.service_id(&port.part);
        // Labels have services of their own.
        table.services.entry(id.clone()).or_insert_with(|| service(app, &port.part, registry));
        incumbent::add_routes(table, &id, [port.listener()]);
    }
}

/// Requests wait.
fn hold(longest: std::time::Duration) -> Admission {
    Admission::Hold { deadline_ms: longest.as_millis() as u64, max_waiting: MAX_WAITING }
}

/// What the proxy was told of an app's labelled parts in this server's earlier life, routes and all.
fn inherit_labelled(table: &mut Table, app: &Active, registry: &Registry) {
    let before = &registry.inherited;
    let of_app = |service: &ServiceId| labelled::is_of(&app.record.name, service);
    let suffix = format!("#{}", app.record.name);
    table.routes.extend(before.routes.iter().filter(|route| route.service.as_ref().is_some_and(of_app)).cloned());
    let middlewares = before.middlewares.iter().filter(|(id, _)| id.0.ends_with(&suffix));
    table.middlewares.extend(middlewares.map(|(id, middleware)| (id.clone(), middleware.clone())));
    let services = before.services.iter().filter(|(id, _)| of_app(id));
    table.services.extend(services.map(|(id, service)| (id.clone(), service.clone())));
}

/// What the proxy was told of a part in this server's earlier life, if its engine has not answered since.
fn inherited(id: &ServiceId, app: &Active, part: &ProcessName, registry: &Registry) -> Option<Service> {
    let engine = app.release.artifact_of(part).engine;
    let service = registry.inherited.services.get(id).filter(|_| registry.unseen.contains(&engine))?;
    let of_release = |target: &Target| target.id.0.parse().is_ok_and(|id: InstanceId| id.release == app.number_of(part));
    service.targets.iter().all(of_release).then(|| service.clone())
}

fn service(app: &Active, part: &ProcessName, registry: &Registry) -> Service {
    let targets: Vec<Target> = registry
        .ready
        .iter()
        .filter(|(id, _)| app.is_instance(part, id))
        .map(|(id, address)| Target { id: target_id(id), address: *address, weight: 1 })
        .collect();
    // A stateful service is always wanted.
    let wanted = match app.release.spec.services.contains_key(part) {
        true => 1,
        false => Core::wanted(&app.release, &app.record.scale).get(part).copied().unwrap_or(0),
    };
    let held = registry.live.get(&app.record.name).and_then(|live| live.hold);
    let failures = registry.back_off.iter().filter(|(id, _)| app.is_instance(part, id));
    let healing = failures.into_iter().all(|(_, back_off)| back_off.failures <= HEALING_ATTEMPTS);
    let admission = if let Some(longest) = held {
        hold(longest)
    } else if wanted == 0 {
        let name = app.service_id(part).0;
        Admission::Closed { message: format!("{name} is scaled to zero"), retry_after_s: 60 }
    } else if targets.is_empty() && healing {
        Admission::Hold { deadline_ms: HEALING_HOLD_MS, max_waiting: MAX_WAITING }
    } else {
        Admission::Open
    };
    Service::new(admission, if held.is_some() { Vec::new() } else { targets })
}
