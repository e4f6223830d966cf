//! Following a deployment to its end: shows what happens, calls it off when a person wants that, and picks the thread up
//! again when the connection breaks.

use std::future::Future;
use std::time::Duration;

use clap::Args;
use coracle_api::{ChangeOptions, Client, ClientError, DeploymentEvent, EventStream, ProblemKind};
use coracle_model::DeploymentId;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::progress::Progress;

/// How long a server that has gone away is waited for: long enough for its restart.
const RECONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// The pause between two attempts to find it.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// Options of everything that makes a release.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Turn {
    /// Return as soon as it has begun, and let the server go on alone
    #[arg(long)]
    pub(crate) detach: bool,
    /// If another deployment of the app is running, wait for its end instead of failing
    #[arg(long)]
    pub(crate) wait: bool,
}

impl From<Turn> for ChangeOptions {
    fn from(turn: Turn) -> Self {
        Self { detach: turn.detach, wait: turn.wait }
    }
}

/// Makes the request that begins a deployment and follows it to its end, or, detached, to its beginning. `doing` is shown
/// until its first event.
pub(crate) async fn begin(
    context: &Context,
    client: &Client,
    turn: Turn,
    doing: &str,
    request: impl Future<Output = Result<EventStream, ClientError>>,
) -> Result<(), Failure> {
    let mut thread = Thread::new(context, client)?;
    thread.progress.doing(doing);
    let events = tokio::select! {
        events = request => events?,
        _ = thread.interrupts.recv() => return Err(Failure::server(ProblemKind::Cancelled, "called off before it began")),
    };
    if turn.detach { thread.until_begun(events).await } else { thread.until_ended(events).await.map(drop) }
}

/// The same for somebody who does not stay where a person has to decide; the deployment that waits for that, if it does.
pub(crate) async fn begin_or_wait(
    context: &Context,
    client: &Client,
    doing: &str,
    request: impl Future<Output = Result<EventStream, ClientError>>,
) -> Result<Option<DeploymentId>, Failure> {
    let mut thread = Thread::new(context, client)?;
    thread.progress.doing(doing);
    thread.leaves_waiting = true;
    let events = request.await?;
    thread.until_ended(events).await
}

/// Follows a deployment that the request for it has begun, by its events; it is this one's to call off.
pub(crate) async fn to_its_end(context: &Context, client: &Client, events: EventStream) -> Result<(), Failure> {
    Thread::new(context, client)?.until_ended(events).await.map(drop)
}

/// Follows a deployment that has been begun, by its events.
pub(crate) async fn watch(context: &Context, client: &Client, events: EventStream) -> Result<(), Failure> {
    let mut thread = Thread::new(context, client)?;
    thread.only_watches = true;
    thread.until_ended(events).await.map(drop)
}

struct Thread<'a> {
    context: &'a Context,
    client: &'a Client,
    progress: Progress<'a>,
    interrupts: Signal,
    since: Instant,
    /// How many events were taken.
    taken: usize,
    /// How many are still to be passed over, since a stream that is followed again begins at the beginning.
    pass_over: usize,
    /// Whether it has been asked to be called off.
    called_off: bool,
    /// Somebody else's deployment: Ctrl-C ends the watching only.
    only_watches: bool,
    /// It is left where a person has to decide.
    leaves_waiting: bool,
}

/// What to do after an interrupt.
enum Then {
    GoOn,
    Leave,
}

impl<'a> Thread<'a> {
    fn new(context: &'a Context, client: &'a Client) -> Result<Self, Failure> {
        let interrupts =
            signal(SignalKind::interrupt()).map_err(|error| Failure::failed(format!("cannot listen for Ctrl-C: {error}")))?;
        Ok(Self {
            context,
            client,
            progress: Progress::new(&context.output),
            interrupts,
            since: Instant::now(),
            taken: 0,
            pass_over: 0,
            called_off: false,
            only_watches: false,
            leaves_waiting: false,
        })
    }

    async fn until_begun(mut self, mut events: EventStream) -> Result<(), Failure> {
        let deployment = loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = self.interrupts.recv() => return Err(self.left()),
            };
            self.take(event.ok_or_else(|| self.lost(None))??);
            if self.progress.record().has_ended() {
                return self.progress.finish();
            }
            if let Some(deployment) = &self.progress.record().deployment {
                break deployment.clone();
            }
        };
        self.context.output.document(&json!({ "deployment": deployment }));
        self.progress.line(&format!("  follow it: coracle deployments -f -a {}", deployment.app));
        Ok(())
    }

    /// The deployment, if it is left waiting for a person.
    async fn until_ended(mut self, mut events: EventStream) -> Result<Option<DeploymentId>, Failure> {
        while !self.progress.record().has_ended() {
            if self.leaves_waiting && self.progress.record().waits() {
                return Ok(self.id());
            }
            let event = tokio::select! {
                event = events.next() => event,
                _ = self.interrupts.recv() => match self.interrupted().await {
                    Then::GoOn => continue,
                    Then::Leave => return Err(self.left()),
                },
            };
            match event {
                Some(Ok(event)) => self.take(event),
                Some(Err(ClientError::Problem(problem))) => return Err((*problem).into()),
                Some(Err(error)) => events = self.again(Some(error)).await?,
                None => events = self.again(None).await?,
            }
        }
        self.progress.finish().map(|()| None)
    }

    fn take(&mut self, event: DeploymentEvent) {
        // A server that was restarted meanwhile tells fewer events; the end is never passed over.
        if self.pass_over > 0 && !matches!(event, DeploymentEvent::Ended { .. }) {
            self.pass_over -= 1;
            return;
        }
        self.taken += 1;
        self.progress.take(event, self.since.elapsed());
    }

    async fn interrupted(&mut self) -> Then {
        if self.called_off || self.only_watches {
            return Then::Leave;
        }
        if let (true, Some(id)) = (self.progress.record().waits(), self.id()) {
            self.progress.line(&format!("it goes on waiting; coracle reject {id} calls it off"));
            return Then::Leave;
        }
        self.called_off = true;
        let Some(id) = self.id() else { return Then::Leave };
        if !self.progress.record().can_cancel() {
            self.progress.line("already live, finishing (Ctrl-C again leaves it to the server)");
            return Then::GoOn;
        }
        self.progress.line("calling it off (Ctrl-C again leaves)");
        let answer = tokio::select! {
            answer = self.client.cancel(id) => answer,
            _ = self.interrupts.recv() => return Then::Leave,
        };
        match answer {
            Ok(_) => {}
            Err(error) if error.kind() == Some(ProblemKind::Busy) => self.progress.line("already live, finishing"),
            Err(error) => self.progress.line(&format!("it could not be called off: {error}")),
        }
        Then::GoOn
    }

    /// The connection broke: the deployment goes on or is being undone, and the server knows which.
    async fn again(&mut self, error: Option<ClientError>) -> Result<EventStream, Failure> {
        let Some(id) = self.id() else { return Err(self.lost(error)) };
        self.progress.line("the connection broke; looking for the server");
        let deadline = Instant::now() + RECONNECT_DEADLINE;
        loop {
            let attempt = tokio::select! {
                attempt = self.client.deployment_events(id) => attempt,
                _ = self.interrupts.recv() => return Err(self.left()),
            };
            match attempt {
                Ok(events) => {
                    self.pass_over = self.taken;
                    return Ok(events);
                }
                Err(ClientError::Problem(problem)) => return Err((*problem).into()),
                Err(error) if Instant::now() >= deadline => return Err(self.lost(Some(error))),
                Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
            }
        }
    }

    fn id(&self) -> Option<DeploymentId> {
        self.progress.record().deployment.as_ref().map(|deployment| deployment.id)
    }

    fn lost(&self, error: Option<ClientError>) -> Failure {
        let failure = Failure::failed("the connection to the server was lost before the deployment ended")
            .hint(format!("see how it ended: {}", self.progress.record().where_to_look()));
        match error {
            Some(error) => failure.cause(error.to_string()),
            None => failure,
        }
    }

    fn left(&self) -> Failure {
        Failure::failed("left before it ended").hint(format!("see how it ended: {}", self.progress.record().where_to_look()))
    }
}
