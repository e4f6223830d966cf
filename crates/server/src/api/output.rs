//! Logs, and programs run for somebody who watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::State;
use axum::response::Response;
use coracle_api::{ExecRequest, LogLine, LogOptions, Problem, ProblemKind, RunLine, RunRequest};
use coracle_engine::{Exit, LogQuery, OutputSink};
use coracle_orchestrator::OrchestratorError;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::extract::{App, Json, Options};
use super::{Answer, Shared, answer};
use crate::{problems, wire};

/// The most lines of the past that one question gets from each instance, if it does not name a number.
const TAIL: usize = 10_000;

/// Bytes of output that may wait for a slow reader; beyond them the program is killed, for its output must neither fill
/// the memory nor lose lines.
const WAITING_BYTES: usize = 16 << 20;

/// The most arguments of a program; the kernel has its own limit on their length.
const MOST_ARGUMENTS: usize = 4096;

/// Lines of an app's instances, merged; lines of JSON.
#[utoipa::path(get, path = "/apps/{app}/logs", tag = "output", operation_id = "read_logs", params(("app" = String, Path), LogOptions), responses(
    (status = 200, body = LogLine, content_type = "application/x-ndjson"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn logs(
    State(context): State<Shared>,
    App(app): App,
    Options(options): Options<LogOptions>,
) -> Answer<Response> {
    let tail = Some(options.tail.unwrap_or(TAIL).min(TAIL));
    let query = LogQuery { tail, since: options.since, follow: options.follow };
    let found = context.orchestrator.logs(&app, options.process, query).await?;
    let found =
        found.map(|(instance, line)| LogLine { instance, at: line.at, stream: wire::stream(line.stream), text: line.text });
    Ok(answer::lines(found, context.stop.clone()))
}

/// Runs a one-off process of the active release with its configuration; lines of JSON. Closing the connection kills it.
#[utoipa::path(post, path = "/apps/{app}/run", tag = "output", operation_id = "run_program", params(("app" = String, Path)), request_body = RunRequest, responses(
    (status = 200, body = RunLine, content_type = "application/x-ndjson"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn run(State(context): State<Shared>, App(app): App, Json(request): Json<RunRequest>) -> Answer<Response> {
    check_argv(&request.argv)?;
    let orchestrator = context.orchestrator.clone();
    watched(&context, async move |output, cancel| orchestrator.run(&app, request.argv, &output, &cancel).await).await
}

/// Runs a program inside a running instance; lines of JSON. Closing the connection kills it.
#[utoipa::path(post, path = "/apps/{app}/exec", tag = "output", operation_id = "exec_program", params(("app" = String, Path)), request_body = ExecRequest, responses(
    (status = 200, body = RunLine, content_type = "application/x-ndjson"),
    (status = "default", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn exec(State(context): State<Shared>, App(app): App, Json(request): Json<ExecRequest>) -> Answer<Response> {
    check_argv(&request.argv)?;
    if let Some(instance) = request.instance.as_ref().filter(|instance| instance.app != app) {
        let detail = format!("instance {instance} is not one of {app}");
        return Err(Problem::new(ProblemKind::Invalid, detail).hint(format!("`coracle ps -a {app}` lists its instances")).into());
    }
    let orchestrator = context.orchestrator.clone();
    let running = async move |output: OutputSink, cancel: CancellationToken| {
        orchestrator.exec(&app, request.instance, request.argv, &output, &cancel).await
    };
    watched(&context, running).await
}

fn check_argv(argv: &[String]) -> Result<(), Problem> {
    let wrong = |detail: &str| Err(Problem::new(ProblemKind::BadRequest, detail));
    match argv.first() {
        None => wrong("`argv` is empty: name a program"),
        Some(program) if program.is_empty() => wrong("the program's name is empty"),
        _ if argv.len() > MOST_ARGUMENTS => wrong("`argv` has more than 4096 arguments"),
        _ if argv.iter().any(|argument| argument.contains('\0')) => wrong("an argument contains a NUL byte"),
        _ => Ok(()),
    }
}

/// Runs something as a task of the server and answers with what it writes; whoever watches and goes away ends it.
async fn watched<R>(context: &Shared, running: impl FnOnce(OutputSink, CancellationToken) -> R) -> Answer<Response>
where
    R: Future<Output = Result<Exit, OrchestratorError>> + Send + 'static,
{
    let cancel = context.stop.child_token();
    let gone = cancel.clone().drop_guard();
    let (queue, mut lines) = Queue::new(cancel.clone());
    let output = queue.clone();
    let running = running(OutputSink::new(move |line| output.put(RunLine::Output(wire::output_line(line)))), cancel);
    context.tasks.spawn(async move {
        let last = match running.await {
            Ok(exit) => RunLine::Exit(wire::exit(exit)),
            Err(_) if queue.overflowed() => RunLine::Problem(overflow()),
            Err(error) => RunLine::Problem(problems::orchestrator(error)),
        };
        queue.put_last(last);
    });
    // What goes wrong before the first line is told by the status.
    let first = match lines.take().await {
        Some(RunLine::Problem(problem)) => return Err(problem.into()),
        first => first,
    };
    let rest = futures::stream::unfold((lines, gone), |(mut lines, gone)| async move {
        let line = lines.take().await?;
        Some((line, (lines, gone)))
    });
    Ok(answer::lines(futures::stream::iter(first).chain(rest), CancellationToken::new()))
}

fn overflow() -> Problem {
    let detail = format!("the program wrote faster than its output was read, by more than {WAITING_BYTES} bytes; it was killed");
    Problem::new(ProblemKind::Other, detail).hint("read faster, or let the program write to a file")
}

/// Lines on their way to whoever watches: never blocks, never loses one, never grows without end.
#[derive(Clone)]
struct Queue {
    lines: mpsc::UnboundedSender<RunLine>,
    waiting: Arc<AtomicUsize>,
    overflowed: Arc<AtomicBool>,
    cancel: CancellationToken,
}

struct Lines {
    lines: mpsc::UnboundedReceiver<RunLine>,
    waiting: Arc<AtomicUsize>,
}

fn weight(line: &RunLine) -> usize {
    match line {
        RunLine::Output(output) => output.text.len() + size_of::<RunLine>(),
        RunLine::Exit(_) | RunLine::Problem(_) => 0,
    }
}

impl Queue {
    fn new(cancel: CancellationToken) -> (Self, Lines) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let queue = Self { lines: sender, waiting: waiting.clone(), overflowed: Arc::default(), cancel };
        (queue, Lines { lines: receiver, waiting })
    }

    fn put(&self, line: RunLine) {
        let weight = weight(&line);
        // Once a line is lost, none after it may be told.
        if self.overflowed() || self.waiting.load(Ordering::Relaxed) + weight > WAITING_BYTES {
            self.overflowed.store(true, Ordering::Relaxed);
            self.cancel.cancel();
            return;
        }
        self.waiting.fetch_add(weight, Ordering::Relaxed);
        self.put_last(line);
    }

    fn put_last(&self, line: RunLine) {
        // Nobody watches any more: the program is being ended for just that reason.
        let _sent: Result<(), _> = self.lines.send(line);
    }

    fn overflowed(&self) -> bool {
        self.overflowed.load(Ordering::Relaxed)
    }
}

impl Lines {
    async fn take(&mut self) -> Option<RunLine> {
        let line = self.lines.recv().await?;
        self.waiting.fetch_sub(weight(&line), Ordering::Relaxed);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use coracle_api::{OutputLine, Stream};

    fn line(length: usize) -> RunLine {
        RunLine::Output(OutputLine { stream: Stream::Stdout, text: "x".repeat(length) })
    }

    #[tokio::test]
    async fn a_reader_who_does_not_read_ends_the_program_and_loses_no_line() {
        let cancel = CancellationToken::new();
        let (queue, mut lines) = Queue::new(cancel.clone());
        let mut put = 0;
        while !cancel.is_cancelled() {
            queue.put(line(1 << 20));
            put += 1;
        }
        assert!((15..=17).contains(&put), "{put}");
        assert!(queue.overflowed());
        queue.put_last(RunLine::Problem(overflow()));
        let mut taken = 0;
        while let Some(RunLine::Output(_)) = lines.take().await {
            taken += 1;
        }
        assert_eq!(taken, put - 1);
    }

    #[test]
    fn argument_vectors_name_a_program() {
        for bad in [&[][..], &[""], &["a\0b"], &["sh", "\0"]] {
            let argv: Vec<String> = bad.iter().map(ToString::to_string).collect();
            assert!(check_argv(&argv).is_err(), "{bad:?}");
        }
        check_argv(&["echo".into(), String::new()]).unwrap();
    }
}
