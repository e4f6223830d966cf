//! What an app's first release takes the place of: a compose project that runs already. The orchestrator decides when it gives
//! way and in what order; how its containers are stopped and its ports are had is behind [`Incumbent`].
//!
//! From the moment the proxy has stepped in front of it ([`Incumbent::step_in`]) the project's containers are targets like
//! others: requests can be held, and led elsewhere in one step. Until the switch nothing of it is taken away for good.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use async_trait::async_trait;
use coracle_engine::EngineError;
use coracle_model::{AppName, ProcessName, ReleaseNumber};
use coracle_proxy_table::{Admission, Route, Service, ServiceId, Table, Target, TargetId};

use crate::core::{Core, Registry};
use crate::orchestrator::HostOrchestrator;

/// A compose project that gives way to an app.
#[async_trait]
pub trait Incumbent: Send + Sync {
    /// Writes down what is about to be done, so that it can be undone after a crash, and has the proxy listen where requests
    /// to the project can be led. Answers whom they go to until further notice; nobody if requests cannot be led there, so
    /// that its ports are free only once its containers are gone.
    async fn prepare(&self, release: ReleaseNumber) -> Result<Vec<Standby>, EngineError>;

    /// Leads requests to the project's ports to the proxy: from here on new connections arrive there, and those that are open
    /// have been given time to end.
    async fn step_in(&self) -> Result<(), EngineError>;

    /// Which of these parts have containers that run in the project.
    fn runs(&self, parts: &BTreeSet<ProcessName>) -> BTreeSet<ProcessName>;

    /// Stops the containers of these parts; of all if `None`.
    async fn stop(&self, parts: Option<&BTreeSet<ProcessName>>) -> Result<(), EngineError>;

    /// Starts what was stopped and waits until it takes requests. Answers where.
    async fn give_back(&self) -> Result<Vec<Standby>, EngineError>;

    /// After [`Incumbent::give_back`]: requests reach the project by themselves again.
    async fn step_out(&self) -> Result<(), EngineError>;

    /// After the switch: stops everything, has its ports for good, and writes down that it is done.
    async fn succeed(&self) -> Result<(), EngineError>;
}

/// A container of a project as a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// The part that it is one of.
    pub part: ProcessName,
    /// The listeners whose requests go to it.
    pub listeners: Vec<String>,
    /// Its name.
    pub name: String,
    /// Where it takes connections.
    pub address: SocketAddr,
}

impl Standby {
    /// The target that it is in the proxy's eyes. No instance has such a name.
    pub(crate) fn target(&self, app: &AppName) -> TargetId {
        TargetId(format!("{app}/{}", self.name))
    }
}

/// The name of the service that requests for a part of an app go to: the app's own for the process that is the app to others.
pub(crate) fn service_id(app: &AppName, part: &ProcessName) -> ServiceId {
    match part.is_web() {
        true => ServiceId(app.to_string()),
        false => ServiceId(format!("{app}.{part}")),
    }
}

/// Adds a route for every request that comes in by these listeners.
pub(crate) fn add_routes(table: &mut Table, service: &ServiceId, listeners: impl IntoIterator<Item = String>) {
    for listener in listeners {
        let mut route = Route::new(format!("{}@:{listener}", service.0), "PathPrefix(`/`)", service.clone());
        (route.listeners, route.priority) = (vec![listener], Some(0));
        if !table.routes.iter().any(|other| other.id == route.id) {
            table.routes.push(route);
        }
    }
}

/// Adds the projects that stand in for apps which have no release yet. Requests wait for `hold`, if there is one: then the
/// targets are out of the table, so that they can be drained.
pub(crate) fn add_standbys(table: &mut Table, app: &AppName, standbys: &[Standby], hold: Option<Admission>) {
    for standby in standbys {
        let id = service_id(app, &standby.part);
        let admission = hold.clone().unwrap_or(Admission::Open);
        let service = table.services.entry(id.clone()).or_insert_with(|| Service::new(admission, Vec::new()));
        if hold.is_none() {
            service.targets.push(Target { id: standby.target(app), address: standby.address, weight: 1 });
        }
        add_routes(table, &id, standby.listeners.iter().cloned());
    }
}

impl Core {
    /// The proxy's names for what stands in for an app.
    pub(crate) fn standby_targets(&self, app: &AppName) -> Vec<TargetId> {
        let registry = self.registry();
        registry.standbys.get(app).into_iter().flatten().map(|standby| standby.target(app)).collect()
    }

    pub(crate) fn set_standbys(&self, app: &AppName, standbys: Vec<Standby>) {
        self.change(|registry: &mut Registry| match standbys.is_empty() {
            true => registry.standbys.remove(app),
            false => registry.standbys.insert(app.clone(), standbys),
        });
    }
}

impl HostOrchestrator {
    /// Says who stands in for an app that has no release: after a start, for what was interrupted. In the table with the next
    /// that is published.
    pub fn set_standbys(&self, app: &AppName, standbys: Vec<Standby>) {
        self.core().set_standbys(app, standbys);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_stands_in_gets_requests_unless_they_wait() {
        let app: AppName = "shop".parse().unwrap();
        let standby = |name: &str, port| Standby {
            part: "web".parse().unwrap(),
            listeners: vec!["port-8080".into()],
            name: name.into(),
            address: SocketAddr::from(([172, 20, 0, 2], port)),
        };
        let both = [standby("shop-web-1", 80), standby("shop-web-2", 80)];
        let mut table = Table::default();
        add_standbys(&mut table, &app, &both, None);
        table.check().unwrap();
        assert_eq!((table.routes.len(), table.services[&ServiceId("shop".into())].targets.len()), (1, 2));
        assert_eq!(table.routes[0].listeners, ["port-8080"]);
        let mut held = Table::default();
        add_standbys(&mut held, &app, &both, Some(Admission::Hold { deadline_ms: 5, max_waiting: 1 }));
        let service = &held.services[&ServiceId("shop".into())];
        assert!(service.targets.is_empty() && matches!(service.admission, Admission::Hold { .. }));
    }
}
