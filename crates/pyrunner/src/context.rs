//! What every handler has: the sandbox, the queue, the rates, and how the server was told to be.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coracle_pyrunner_store::Store;
use coracle_sandbox::{ClientError, Execution, Running, Sandbox};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::history::History;
use crate::jobs::JobBoard;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::policy::ImportPolicy;
use crate::queue::Queue;
use crate::rate::Rates;
use crate::settings::Settings;
use crate::site::Sites;

/// How long a daemon that is being started again is waited for, and how often it is asked.
const DAEMON_PATIENCE: Duration = Duration::from_secs(3);
const DAEMON_PAUSE: Duration = Duration::from_millis(20);

/// The server, as handlers see it.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    socket: PathBuf,
    sandbox: OnceCell<Sandbox>,
    pub(crate) queue: Queue,
    /// Which names it answers to, and to whose pages.
    pub(crate) sites: Sites,
    /// Calls that execute, and calls that only read.
    pub(crate) rates: Rates,
    pub(crate) reads: Rates,
    pub(crate) store: Store,
    pub(crate) history: History,
    pub(crate) keys: Keys,
    pub(crate) metrics: Metrics,
    pub(crate) policy: Option<ImportPolicy>,
    /// Jobs: whoever has something for the workers, or for those who call back, wakes them.
    pub(crate) jobs: JobBoard,
    /// Work that goes on when whoever asked for it has left.
    pub(crate) tasks: TaskTracker,
    draining: AtomicBool,
}

impl Context {
    pub(crate) fn new(settings: Settings, socket: PathBuf, store: Store) -> Self {
        Self {
            queue: Queue::new(settings.queue),
            sites: Sites::new(settings.listen, settings.anonymous, &settings.hosts, &settings.origins),
            rates: Rates::default(),
            reads: Rates::default(),
            history: History::new(store.clone(), settings.history, settings.retention.clone()),
            keys: Keys::new(store.clone(), settings.limits),
            metrics: Metrics::new(),
            policy: ImportPolicy::of(&settings),
            jobs: JobBoard::new(),
            store,
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
            settings,
            socket,
            sandbox: OnceCell::new(),
        }
    }

    /// Whether the server has been asked to stop.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// The daemon. It starts beside this process, so it need not be there yet.
    pub(crate) async fn sandbox(&self) -> Result<&Sandbox, ClientError> {
        self.sandbox.get_or_try_init(|| Sandbox::connect(&*self.socket)).await
    }

    /// Has a program executed. A daemon that has just ended is waited for: it is started again at once.
    pub(crate) async fn execute(&self, execution: &Execution) -> Result<Running, ClientError> {
        let started = Instant::now();
        loop {
            let answer = match self.sandbox().await {
                Ok(sandbox) => sandbox.execute(execution).await,
                Err(error) => Err(error),
            };
            match answer {
                Err(ClientError::Unreachable { .. }) if started.elapsed() < DAEMON_PATIENCE => {
                    tokio::time::sleep(DAEMON_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }
}
