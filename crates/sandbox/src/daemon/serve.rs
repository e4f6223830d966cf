//! Listening, and what is done for each client.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::BytesMut;
use rustix::process::Pid;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::{Connection, ConnectionError};
use super::container::Containers;
use super::maker::Maker;
use super::pool::{Pool, Way, Workshop};
use super::process::Process;
use super::run::{Run, Task};
use super::seat::{Seating, Seats};
use super::slot::Slot;
use super::{DaemonError, Options, failed};
use crate::execution::{Event, Health, ImageInfo, Limits};
use crate::isolation::Isolation;
use crate::probe::Choice;
use crate::wire::{self, Answer, Refusal, RefusalKind, Request, Submission};

/// How many patterns a client may name, and how long one may be.
const MOST_PATTERNS: usize = 64;
const LONGEST_PATTERN: usize = 1024;

struct Daemon {
    options: Options,
    choice: Choice,
    seats: Arc<Seats>,
    pools: Vec<Arc<Pool>>,
    running: AtomicU32,
    executed: AtomicU64,
}

/// What a daemon serves with.
pub(super) struct Setting {
    pub(super) options: Options,
    pub(super) choice: Choice,
    pub(super) seating: Seating,
    pub(super) way: Ground,
}

/// Where slots come from.
pub(super) enum Ground {
    /// The maker, with the filters for its zygotes.
    Maker { pid: Pid, socket: OwnedFd, filter: Vec<u8> },
    /// An engine.
    Containers(Containers),
    /// A directory.
    Sessions(PathBuf),
}

/// Serves until a signal asks to stop or the maker is gone.
pub(super) async fn serve(setting: Setting) -> Result<(), DaemonError> {
    let Setting { options, choice, seating, way } = setting;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("listen for SIGINT"))?;
    let (way, roots, mut maker_process) = prepare(way, &options).await?;
    let waiting: usize = options.images.iter().map(|image| image.slots + 1).sum();
    let most = options.most_running + u32::try_from(waiting).unwrap_or(0) + options.makers;
    let seats = Arc::new(Seats::new(seating, &options.limits, most));
    let workshop = Arc::new(Workshop { way, seats: Arc::clone(&seats), makers: options.makers });
    let mut tasks = JoinSet::new();
    let mut pools = Vec::new();
    for ((image, root), number) in options.images.iter().zip(roots).zip(0..) {
        let usable = root.is_ok();
        let pool = Arc::new(Pool::new(image.clone(), number, root.err()));
        if usable {
            tasks.spawn(Arc::clone(&pool).tend(Arc::clone(&workshop)));
        }
        pools.push(pool);
    }
    let listener = listen(&options).map_err(failed(format!("listen on {}", options.socket.display())))?;
    let path = options.socket.clone();
    let (running, executed) = (AtomicU32::new(0), AtomicU64::new(0));
    let daemon = Arc::new(Daemon { options, choice, seats, pools, running, executed });
    let outcome = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { tasks.spawn(Arc::clone(&daemon).attend(stream)); }
                // Out of descriptors: those who are connected go on, and the next round finds some free.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            },
            Some(_) = tasks.join_next() => {}
            error = attend(workshop.maker()) => {
                tracing::error!(%error, "the maker is gone");
                break Err(DaemonError::MakerGone);
            }
            () = ended(maker_process.as_mut()) => break Err(DaemonError::MakerGone),
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
        }
    };
    std::fs::remove_file(path).ok();
    tasks.shutdown().await;
    outcome
}

type Prepared = (Way, Vec<Result<(), String>>, Option<Process>);

/// Gets ready to make slots: the way, what became of each image's root, and the maker's process.
async fn prepare(ground: Ground, options: &Options) -> Result<Prepared, DaemonError> {
    let every = || options.images.iter().map(|_| Ok(())).collect();
    match ground {
        Ground::Maker { pid, socket, filter } => {
            let process = Process::adopt(pid).map_err(failed("watch the maker"))?;
            let maker = Maker::new(socket).map_err(failed("talk to the maker"))?;
            let roots = maker.roots(options.images.len()).await.map_err(failed("hear from the maker"))?;
            Ok((Way::Zygote { maker, filter, copies: options.zygote_copies }, roots, Some(process)))
        }
        Ground::Containers(containers) => Ok((Way::Containers(Arc::new(containers)), every(), None)),
        Ground::Sessions(place) => Ok((Way::Sessions { place, longest: options.limits.wall }, every(), None)),
    }
}

async fn attend(maker: Option<&Maker>) -> io::Error {
    match maker {
        Some(maker) => maker.attend().await,
        None => std::future::pending().await,
    }
}

async fn ended(process: Option<&mut Process>) {
    match process {
        Some(process) => drop(process.ended().await),
        None => std::future::pending().await,
    }
}

fn listen(options: &Options) -> io::Result<UnixListener> {
    match std::fs::remove_file(&options.socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nobody gets in between its making and its protection.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&options.socket);
    rustix::process::umask(before);
    protect(&options.socket, options.client_uid)?;
    listener
}

fn protect(socket: &Path, client: Option<u32>) -> io::Result<()> {
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    client.map_or(Ok(()), |uid| chown(socket, Some(uid), None))
}

impl Daemon {
    async fn attend(self: Arc<Self>, stream: UnixStream) {
        let own = rustix::process::geteuid().as_raw();
        let known = |uid: u32| uid == own || Some(uid) == self.options.client_uid;
        if !stream.peer_cred().is_ok_and(|peer| known(peer.uid())) {
            tracing::warn!("a client of another user was turned away");
            return;
        }
        let mut connection = Connection::new(stream);
        if let Err(error) = self.converse(&mut connection).await {
            if let ConnectionError::Wire(error) = &error {
                let refusal = Refusal { kind: RefusalKind::Protocol, message: error.to_string() };
                connection.answer(&Answer::Refused(refusal)).await.ok();
            }
            tracing::debug!(%error, "a connection ends");
        }
    }

    async fn converse(&self, connection: &mut Connection) -> Result<(), ConnectionError> {
        while let Some(request) = connection.next().await? {
            match request {
                Request::Execute(submission) => self.execute(connection, submission).await?,
                Request::Images => {
                    let images = self.images();
                    connection.answer(&Answer::Images(images)).await?;
                }
                Request::Health => connection.answer(&Answer::Health(self.health())).await?,
                // What belonged to an execution that has just ended.
                Request::Stdin(_) | Request::StdinEnd | Request::Cancel => {}
            }
        }
        Ok(())
    }

    async fn execute(&self, connection: &mut Connection, submission: Submission) -> Result<(), ConnectionError> {
        let arrived = Instant::now();
        let (slot, pool) = match self.slot_for(&submission, connection).await? {
            Ok(found) => found,
            Err(refusal) => return Ok(connection.answer(&Answer::Refused(refusal)).await?),
        };
        let mut held = Held { slot: Some(slot), pool: Arc::clone(&pool), daemon: self };
        self.running.fetch_add(1, Ordering::Relaxed);
        let queued = arrived.elapsed();
        Answer::Event(Event::Started { queued }).encode(&mut connection.outgoing);
        let outcome = match held.slot.as_mut() {
            Some(slot) => self.run(slot, connection, submission, queued).await,
            None => Ok(()),
        };
        // Its end comes before its client has read everything.
        drop(held);
        outcome?;
        Ok(connection.flush().await?)
    }

    async fn run(
        &self,
        slot: &mut Slot,
        connection: &mut Connection,
        submission: Submission,
        queued: std::time::Duration,
    ) -> Result<(), ConnectionError> {
        let limits = self.options.limits.lowered(&submission.limits);
        if let Err(error) = slot.seat.lower(&limits, &self.options.limits) {
            let message = format!("the limits could not be set: {error}");
            return Ok(connection.answer(&Answer::Refused(Refusal { kind: RefusalKind::Machine, message })).await?);
        }
        let job = self.job(&submission.job, &limits);
        let Submission { stdin, collect, .. } = submission;
        let task = Task { limits, job, stdin, collect, collect_bytes: self.options.collect_bytes, queued };
        Run::new(slot, connection, task).finish().await
    }

    /// What the worker reads: its length, the limits of the process, and what the client has sent, whose first byte says how
    /// the program is run.
    fn job(&self, sent: &[u8], limits: &Limits) -> BytesMut {
        let own = self.seats.process_limits(limits);
        let length = sent.len() + size_of_val(&own);
        let mut job = BytesMut::with_capacity(length + 4);
        job.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        own.iter().for_each(|limit| job.extend_from_slice(&limit.to_le_bytes()));
        let how = job.len();
        job.extend_from_slice(sent);
        if let (Isolation::Exec, Some(how)) = (self.choice.isolation, job.get_mut(how)) {
            *how = wire::FRESH;
        }
        job
    }

    /// Finds a slot, or why there is none. A client that leaves meanwhile leaves the queue too.
    async fn slot_for(
        &self,
        submission: &Submission,
        connection: &mut Connection,
    ) -> Result<Result<(Slot, Arc<Pool>), Refusal>, ConnectionError> {
        let refuse = |kind, message| Ok(Err(Refusal { kind, message }));
        let Some(pool) = self.pools.iter().find(|pool| pool.image.name == submission.image) else {
            if let Some((_, why)) = self.options.broken.iter().find(|(name, _)| *name == submission.image) {
                return refuse(RefusalKind::Image, why.clone());
            }
            let names: Vec<&str> = self.pools.iter().map(|pool| pool.image.name.as_str()).collect();
            return refuse(
                RefusalKind::Image,
                format!("there is no image {:?}; there is {}", submission.image, names.join(", ")),
            );
        };
        let too_long = |pattern: &Vec<u8>| pattern.len() > LONGEST_PATTERN;
        if submission.collect.len() > MOST_PATTERNS || submission.collect.iter().any(too_long) {
            let message = format!("at most {MOST_PATTERNS} patterns of {LONGEST_PATTERN} bytes can be collected");
            return refuse(RefusalKind::Protocol, message);
        }
        if self.running.load(Ordering::Relaxed) + pool.waiting() >= self.options.most_running.saturating_mul(4) {
            return refuse(RefusalKind::Busy, "too many executions are running and waiting".to_owned());
        }
        let taken = tokio::select! {
            biased;
            slot = pool.take(self.options.patience, &self.seats) => slot,
            // Nothing is said before the start but goodbye.
            gone = left(connection) => return Err(gone),
        };
        match (taken, pool.trouble()) {
            (Some(slot), _) => Ok(Ok((slot, Arc::clone(pool)))),
            (None, Some(why)) => refuse(RefusalKind::Machine, why),
            (None, None) => {
                let seconds = self.options.patience.as_secs();
                refuse(RefusalKind::Busy, format!("no sandbox was free within {seconds} s"))
            }
        }
    }

    fn images(&self) -> Vec<ImageInfo> {
        let broken = self.options.broken.iter().map(|(name, why)| ImageInfo {
            name: name.clone(),
            interpreter: String::new(),
            ready: 0,
            slots: 0,
            trouble: Some(why.clone()),
        });
        self.pools.iter().map(|pool| pool.info()).chain(broken).collect()
    }

    fn health(&self) -> Health {
        Health {
            pid: std::process::id(),
            cgroups: self.seats.cgroups().to_owned(),
            running: self.running.load(Ordering::Relaxed),
            waiting: self.pools.iter().map(|pool| pool.waiting()).sum(),
            executed: self.executed.load(Ordering::Relaxed),
            failures: self.pools.iter().map(|pool| pool.failures.load(Ordering::Relaxed)).sum(),
            limits: self.options.limits,
            isolation: self.choice.isolation.to_string(),
            why: self.choice.why.clone(),
            weaker: self.choice.weaker.clone(),
        }
    }
}

/// Waits until the client goes away; what it sends meanwhile stays for later.
async fn left(connection: &mut Connection) -> ConnectionError {
    loop {
        match connection.ready(true, false).await.and_then(|()| connection.read()) {
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => return io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            Err(error) => return error.into(),
        }
    }
}

/// A slot that is thrown away whatever happens to the execution in it.
struct Held<'a> {
    slot: Option<Slot>,
    pool: Arc<Pool>,
    daemon: &'a Daemon,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.retire(Arc::clone(&self.daemon.seats));
            self.daemon.running.fetch_sub(1, Ordering::Relaxed);
            self.daemon.executed.fetch_add(1, Ordering::Relaxed);
            self.pool.execution_ended();
        }
    }
}
