//! `pyrunner run FILE`: one execution in a sandbox made for it, typed at and read as if it were `python FILE`.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use coracle_pyrunner::place::{Place, place_of_run, sweep};
use coracle_sandbox::{ClientError, End, Event, Execution, Reason, Running, Sandbox, Stdin};

use super::child;
use super::serve::LimitArguments;
use super::settings::interpreter;
use crate::output;

/// How long a sandbox may take to be made.
const MAKING: Duration = Duration::from_secs(20);

/// How long the daemon may take to clear up.
const CLEARING: Duration = Duration::from_secs(5);

/// What is read of the standard input at once.
const ROOM: usize = 64 << 10;

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The program; `-` reads it from the standard input, which it then has no more of
    file: PathBuf,
    /// Its arguments
    #[arg(last = true)]
    args: Vec<String>,
    /// Interpreter [default: the machine's]
    #[arg(long, env = "PYRUNNER_PYTHON", value_parser = interpreter, value_name = "PATH")]
    python: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitArguments,
}

/// Why nothing was executed.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("{path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the sandbox daemon cannot be started: {0}")]
    Daemon(#[source] io::Error),
    #[error("the sandbox daemon ended before it was ready; it says why above")]
    Ended,
    #[error("no sandbox was made within {} s", MAKING.as_secs())]
    Late,
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the output cannot be written: {0}")]
    Output(#[source] io::Error),
}

pub(crate) fn run(run: &Run) -> ExitCode {
    match execute(run) {
        Ok(end) => exit_code(&end),
        Err(error) => output::failure(&error, None),
    }
}

/// The program's own exit code; 128 and the signal's number if a signal ended it, as shells have it.
fn exit_code(end: &End) -> ExitCode {
    match end.reason {
        Reason::Ok | Reason::ExitNonzero | Reason::Signal => {}
        limit => output::note(format_args!("pyrunner: the program was ended: {}", limit.as_str())),
    }
    let code = end.exit_code.unwrap_or_else(|| 128 + end.signal.unwrap_or_default());
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

fn execute(run: &Run) -> Result<End, RunError> {
    let unreadable = |source| RunError::Unreadable { path: run.file.clone(), source };
    let from_stdin = run.file == Path::new("-");
    let code = if from_stdin { io::read_to_string(io::stdin()).map(String::into_bytes) } else { std::fs::read(&run.file) };
    let mut execution = Execution::new("default", code.map_err(unreadable)?);
    execution.args.clone_from(&run.args);
    if !from_stdin {
        execution.stdin = Stdin::Interactive;
    }
    sweep();
    let place = place_of_run();
    place.make().map_err(RunError::Daemon)?;
    let mut daemon = Daemon::start(run, place)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Daemon)?;
    let ended = runtime.block_on(async {
        let sandbox = daemon.connect().await?;
        converse(sandbox.execute(&execution).await?, !from_stdin).await
    });
    drop(runtime);
    ended
}

/// A daemon for one execution.
struct Daemon {
    child: Child,
    place: Place,
}

impl Daemon {
    fn start(run: &Run, place: Place) -> Result<Self, RunError> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("pyrunner").args(["serve", "--part=sandbox", "--slots=1"]);
        command.arg(format!("--bound-port={}", place.number())).arg("--place").arg(place.directory());
        command.args(run.limits.as_typed());
        if let Some(python) = &run.python {
            command.arg("--python").arg(python);
        }
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "error");
        }
        let child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(RunError::Daemon)?;
        Ok(Self { child, place })
    }

    async fn connect(&mut self) -> Result<Sandbox, RunError> {
        let until = Instant::now() + MAKING;
        while Instant::now() < until {
            if let Ok(sandbox) = Sandbox::connect(self.place.socket()).await {
                return Ok(sandbox);
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                return Err(RunError::Ended);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err(RunError::Late)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        child::end(&mut self.child, CLEARING);
        self.place.remove();
    }
}

/// Passes everything on in both directions until the end.
async fn converse(mut running: Running, typing: bool) -> Result<End, RunError> {
    let (sender, mut typed) = tokio::sync::mpsc::channel(1);
    let mut typing = typing;
    if typing {
        // Nothing can interrupt the wait for a line, so the process's end must not wait for this thread.
        std::thread::Builder::new().spawn(move || read(&sender)).map_err(RunError::Output)?;
    }
    loop {
        let event = tokio::select! {
            event = running.next() => event?,
            read = typed.recv(), if typing => {
                match read {
                    Some(bytes) => running.write(bytes).await?,
                    None => {
                        typing = false;
                        running.close_stdin().await?;
                    }
                }
                continue;
            }
        };
        match event {
            Some(Event::Stdout(bytes)) => write(&mut io::stdout(), &bytes)?,
            Some(Event::Stderr(bytes)) => write(&mut io::stderr(), &bytes)?,
            Some(Event::End(end)) => return Ok(end),
            Some(Event::Started { .. } | Event::File(_)) => {}
            None => return Err(ClientError::OutOfOrder.into()),
        }
    }
}

/// Passes on what is typed until its end.
fn read(typed: &tokio::sync::mpsc::Sender<Vec<u8>>) {
    let (mut stdin, mut room) = (io::stdin().lock(), vec![0; ROOM]);
    while let Ok(bytes) = stdin.read(&mut room) {
        if bytes == 0 || typed.blocking_send(room[..bytes].to_vec()).is_err() {
            return;
        }
    }
}

fn write(stream: &mut impl Write, bytes: &[u8]) -> Result<(), RunError> {
    stream.write_all(bytes).and_then(|()| stream.flush()).map_err(RunError::Output)
}
