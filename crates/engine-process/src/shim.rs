//! The shim: one small single-threaded process per instance, between the server and the program.
//!
//! Instances outlive the server, so somebody else has to hold their pipes, reap them and remember how they ended. The shim
//! does that and nothing more: no runtime, no network, hardly any memory. It is the same binary, started as
//! `coracle shim <instance directory>` for instances, and as `coracle shim --attached` for builds and `exec`, which end
//! with the server. It reads what to do from a private file or from its standard input, never from its arguments.
//!
//! As root it is PID 1 of the instance's pid namespace: when it ends, however that happens, the kernel kills all that the
//! program has started. Without root it is a subreaper, and the program dies with it.

mod log;
mod port;
mod start;
mod supervise;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use coracle_engine::Exit;
use coracle_jail::Support;
use coracle_jail::process::{Fork, exit_now, fork};

use crate::files::InstanceDir;
use crate::task::{Answer, Task};

pub(crate) use log::LONGEST_LINE;

/// The longest task that is read: the kernel does not start programs with a larger environment either.
const LONGEST_TASK: u64 = 16 << 20;

/// The entry of the hidden subcommand `coracle shim …`, with the arguments behind `shim`. Must be called at the beginning
/// of `main`, before any thread is started.
pub fn shim_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // Whatever the server had open and did not close is not for programs.
    coracle_jail::process::close_on_exec_from(3).ok();
    let outcome = match arguments.as_slice() {
        [word] if word == "--probe" => probe(),
        [word] if word == "--attached" => attached(),
        [directory] => detached(directory),
        _ => Err("this command is for Coracle itself".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            // Whoever started the shim reads its standard error when it gets no answer.
            drop(writeln!(std::io::stderr(), "{cause}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells what can be confined here.
fn probe() -> Result<(), String> {
    let support = serde_json::to_string(&Support::try_out()).map_err(|error| error.to_string())?;
    writeln!(std::io::stdout(), "{support}").map_err(|error| error.to_string())
}

/// Where the shim's words go.
pub(crate) struct Control(UnixStream);

impl Control {
    /// The socket that the engine passes as standard input.
    fn take() -> Result<Self, String> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| format!("standard input: {error}"))?;
        Ok(Self(UnixStream::from(socket)))
    }

    /// Says something. Nobody listening is no reason to stop.
    pub(crate) fn say(&mut self, answer: &Answer) {
        if let Ok(mut line) = serde_json::to_vec(answer) {
            line.push(b'\n');
            drop(self.0.write_all(&line));
        }
    }

    fn read_task(&mut self) -> Result<Task, String> {
        let mut reader = BufReader::new(&self.0);
        let mut length = String::new();
        reader.by_ref().take(20).read_line(&mut length).map_err(|error| format!("read the task: {error}"))?;
        let length: u64 = length.trim().parse().map_err(|_| "the task has no length".to_owned())?;
        let mut text = Vec::new();
        reader.take(length.min(LONGEST_TASK)).read_to_end(&mut text).map_err(|error| format!("read the task: {error}"))?;
        serde_json::from_slice(&text).map_err(|error| format!("the task is damaged: {error}"))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where a shim's program writes to, and who is told how it ends.
pub(crate) enum Mode {
    /// Into the instance's directory. Nobody waits.
    Detached(InstanceDir),
    /// To where the shim's own standard output and error go. Whoever holds the control socket waits; when they let go of
    /// it, the program is killed.
    Attached,
}

/// An instance: goes into the background as soon as that can be.
fn detached(directory: &OsString) -> Result<(), String> {
    let mut control = Control::take()?;
    let directory = InstanceDir::open(directory.as_ref()).map_err(|error| format!("open the instance directory: {error}"))?;
    let directory = directory.lock().map_err(|error| format!("lock the instance directory: {error}"))?;
    let task = control.read_task()?;
    new_process(task, Mode::Detached(directory), control, false)
}

/// A build step or an `exec`.
fn attached() -> Result<(), String> {
    let mut control = Control::take()?;
    let task = control.read_task()?;
    if task.join.is_some() {
        let exit = run(task, Mode::Attached, control);
        return exit.map(|_| ());
    }
    new_process(task, Mode::Attached, control, true)
}

/// Forks the process that supervises: PID 1, if there is to be a new pid namespace.
fn new_process(task: Task, mode: Mode, control: Control, wait: bool) -> Result<(), String> {
    let pid_only = coracle_jail::Namespaces { pid: task.namespaces.pid, ..coracle_jail::Namespaces::NONE };
    pid_only.unshare().map_err(|error| error.to_string())?;
    match fork().map_err(|error| format!("fork: {error}"))? {
        Fork::Child => {
            // A session of its own: no terminal's hang-up and no signal to the server's group reaches it.
            rustix::process::setsid().ok();
            if wait {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).ok();
            }
            let code = i32::from(run(task, mode, control).is_err());
            exit_now(code)
        }
        Fork::Parent(child) if wait => {
            // Its own end says nothing: the answer has gone through the control socket.
            rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).ok();
            Ok(())
        }
        Fork::Parent(_) => Ok(()),
    }
}

/// The life of a shim.
fn run(task: Task, mode: Mode, mut control: Control) -> Result<Exit, String> {
    match start::start(task, mode) {
        Ok(running) => {
            control.say(&Answer::Started { port: running.port() });
            Ok(running.supervise(control))
        }
        Err(cause) => {
            control.say(&Answer::Failed { cause: cause.clone() });
            Err(cause)
        }
    }
}
