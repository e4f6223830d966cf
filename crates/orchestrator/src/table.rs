//! The routing table, made from what is active and what is ready.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_model::{AppName, HostPattern, InstanceId, ProcessName, Release};
use coracle_proxy_table::{Admission, Service, ServiceId, Table, Target, TargetId};
use coracle_store::AppRecord;

use crate::core::{Core, Registry};
use crate::error::OrchestratorError;
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
        for record in self.store.apps().await? {
            if let Some(number) = record.active {
                let release = self.store.release(&record.name, number).await?;
                active.push((record, release));
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

    /// The app that already answers for one of the hosts and path prefix of this release, with that host.
    pub(crate) async fn host_conflict(&self, release: &Release) -> Result<Option<(AppName, HostPattern)>, OrchestratorError> {
        for record in self.store.apps().await? {
            let Some(number) = record.active.filter(|_| record.name != release.app) else { continue };
            let other = self.store.release(&record.name, number).await?;
            if !serves_http(&other) || other.spec.http.path_prefix != release.spec.http.path_prefix {
                continue;
            }
            if let Some(host) = release.spec.http.hosts.iter().find(|host| other.spec.http.hosts.contains(host)) {
                return Ok(Some((record.name, host.clone())));
            }
        }
        Ok(None)
    }
}

/// Whether the release has a process that receives requests.
pub(crate) fn serves_http(release: &Release) -> bool {
    release.processes().contains_key(&ProcessName::web())
}

fn make(generation: u64, active: &[(AppRecord, Release)], registry: &Registry, offer: TlsOffer) -> Table {
    let mut table = Table { generation, ..Table::default() };
    for (record, release) in active.iter().filter(|(_, release)| serves_http(release)) {
        let id = ServiceId(record.name.to_string());
        let service = inherited(&id, release, registry).unwrap_or_else(|| service(record, release, registry));
        table.services.insert(id.clone(), service);
        routes::add(&mut table, release, &id, offer);
    }
    table
}

/// What the proxy was told of the release in this server's earlier life, if its engine has not answered since.
fn inherited(id: &ServiceId, release: &Release, registry: &Registry) -> Option<Service> {
    let service = registry.inherited.services.get(id).filter(|_| registry.unseen.contains(&release.artifact.engine))?;
    let of_release = |target: &Target| target.id.0.parse().is_ok_and(|id: InstanceId| id.release == release.number);
    service.targets.iter().all(of_release).then(|| service.clone())
}

fn service(record: &AppRecord, release: &Release, registry: &Registry) -> Service {
    let of_release = |id: &InstanceId| id.app == record.name && id.release == release.number && id.process.is_web();
    let targets: Vec<Target> = registry
        .ready
        .iter()
        .filter(|(id, _)| of_release(id))
        .map(|(id, address)| Target { id: target_id(id), address: *address, weight: 1 })
        .collect();
    let wanted = Core::wanted(release, &record.scale).get(&ProcessName::web()).copied().unwrap_or(0);
    let held = registry.live.get(&record.name).and_then(|live| live.hold);
    let healing =
        registry.back_off.iter().filter(|(id, _)| of_release(id)).all(|(_, back_off)| back_off.failures <= HEALING_ATTEMPTS);
    let admission = if let Some(longest) = held {
        Admission::Hold { deadline_ms: longest.as_millis() as u64, max_waiting: MAX_WAITING }
    } else if wanted == 0 {
        Admission::Closed { message: format!("{} is scaled to zero", record.name), retry_after_s: 60 }
    } else if targets.is_empty() && healing {
        Admission::Hold { deadline_ms: HEALING_HOLD_MS, max_waiting: MAX_WAITING }
    } else {
        Admission::Open
    };
    Service::new(admission, if held.is_some() { Vec::new() } else { targets })
}
