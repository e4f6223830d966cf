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
use crate::problem::{Problem, ProblemKind};
use crate::queue::{Full, Permit};

/// An execution under way. Dropping it ends the program.
pub(crate) struct Ongoing {
    pub(crate) id: String,
    running: Running,
    transcript: Transcript,
    limits: Limits,
    queued: Duration,
    _permit: Permit,
}

/// What happens to it.
#[derive(Debug)]
pub(crate) enum News {
    /// It has written something.
    Wrote(Stream, Bytes),
    /// A file that was asked for.
    File(Collected),
    /// It is over.
    Ended(End),
}

impl Ongoing {
    /// Waits for a turn and starts it.
    pub(crate) async fn start(context: &Arc<Context>, caller: &Caller, execution: Execution) -> Result<Self, Problem> {
        let arrived = Instant::now();
        if context.draining() {
            return Err(Problem::new(ProblemKind::Unavailable, "the server is ending").retry_after(1));
        }
        let turn = context.queue.turn(caller.client, caller.most_running).await;
        let permit = turn.map_err(|full| refused_turn(full, context))?;
        let mut running = context.execute(&execution).await.map_err(|error| not_started(&error))?;
        // The first event tells the start.
        if let Err(error) = running.next().await {
            return Err(not_started(&error));
        }
        Ok(Self {
            id: crate::id::new()?,
            running,
            transcript: Transcript::default(),
            limits: context.settings.limits.lowered(&execution.limits),
            queued: arrived.elapsed(),
            _permit: permit,
        })
    }

    /// What happens next; `None` after the end. May be given up and called again.
    pub(crate) async fn next(&mut self) -> Result<Option<News>, Problem> {
        loop {
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
                Some(Event::End(end)) => Some(News::Ended(end)),
            });
        }
    }

    fn wrote(&mut self, stream: Stream, piece: Bytes) -> News {
        self.transcript.write(stream, piece.clone());
        News::Wrote(stream, piece)
    }

    /// Waits for the end.
    pub(crate) async fn finish(mut self) -> Result<ExecutionAnswer, Problem> {
        while let Some(news) = self.next().await? {
            if let News::Ended(end) = news {
                return Ok(self.transcript.answer(&self.id, &end, self.queued, &self.limits));
            }
        }
        Err(Problem::new(ProblemKind::Internal, "the sandbox daemon did not tell how the program ended"))
    }

    /// The last word without what has been told piece by piece.
    pub(crate) fn ended(&self, end: &End) -> ExecutionAnswer {
        answer::ended(&self.id, end, self.queued, &self.limits)
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
fn not_started(error: &ClientError) -> Problem {
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
