//! The task that stands for a running program.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_model::{InstanceId, OwnerId};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::http::{Port, Responder};
use super::machine::{Log, Machine};
use crate::runtime::{Exit, Stream};

/// What a program does, ready to run.
pub(super) struct Program {
    /// Listens, or else holds its port so that connections are refused.
    pub(super) listener: Option<TcpListener>,
    pub(super) held: Option<Port>,
    pub(super) responder: Responder,
    pub(super) ticks: Option<Duration>,
    pub(super) log: Arc<Log>,
    pub(super) exit: Option<(Duration, Exit)>,
    /// Known only weakly: a machine that nobody holds ends, and its programs with it.
    pub(super) machine: Weak<Machine>,
    pub(super) owner: OwnerId,
    pub(super) id: InstanceId,
    pub(super) generation: u64,
}

/// A program that runs. Dropping it ends the program soon; [`Process::kill`] ends it now.
pub(super) struct Process {
    task: AbortOnDropHandle<()>,
    ended: Receiver<()>,
}

/// Dropped after everything the program holds; its drop is what [`Process::kill`] waits for.
struct Running {
    program: Program,
    _ended: Sender<()>,
}

impl Process {
    /// Ends the program. When it returns, nobody listens on its port any more.
    pub(super) fn kill(self) {
        self.task.abort();
        let ended = self.ended.recv_timeout(Duration::from_secs(5));
        debug_assert_ne!(ended, Err(RecvTimeoutError::Timeout), "the fake's thread is stuck");
    }
}

impl Program {
    /// An address that is held, and listened on if the program listens.
    pub(super) fn listen(port: Option<Port>, listens: bool, runtime: &Handle) -> (Option<TcpListener>, Option<Port>) {
        let _entered = runtime.enter();
        match port {
            Some(port) if listens => (port.listen().ok(), None),
            port => (None, port),
        }
    }

    pub(super) fn spawn(self, runtime: &Handle) -> Process {
        let (sender, ended) = channel();
        let running = Running { program: self, _ended: sender };
        Process { task: AbortOnDropHandle::new(runtime.spawn(running.run())), ended }
    }

    /// What it does while it runs, and how it ends if nobody ends it.
    async fn act(&self) -> Exit {
        let serving = async {
            match &self.listener {
                Some(listener) => self.responder.serve(listener).await,
                None => std::future::pending().await,
            }
        };
        let ticking = async {
            let Some(interval) = self.ticks else { return std::future::pending().await };
            for number in 0_u64.. {
                self.log.write(Stream::Stdout, &format!("tick {number}"));
                tokio::time::sleep(interval).await;
            }
        };
        let (after, exit) = self.exit.unwrap_or((Duration::MAX, Exit::default()));
        tokio::select! {
            () = serving => exit,
            () = ticking => exit,
            () = tokio::time::sleep(after) => exit,
        }
    }
}

impl Running {
    async fn run(self) {
        let exit = self.program.act().await;
        let Program { machine, owner, id, generation, listener, held, .. } = self.program;
        drop((listener, held));
        if let Some(machine) = machine.upgrade() {
            machine.note_end(&owner, &id, generation, exit);
        }
    }
}
