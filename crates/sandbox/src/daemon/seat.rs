//! Seats: a number (and so a user and an empty network, which the maker keeps) and a cgroup. A seat has one slot at a time.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use coracle_jail::cgroup::Meter;
use coracle_jail::{Group, GroupLimits, Hierarchy, JailError};
use tokio::sync::Notify;

use crate::execution::Limits;

/// Below this group are those of all daemons.
const FAMILY: &str = "coracle-sandbox";

/// How long the kernel gets to let go of a group.
const PATIENCE: Duration = Duration::from_secs(2);

/// The group that all groups of the daemon at this socket are in. The same after a restart.
pub(super) fn parent(socket: &Path) -> String {
    let absolute = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    // FNV-1a: stable between builds, which the standard library's hasher does not promise.
    let hash = absolute
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
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
    // Other daemons may have theirs in the family's.
    if let Some(family) = hierarchy.find(FAMILY).filter(|_| hierarchy.children(FAMILY).is_empty()) {
        family.remove(Duration::ZERO).ok();
    }
}

/// A seat that is taken.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) number: u32,
    /// The user of whoever runs on it, on the machine.
    pub(super) uid: u32,
    pub(super) group: Group,
    pub(super) meter: Meter,
    /// Writing `0` to each of these joins the group.
    pub(super) doors: Vec<OwnedFd>,
    /// Whether an execution has changed the limits.
    lowered: bool,
}

impl Seat {
    /// Lowers the group's limits for one execution.
    pub(super) fn lower(&mut self, granted: &Limits, highest: &Limits) -> Result<(), JailError> {
        let limits = GroupLimits {
            memory: (granted.memory_bytes != highest.memory_bytes).then_some(granted.memory_bytes),
            cpu_milli: None,
            pids: (granted.pids != highest.pids).then_some(granted.pids),
        };
        if limits == GroupLimits::default() {
            return Ok(());
        }
        self.lowered = true;
        self.group.limit(&limits)
    }
}

/// The seats of a daemon.
#[derive(Debug)]
pub(super) struct Seats {
    hierarchy: Hierarchy,
    parent: String,
    limits: GroupLimits,
    first_uid: u32,
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
    pub(super) fn new(hierarchy: Hierarchy, parent: String, limits: &Limits, first_uid: u32, most: u32) -> Self {
        let limits =
            GroupLimits { memory: Some(limits.memory_bytes), cpu_milli: Some(limits.cpu_milli), pids: Some(limits.pids) };
        Self { hierarchy, parent, limits, first_uid, most, state: Mutex::default(), freed: Notify::new() }
    }

    pub(super) fn cgroups(&self) -> &'static str {
        self.hierarchy.version()
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
        let group = self.hierarchy.create(&format!("{}/{number}", self.parent), &self.limits)?;
        Ok(Seat {
            number,
            uid: self.first_uid + number,
            meter: group.meter(),
            doors: group.thread_doors()?,
            group,
            lowered: false,
        })
    }

    /// Takes a seat back whose processes have all ended. If its cgroup cannot be used again, the next one gets a new one.
    pub(super) fn give_back(&self, mut seat: Seat) {
        let restored = !seat.lowered || seat.group.limit(&self.limits).is_ok();
        let as_new = seat.meter.start();
        seat.lowered = false;
        if restored && as_new {
            self.lock().free.push(seat);
        } else {
            let Seat { number, group, .. } = seat;
            match group.remove(Duration::ZERO) {
                Ok(()) => self.lock().numbers.push(number),
                // The number stays taken: its group still has something in it.
                Err(error) => tracing::warn!(%error, "a cgroup stays behind"),
            }
        }
        self.freed.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
