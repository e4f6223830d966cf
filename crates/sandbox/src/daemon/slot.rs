//! A slot: a sandbox that waits for its only execution.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use super::PRECEDENCE;
use super::container::{Container, Ending};
use super::farewell::Farewell;
use super::maker::{DEADLINE, Maker};
use super::process::{Ended, Process};
use super::seat::{Seat, Seats};
use super::session::Session;
use super::streams::{Input, Output};
use super::zygote::Zygote;
use crate::maker::receive_with;

/// How long dying may take before it is reported.
const DEATH: Duration = Duration::from_secs(30);

/// A sandbox with a worker in it that waits for its job.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) keeper: Keeper,
    pub(super) worker: Worker,
    /// The job's own way in; where there is none, it comes first on standard input.
    pub(super) control: Option<UnixStream>,
    /// Where a worker's end is heard of before the kernel is through with it.
    pub(super) farewell: Option<Farewell>,
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) seat: Seat,
}

/// The process that runs a program.
#[derive(Debug)]
pub(super) enum Worker {
    /// A child of the daemon.
    Child(Process),
    /// The engine's.
    Container(Ending),
}

/// What everybody in a slot lives and dies with.
#[derive(Debug)]
pub(super) enum Keeper {
    /// PID 1 of the slot's namespaces.
    Init(Process),
    /// A container.
    Container(Container),
    /// A session without any walls.
    Session(Session),
}

impl Worker {
    /// Waits until it has ended. May be given up and called again.
    pub(super) async fn ended(&mut self) -> io::Result<Ended> {
        match self {
            Self::Child(process) => process.ended().await,
            Self::Container(ending) => Ok(ending.ended().await),
        }
    }

    fn is_alive(&mut self) -> bool {
        match self {
            Self::Child(process) => matches!(process.try_ended(), Ok(None)),
            Self::Container(ending) => ending.is_alive(),
        }
    }
}

impl Keeper {
    fn kill(&self) {
        match self {
            Self::Init(init) => init.kill(),
            Self::Container(container) => container.kill(),
            Self::Session(session) => session.kill(),
        }
    }

    /// Waits until everybody is dead. They have been killed.
    async fn dead(&mut self) -> io::Result<()> {
        match self {
            Self::Init(init) => init.ended().await.map(drop),
            Self::Container(container) => container.removed().await,
            Self::Session(_) => Ok(()),
        }
    }
}

/// Why there is no slot; the seat comes back when everything on it is dead.
pub(super) async fn make(maker: &Maker, zygote: &Zygote, image: u32, seat: Seat, seats: &Arc<Seats>) -> Result<Slot, String> {
    let init = match maker.slot(image, seat.number).await {
        Ok(init) => init,
        Err(why) => {
            seats.give_back(seat);
            return Err(why);
        }
    };
    match inhabit(zygote, &init, &seat).await {
        Ok(Inhabited { worker, control, farewell, stdin, stdout, stderr }) => {
            let (keeper, worker, control, stdin) = (Keeper::Init(init), Worker::Child(worker), Some(control), Some(stdin));
            // Only a group tells what a process has used before it has ended.
            let farewell = farewell.filter(|_| seat.group.is_some());
            if farewell.is_none() {
                tracing::debug!(
                    seat = seat.number,
                    "the end of this slot's program is heard of when the kernel is through with it"
                );
            }
            let mut slot = Slot { keeper, worker, control, farewell, stdin, stdout, stderr, seat };
            // What it has used so far was used to make it.
            slot.seat.meter.start();
            Ok(slot)
        }
        Err(why) => {
            end(Keeper::Init(init), seat, Arc::clone(seats)).await;
            Err(why)
        }
    }
}

struct Inhabited {
    worker: Process,
    control: UnixStream,
    farewell: Option<Farewell>,
    stdin: Input,
    stdout: Output,
    stderr: Output,
}

/// Has the zygote copy itself into a slot and waits until the copy is ready.
async fn inhabit(zygote: &Zygote, init: &Process, seat: &Seat) -> Result<Inhabited, String> {
    let text = |error: io::Error| format!("connect a slot: {error}");
    let (control, its) = BlockingUnixStream::pair().map_err(text)?;
    let (input, stdin) = io::pipe().map_err(text)?;
    let (stdout, output) = io::pipe().map_err(text)?;
    let (stderr, error) = io::pipe().map_err(text)?;
    // So that a program may also open them by name: /dev/stdout.
    let (uid, gid) = (rustix::fs::Uid::from_raw(seat.uid), rustix::fs::Gid::from_raw(seat.uid));
    for end in [input.as_fd(), output.as_fd(), error.as_fd()] {
        rustix::fs::fchown(end, Some(uid), Some(gid)).map_err(|error| text(error.into()))?;
    }
    let pidfd = init.descriptor().ok_or("PID 1 of a slot has ended")?;
    let mut descriptors = vec![pidfd, its.as_fd(), input.as_fd(), output.as_fd(), error.as_fd()];
    descriptors.extend(seat.doors.iter().map(AsFd::as_fd));
    let worker = zygote.copy(&descriptors).await?;
    drop((its, input, output, error));
    control.set_nonblocking(true).map_err(text)?;
    let mut control = UnixStream::from_std(control).map_err(text)?;
    let said = tokio::time::timeout(DEADLINE, hear(&mut control)).await;
    let listener = said.map_err(|_| format!("a worker was not ready within {} s", DEADLINE.as_secs()))??;
    let farewell = listener.map(|listener| Farewell::new(listener, worker.pid())).transpose().map_err(text)?;
    let stdin = Input::new(stdin.into()).map_err(text)?;
    let stdout = Output::new(stdout.into()).map_err(text)?;
    let stderr = Output::new(stderr.into()).map_err(text)?;
    Ok(Inhabited { worker, control, farewell, stdin, stdout, stderr })
}

/// Waits for a worker's one word, before any of the user's code can speak in its place, and for what comes with it.
async fn hear(control: &mut UnixStream) -> Result<Option<OwnedFd>, String> {
    let mut word = [0_u8; 1];
    let heard = control.async_io(Interest::READABLE, || Ok(receive_with(control.as_fd(), &mut word)?)).await;
    match heard {
        Ok((1, listener)) if word == *b"+" => Ok(listener.into_iter().next()),
        Ok((1, _)) => {
            let mut why = Vec::new();
            control.take(1000).read_to_end(&mut why).await.ok();
            Err(format!("a worker could not confine itself: {}", String::from_utf8_lossy(&why)))
        }
        Ok(_) => Err("a worker ended before it was ready".to_owned()),
        Err(error) => Err(format!("a worker cannot be heard: {error}")),
    }
}

impl Slot {
    /// Whether everybody in it is alive.
    pub(super) fn is_alive(&mut self) -> bool {
        let keeper = match &mut self.keeper {
            Keeper::Init(init) => matches!(init.try_ended(), Ok(None)),
            Keeper::Container(_) | Keeper::Session(_) => true,
        };
        keeper && self.worker.is_alive()
    }

    /// Kills everybody in it.
    pub(super) fn kill(&self) {
        self.keeper.kill();
    }

    /// Lets those who have been killed die at once, however busy they keep the machine.
    pub(super) fn hasten(&mut self) {
        if let Keeper::Init(init) = &self.keeper
            && init.descriptor().is_some()
            && let Err(error) = rustix::process::setpriority_process(rustix::process::Pid::from_raw(init.pid()), PRECEDENCE)
        {
            tracing::debug!(%error, "PID 1 of a slot gets no precedence over whom it ends");
        }
        self.seat.hasten();
    }

    /// Opens its working directory, which can be read also after everybody in there is dead.
    pub(super) fn open_work(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pid = match &self.keeper {
            Keeper::Init(init) => init.pid(),
            Keeper::Container(container) => container.pid(),
            Keeper::Session(session) => return Ok(rustix::fs::open(session.directory(), flags, Mode::empty())?),
        };
        let proc = File::open(format!("/proc/{pid}/root"))?;
        Ok(rustix::fs::openat(proc, "work", flags, Mode::empty())?)
    }

    /// Kills everybody in it and waits until they are dead.
    pub(super) async fn dead(&mut self) -> io::Result<()> {
        self.kill();
        if let Worker::Child(process) = &mut self.worker
            && process.descriptor().is_some()
        {
            // PID 1 is held up by whoever has not been waited for.
            process.ended().await?;
        }
        self.keeper.dead().await
    }

    /// Throws it away; the seat comes back when everybody is dead.
    pub(super) fn retire(self, seats: Arc<Seats>) {
        let Self { keeper, worker, seat, .. } = self;
        keeper.kill();
        drop(worker);
        tokio::spawn(end(keeper, seat, seats));
    }
}

/// Kills everybody in a slot and gives the seat back when all are dead.
pub(super) async fn end(mut keeper: Keeper, seat: Seat, seats: Arc<Seats>) {
    keeper.kill();
    let number = seat.number;
    match tokio::time::timeout(DEATH, keeper.dead()).await {
        // It may have been waited for already.
        Ok(Ok(())) => seats.give_back(seat),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => seats.give_back(seat),
        Ok(Err(error)) => tracing::error!(seat = number, %error, "a slot cannot be waited for; its seat is lost"),
        Err(_) => tracing::error!(seat = number, "a slot does not die; its seat is lost"),
    }
}
