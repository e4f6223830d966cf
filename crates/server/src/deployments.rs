//! Deployments as tasks of the server: they belong to nobody's connection, one of each app at a time, and their journals
//! can be read while they run and for a while after.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_api::{ChangeOptions, DeploymentEvent, Problem, ProblemKind};
use coracle_model::{AppName, DeploymentId, ReleaseNumber};
use coracle_orchestrator::{Event, HostOrchestrator, KeptSource, Progress, StatefulChanges};
use coracle_store::ConfigChange;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Caller;
use crate::gate::Pushed;
use crate::journal::{Journal, Reader};
use crate::source::{Sent, Sources};
use crate::{problems, wire};

/// How many ended deployments can still be read in full; of older ones the store knows the outcome.
const ENDED_KEPT: usize = 16;

/// What a deployment does.
pub(crate) enum Work {
    /// Deploys a tree, which is removed at the end.
    Deploy(Box<Sent>),
    /// Deploys the commit of a push.
    Push(Pushed),
    /// Changes configuration.
    Config {
        /// The changes.
        changes: Vec<ConfigChange>,
        /// Whether what the active release was made of may reach further with them.
        trusted: bool,
    },
    /// Takes up an earlier release.
    Rollback {
        /// Which; else the one that was active before.
        to: Option<ReleaseNumber>,
        /// What may change of the services that keep data.
        stateful: StatefulChanges,
        /// Whether the administrator asks for it.
        trusted: bool,
    },
    /// Replaces all instances.
    Restart,
}

/// Every deployment of this server that runs or ended lately. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Deployments {
    inner: Arc<Inner>,
}

struct Inner {
    orchestrator: HostOrchestrator,
    sources: Sources,
    http: Vec<SocketAddr>,
    tasks: TaskTracker,
    /// Fired when the server stops: every deployment is called off, as far as it still can be.
    stop: CancellationToken,
    /// Fired when one does not end in time: it is left where it is, as in a crash.
    cut: CancellationToken,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    running: Vec<Arc<Journal>>,
    ended: VecDeque<Arc<Journal>>,
    /// One turn per app, taken in the order of asking.
    turns: HashMap<AppName, Arc<tokio::sync::Mutex<()>>>,
}

/// The right to change an app, until it is dropped.
pub(crate) struct Turn {
    app: AppName,
    inner: Arc<Inner>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held = None;
        let mut shelf = self.inner.shelf();
        // Nobody has it and nobody waits for it: the map holds the only handle.
        if shelf.turns.get(&self.app).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            shelf.turns.remove(&self.app);
        }
    }
}

impl Inner {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deployments {
    pub(crate) fn new(
        orchestrator: HostOrchestrator,
        sources: Sources,
        http: Vec<SocketAddr>,
        stop: CancellationToken,
        cut: CancellationToken,
    ) -> Self {
        let (tasks, shelf) = (TaskTracker::new(), Mutex::default());
        Self { inner: Arc::new(Inner { orchestrator, sources, http, tasks, stop, cut, shelf }) }
    }

    /// Begins a deployment; its journal tells the rest. Firing the journal's `cancel` calls it off.
    pub(crate) fn begin(&self, app: AppName, work: Work, options: ChangeOptions) -> Arc<Journal> {
        let journal = Arc::new(Journal::new(app, self.inner.stop.child_token()));
        self.inner.shelf().running.push(journal.clone());
        let telling = Telling { journal: journal.clone(), deployments: self.clone() };
        self.inner.tasks.spawn(async move {
            let Telling { journal, deployments } = &telling;
            let working = async {
                let _turn = deployments.turn_for(journal, options.wait).await?;
                deployments.carry_out(journal, work).await
            };
            // Cut off, it is told by dropping `telling`.
            if let Some(result) = deployments.inner.cut.run_until_cancelled(working).await {
                journal.end(result.err().inspect(|problem| {
                    let (kind, detail) = (problem.kind.as_str(), &problem.detail);
                    tracing::info!(app = %journal.app, kind, detail, "a deployment did not succeed");
                }));
            }
        });
        journal
    }

    /// Calls a deployment off when the person who asked for it may no longer do so, whether or not somebody follows it.
    pub(crate) fn begun_by(&self, journal: &Arc<Journal>, caller: &Caller) {
        if let Caller::Person(person) = caller {
            // For as long as the person is held, what is taken away from it is noticed.
            let person = person.clone();
            self.call_off_at(journal, async move { person.revoked().cancelled().await });
        }
    }

    /// Calls a deployment off at something that comes before its end.
    pub(crate) fn call_off_at(&self, journal: &Arc<Journal>, something: impl Future<Output = ()> + Send + 'static) {
        let (mut reader, journal) = (journal.reader(), journal.clone());
        self.inner.tasks.spawn(async move {
            let its_end = async { while reader.next().await.is_some() {} };
            tokio::select! {
                () = its_end => {}
                () = something => journal.cancel.cancel(),
            }
        });
    }

    /// The right to change the app, or the problem that somebody else has it.
    pub(crate) fn try_turn(&self, app: &AppName) -> Result<Turn, Problem> {
        let turn = self.turn(app);
        let held = turn.clone().try_lock_owned().map_err(|_| self.busy(app))?;
        Ok(Turn { app: app.clone(), inner: self.inner.clone(), held: Some(held) })
    }

    async fn turn_for(&self, journal: &Journal, wait: bool) -> Result<Turn, Problem> {
        match self.try_turn(&journal.app) {
            Err(problem) if wait => journal.tell(DeploymentEvent::Note { text: format!("waiting: {}", problem.detail) }),
            decided => return decided,
        }
        let waiting = self.turn(&journal.app).lock_owned();
        match journal.cancel.run_until_cancelled(waiting).await {
            Some(held) => Ok(Turn { app: journal.app.clone(), inner: self.inner.clone(), held: Some(held) }),
            None => Err(Problem::new(ProblemKind::Cancelled, "called off while waiting; nothing changed for the app")),
        }
    }

    fn turn(&self, app: &AppName) -> Arc<tokio::sync::Mutex<()>> {
        self.inner.shelf().turns.entry(app.clone()).or_default().clone()
    }

    /// What is told to whoever wants to change an app while it is being changed.
    fn busy(&self, app: &AppName) -> Problem {
        let running = self.inner.shelf().running.iter().filter(|journal| journal.app == *app).find_map(|it| it.deployment());
        let detail = match running {
            Some(it) => format!("{} {} of {app} has been running since {}", it.kind, it.id, it.started_at),
            None => format!("{app} is being changed by somebody else"),
        };
        Problem::new(ProblemKind::Busy, detail).hint(problems::busy_hint(app))
    }

    async fn carry_out(&self, journal: &Arc<Journal>, work: Work) -> Result<(), Problem> {
        let Inner { orchestrator, sources, http, .. } = &*self.inner;
        let progress = progress_into(journal.clone(), http.clone());
        let (app, cancel) = (&journal.app, &journal.cancel);
        let done = match work {
            Work::Deploy(sent) => return self.deploy(journal, *sent, &progress).await,
            Work::Push(pushed) => {
                let sent = pushed.check_out(sources, cancel).await?;
                self.deploy(journal, sent, &progress).await?;
                pushed.admit();
                return Ok(());
            }
            Work::Config { changes, trusted } => match orchestrator.kept_source(app).await {
                Ok(Some(kept)) => return self.reconfigure(journal, (kept, trusted), changes, &progress).await,
                Ok(None) => orchestrator.set_config(app, changes, &progress, cancel).await.map(drop),
                Err(error) => Err(error),
            },
            Work::Rollback { to, stateful, trusted } => {
                // What was taken away from the app since then is not given back by whoever has a role in it.
                if !trusted && let Some(to) = orchestrator.rollback_to(app, to).await.map_err(problems::orchestrator)? {
                    let release = sources.store.release(app, to).await.map_err(|error| problems::store(&error))?;
                    sources.refuse_more(app, &release.spec).await?;
                }
                orchestrator.rollback(app, to, stateful, &progress, cancel).await.map(drop)
            }
            Work::Restart => orchestrator.restart(app, &progress, cancel).await.map(drop),
        };
        done.map_err(problems::orchestrator)
    }

    async fn deploy(&self, journal: &Journal, sent: Sent, progress: &Progress) -> Result<(), Problem> {
        let Inner { orchestrator, sources, .. } = &*self.inner;
        let deploying = async {
            let request = sources.request(&journal.app, &sent, None).await?;
            orchestrator.deploy(request, progress, &journal.cancel).await.map_err(problems::orchestrator)
        };
        let deployed = deploying.await;
        sent.tree.remove().await;
        deployed.map(drop)
    }

    /// Changes configuration that what the active release was made of may depend on: that is read again.
    async fn reconfigure(
        &self,
        journal: &Journal,
        (kept, trusted): (KeptSource, bool),
        changes: Vec<ConfigChange>,
        progress: &Progress,
    ) -> Result<(), Problem> {
        let Inner { orchestrator, sources, .. } = &*self.inner;
        let (app, cancel) = (&journal.app, &journal.cancel);
        let config = orchestrator.config_after(app, &changes).await.map_err(problems::orchestrator)?;
        let sent = sources.reopen(kept, trusted).await?;
        let reconfiguring = async {
            let request = sources.request(app, &sent, Some(config)).await?;
            orchestrator.reconfigure(request, changes, progress, cancel).await.map_err(problems::orchestrator)
        };
        let deployed = reconfiguring.await;
        sent.tree.remove().await;
        deployed.map(drop)
    }

    /// The journal of a deployment that runs or ended lately.
    pub(crate) fn journal(&self, id: DeploymentId) -> Option<Arc<Journal>> {
        let shelf = self.inner.shelf();
        shelf.running.iter().chain(&shelf.ended).find(|journal| journal.is_of(id)).cloned()
    }

    /// A reader of a deployment that runs or ended lately.
    pub(crate) fn reader(&self, id: DeploymentId) -> Option<Reader> {
        self.journal(id).map(|journal| journal.reader())
    }

    /// Waits until every deployment has ended; no new one may begin. (They are called off by the token given to `new`.)
    pub(crate) async fn ended(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// Sees to it that a journal ends, whatever becomes of its task, and is put on the shelf of the ended.
struct Telling {
    journal: Arc<Journal>,
    deployments: Deployments,
}

impl Drop for Telling {
    fn drop(&mut self) {
        if !self.journal.has_ended() {
            let problem = Problem::new(ProblemKind::Internal, "the deployment's task broke off");
            self.journal.end(Some(problem.hint("the server's log has the details; please report it")));
        }
        let mut shelf = self.deployments.inner.shelf();
        shelf.running.retain(|journal| !Arc::ptr_eq(journal, &self.journal));
        if self.journal.deployment().is_some() {
            shelf.ended.push_back(self.journal.clone());
        }
        while shelf.ended.len() > ENDED_KEPT {
            shelf.ended.pop_front();
        }
    }
}

fn progress_into(journal: Arc<Journal>, http: Vec<SocketAddr>) -> Progress {
    Progress::new(move |event| match event {
        Event::Began(deployment) => journal.tell(DeploymentEvent::Began { deployment: deployment.into() }),
        Event::Phase(phase) => journal.tell(DeploymentEvent::Phase { phase: phase.into() }),
        Event::Note(text) => journal.tell(DeploymentEvent::Note { text }),
        Event::Output(line) => journal.tell(wire::output_line(line).into()),
        Event::Healthy(instance) => journal.tell(DeploymentEvent::Healthy { instance }),
        Event::Live(facts) => {
            let urls = wire::urls(facts.hosts.iter().map(|host| (host.as_str(), "/")), &http);
            journal.tell(DeploymentEvent::Live { hosts: facts.hosts, urls, elapsed_ms: facts.elapsed_ms });
        }
        Event::Ended(outcome) => journal.set_outcome(outcome.into()),
    })
}
