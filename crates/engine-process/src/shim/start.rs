//! From a task to a running program: claim the port, make the cgroup, the namespaces and the view of the file system, fork,
//! give up all privileges, exec. Whatever fails is told in words; nothing that was asked for is left out silently.

use std::collections::BTreeMap;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_engine::Stream;
use coracle_jail::process::{self, Fork, SignalQueue, Stat, exit_now, fork};
use coracle_jail::{Confinement, Group, Hierarchy, Namespaces, Show};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::Mode;
use super::log::{Capture, Log};
use super::port::{self, ReservedPort};
use super::supervise::{KillBy, Output, Running};
use crate::kept_task;
use crate::task::{PortChoice, ShimRecord, Task, TaskGroup};

/// How often groups are made anew when somebody removes the ones above.
const GROUP_ATTEMPTS: u32 = 4;

/// Starts the program of a task.
pub(super) fn start(mut task: Task, mode: Mode) -> Result<Running, String> {
    let signals = SignalQueue::block(&[Signal::TERM, Signal::INT, Signal::CHILD, Signal::HUP])
        .map_err(|error| format!("queue signals: {error}"))?;
    let reserved = match task.port {
        PortChoice::Free => Some(port::reserve()?),
        PortChoice::None | PortChoice::Same(_) => None,
    };
    let port = match task.port {
        PortChoice::Same(port) => Some(port),
        PortChoice::None | PortChoice::Free => reserved.as_ref().map(|reserved| reserved.port),
    };
    let group = task.group.as_ref().map(enter_group).transpose()?;
    let doors = group.as_ref().map(|group| group.doors().map_err(text)).transpose()?.unwrap_or_default();
    if let (Some(wanted), Some(group)) = (&task.group, &group)
        && wanted.delegated
    {
        if let Some(user) = task.confinement.user {
            group.delegate(user).map_err(text)?;
        }
        let places = group.directories().into_iter().map(Show::writable);
        task.file_system.iter_mut().for_each(|view| view.show.extend(places.clone()));
    }
    let record = match &mode {
        Mode::Detached(_) => Some(own_record(port, &task)?),
        Mode::Attached => None,
    };
    enter_namespaces(&task)?;
    let (command, capture) = prepare(&task, port, &mode)?;
    let output = match (mode, capture) {
        (Mode::Detached(directory), Some((stdout, stderr))) => {
            // Before the program runs, so that there is never a program without a trace of it.
            let record = record.ok_or("no record of the shim")?;
            directory.write_pid(&record).map_err(|error| format!("write pid.json: {error}"))?;
            let log = directory.try_clone().and_then(Log::create).map_err(|error| format!("create the log: {error}"))?;
            let capture = |pipe, stream| Capture::new(pipe, stream).map_err(|error| format!("read the output: {error}"));
            Output::Log {
                captures: [capture(stdout, Stream::Stdout)?, capture(stderr, Stream::Stderr)?],
                log: Box::new(log),
                directory,
            }
        }
        _ => Output::Inherited,
    };
    let program = launch(command, &task.confinement, &doors)?;
    if matches!(output, Output::Log { .. }) {
        process::silence(&[1, 2]).map_err(|error| format!("leave the terminal: {error}"))?;
    }
    let kill_by = match (task.join, task.namespaces.pid) {
        (Some(_), _) => KillBy::Group,
        (None, true) => KillBy::Namespace,
        (None, false) => KillBy::Descendants,
    };
    let attached = matches!(output, Output::Inherited);
    Ok(Running { program, signals, output, group, kill_by, attached, reserved: reserved.map(Box::new), port })
}

fn text(error: coracle_jail::JailError) -> String {
    error.to_string()
}

/// Makes or finds the cgroup of the program, and moves this shim to that of the supervisors. An app that is being removed
/// may take the empty groups above away at the very moment, so this is tried again.
fn enter_group(wanted: &TaskGroup) -> Result<Group, String> {
    let hierarchy = Hierarchy::detect();
    let mut outcome = make_group(&hierarchy, wanted);
    for _ in 0..GROUP_ATTEMPTS {
        if outcome.is_ok() {
            break;
        }
        outcome = make_group(&hierarchy, wanted);
    }
    outcome
}

fn make_group(hierarchy: &Hierarchy, wanted: &TaskGroup) -> Result<Group, String> {
    if let Some(supervisors) = &wanted.supervisors {
        hierarchy.create(supervisors, &coracle_jail::GroupLimits::default()).and_then(|group| group.join()).map_err(text)?;
    }
    match &wanted.limits {
        Some(limits) => {
            if let Some(left_over) = hierarchy.find(&wanted.name) {
                left_over.kill(Duration::from_secs(2));
                left_over.remove(Duration::from_secs(2)).map_err(text)?;
            }
            hierarchy.create(&wanted.name, limits).map_err(text)
        }
        None => hierarchy.find(&wanted.name).ok_or_else(|| format!("cgroup {} is gone", wanted.name)),
    }
}

/// Who this shim is, as seen from the machine. Read before `/proc` is replaced.
fn own_record(port: Option<u16>, task: &Task) -> Result<ShimRecord, String> {
    let task_fd = kept_task::keep(task).map_err(|error| format!("keep the task: {error}"))?;
    let pid = process::pid_in_proc().map_err(|error| format!("find the own pid: {error}"))?;
    let stat = Stat::of(pid).ok_or("cannot read the own /proc/self/stat")?;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let since_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Ok(ShimRecord { pid, start: stat.start, boot: process::boot_id(), port, task_fd, since_ms })
}

fn enter_namespaces(task: &Task) -> Result<(), String> {
    if let Some(shim) = task.join {
        if task.namespaces.any() {
            let pid = Pid::from_raw(shim).ok_or("the instance has no pid")?;
            let pidfd =
                rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("find the instance: {error}"))?;
            task.namespaces.join(pidfd.as_fd()).map_err(text)?;
        }
        return Ok(());
    }
    if !task.namespaces.pid {
        // Orphans of the program come to this shim instead of the machine's init.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| format!("become subreaper: {error}"))?;
    }
    Namespaces::without_pid(task.namespaces).unshare().map_err(text)?;
    task.file_system.as_ref().map_or(Ok(()), |view| view.apply()).map_err(text)
}

/// The command with its environment, and the reading ends of its pipes if its output is captured here.
fn prepare(task: &Task, port: Option<u16>, mode: &Mode) -> Result<(Command, Option<(PipeReader, PipeReader)>), String> {
    let mut env: BTreeMap<String, String> = task.env.iter().cloned().collect();
    if let Some(port) = port {
        env.insert("PORT".to_owned(), port.to_string());
    }
    let (assignments, argv) = task.command.expand(&|name| env.get(name).cloned());
    env.extend(assignments.into_iter().map(|(name, value)| (name.to_string(), value)));
    let (program, arguments) = argv.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env).current_dir(&task.cwd).stdin(Stdio::null());
    if matches!(mode, Mode::Attached) {
        return Ok((command, None));
    }
    let pipe = || std::io::pipe().map_err(|error| format!("make a pipe: {error}"));
    let ((stdout, stdout_writer), (stderr, stderr_writer)) = (pipe()?, pipe()?);
    command.stdout(stdout_writer).stderr(stderr_writer);
    Ok((command, Some((stdout, stderr))))
}

/// Forks and execs; answers when the program runs. The pipe that brings an error back is closed by exec.
fn launch(mut command: Command, confinement: &Confinement, doors: &[OwnedFd]) -> Result<Pid, String> {
    let (mut reader, writer) = std::io::pipe().map_err(|error| format!("make a pipe: {error}"))?;
    match fork().map_err(|error| format!("fork: {error}"))? {
        Fork::Child => {
            drop(reader);
            let cause = become_program(&mut command, confinement, doors);
            drop((&writer).write_all(cause.as_bytes()));
            exit_now(127)
        }
        Fork::Parent(child) => {
            drop(writer);
            // The writing ends of the program's pipes go with the command.
            drop(command);
            let mut cause = String::new();
            reader.read_to_string(&mut cause).map_err(|error| format!("start the program: {error}"))?;
            if cause.is_empty() {
                return Ok(child);
            }
            rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).ok();
            Err(cause)
        }
    }
}

/// The last steps of the child. Comes back only to say why it failed.
fn become_program(command: &mut Command, confinement: &Confinement, doors: &[OwnedFd]) -> String {
    if let Err(error) = rustix::process::setsid() {
        return format!("start a session: {error}");
    }
    if let Err(error) = confinement.enter(doors) {
        return error.to_string();
    }
    process::unblock_signals();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Some(place) = command.get_current_dir()
        && let Err(error) = rustix::process::chdir(place)
    {
        return format!("enter {}: {error}", place.display());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let error = command.exec();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let cwd = command.get_current_dir().map(|path| path.display().to_string()).unwrap_or_default();
            format!("{program}: no such program (looked in PATH, with {cwd} as the working directory)")
        }
        _ => format!("{program}: {error}"),
    }
}

/// Keeps the reservation's type out of the supervisor's way.
pub(super) type Reservation = Box<ReservedPort>;
