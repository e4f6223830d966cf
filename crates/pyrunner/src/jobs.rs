//! Jobs: programs that are executed when there is room, and whose end is told by a call back. They are kept in the database,
//! so they outlive this process; several processes may serve one database, and each job is one process's at a time.
//!
//! A job whose process died is executed again. That harms nobody: nothing that a program does is seen outside its sandbox.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use coracle_pyrunner_store::{Id, Interrupted, Job, JobState, StoreError};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::callback;
use crate::caller::Caller;
use crate::context::Context;
use crate::execution::Ongoing;
use crate::problem::{Problem, ProblemKind};
use crate::program::{ProgramBody, read_json};

/// How long a job is this process's without a sign of life.
const LEASE: Duration = Duration::from_secs(15);

/// How often that is renewed, and wishes to cancel are heard.
const RENEWAL: Duration = Duration::from_secs(3);

/// How often is looked for jobs that other processes have left.
const ROUND: Duration = Duration::from_secs(5);

/// How often a job is begun before it is given up.
const MOST_ATTEMPTS: u32 = 3;

/// The pause of a job that the server cannot execute now.
const LATER: Duration = Duration::from_millis(500);

/// What wakes those who work on jobs.
pub(crate) struct JobBoard {
    /// This process, as the database knows it.
    holder: String,
    queued: Notify,
    pub(crate) ended: Notify,
    running: Mutex<HashMap<Id, CancellationToken>>,
}

impl JobBoard {
    pub(crate) fn new() -> Self {
        let holder = format!("{}-{}", std::process::id(), jiff::Timestamp::now().as_microsecond());
        Self { holder, queued: Notify::new(), ended: Notify::new(), running: Mutex::default() }
    }

    /// There is a new job.
    pub(crate) fn announce(&self) {
        self.queued.notify_one();
    }

    /// Ends a job that this process runs, if it does.
    pub(crate) fn cancel(&self, id: Id) {
        if let Some(token) = self.lock().get(&id) {
            token.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works on jobs until `stop`; those that run then are ended and put back.
pub(crate) async fn work(context: Arc<Context>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    for _ in 0..context.settings.job_workers {
        tasks.spawn(worker(Arc::clone(&context), stop.clone()));
    }
    tasks.spawn(renew(Arc::clone(&context), stop.clone()));
    tasks.spawn(callback::work(Arc::clone(&context), stop.clone()));
    stop.cancelled().await;
    while tasks.join_next().await.is_some() {}
}

async fn worker(context: Arc<Context>, stop: CancellationToken) {
    while !stop.is_cancelled() && !context.draining() {
        match context.store.claim_next_job(&context.jobs.holder, LEASE).await {
            Ok(Some(job)) => {
                // There may be more, for somebody else who sleeps.
                context.jobs.announce();
                run(&context, job, &stop).await;
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "jobs cannot be looked for"),
        }
        let pause = tokio::time::timeout(ROUND, context.jobs.queued.notified());
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// Runs one job and writes down what came of it.
async fn run(context: &Arc<Context>, job: Job, stop: &CancellationToken) {
    let (id, holder) = (job.id, &context.jobs.holder);
    let cancelled = CancellationToken::new();
    context.jobs.lock().insert(id, cancelled.clone());
    let outcome = tokio::select! {
        outcome = attempt(context, &job) => outcome,
        () = cancelled.cancelled() => Outcome::Ended(JobState::Cancelled, Bytes::new()),
        () = stop.cancelled() => Outcome::Later,
    };
    context.jobs.lock().remove(&id);
    let noted = match outcome {
        Outcome::Ended(state, result) => context.store.finish_job(id, holder, state, result).await,
        Outcome::Later => context.store.release_job(id, holder).await,
    };
    context.jobs.ended.notify_one();
    match noted {
        Ok(true) => {}
        Ok(false) => tracing::warn!(%id, "a job was taken over by another process"),
        // It is executed again when its lease has run out.
        Err(error) => tracing::warn!(%id, %error, "the end of a job is not written down"),
    }
}

enum Outcome {
    Ended(JobState, Bytes),
    /// It is put back.
    Later,
}

async fn attempt(context: &Arc<Context>, job: &Job) -> Outcome {
    match execute(context, job).await {
        Ok(answer) => Outcome::Ended(JobState::Done, json(&answer)),
        Err(problem) if problem.status == ProblemKind::Unavailable.status() || problem.kind == ProblemKind::TooMany => {
            if !context.draining() {
                tokio::time::sleep(LATER).await;
            }
            Outcome::Later
        }
        Err(problem) => Outcome::Ended(JobState::Failed, json(&problem)),
    }
}

async fn execute(context: &Arc<Context>, job: &Job) -> Result<crate::answer::ExecutionAnswer, Problem> {
    let settings = &context.settings;
    let program: ProgramBody = read_json(&job.request)?;
    let execution = program.into_execution(&settings.limits, &settings.default_image)?;
    Ongoing::start(context, &Caller::of_job(&job.owner, settings.limits), execution, "job").await?.finish().await
}

/// Keeps this process's jobs its own, hears wishes to cancel, and takes over what others have left.
async fn renew(context: Arc<Context>, stop: CancellationToken) {
    let mut round = tokio::time::interval(RENEWAL);
    let mut recovered = tokio::time::Instant::now() - ROUND;
    while stop.run_until_cancelled(round.tick()).await.is_some() {
        let busy = !context.jobs.lock().is_empty();
        if busy {
            match context.store.renew_leases(&context.jobs.holder, LEASE).await {
                Ok(unwanted) => unwanted.into_iter().for_each(|id| context.jobs.cancel(id)),
                Err(error) => tracing::warn!(%error, "the leases of jobs cannot be renewed"),
            }
        }
        if recovered.elapsed() >= ROUND {
            recovered = tokio::time::Instant::now();
            match recover(&context).await {
                Ok(0) => {}
                Ok(_) => context.jobs.announce(),
                Err(error) => tracing::debug!(%error, "jobs that were left cannot be looked for"),
            }
        }
    }
}

async fn recover(context: &Context) -> Result<usize, StoreError> {
    let problem = Problem::new(ProblemKind::Internal, format!("the server ended {MOST_ATTEMPTS} times while it executed this"));
    let interrupted = Interrupted::Rerun { attempts: MOST_ATTEMPTS, result: json(&problem) };
    let jobs = context.store.recover_jobs(&interrupted).await?;
    for job in &jobs {
        tracing::info!(id = %job.id, state = job.state.as_str(), "a job whose process has died");
    }
    Ok(jobs.len())
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("answers are plain data")).into()
}
