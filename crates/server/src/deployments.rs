//! Deployments as tasks of the server: they belong to nobody's connection, one of each app at a time, and their journals
//! can be read while they run and for a while after.

mod previewing;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coracle_api::{ChangeOptions, DeploymentEvent, Problem, ProblemKind};
use coracle_git_door::Door;
use coracle_model::{AppName, Bringer, Deployment, DeploymentId, Grant, PersonName, ReleaseNumber};
use coracle_orchestrator::{Event, HostOrchestrator, KeptSource, Progress, StatefulChanges};
use coracle_store::{ConfigChange, PersonRecord, StoreError};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Caller;
use crate::forges::{Connected, Fetched};
use crate::gate::Pushed;
use crate::journal::{Journal, Reader};
use crate::previews::Admitted;
use crate::previews::expected::{Coming, Expected};
use crate::source::{Sent, Sources};
use crate::waiting::{Asking, WaitingRoom};
use crate::{problems, wire};

/// How many ended deployments can still be read in full; of older ones the store knows the outcome.
const ENDED_KEPT: usize = 16;

/// What a deployment does.
pub(crate) enum Work {
    /// Deploys a tree, which is removed at the end.
    Deploy(Box<Sent>),
    /// Deploys the commit of a push.
    Push(Arc<Pushed>),
    /// Deploys a commit into the preview of its branch; the app is the preview.
    Preview(Box<Admitted>, Files),
    /// Deploys a commit that was fetched.
    Fetched(Fetched),
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
    /// Takes over what another app runs.
    Promote {
        /// That app.
        from: AppName,
        /// Which release of it; else its active one.
        release: Option<ReleaseNumber>,
        /// What may change of the services that keep data.
        stateful: StatefulChanges,
        /// Whether the administrator asks for it.
        trusted: bool,
    },
    /// Replaces all instances.
    Restart,
}

/// What a tree is deployed as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// The app itself.
    Usual,
    /// What a branch would make of it.
    Preview,
}

/// Where the files of a commit come from.
pub(crate) enum Files {
    /// They have been fetched from somewhere else.
    Fetched(Fetched),
    /// They are in a push.
    Pushed(Pushed),
}

/// Every deployment of this server that runs or ended lately. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Deployments {
    inner: Arc<Inner>,
}

struct Inner {
    orchestrator: HostOrchestrator,
    sources: Sources,
    door: Door,
    http: Vec<SocketAddr>,
    tasks: TaskTracker,
    /// Fired when the server stops: every deployment is called off, as far as it still can be.
    stop: CancellationToken,
    /// Fired when one does not end in time: it is left where it is, as in a crash.
    cut: CancellationToken,
    shelf: Mutex<Shelf>,
    waiting: WaitingRoom,
    /// Previews that are to be.
    expected: Expected,
}

#[derive(Default)]
struct Shelf {
    running: Vec<Arc<Journal>>,
    /// Pushes that have not had their turn, each with its branch.
    in_line: Vec<(Arc<Journal>, String)>,
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
        (sources, door): (Sources, Door),
        http: Vec<SocketAddr>,
        stop: CancellationToken,
        cut: CancellationToken,
    ) -> Self {
        let (tasks, shelf, waiting, expected) =
            (TaskTracker::new(), Mutex::default(), WaitingRoom::default(), Expected::default());
        Self { inner: Arc::new(Inner { orchestrator, sources, door, http, tasks, stop, cut, shelf, waiting, expected }) }
    }

    /// Begins a deployment; its journal tells the rest. Firing the journal's `cancel` calls it off.
    pub(crate) fn begin(&self, app: AppName, work: Work, options: ChangeOptions) -> Arc<Journal> {
        let journal = Arc::new(Journal::new(app, self.inner.stop.child_token()));
        self.begin_with(journal, work, options)
    }

    /// The same for somebody who asks, by whose key or token it goes on: it is called off when they may no longer do it, whether or not
    /// somebody follows it.
    pub(crate) fn begin_for(&self, caller: &Caller, app: AppName, work: Work, options: ChangeOptions) -> Arc<Journal> {
        let journal = Arc::new(Journal::new(app, self.inner.stop.child_token()));
        if let Caller::Person(person) = caller {
            // For as long as the person is held, what is taken away from it is noticed.
            journal.comes_from(&person.bearer());
            let person = person.clone();
            self.call_off_at(&journal, async move { person.revoked().cancelled().await });
        }
        self.begin_with(journal, work, options)
    }

    fn begin_with(&self, journal: Arc<Journal>, work: Work, options: ChangeOptions) -> Arc<Journal> {
        self.inner.shelf().running.push(journal.clone());
        if let Work::Push(pushed) = &work {
            pushed.by().into_iter().for_each(|bearer| journal.comes_from(bearer));
            self.line_up(&journal, pushed);
        }
        if let Work::Fetched(fetched) = &work {
            journal.comes_from_forge(&fetched.connected);
        }
        let coming = match &work {
            Work::Preview(admitted, _) => Some(self.inner.expected.comes(&admitted.record)),
            _ => None,
        };
        let telling = Telling { journal: journal.clone(), deployments: self.clone() };
        self.inner.tasks.spawn(async move {
            let Telling { journal, deployments } = &telling;
            let working = async {
                let turn = deployments.turn_for(journal, options.wait).await;
                deployments.inner.shelf().in_line.retain(|(other, _)| !Arc::ptr_eq(other, journal));
                // However it ends, the turn is nobody's by then.
                let done = match turn {
                    Ok(turn) => Box::pin(deployments.carry_out(journal, work, turn)).await,
                    Err(problem) => Err(problem),
                };
                if let Some(left) = coming.and_then(Coming::leaves) {
                    deployments.end_unborn(left).await;
                }
                done
            };
            // Cut off, it is told by dropping `telling`.
            if let Some(result) = deployments.inner.cut.run_until_cancelled(working).await {
                journal.end(result.err().map(|problem| superseded(journal, problem)).inspect(|problem| {
                    let (kind, detail) = (problem.kind.as_str(), &problem.detail);
                    tracing::info!(app = %journal.app, kind, detail, "a deployment did not succeed");
                }));
            }
        });
        journal
    }

    /// A newer push takes the place of those of its branch that have not had their turn: they would be refused after it, and
    /// would be replaced at once before it. What is being worked on is not called off.
    fn line_up(&self, journal: &Arc<Journal>, pushed: &Pushed) {
        let mut shelf = self.inner.shelf();
        for (older, reference) in &shelf.in_line {
            if older.app == journal.app && reference == pushed.reference() {
                older.supersede(pushed.short_commit());
            }
        }
        shelf.in_line.push((journal.clone(), pushed.reference().to_owned()));
    }

    /// What waits for a person.
    pub(crate) fn waiting(&self) -> &WaitingRoom {
        &self.inner.waiting
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

    /// Calls a deployment off when whoever asked for it goes away, unless a person decides about it by then.
    pub(crate) fn left_at(&self, journal: &Arc<Journal>, going: impl Future<Output = ()> + Send + 'static) {
        let journal = journal.clone();
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = journal.ended() => {}
                () = going => journal.left(),
            }
        });
    }

    /// The right to change the app, or the problem that somebody else has it.
    pub(crate) fn try_turn(&self, app: &AppName) -> Result<Turn, Problem> {
        let turn = self.turn(app);
        let held = turn.clone().try_lock_owned().map_err(|_| self.busy(app))?;
        Ok(Turn { app: app.clone(), inner: self.inner.clone(), held: Some(held) })
    }

    /// The right to change the app as soon as nobody else has it, or the problem that somebody has it for longer.
    pub(crate) async fn turn_within(&self, app: &AppName, patience: Duration) -> Result<Turn, Problem> {
        let waiting = tokio::time::timeout(patience, self.turn(app).lock_owned());
        let held = waiting.await.map_err(|_| self.busy(app))?;
        Ok(Turn { app: app.clone(), inner: self.inner.clone(), held: Some(held) })
    }

    /// Calls off what is being done to an app, as far as it still can be.
    pub(crate) fn call_off(&self, app: &AppName) {
        for journal in self.inner.shelf().running.iter().filter(|journal| journal.app == *app) {
            journal.cancel.cancel();
        }
    }

    /// Has something done as a task of this owner, which goes on if whoever waits for it goes away.
    pub(crate) async fn own<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let broken = |error| Problem::new(ProblemKind::Internal, format!("a task broke off: {error}"));
        self.inner.tasks.spawn(work).await.unwrap_or_else(|error| Err(broken(error)))
    }

    async fn turn_for(&self, journal: &Journal, wait: bool) -> Result<Turn, Problem> {
        match self.try_turn(&journal.app) {
            Err(problem) if wait => journal.tell(DeploymentEvent::Note { text: format!("waiting: {}", problem.detail) }),
            decided => return decided,
        }
        match journal.cancel.run_until_cancelled(self.lock_turn(&journal.app)).await {
            Some(turn) => Ok(turn),
            None => Err(Problem::new(ProblemKind::Cancelled, "called off while waiting; nothing changed for the app")),
        }
    }

    /// Decides about what waits for a person. What has been written down is told to the one that waits, even if whoever decided goes
    /// away meanwhile.
    pub(crate) async fn decide(
        &self,
        id: DeploymentId,
        caller: &Caller,
        approved: bool,
        reason: Option<String>,
    ) -> Result<Deployment, Problem> {
        let (deployments, caller) = (self.clone(), caller.clone());
        self.own(async move {
            let Inner { waiting, sources, .. } = &*deployments.inner;
            waiting.decide(&sources.store, id, &caller, approved, reason).await
        })
        .await
    }

    /// The right to change the app, when everybody who asked before has had it.
    pub(crate) async fn lock_turn(&self, app: &AppName) -> Turn {
        let held = self.turn(app).lock_owned().await;
        Turn { app: app.clone(), inner: self.inner.clone(), held: Some(held) }
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

    async fn carry_out(&self, journal: &Arc<Journal>, work: Work, turn: Turn) -> Result<(), Problem> {
        let pushed = match &work {
            Work::Push(pushed) => Some(pushed.clone()),
            _ => None,
        };
        let asking = Arc::new(Asking::new(self.clone(), journal.clone(), pushed.clone(), turn));
        let progress = progress_into(journal.clone(), self.inner.http.clone()).asking(asking.clone());
        let came_by_git = matches!(work, Work::Push(_) | Work::Fetched(_) | Work::Preview(..));
        let done = match self.require_role(journal).await {
            Ok(()) => Box::pin(self.work(journal, work, &progress)).await,
            Err(problem) => Err(problem),
        };
        let done = if came_by_git { done.map_err(to_push_again) } else { done };
        if let Some(pushed) = pushed {
            pushed.settle().await;
        }
        asking.give_up_turn();
        done
    }

    async fn push(&self, journal: &Journal, pushed: &Pushed, progress: &Progress) -> Result<(), Problem> {
        self.refuse_previews(&journal.app).await?;
        let sent = pushed.check_out(&self.inner.sources, &journal.cancel).await?;
        self.deploy(journal, sent, progress).await?;
        pushed.admit();
        Ok(())
    }

    async fn work(&self, journal: &Journal, work: Work, progress: &Progress) -> Result<(), Problem> {
        let Inner { orchestrator, sources, .. } = &*self.inner;
        let (app, cancel) = (&journal.app, &journal.cancel);
        let done = match work {
            Work::Deploy(sent) => {
                let allowed = self.refuse_previews(app).await;
                if allowed.is_err() {
                    sent.tree.remove().await;
                    return allowed;
                }
                return self.deploy(journal, *sent, progress).await;
            }
            Work::Preview(preview, files) => return self.preview(journal, *preview, files, progress).await,
            Work::Push(pushed) => return self.push(journal, &pushed, progress).await,
            Work::Fetched(Fetched { tip, connected }) => {
                self.refuse_previews(app).await?;
                self.require_connected(&connected).await?;
                let sent = tip.check_out(sources, cancel).await?;
                return self.deploy(journal, sent, progress).await;
            }
            Work::Config { changes, trusted } => match orchestrator.kept_source(app).await {
                Ok(Some(kept)) => return self.reconfigure(journal, (kept, trusted), changes, progress).await,
                Ok(None) => orchestrator.set_config(app, changes, progress, cancel).await.map(drop),
                Err(error) => Err(error),
            },
            Work::Rollback { to, stateful, trusted } => {
                // What was taken away from the app since then is not given back by whoever has a role in it.
                if !trusted && let Some(to) = orchestrator.rollback_to(app, to).await.map_err(problems::orchestrator)? {
                    let release = sources.store.release(app, to).await.map_err(|error| problems::store(&error))?;
                    sources.refuse_more(app, &release.spec).await?;
                }
                orchestrator.rollback(app, to, stateful, progress, cancel).await.map(drop)
            }
            Work::Promote { from, release, stateful, trusted } => {
                self.refuse_previews(app).await?;
                let mut promotion = orchestrator.promotion(&from, release, app).await.map_err(problems::orchestrator)?;
                if !trusted {
                    sources.refuse_more(app, &promotion.spec).await?;
                }
                sources.settle_registry(app, &mut promotion.spec, trusted).await?;
                let nothing = sources.empty()?;
                let place = nothing.path().to_owned();
                let promoted = orchestrator.promote(promotion, place, stateful, progress, cancel).await;
                nothing.remove().await;
                promoted.map(drop)
            }
            Work::Restart => orchestrator.restart(app, progress, cancel).await.map(drop),
        };
        done.map_err(problems::orchestrator)
    }

    async fn deploy(&self, journal: &Journal, sent: Sent, progress: &Progress) -> Result<(), Problem> {
        self.deploy_as(journal, sent, progress, Manner::Usual).await
    }

    async fn deploy_as(&self, journal: &Journal, sent: Sent, progress: &Progress, manner: Manner) -> Result<(), Problem> {
        let Inner { orchestrator, sources, .. } = &*self.inner;
        let deploying = async {
            if manner == Manner::Preview {
                self.require_preview(&journal.app).await?;
            }
            let mut request = sources.request(&journal.app, &sent, None).await?;
            if manner == Manner::Preview {
                // It is what people look at before they approve anything.
                request.pipeline.approve = None;
            }
            orchestrator.deploy(request, progress, &journal.cancel).await.map_err(problems::orchestrator)
        };
        let deployed = deploying.await;
        sent.tree.remove().await;
        deployed.map(drop)
    }

    /// What was fetched goes live by the connection alone that it was fetched by: what has waited may find another, or none.
    async fn require_connected(&self, connected: &Connected) -> Result<(), Problem> {
        let now = self.inner.sources.store.forge(connected.app()).await.map_err(|error| problems::store(&error))?;
        connected.check(now.as_ref())
    }

    /// Refuses what has waited for its turn and outlived the role of whoever brought it: an app that is destroyed takes its roles with
    /// it, and is not made anew by what was on its way.
    async fn require_role(&self, journal: &Journal) -> Result<(), Problem> {
        let Bringer::Person(name) = journal.brought_by() else { return Ok(()) };
        let preview = self.inner.sources.store.preview(&journal.app).await.map_err(|error| problems::store(&error))?;
        // A role in an app is one in its previews.
        let app = preview.map_or_else(|| journal.app.clone(), |preview| preview.parent);
        self.with_role(&name, &app).await.map(drop)
    }

    /// A person who has brought something to an app, and has a role in it yet.
    async fn with_role(&self, name: &PersonName, app: &AppName) -> Result<PersonRecord, Problem> {
        match self.inner.sources.store.person(name).await {
            Ok(person) if Grant::role_in(&person.grants, app).is_some() => Ok(person),
            Ok(_) | Err(StoreError::NoSuchPerson(_)) => {
                let detail = format!("{name}, who has brought it, has no role in {app} any more");
                Err(Problem::new(ProblemKind::Forbidden, detail))
            }
            Err(error) => Err(problems::store(&error)),
        }
    }

    /// Whether what has waited may still go live, as it was brought: who brought it has a role in the app yet and is still known by
    /// the key or token that was shown, or the forge is still connected as it was; and the release reaches no further than the app
    /// does by now.
    pub(crate) async fn still_may(&self, journal: &Journal, release: ReleaseNumber) -> Result<(), Problem> {
        let store = &self.inner.sources.store;
        let told = |error: StoreError| problems::store(&error);
        match journal.brought_by() {
            Bringer::Administrator => return Ok(()),
            Bringer::Forge => {
                if let Some(connected) = journal.connected() {
                    self.require_connected(connected).await?;
                }
            }
            Bringer::Person(name) => {
                let person = self.with_role(&name, &journal.app).await?;
                let is_known = |id| person.credentials.iter().any(|known| known.id == id);
                if let Some(id) = journal.credential().filter(|id| !is_known(*id)) {
                    let detail = format!("{id}, by which {name} has brought it, was revoked");
                    return Err(Problem::new(ProblemKind::Forbidden, detail));
                }
            }
        }
        let release = store.release(&journal.app, release).await.map_err(told)?;
        self.inner.sources.refuse_more(&journal.app, &release.spec).await
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

/// What a push is told that was called off for a newer one.
fn superseded(journal: &Journal, problem: Problem) -> Problem {
    match journal.superseded() {
        Some(newer) if problem.kind == ProblemKind::Cancelled => {
            Problem::new(ProblemKind::Conflict, format!("superseded by a newer push ({newer}) while it waited"))
                .hint("if that one is not built on yours: `git pull`, then push again")
        }
        _ => problem,
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
        shelf.in_line.retain(|(journal, _)| !Arc::ptr_eq(journal, &self.journal));
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
        Event::Finding { finding, known } => journal.tell(DeploymentEvent::Finding { finding: finding.into(), known }),
        Event::Output(line) => journal.tell(wire::output_line(line).into()),
        Event::Healthy(instance) => journal.tell(DeploymentEvent::Healthy { instance }),
        Event::Live(facts) => {
            let urls = wire::urls(facts.hosts.iter().map(|host| (host.as_str(), "/")), &http);
            journal.tell(DeploymentEvent::Live { hosts: facts.hosts, urls, elapsed_ms: facts.elapsed_ms });
        }
        Event::Ended(outcome) => journal.set_outcome(outcome.into()),
    })
}

/// What whoever deploys is told to type at last is to deploy again; whoever pushes, pushes.
fn to_push_again(problem: Problem) -> Problem {
    let hint = problem.hint.map(|hint| hint.replace("then `coracle deploy`", "then push again"));
    Problem { hint, ..problem }
}
