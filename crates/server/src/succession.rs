//! Taking the place of a compose project that runs on this machine (`coracle import`): found by its labels, its data adopted
//! where it is, its ports had without a gap, its containers stopped once the app's first release serves, or started again if
//! it comes to nothing.
//!
//! The order of things is the orchestrator's ([`coracle_orchestrator::Incumbent`]). Nothing is removed unless that was said.

mod incumbent;
mod project;
mod record;
mod redirect;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_api::{ComposeProject, ComposeService, DeployOptions, Problem, ProblemKind};
use coracle_engine::{Predecessor, Predecessors};
use coracle_model::{AppName, AppSpec, ReleaseNumber};
use coracle_orchestrator::{HostOrchestrator, Incumbent};
use coracle_store::{Store, StoreError};

use crate::problems;
use crate::proxy_process::{Entrance, ProxyProcess};
use crate::state_dir::{self, StateDirError};
use incumbent::Succession;
use project::Project;
use record::Record;

/// Takes the places of compose projects. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Successions {
    /// The projects of the engine; nobody if there is no engine that has any.
    predecessors: Option<Arc<dyn Predecessors>>,
    /// Whether the engine's containers can be reached by their own addresses from here.
    reachable: bool,
    proxy: Option<Arc<ProxyProcess>>,
    store: Store,
    /// Where records lie.
    dir: PathBuf,
}

impl std::fmt::Debug for Successions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Successions").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// What an import adds to a deployment.
pub(crate) struct Import {
    pub(crate) incumbent: Arc<dyn Incumbent>,
    pub(crate) notes: Vec<String>,
}

impl Successions {
    /// In a server's state directory.
    pub(crate) fn new(
        state_dir: &Path,
        store: Store,
        predecessors: Option<(Arc<dyn Predecessors>, bool)>,
        proxy: Option<Arc<ProxyProcess>>,
    ) -> Result<Self, StateDirError> {
        let dir = directory(state_dir);
        state_dir::create(&dir)?;
        let (predecessors, reachable) = predecessors.map_or((None, false), |(those, reachable)| (Some(those), reachable));
        Ok(Self { predecessors, reachable, proxy, store, dir })
    }

    fn predecessors(&self) -> Result<&Arc<dyn Predecessors>, Problem> {
        self.predecessors.as_ref().ok_or_else(|| {
            Problem::new(ProblemKind::Unavailable, "this server has no connection to Docker, where compose projects run")
                .hint("see `coracle doctor`, then start the server again")
        })
    }

    /// The compose projects of this machine.
    pub(crate) async fn projects(&self) -> Result<Vec<ComposeProject>, Problem> {
        let containers = self.predecessors()?.list().await.map_err(|error| problems::engine(&error))?;
        let mut projects: Vec<ComposeProject> = Vec::new();
        for container in containers {
            if projects.last().is_none_or(|project| project.name != container.project) {
                projects.push(ComposeProject { name: container.project.clone(), ..ComposeProject::default() });
            }
            let Some(project) = projects.last_mut() else { continue };
            project.working_dir = project.working_dir.take().or_else(|| container.working_dir.clone());
            if project.config_files.is_empty() {
                project.config_files.clone_from(&container.config_files);
            }
            if project.environment_files.is_empty() {
                project.environment_files.clone_from(&container.environment_files);
            }
            add_service(project, &container);
        }
        Ok(projects)
    }

    /// Puts into a description what the app has taken over, and, if it is to take something over now, how.
    pub(crate) async fn join(&self, spec: &mut AppSpec, options: &DeployOptions) -> Result<Option<Import>, Problem> {
        let record = match self.store.app(&spec.app).await {
            Ok(record) => record.active,
            Err(StoreError::NoSuchApp(_)) => None,
            Err(error) => return Err(problems::store(&error)),
        };
        let adopted = match record {
            Some(active) => self.store.release(&spec.app, active).await.map_err(|error| problems::store(&error))?.spec.adopted,
            None => None,
        };
        let Some(name) = &options.import else {
            if let Some(adopted) = adopted {
                adopted.apply(spec);
            }
            return Ok(None);
        };
        if let Some(active) = record {
            return Err(is_there(&spec.app, active, name, adopted.is_some_and(|adopted| adopted.project == *name)));
        }
        self.import(spec, name, options.remove_old).await.map(Some)
    }

    async fn import(&self, spec: &mut AppSpec, name: &str, remove_old: bool) -> Result<Import, Problem> {
        let predecessors = self.predecessors()?;
        self.refuse_two_at_once(&spec.app, name)?;
        let failed = |error| problems::engine(&error);
        let all = predecessors.list().await.map_err(failed)?;
        let volumes = predecessors.volumes(name).await.map_err(failed)?;
        let containers: Vec<Predecessor> = all.into_iter().filter(|container| container.project == name).collect();
        if containers.is_empty() && volumes.is_empty() {
            return Err(Problem::new(ProblemKind::NotFound, format!("Docker has no compose project {name}"))
                .hint("`coracle import --list` shows those it has"));
        }
        let project = Project { name: name.to_owned(), containers, volumes };
        let adopted = project.adopted(spec)?;
        adopted.apply(spec);
        let in_front = self.reachable && self.proxy.is_some() && !adopted.ports.is_empty() && redirect::is_possible().await;
        let notes = project.notes(spec, &adopted, in_front, remove_old)?;
        let record = project.record(&spec.app, spec, &adopted, remove_old)?;
        let incumbent = Arc::new(Succession::new(predecessors.clone(), self.proxy.clone(), self.dir.clone(), record, in_front));
        Ok(Import { incumbent, notes })
    }

    /// What was interrupted is settled first.
    fn refuse_two_at_once(&self, app: &AppName, project: &str) -> Result<(), Problem> {
        let unreadable = |error: std::io::Error| Problem::new(ProblemKind::Internal, error.to_string());
        let records = Record::read_all(&self.dir).map_err(unreadable)?;
        match records.iter().find(|record| record.app == *app || record.project == project) {
            None => Ok(()),
            Some(record) => {
                let detail = format!("an import of {} as {} is under way, or has been interrupted", record.project, record.app);
                Err(Problem::new(ProblemKind::Conflict, detail)
                    .hint("wait until it has ended; one that was interrupted is settled when the server starts: coracle server stop, then start it again"))
            }
        }
    }

    /// After a start, when the orchestrator has settled what was interrupted: projects whose place was being taken get it back,
    /// and what was taken is finished.
    pub(crate) async fn recover(&self, orchestrator: &HostOrchestrator) {
        let records = match Record::read_all(&self.dir) {
            Ok(records) => records,
            Err(error) => return tracing::error!(%error, "what was being imported cannot be read; see to its containers by hand"),
        };
        for record in records {
            let app = record.app.clone();
            let Some(predecessors) = self.predecessors.clone() else {
                tracing::error!(%app, "an import was interrupted, and Docker does not answer; start the server again when it does");
                continue;
            };
            let has_succeeded = self.active(&app).await.is_some_and(|active| record.release == Some(active));
            let in_front = record.doors.iter().any(|door| door.temporary.is_some());
            let succession = Succession::new(predecessors, self.proxy.clone(), self.dir.clone(), record, in_front);
            tracing::warn!(%app, has_succeeded, "an import was interrupted");
            if let Err(error) = finish(&succession, orchestrator, has_succeeded).await {
                tracing::error!(%app, %error, "it is not settled yet; start the server again when that is mended");
            }
        }
    }

    async fn active(&self, app: &AppName) -> Option<ReleaseNumber> {
        self.store.app(app).await.ok()?.active
    }

    /// The proxy takes requests at those ports, and no others, that apps which are there have taken over.
    pub(crate) async fn settle_entrances(&self) {
        let Some(proxy) = &self.proxy else { return };
        let wanted = entrances(&self.store, &self.dir).await;
        let now = proxy.entrances();
        let add: Vec<Entrance> = wanted.iter().filter(|entrance| !now.contains(entrance)).cloned().collect();
        let drop: Vec<Entrance> = now.into_iter().filter(|entrance| !wanted.contains(entrance)).collect();
        if let Err(error) = proxy.change_entrances(&add, &drop).await {
            tracing::error!(%error, "the proxy cannot take requests at other ports than before");
        }
    }
}

async fn finish(
    succession: &Succession,
    orchestrator: &HostOrchestrator,
    has_succeeded: bool,
) -> Result<(), coracle_orchestrator::OrchestratorError> {
    if has_succeeded {
        return Ok(succession.succeed().await?);
    }
    let app = succession.app();
    let standbys = succession.give_back().await?;
    orchestrator.set_standbys(&app, standbys);
    orchestrator.republish().await?;
    succession.step_out().await?;
    orchestrator.set_standbys(&app, Vec::new());
    orchestrator.republish().await
}

fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("imports")
}

/// Where else than for all apps the proxy takes requests: at ports that apps have taken over, and, where that is under way,
/// where they are led meanwhile.
pub(crate) async fn entrances_of(state_dir: &Path, store: &Store) -> Vec<Entrance> {
    entrances(store, &directory(state_dir)).await
}

async fn entrances(store: &Store, dir: &Path) -> Vec<Entrance> {
    let records = Record::read_all(dir).unwrap_or_default();
    let mut entrances: Vec<Entrance> = records.iter().flat_map(Record::temporary_entrances).collect();
    let apps = store.apps().await.unwrap_or_default();
    for app in apps.iter().filter(|app| !records.iter().any(|record| record.app == app.name)) {
        let Some(active) = app.active else { continue };
        let Ok(release) = store.release(&app.name, active).await else { continue };
        let ports = release.spec.adopted.map(|adopted| adopted.ports).unwrap_or_default();
        entrances.extend(ports.iter().map(|port| entrance(port.listener(), port.address, port.port)));
    }
    entrances.sort();
    entrances.dedup();
    entrances
}

fn entrance(name: String, address: Option<IpAddr>, port: u16) -> Entrance {
    Entrance { name, address: SocketAddr::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), port) }
}

impl Record {
    /// Where the proxy listens while somebody else has the ports.
    fn temporary_entrances(&self) -> Vec<Entrance> {
        let with = |door: &record::Door| Some(entrance(door.listener.clone(), door.address, door.temporary?));
        self.doors.iter().filter_map(with).collect()
    }

    /// Where it listens in the end.
    fn entrances(&self) -> Vec<Entrance> {
        self.doors.iter().map(|door| entrance(door.listener.clone(), door.address, door.port)).collect()
    }
}

fn add_service(project: &mut ComposeProject, container: &Predecessor) {
    if project.services.last().is_none_or(|service| service.name != container.service) {
        project.services.push(ComposeService { name: container.service.clone(), ..ComposeService::default() });
    }
    let Some(service) = project.services.last_mut() else { return };
    service.containers += 1;
    service.running += u32::from(container.running);
    let published = container.ports.iter().flat_map(|port| &port.published).map(|(_, port)| *port);
    let new: Vec<u16> = published.filter(|port| !service.ports.contains(port)).collect();
    service.ports.extend(new);
}

fn is_there(app: &AppName, active: ReleaseNumber, project: &str, same: bool) -> Problem {
    if same {
        return Problem::new(
            ProblemKind::Conflict,
            format!("{project} has been imported as {app} already, which is at {active}"),
        )
        .hint(format!("deploy it from its folder: coracle deploy -a {app}"));
    }
    Problem::new(ProblemKind::Conflict, format!("there is an app {app} already, at {active}"))
        .hint("import it under another name: coracle import --name NAME")
}
