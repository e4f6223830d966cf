//! Seats: a number (and so a user and an empty network, which the maker keeps) and a cgroup. A seat has one slot at a time.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use coracle_jail::cgroup::Meter;
use coracle_jail::{Group, GroupLimits, Hierarchy, JailError};
use tokio::sync::Notify;

use super::elsewhere;
use crate::execution::Limits;
use crate::maker::Users;

/// Below this group are those of all daemons.
const FAMILY: &str = "coracle-sandbox";

/// The address space of an interpreter before it runs anything, where that is counted.
const INTERPRETER: u64 = 64 << 20;

/// How long the kernel gets to let go of a group.
const PATIENCE: Duration = Duration::from_secs(2);

/// The group that all groups of the daemon at this socket are in. The same after a restart.
pub(super) fn parent(socket: &Path) -> String {
    let absolute = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    // Containers may share the machine's cgroups, and have the same paths each; their names differ.
    let machine = rustix::system::uname();
    let bytes = [absolute.as_os_str().as_encoded_bytes(), machine.nodename().to_bytes()].concat();
    // FNV-1a: stable between builds, which the standard library's hasher does not promise.
    let hash =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{FAMILY}/{hash:016x}")
}

/// Ends and removes what a daemon at this place has left, or is leaving.
pub(super) fn clear(hierarchy: &Hierarchy, parent: &str) {
    let names = hierarchy.children(parent).into_iter().chain([parent.to_owned()]);
    let groups: Vec<Group> = names.filter_map(|name| hierarchy.find(&name)).collect();
    // All of them first: each takes a while to die.
    for group in &groups {
        group.kill(Duration::ZERO);
    }
    for group in groups {
        group.kill(PATIENCE);
        if let Err(error) = group.remove(PATIENCE) {
            tracing::warn!(%error, "a cgroup stays behind");
        }
    }
    elsewhere::clear(parent);
    // Other daemons may have theirs in the family's.
    if let Some(family) = hierarchy.find(FAMILY) {
        family.remove_if_unused();
    }
}

/// A seat that is taken.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) number: u32,
    /// The user of whoever runs on it, on the machine.
    pub(super) uid: u32,
    /// `None` where no cgroups may be used.
    pub(super) group: Option<Group>,
    pub(super) meter: Meter,
    /// Writing `0` to each of these joins the group.
    pub(super) doors: Vec<OwnedFd>,
    /// Whether an execution has changed the limits.
    lowered: bool,
    /// Processes of ours in the group.
    own: u32,
}

impl Seat {
    /// Lowers the group's limits for one execution.
    pub(super) fn lower(&mut self, granted: &Limits, highest: &Limits) -> Result<(), JailError> {
        let limits = GroupLimits {
            memory: (granted.memory_bytes != highest.memory_bytes).then_some(granted.memory_bytes),
            cpu_milli: None,
            pids: (granted.pids != highest.pids).then_some(granted.pids + self.own),
        };
        match &self.group {
            Some(group) if limits != GroupLimits::default() => {
                self.lowered = true;
                group.limit(&limits)
            }
            _ => Ok(()),
        }
    }

    /// Lets those who have been killed die at once. They do it on the share of the processor that they have used up.
    pub(super) fn hasten(&mut self) {
        if let Some(group) = &self.group {
            self.lowered = true;
            let all = GroupLimits { cpu_milli: Some(ALL_CORES), ..GroupLimits::default() };
            if let Err(error) = group.limit(&all) {
                // They die all the same, a little later.
                tracing::debug!(seat = self.number, %error, "a seat keeps its share of the processor");
            }
        }
    }
}

/// What the dead may use to end: as much as there is, in thousandths of a core.
const ALL_CORES: u32 = 64_000;

/// How seats are made.
#[derive(Debug, Clone)]
pub(super) struct Seating {
    pub(super) hierarchy: Hierarchy,
    pub(super) parent: String,
    pub(super) users: Users,
    /// Processes of ours that will be in each group beside the program's.
    pub(super) own: u32,
    /// Whether groups are made at all.
    pub(super) groups: bool,
}

/// The seats of a daemon.
#[derive(Debug)]
pub(super) struct Seats {
    seating: Seating,
    limits: GroupLimits,
    /// The controllers that keep a whole program within its limits.
    controllers: Vec<&'static str>,
    most: u32,
    state: Mutex<State>,
    /// Told when a seat has become free.
    pub(super) freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Seat>,
    made: u32,
    /// Numbers of seats that were given up.
    numbers: Vec<u32>,
}

impl Seats {
    pub(super) fn new(seating: Seating, limits: &Limits, most: u32) -> Self {
        let pids = Some(limits.pids + seating.own);
        let limits = GroupLimits { memory: Some(limits.memory_bytes), cpu_milli: Some(limits.cpu_milli), pids };
        let controllers = if seating.groups { seating.hierarchy.controllers() } else { Vec::new() };
        Self { seating, limits, controllers, most, state: Mutex::default(), freed: Notify::new() }
    }

    pub(super) fn cgroups(&self) -> &'static str {
        if self.seating.groups { self.seating.hierarchy.version() } else { "no cgroups" }
    }

    /// What each process must keep by itself, because no group does for all together: address space, processor seconds,
    /// processes of its user; 0 where a group does.
    pub(super) fn process_limits(&self, limits: &Limits) -> [u64; 3] {
        let alone = |controller: &str, limit: u64| if self.controllers.contains(&controller) { 0 } else { limit };
        [
            alone("memory", limits.memory_bytes + INTERPRETER),
            alone("cpu", limits.cpu.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)),
            alone("pids", limits.pids.into()),
        ]
    }

    /// A free seat, made if there is none; `None` if there may be no more.
    pub(super) fn take(&self) -> Result<Option<Seat>, JailError> {
        let number = {
            let mut state = self.lock();
            if let Some(seat) = state.free.pop() {
                return Ok(Some(seat));
            }
            match state.numbers.pop() {
                Some(number) => number,
                None if state.made < self.most => {
                    state.made += 1;
                    state.made - 1
                }
                None => return Ok(None),
            }
        };
        self.make(number).map(Some).inspect_err(|_| self.lock().numbers.push(number))
    }

    fn make(&self, number: u32) -> Result<Seat, JailError> {
        let Seating { hierarchy, parent, users, own, groups } = &self.seating;
        let group = groups.then(|| hierarchy.create(&format!("{parent}/{number}"), &self.limits)).transpose()?;
        let doors = group.as_ref().map(Group::thread_doors).transpose()?.unwrap_or_default();
        let meter = group.as_ref().map_or_else(Meter::of_nothing, Group::meter);
        Ok(Seat { number, uid: users.of(number), group, meter, doors, lowered: false, own: *own })
    }

    /// Takes a seat back whose processes have all ended. If its cgroup cannot be used again, the next one gets a new one.
    pub(super) fn give_back(&self, mut seat: Seat) {
        let restored = !seat.lowered || seat.group.as_ref().is_none_or(|group| group.limit(&self.limits).is_ok());
        let as_new = seat.meter.start() && self.is_empty(&seat);
        seat.lowered = false;
        if restored && as_new {
            self.lock().free.push(seat);
        } else {
            let Seat { number, group, .. } = seat;
            match group.map_or(Ok(()), |group| group.remove(Duration::ZERO)) {
                Ok(()) => self.lock().numbers.push(number),
                // The number stays taken: its group still has something in it.
                Err(error) => tracing::warn!(%error, "a cgroup stays behind"),
            }
        }
        self.freed.notify_waiters();
    }

    /// Whether hardly anything is charged to a seat whose peak has just begun anew. The kernel frees what was in an IPC
    /// namespace later, on its own time; until then the next program would have that much less.
    fn is_empty(&self, seat: &Seat) -> bool {
        let little = self.limits.memory.unwrap_or(u64::MAX) / 8;
        // The first is one read; the second leaves out what the kernel drops at once.
        seat.meter.memory_peak() <= little || seat.group.as_ref().is_none_or(|group| group.stats().memory_bytes <= little)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
