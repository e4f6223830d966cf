//! Watching over a running program: its output, its signals, its orphans, its end.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use coracle_engine::Exit;
use coracle_jail::Group;
use coracle_jail::process::{Ended, SignalQueue, kill_namespace, reap, silence};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use super::Control;
use super::log::{Capture, Log};
use super::start::Reservation;
use crate::files::InstanceDir;
use crate::instance::descendants;
use crate::task::Answer;

/// How long killing may take: processes in the middle of a system call that cannot be interrupted need a moment.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// A program that runs under this shim.
pub(super) struct Running {
    pub(super) program: Pid,
    pub(super) signals: SignalQueue,
    pub(super) output: Output,
    pub(super) group: Option<Group>,
    pub(super) kill_by: KillBy,
    /// Whether the program is to die when the control socket is let go.
    pub(super) attached: bool,
    /// Held for as long as the shim lives.
    #[expect(dead_code, reason = "what counts is that it is not dropped")]
    pub(super) reserved: Option<Reservation>,
    pub(super) port: Option<u16>,
}

/// Where the program's output goes.
pub(super) enum Output {
    /// Into the log.
    Log { captures: [Capture; 2], log: Box<Log>, directory: InstanceDir },
    /// To where the shim's own goes; nothing to do here.
    Inherited,
}

/// How all that the program has started is found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KillBy {
    /// This shim is PID 1 of a namespace.
    Namespace,
    /// They are descendants of this shim, which orphans come to.
    Descendants,
    /// The process group: the instance has a PID 1 of its own that reaps the rest.
    Group,
}

impl Running {
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Stays until the program has ended; then kills what it left behind, writes down how it ended, and tells.
    pub(super) fn supervise(mut self, control: Control) -> Exit {
        let mut control = if self.attached {
            Some(control)
        } else {
            drop(control);
            // The socket is standard input as well.
            silence(&[0]).ok();
            None
        };
        let ended = self.watch(control.as_ref());
        self.kill_all(control.is_none());
        let killed = ended.signal == Some(Signal::KILL.as_raw()) || ended.code == Some(128 + Signal::KILL.as_raw());
        let out_of_memory = killed && self.group.as_ref().is_some_and(|group| group.stats().oom_kills > 0);
        let exit = Exit { code: ended.code, signal: ended.signal, out_of_memory };
        if let Output::Log { captures, log, directory } = &mut self.output {
            for capture in captures {
                while capture.take(log) {}
                capture.end(log);
            }
            // Nobody is there to be told that this failed; the instance then counts as ended unseen.
            drop(directory.write_exit(&exit));
        }
        if let Some(control) = &mut control {
            control.say(&Answer::Exited { exit });
        }
        exit
    }

    /// Until the program ends.
    fn watch(&mut self, control: Option<&Control>) -> Ended {
        let mut terminations = 0;
        let mut abandoned = false;
        loop {
            abandoned |= self.wait_and_read(control.filter(|_| !abandoned));
            while let Some(signal) = self.signals.next() {
                if matches!(signal, Signal::TERM | Signal::INT) {
                    terminations += 1;
                    self.terminate(terminations);
                }
            }
            if abandoned {
                self.kill_program();
            }
            while let Ok(Some(ended)) = reap() {
                if ended.pid == self.program {
                    return ended;
                }
            }
        }
    }

    /// Waits for something to happen and takes output. Answers whether the holder of the control socket is gone.
    fn wait_and_read(&mut self, control: Option<&Control>) -> bool {
        let mut gone = false;
        let ready: [bool; 2] = {
            let mut waiting = vec![PollFd::new(&self.signals, PollFlags::IN)];
            if let Some(control) = control {
                waiting.push(PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN));
            }
            let first_source = waiting.len();
            let mut order = [None; 2];
            if let Output::Log { captures, .. } = &self.output {
                for (number, capture) in captures.iter().enumerate() {
                    if let Some(source) = capture.source() {
                        order[number] = Some(waiting.len());
                        waiting.push(PollFd::from_borrowed_fd(source, PollFlags::IN));
                    }
                }
            }
            poll(&mut waiting, None::<&Timespec>).ok();
            let is_ready = |place: usize| !waiting[place].revents().is_empty();
            if control.is_some() {
                // Nothing is ever said on this socket: readable means that the other end was closed.
                gone = is_ready(first_source - 1);
            }
            order.map(|place| place.is_some_and(is_ready))
        };
        if let Output::Log { captures, log, .. } = &mut self.output {
            for (capture, _) in captures.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                capture.take(log);
            }
        }
        gone
    }

    /// The first time a request to the program, later an order.
    fn terminate(&self, times: u32) {
        if times == 1 {
            rustix::process::kill_process_group(self.program, Signal::TERM).ok();
        } else {
            self.kill_program();
        }
    }

    /// Makes the program end; the rest follows when it has.
    fn kill_program(&self) {
        rustix::process::kill_process_group(self.program, Signal::KILL).ok();
        rustix::process::kill_process(self.program, Signal::KILL).ok();
    }

    /// Kills all that is left and reaps it. An instance's log goes on being read meanwhile: nobody may hang in a full pipe.
    fn kill_all(&mut self, drain: bool) {
        let deadline = Instant::now() + KILL_DEADLINE;
        while Instant::now() < deadline {
            match self.kill_by {
                KillBy::Namespace => kill_namespace(),
                KillBy::Descendants => kill_descendants(),
                KillBy::Group => {
                    rustix::process::kill_process_group(self.program, Signal::KILL).ok();
                }
            }
            let childless = loop {
                match reap() {
                    Ok(Some(_)) => {}
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            if childless {
                break;
            }
            if drain && let Output::Log { captures, log, .. } = &mut self.output {
                for capture in captures {
                    capture.take(log);
                }
            }
            let moment = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&moment)).ok();
            while self.signals.next().is_some() {}
        }
        if self.kill_by == KillBy::Descendants
            && let Some(group) = &self.group
        {
            group.kill(Duration::from_secs(1));
        }
    }
}

/// Kills every descendant of this process. Orphans come here and are found in the next round.
fn kill_descendants() {
    let own = rustix::process::getpid().as_raw_pid();
    for pid in descendants(own).into_iter().filter_map(Pid::from_raw) {
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }
}
