//! One execution from the wish to the answer: a turn, a sandbox, what it writes, its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_sandbox::wire::RefusalKind;
use coracle_sandbox::{ClientError, Collected, End, Event, Execution, Limits, Running};
use tokio::time::Instant;

use crate::answer::{self, ExecutionAnswer, Stream, Transcript};
use crate::caller::Caller;
use crate::context::Context;
use crate::history::Entry;
use crate::problem::{Problem, ProblemKind};
use crate::queue::{Full, Permit};

/// An execution under way. Dropping it ends the program.
pub(crate) struct Ongoing {
    context: Arc<Context>,
    running: Running,
    transcript: Transcript,
    entry: Entry,
    id: String,
    limits: Limits,
    queued: Duration,
    /// How it ended, until that is written down.
    ending: Option<End>,
    over: bool,
    /// Last, so that the next one's turn comes when this one is gone.
    _permit: Permit,
}

/// What happens to it.
#[derive(Debug)]
pub(crate) enum News {
    /// It has written something.
    Wrote(Stream, Bytes),
    /// A file that was asked for.
    File(Collected),
    /// It is over; the answer without what it wrote.
    Ended(Box<ExecutionAnswer>),
}

impl Ongoing {
    /// Waits for a turn and starts it. `origin` is the way it came, such as `execute` or `ws`.
    pub(crate) async fn start(
        context: &Arc<Context>,
        caller: &Caller,
        execution: Execution,
        origin: &'static str,
    ) -> Result<Self, Problem> {
        let arrived = Instant::now();
        if context.draining() {
            return Err(Problem::new(ProblemKind::Unavailable, "the server is ending").retry_after(1));
        }
        let mut entry = context.history.begin(&caller.owner, origin)?;
        let turn = Self::take_turn(context, caller, &execution).await;
        let queued = arrived.elapsed();
        let started = match turn {
            Ok(permit) => Self::begin(context, &execution).await.map(|running| (permit, running)),
            Err(problem) => Err(problem),
        };
        let (permit, running) = match started {
            Ok(started) => started,
            Err(problem) => {
                entry.forget();
                context.metrics.refused(problem.kind);
                return Err(problem);
            }
        };
        let limits = context.settings.limits.lowered(&execution.limits);
        let id = entry.record.id.to_string();
        entry.describe(execution);
        let context = Arc::clone(context);
        Ok(Self {
            context,
            running,
            transcript: Transcript::default(),
            entry,
            id,
            limits,
            queued,
            ending: None,
            over: false,
            _permit: permit,
        })
    }

    async fn take_turn(context: &Context, caller: &Caller, execution: &Execution) -> Result<Permit, Problem> {
        let turn = context.queue.turn(caller.client, caller.most_running).await;
        let permit = turn.map_err(|full| refused_turn(full, context))?;
        if let Some(policy) = &context.policy {
            policy.check(context, execution).await?;
        }
        Ok(permit)
    }

    async fn begin(context: &Context, execution: &Execution) -> Result<Running, Problem> {
        let mut running = context.execute(execution).await.map_err(|error| not_started(&error))?;
        // The first event tells the start.
        running.next().await.map_err(|error| not_started(&error))?;
        Ok(running)
    }

    /// Its name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What happens next; `None` after the end. May be given up and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<News>, Problem> {
        if self.over {
            return Ok(None);
        }
        loop {
            if let Some(end) = self.ending {
                return Ok(Some(News::Ended(Box::new(self.end(&end).await?))));
            }
            let event = self.running.next().await.map_err(|error| broken_off(&error))?;
            return Ok(match event {
                None => None,
                Some(Event::Started { .. }) => continue,
                Some(Event::Stdout(piece)) => Some(self.wrote(Stream::Stdout, piece)),
                Some(Event::Stderr(piece)) => Some(self.wrote(Stream::Stderr, piece)),
                Some(Event::File(file)) => {
                    self.transcript.keep(file.clone());
                    Some(News::File(file))
                }
                Some(Event::End(end)) => {
                    // For a turn here, and for a sandbox there.
                    self.queued += end.usage.queued;
                    self.context.metrics.ended(&end, self.queued);
                    self.entry.wrote(&self.transcript);
                    self.entry.ended(&end, self.queued);
                    self.ending = Some(end);
                    continue;
                }
            });
        }
    }

    fn wrote(&mut self, stream: Stream, piece: Bytes) -> News {
        self.transcript.write(stream, piece.clone());
        News::Wrote(stream, piece)
    }

    /// Writes down how it ended.
    async fn end(&mut self, end: &End) -> Result<ExecutionAnswer, Problem> {
        let kept = self.context.history.keep(&mut self.entry).await;
        self.over = true;
        kept?;
        Ok(answer::ended(&self.id, end, self.queued, &self.limits))
    }

    /// Waits for the end.
    pub(crate) async fn finish(mut self) -> Result<ExecutionAnswer, Problem> {
        while let Some(news) = self.next().await? {
            if let News::Ended(ended) = news {
                return Ok(self.transcript.answer(*ended));
            }
        }
        Err(Problem::new(ProblemKind::Internal, "the sandbox daemon did not tell how the program ended"))
    }

    /// Types at the program.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), Problem> {
        self.running.write(bytes).await.map_err(|error| broken_off(&error))
    }

    /// Ends what is typed.
    pub(crate) async fn close_stdin(&mut self) -> Result<(), Problem> {
        self.running.close_stdin().await.map_err(|error| broken_off(&error))
    }

    /// Ends the program; its end is still told.
    pub(crate) async fn cancel(&mut self) -> Result<(), Problem> {
        self.running.cancel().await.map_err(|error| broken_off(&error))
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        if !self.over && self.ending.is_none() {
            self.context.metrics.abandoned();
            self.entry.wrote(&self.transcript);
        }
    }
}

fn refused_turn(full: Full, context: &Context) -> Problem {
    let limits = &context.settings.queue;
    // Everybody who waits has had a turn after so long, if all of them use their time.
    let seconds = limits.patience.as_secs().max(1);
    match full {
        Full::Client => {
            let detail = format!("{} of your executions are waiting already", limits.waiting_per_client);
            Problem::new(ProblemKind::TooMany, detail).retry_after(1)
        }
        Full::Everybody => {
            let detail = format!("{} executions are waiting already", limits.waiting);
            Problem::new(ProblemKind::Unavailable, detail).retry_after(seconds)
        }
        Full::Impatient => {
            Problem::new(ProblemKind::Unavailable, format!("it was not its turn within {seconds} s")).retry_after(seconds)
        }
    }
}

/// Why nothing was executed.
pub(crate) fn not_started(error: &ClientError) -> Problem {
    match error {
        ClientError::Invalid(why) => Problem::new(ProblemKind::BadRequest, why.clone()),
        ClientError::Refused(refusal) => {
            let detail = refusal.message.clone();
            match refusal.kind {
                RefusalKind::Image => Problem::new(ProblemKind::NoSuchImage, detail).hint("GET /runtimes lists the images"),
                RefusalKind::Busy => Problem::new(ProblemKind::Unavailable, detail).retry_after(1),
                RefusalKind::Protocol => Problem::new(ProblemKind::BadRequest, detail),
                _ => {
                    tracing::error!(detail, "the machine did not give what a sandbox needs");
                    Problem::new(ProblemKind::Unavailable, detail).retry_after(5)
                }
            }
        }
        ClientError::Unreachable { .. } => {
            tracing::error!(%error, "the sandbox daemon is not there");
            Problem::new(ProblemKind::Unavailable, "the sandbox daemon is not there; nothing was executed").retry_after(1)
        }
        error => {
            tracing::error!(%error, "the sandbox daemon cannot be understood");
            Problem::new(ProblemKind::Internal, "the sandbox daemon cannot be understood; the server's log has the details")
        }
    }
}

/// Why an execution did not come to its end.
fn broken_off(error: &ClientError) -> Problem {
    match error {
        ClientError::Unreachable { .. } => {
            let detail = "the sandbox daemon ended during the execution, and the program with it";
            Problem::new(ProblemKind::Unavailable, detail).hint("it may have run in part").retry_after(1)
        }
        error => not_started(error),
    }
}
