//! One execution in one slot, from handing over the job to the last word about it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::capture::{Capture, Stream};
use super::connection::{Connection, ConnectionError};
use super::farewell;
use super::process::Ended;
use super::slot::{Slot, Worker};
use super::streams::Input;
use crate::collect;
use crate::execution::{End, Event, Limits, Reason, Truncated, Usage};
use crate::wire::{Answer, Request, WireError};

/// How much is read of a stream at once.
const ROOM: usize = 64 << 10;
/// How much of what a client types may wait for the program.
const MOST_TYPED: usize = 1 << 20;
/// How long streams may stay open after everybody who could write is dead.
const CLOSING: Duration = Duration::from_secs(2);
/// What comes in this time from the start is read and sent together: most programs are over by then, and both sides wake up
/// once.
const TOGETHER: Duration = Duration::from_millis(2);
/// The shortest time between two looks at the processor time.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// What is done in a slot.
pub(super) struct Task {
    pub(super) limits: Limits,
    /// Length and job, as the worker reads them.
    pub(super) job: BytesMut,
    pub(super) stdin: Option<Bytes>,
    pub(super) collect: Vec<Vec<u8>>,
    pub(super) collect_bytes: u64,
    pub(super) queued: Duration,
}

/// An execution under way.
pub(super) struct Run<'a> {
    slot: &'a mut Slot,
    connection: &'a mut Connection,
    task: Task,
    /// What the program has not read yet, and whether that is all.
    typed: BytesMut,
    typing: bool,
    out: Capture,
    err: Capture,
    room: Vec<u8>,
    started: Instant,
    ended: Option<(Ended, Duration)>,
    /// Why it was killed, if it was.
    killed: Option<Reason>,
    /// When to look at the clocks next.
    look: Instant,
    closing: Option<Instant>,
    client: Result<(), ConnectionError>,
}

impl<'a> Run<'a> {
    pub(super) fn new(slot: &'a mut Slot, connection: &'a mut Connection, mut task: Task) -> Self {
        let given = task.stdin.take();
        let typing = given.is_none();
        let mut typed = given.map(BytesMut::from).unwrap_or_default();
        if slot.control.is_none() {
            // Where there is only one way in, the job comes first and the program's input behind it.
            let mut all = std::mem::take(&mut task.job);
            all.unsplit(typed);
            typed = all;
        }
        let started = Instant::now();
        let cap = task.limits.output_bytes;
        let mut run = Self {
            slot,
            connection,
            typing,
            typed,
            out: Capture::new(Stream::Stdout, cap),
            err: Capture::new(Stream::Stderr, cap),
            room: vec![0; ROOM],
            started,
            ended: None,
            killed: None,
            look: started,
            closing: None,
            client: Ok(()),
            task,
        };
        run.look = started + run.next_look(Duration::ZERO);
        run
    }

    /// Runs to the end and answers what happened; the client has heard it if it is still there.
    pub(super) async fn finish(mut self) -> Result<(), ConnectionError> {
        // Opened now: when the program is dead, so is the name of its root.
        let work = if self.task.collect.is_empty() { Ok(None) } else { self.slot.open_work().map(Some) };
        self.feed_job();
        self.feed_stdin();
        while !self.is_over() {
            self.step().await;
        }
        let truncated = self.bring_back(work).await;
        let end = self.end(truncated);
        Answer::Event(Event::End(end)).encode(&mut self.connection.outgoing);
        // At once, as far as it goes; burying the slot can wait.
        self.client?;
        Ok(self.connection.push()?)
    }

    fn is_over(&self) -> bool {
        self.ended.is_some() && ((!self.out.open && !self.err.open) || self.closing.is_some_and(|until| Instant::now() >= until))
    }

    /// Waits until something happens and deals with it.
    async fn step(&mut self) {
        let reading = self.client.is_ok() && (self.typed.len() < MOST_TYPED || !self.typing);
        let unsent = !self.connection.outgoing.is_empty();
        let (now, together) = (Instant::now(), self.started + TOGETHER);
        if now >= together {
            self.slot.stdout.watch();
            self.slot.stderr.watch();
        }
        let sending = unsent && now >= together;
        let talking = self.client.is_ok() && (reading || sending);
        let stdin_waits = self.slot.stdin.is_some() && !self.typed.is_empty();
        let look = self.closing.unwrap_or(self.look);
        let wake = if now < together { look.min(together) } else { look };
        tokio::select! {
            biased;
            code = farewell::code(self.slot.farewell.as_ref()), if self.ended.is_none() => self.worker_leaves(code),
            ended = self.slot.worker.ended(), if self.ended.is_none() => self.worker_ended(ended),
            ready = self.connection.ready(reading, sending), if talking => self.talk(ready, reading),
            _ = self.slot.stdout.readable(), if self.out.open => self.read_stdout(),
            _ = self.slot.stderr.readable(), if self.err.open => self.read_stderr(),
            _ = control_writable(self.slot.control.as_ref()), if !self.task.job.is_empty() => self.feed_job(),
            _ = writable(self.slot.stdin.as_ref()), if stdin_waits => self.feed_stdin(),
            () = tokio::time::sleep_until(wake) => self.look_at_clocks(),
        }
    }

    /// The worker has said its last. Whoever it leaves behind has no say any more, nor has it itself.
    fn worker_leaves(&mut self, code: Option<i32>) {
        let Some(code) = code else {
            // It will not say so, but only end.
            self.slot.farewell = None;
            return;
        };
        let now = Instant::now();
        self.ended = Some((Ended { code: Some(code), ..Ended::UNKNOWN }, now - self.started));
        self.read_what_is_there();
        self.closing = Some(now);
    }

    fn worker_ended(&mut self, ended: io::Result<Ended>) {
        let wall = self.started.elapsed();
        // It cannot fail for a child that nobody else waits for; if it does, nothing is known about its end.
        self.ended = Some((ended.unwrap_or(Ended::UNKNOWN), wall));
        self.read_what_is_there();
        if self.out.open || self.err.open {
            // Somebody it has left behind holds a stream; the execution is over for him too.
            self.slot.kill();
            self.closing = Some(Instant::now() + CLOSING);
        }
    }

    fn read_what_is_there(&mut self) {
        for (capture, stream) in [(&mut self.out, &self.slot.stdout), (&mut self.err, &self.slot.stderr)] {
            // Somebody may be left who goes on writing.
            while capture.open && !capture.is_flood() && capture.read_now(stream, &mut self.room, &mut self.connection.outgoing) {
            }
        }
    }

    fn read_stdout(&mut self) {
        self.out.read(&self.slot.stdout, &mut self.room, &mut self.connection.outgoing);
        self.after_reading();
    }

    fn read_stderr(&mut self) {
        self.err.read(&self.slot.stderr, &mut self.room, &mut self.connection.outgoing);
        self.after_reading();
    }

    fn after_reading(&mut self) {
        if self.out.is_flood() || self.err.is_flood() {
            self.kill(Reason::OutputLimit);
        }
        self.push();
    }

    /// Sends what there is, unless there may soon be more.
    fn push(&mut self) {
        if self.client.is_ok()
            && self.started.elapsed() >= TOGETHER
            && let Err(error) = self.connection.push()
        {
            self.lose_client(error.into());
        }
    }

    /// Hears the client out.
    fn talk(&mut self, ready: io::Result<()>, reading: bool) {
        self.push();
        if !reading || self.client.is_err() {
            return;
        }
        let heard = ready.and_then(|()| self.connection.read());
        match heard {
            Ok(true) => {}
            Ok(false) => return self.lose_client(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Err(error) => return self.lose_client(error.into()),
        }
        loop {
            match self.connection.take() {
                Ok(None) => break,
                Ok(Some(Request::Stdin(bytes))) if self.typing => self.typed.extend_from_slice(&bytes),
                Ok(Some(Request::StdinEnd)) => self.typing = false,
                // What is typed after its end, or at a program that has ended, goes nowhere.
                Ok(Some(Request::Stdin(_))) => {}
                Ok(Some(Request::Cancel)) => self.kill(Reason::Cancelled),
                Ok(Some(_)) => {
                    let error = WireError::Unknown { what: "a request during an execution; the kind", value: 0 };
                    return self.lose_client(error.into());
                }
                Err(error) => return self.lose_client(error.into()),
            }
        }
        self.feed_stdin();
    }

    fn lose_client(&mut self, error: ConnectionError) {
        self.client = Err(error);
        self.kill(Reason::Cancelled);
    }

    fn kill(&mut self, reason: Reason) {
        if self.ended.is_none() {
            self.killed.get_or_insert(reason);
            self.slot.kill();
            self.slot.hasten();
        }
    }

    /// Hands the job over as far as the worker takes it.
    fn feed_job(&mut self) {
        let Some(control) = &self.slot.control else { return };
        while !self.task.job.is_empty() {
            match control.try_write(&self.task.job) {
                Ok(bytes) => self.task.job.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The worker is dead, which is heard of elsewhere.
                Err(_) => self.task.job.clear(),
            }
        }
        // Nothing else comes this way, and to be told that it has been read helps nobody.
        self.slot.control = None;
    }

    fn feed_stdin(&mut self) {
        let Some(stdin) = &mut self.slot.stdin else {
            self.typed.clear();
            return;
        };
        while !self.typed.is_empty() {
            match stdin.write(&self.typed) {
                Ok(bytes) => self.typed.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // The program has closed it: it wants no more.
                    self.typed.clear();
                    self.slot.stdin = None;
                    return;
                }
            }
        }
        if !self.typing {
            self.slot.stdin = None;
        }
    }

    fn look_at_clocks(&mut self) {
        if self.ended.is_some() || Instant::now() < self.look {
            return;
        }
        let used = Duration::from_micros(self.slot.seat.meter.cpu_us());
        // Some kernels tell only how much is in use now, so it is looked at from time to time.
        self.slot.seat.meter.memory_peak();
        if self.started.elapsed() >= self.task.limits.wall {
            self.kill(Reason::Timeout);
        } else if used >= self.task.limits.cpu {
            self.kill(Reason::CpuLimit);
        }
        self.look = Instant::now() + if self.killed.is_some() { CLOSING } else { self.next_look(used) };
    }

    /// When a limit can be reached at the earliest.
    fn next_look(&self, used: Duration) -> Duration {
        let wall = self.task.limits.wall.saturating_sub(self.started.elapsed());
        let cpu = self.task.limits.cpu.saturating_sub(used);
        let cores = f64::from(self.task.limits.cpu_milli.max(1)) / 1000.0;
        // The share is given out in periods of 100 ms, each of which may be used up in its first moments.
        let soonest = cpu.div_f64(cores).saturating_sub(Duration::from_millis(100)).max(cpu.div_f64(cores.max(1.0) * 4.0));
        wall.min(soonest.max(SHORTEST_LOOK))
    }

    /// Collects the files that were asked for, when nobody is left who could change them. Answers whether some are missing.
    async fn bring_back(&mut self, work: io::Result<Option<OwnedFd>>) -> bool {
        let work = match work {
            Ok(None) => return false,
            Ok(Some(work)) if self.client.is_ok() => work,
            _ => return true,
        };
        self.slot.hasten();
        let dead = tokio::time::timeout(CLOSING, self.slot.dead()).await;
        if !matches!(dead, Ok(Ok(()))) {
            return true;
        }
        let (patterns, most) = (std::mem::take(&mut self.task.collect), self.task.collect_bytes);
        let collected = tokio::task::spawn_blocking(move || collect::collect(work, &patterns, most)).await;
        let Ok((files, incomplete)) = collected else { return true };
        for file in files {
            Answer::Event(Event::File(file)).encode(&mut self.connection.outgoing);
        }
        incomplete
    }

    /// A container has a group of the engine's own below its seat's. In version 1 the kernel counts whom it kills for want of
    /// memory there, not here, and the engine may hear of it late; but that the seat was full is known here.
    fn container_was_full(&self, ended: Ended) -> bool {
        let Slot { worker, seat, .. } = &*self.slot;
        let killed = ended.signal == Some(libc::SIGKILL) && self.killed.is_none();
        let full = || seat.group.is_some() && seat.meter.memory_peak() >= self.task.limits.memory_bytes;
        killed && matches!(worker, Worker::Container(_)) && full()
    }

    fn end(&self, files: bool) -> End {
        let (ended, wall) = self.ended.unwrap_or((Ended::UNKNOWN, self.started.elapsed()));
        let (meter, counted) = (&self.slot.seat.meter, self.slot.seat.group.is_some());
        let reason = match (self.killed, ended) {
            (_, Ended { code: Some(0), .. }) => Reason::Ok,
            (Some(reason), Ended { code: None, .. }) => reason,
            _ if ended.oom || meter.oom_kills() > 0 || self.container_was_full(ended) => Reason::Oom,
            (_, Ended { code: Some(_), .. }) => Reason::ExitNonzero,
            _ => Reason::Signal,
        };
        let usage = Usage {
            wall,
            // Where no group counts, what the kernel has counted for the process and its children.
            cpu: Duration::from_micros(if counted { meter.cpu_us() } else { ended.cpu_us }),
            memory_peak: if counted { meter.memory_peak() } else { ended.memory_peak },
            queued: self.task.queued,
        };
        let truncated = Truncated { stdout: self.out.truncated(), stderr: self.err.truncated(), files };
        End { reason, exit_code: ended.code, signal: ended.signal, usage, truncated }
    }
}

async fn writable(stdin: Option<&Input>) {
    match stdin {
        Some(stdin) => stdin.writable().await,
        None => std::future::pending().await,
    }
}

async fn control_writable(control: Option<&UnixStream>) -> io::Result<()> {
    match control {
        Some(control) => control.writable().await,
        None => std::future::pending().await,
    }
}
