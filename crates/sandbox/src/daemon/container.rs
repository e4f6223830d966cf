//! A slot in a container of a Docker engine: started ahead, waiting on its standard input, thrown away after its program.
//!
//! The container has no network, no capability, no new privileges, a read-only root, and the limits of its seat; inside it,
//! the program gets the same filter of system calls as in a slot of our own. Its output comes through the engine, in which
//! the two streams are told apart by the engine's word, not the program's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf, pipe};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::process::Ended;
use super::seat::{Seat, Seats};
use super::slot::{self, Keeper, Slot, Worker};
use super::streams::{Input, Output};
use crate::docker::Engine;
use crate::execution::Limits;
use crate::image::{ALONE, Image};
use crate::maker::{INNER, VARIABLES};

/// How long a container may take to start.
const START: Duration = Duration::from_secs(60);
/// How long the engine may take to notice that a container has ended.
const NOTICE: Duration = Duration::from_secs(10);
/// The label that our containers bear; its value is the daemon's group.
const LABEL: &str = "coracle.sandbox";

/// What all containers of a daemon have in common.
#[derive(Debug)]
pub(super) struct Containers {
    pub(super) engine: Engine,
    /// The runtime, if it is not the engine's usual one.
    pub(super) runtime: Option<String>,
    /// Whether containers can be put below the seats' groups.
    pub(super) below_groups: bool,
    /// Whether seats have users of their own in there.
    pub(super) own_users: bool,
    pub(super) limits: Limits,
    pub(super) disk_bytes: u64,
    pub(super) disk_inodes: u64,
    pub(super) nofile: u64,
    pub(super) filter: Vec<u8>,
    /// The daemon's group.
    pub(super) owner: String,
}

/// A container that runs, or has run.
#[derive(Debug)]
pub(super) struct Container {
    engine: Engine,
    id: String,
    pid: i32,
    /// Its PID 1, where this process may signal it.
    descriptor: Option<OwnedFd>,
}

/// How a container's program will have ended.
#[derive(Debug)]
pub(super) struct Ending(watch::Receiver<Option<Ended>>);

impl Ending {
    pub(super) async fn ended(&mut self) -> Ended {
        self.0.wait_for(Option::is_some).await.ok().and_then(|ended| *ended).unwrap_or(Ended::UNKNOWN)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.0.borrow().is_none() && self.0.has_changed().is_ok()
    }
}

impl Container {
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends it; at once where this process may, else by asking the engine.
    pub(super) fn kill(&self) {
        match &self.descriptor {
            Some(descriptor) => {
                rustix::process::pidfd_send_signal(descriptor, Signal::KILL).ok();
            }
            None => {
                let (engine, path) = (self.engine.clone(), format!("/containers/{}/kill", self.id));
                tokio::task::spawn_blocking(move || engine.call("POST", &path, None).ok());
            }
        }
    }

    /// Takes it away, and whatever is left in it.
    pub(super) async fn removed(&mut self) -> io::Result<()> {
        let (engine, id) = (self.engine.clone(), self.id.clone());
        let removed = tokio::task::spawn_blocking(move || remove(&engine, &id)).await;
        removed.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

fn remove(engine: &Engine, id: &str) -> Result<(), String> {
    match engine.call("DELETE", &format!("/containers/{id}?force=1&v=1"), None) {
        Err(why) if !why.contains("No such container") && !why.contains("already in progress") => Err(why),
        _ => Ok(()),
    }
}

/// Removes what a daemon with this group has left.
pub(super) fn clear(engine: &Engine, owner: &str) -> Result<(), String> {
    let filters = json!({ "label": [format!("{LABEL}={owner}")] }).to_string();
    let escaped: String = filters.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let left = engine.get(&format!("/containers/json?all=1&filters={escaped}"))?;
    for container in left.as_array().into_iter().flatten() {
        if let Some(id) = container.get("Id").and_then(Value::as_str) {
            remove(engine, id)?;
        }
    }
    Ok(())
}

/// Makes a slot in a container; the seat comes back if that fails.
pub(super) async fn make(all: &Arc<Containers>, image: &Image, seat: Seat, seats: &Arc<Seats>) -> Result<Slot, String> {
    let description = all.describe(image, &seat);
    let engine = all.engine.clone();
    let created = tokio::task::spawn_blocking(move || create(&engine, &description)).await.map_err(|error| error.to_string());
    let (container, stream) = match created.and_then(|created| created) {
        Ok(created) => created,
        Err(why) => {
            seats.give_back(seat);
            return Err(why);
        }
    };
    let engine = container.engine.clone();
    let connected = tokio::time::timeout(START, connect(stream, engine, container.id.clone(), &all.filter)).await;
    let late = |_| Err(format!("a container was not ready within {} s", START.as_secs()));
    match connected.unwrap_or_else(late) {
        Ok((worker, stdin, stdout, stderr)) => {
            let keeper = Keeper::Container(container);
            let (stdin, stdout, stderr) = (Some(Input::Watched(stdin)), Output::Watched(stdout), Output::Watched(stderr));
            let mut slot = Slot { keeper, worker, control: None, farewell: None, stdin, stdout, stderr, seat };
            slot.seat.meter.start();
            Ok(slot)
        }
        Err(why) => {
            slot::end(Keeper::Container(container), seat, Arc::clone(seats)).await;
            Err(why)
        }
    }
}

impl Containers {
    fn describe(&self, image: &Image, seat: &Seat) -> Value {
        let Limits { memory_bytes, pids, cpu_milli, wall, .. } = self.limits;
        let uid = if self.own_users { seat.uid } else { INNER.uid };
        let scratch = |mode: &str, run: &str| {
            let (bytes, inodes) = (self.disk_bytes, self.disk_inodes);
            format!("rw,{run},nosuid,nodev,size={bytes},nr_inodes={inodes},mode={mode},uid={uid},gid={uid}")
        };
        let ulimit = |name: &str, value: u64| json!({ "Name": name, "Soft": value, "Hard": value });
        let mut host = json!({
            "NetworkMode": "none",
            "ReadonlyRootfs": true,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "Memory": memory_bytes,
            "MemorySwap": memory_bytes,
            "NanoCpus": u64::from(cpu_milli) * 1_000_000,
            "PidsLimit": pids + 1,
            "LogConfig": { "Type": "none" },
            "Tmpfs": { "/work": scratch("0755", "exec"), "/tmp": scratch("1777", "exec"), "/dev/shm": scratch("1777", "noexec") },
            "Ulimits": [
                // As for our own zygotes: where core dumps go to a program of the machine, a limit of 0 is not asked.
                ulimit("core", 1),
                ulimit("nofile", self.nofile),
                ulimit("fsize", self.disk_bytes),
                ulimit("memlock", 64 << 10),
                ulimit("msgqueue", 64 << 10),
            ],
        });
        if let (Some(runtime), Some(host)) = (&self.runtime, host.as_object_mut()) {
            host.insert("Runtime".to_owned(), json!(runtime));
        }
        if let (true, Some(host)) = (self.below_groups && seat.group.is_some(), host.as_object_mut()) {
            host.insert("CgroupParent".to_owned(), json!(format!("/{}/{}", self.owner, seat.number)));
        }
        let packages: Vec<_> = image.packages.iter().zip(image.package_places()).collect();
        let binds = packages.iter().map(|(source, target)| format!("{}:{}:ro", source.display(), target.display()));
        if let Some(host) = host.as_object_mut() {
            host.insert("Binds".to_owned(), binds.collect());
        }
        let mut variables = VARIABLES.map(str::to_owned).to_vec();
        variables.extend(image.package_variable());
        let longest = (wall.as_secs() + 3600).to_string();
        json!({
            "Image": image.docker(),
            "Entrypoint": ["python3", "-s", "-c", ALONE, "/work", longest],
            "Cmd": [],
            "User": format!("{uid}:{uid}"),
            "Hostname": "sandbox",
            "Env": variables,
            "WorkingDir": "/work",
            "NetworkDisabled": true,
            "OpenStdin": true,
            "StdinOnce": true,
            "AttachStdin": true,
            "AttachStdout": true,
            "AttachStderr": true,
            "Labels": { LABEL: self.owner },
            "HostConfig": host,
        })
    }
}

/// Creates, connects and starts it, in this order: nothing that it says is lost.
fn create(engine: &Engine, description: &Value) -> Result<(Container, std::os::unix::net::UnixStream), String> {
    let created = engine.call("POST", "/containers/create", Some(description))?;
    let id = created.get("Id").and_then(Value::as_str).ok_or("the engine names no container")?.to_owned();
    start(engine, &id).inspect_err(|_| drop(remove(engine, &id)))
}

fn start(engine: &Engine, id: &str) -> Result<(Container, std::os::unix::net::UnixStream), String> {
    let stream = engine.hijack(&format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1"))?;
    engine.call("POST", &format!("/containers/{id}/start"), None)?;
    let state = engine.get(&format!("/containers/{id}/json"))?;
    let pid = state.pointer("/State/Pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
    let descriptor = Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
    // Only root may signal it, and it must be the container's still.
    let again = engine.get(&format!("/containers/{id}/json"))?;
    let same = again.pointer("/State/Pid") == state.pointer("/State/Pid");
    let descriptor = descriptor.filter(|_| same && rustix::process::geteuid().is_root());
    Ok((Container { engine: engine.clone(), id: id.to_owned(), pid, descriptor }, stream))
}

type Connected = (Worker, pipe::Sender, pipe::Receiver, pipe::Receiver);

/// Puts pipes on the container's streams and waits until its interpreter is ready.
async fn connect(stream: std::os::unix::net::UnixStream, engine: Engine, id: String, filter: &[u8]) -> Result<Connected, String> {
    let text = |error: io::Error| format!("connect a container: {error}");
    stream.set_nonblocking(true).map_err(text)?;
    let (reading, mut writing) = UnixStream::from_std(stream).map_err(text)?.into_split();
    let head = u32::try_from(filter.len()).unwrap_or(0).to_le_bytes();
    writing.write_all(&head).await.map_err(text)?;
    writing.write_all(filter).await.map_err(text)?;
    let (stdin, typed) = pipe::pipe().map_err(text)?;
    let (out, stdout) = pipe::pipe().map_err(text)?;
    let (err, stderr) = pipe::pipe().map_err(text)?;
    let (ready, told) = oneshot::channel();
    let (says, ending) = watch::channel(None);
    tokio::spawn(carry_in(typed, writing));
    tokio::spawn(async move {
        Outward { out: Some(out), err: Some(err), ready: Some(ready), said: Vec::new() }.carry(reading).await;
        // Both streams are closed by now, so nobody waits for more output while the engine makes up its mind.
        says.send(Some(how_it_ended(engine, id).await)).ok();
    });
    told.await.map_err(|_| "a container ended before it was ready".to_owned())??;
    Ok((Worker::Container(Ending(ending)), stdin, stdout, stderr))
}

/// Carries the job and what is typed, until nobody sends or nobody listens any more.
async fn carry_in(mut from: pipe::Receiver, mut to: OwnedWriteHalf) {
    tokio::io::copy(&mut from, &mut to).await.ok();
    to.shutdown().await.ok();
}

/// The container's two streams on their way out.
struct Outward {
    out: Option<pipe::Sender>,
    err: Option<pipe::Sender>,
    /// Who waits for the first byte.
    ready: Option<oneshot::Sender<Result<(), String>>>,
    /// What was said on standard error before.
    said: Vec<u8>,
}

impl Outward {
    /// Until the engine closes the connection, which it does when the container has ended. Each piece has a head of eight
    /// bytes: the stream, three of nothing, and the length, big-endian (Docker Engine API, ContainerAttach).
    async fn carry(mut self, mut from: OwnedReadHalf) {
        let (mut head, mut room) = ([0_u8; 8], vec![0_u8; 32 << 10]);
        while from.read_exact(&mut head).await.is_ok() {
            let [stream, _, _, _, length @ ..] = head;
            let mut left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            while left > 0 {
                let most = left.min(room.len());
                let Some(part) = room.get_mut(..most) else { return };
                match from.read(part).await {
                    Ok(bytes @ 1..) => {
                        left -= bytes;
                        self.pass_on(stream, part.get(..bytes).unwrap_or_default()).await;
                    }
                    _ => return,
                }
            }
        }
        if let Some(ready) = self.ready.take() {
            ready.send(Err(format!("the interpreter of the container does not start: {}", self.complaint()))).ok();
        }
    }

    async fn pass_on(&mut self, stream: u8, mut bytes: &[u8]) {
        match (&self.ready, stream) {
            (Some(_), 1) => {
                let (first, rest) = bytes.split_first().map_or((b'!', bytes), |(first, rest)| (*first, rest));
                bytes = rest;
                let told =
                    if first == b'+' { Ok(()) } else { Err(format!("a container cannot confine itself: {}", self.complaint())) };
                if let Some(ready) = self.ready.take() {
                    ready.send(told).ok();
                }
            }
            (Some(_), _) => self.said.extend_from_slice(bytes.get(..2000).unwrap_or(bytes)),
            (None, _) => {}
        }
        let to = if stream == 2 { &mut self.err } else { &mut self.out };
        if let Some(pipe) = to
            && pipe.write_all(bytes).await.is_err()
        {
            // Nobody listens; the rest is read all the same, or the container would wait.
            *to = None;
        }
    }

    fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.said).trim().lines().last().unwrap_or("it said nothing").to_owned()
    }
}

/// Asks the engine until the container has ended, and how.
async fn how_it_ended(engine: Engine, id: String) -> Ended {
    let deadline = Instant::now() + NOTICE;
    loop {
        let (engine, path) = (engine.clone(), format!("/containers/{id}/json"));
        let told = tokio::task::spawn_blocking(move || engine.get(&path)).await;
        let Ok(Ok(container)) = told else { return Ended::UNKNOWN };
        let state = |name: &str| container.pointer(&format!("/State/{name}"));
        if state("Running").and_then(Value::as_bool) != Some(true) {
            let code = state("ExitCode").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
            // What waits for the program in there says signals as shells do.
            let signal = code.map(|code| code - 128).filter(|signal| (1..=64).contains(signal));
            let oom = state("OOMKilled").and_then(Value::as_bool) == Some(true);
            return Ended { code: if signal.is_some() { None } else { code }, signal, oom, ..Ended::UNKNOWN };
        }
        if Instant::now() >= deadline {
            return Ended::UNKNOWN;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
