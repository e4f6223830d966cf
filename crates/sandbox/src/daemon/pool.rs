//! The slots of one image that wait, and the one task that keeps them at their number.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::container::{self, Containers};
use super::maker::Maker;
use super::seat::{Seat, Seats};
use super::session;
use super::slot::{self, Slot};
use super::zygote::Zygote;
use crate::execution::ImageInfo;
use crate::image::Image;

/// How long to wait after a failure, doubled with each one in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// While at least half of the slots are left, the next is made when an execution has begun so long ago: most are over by then,
/// and what makes slots would only be in their way.
const AFTER_START: Duration = Duration::from_millis(4);
/// And when one has ended so long ago, also if another has begun meanwhile: its answer has got through by then. Calls that follow
/// each other more closely find half of the slots, at least, and the next are made beside them.
const AFTER_END: Duration = Duration::from_millis(1);

/// The waiting slots of an image.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) image: Image,
    number: u32,
    ready: Mutex<VecDeque<Slot>>,
    /// One permit per waiting slot; those who find none queue here, first come first served.
    available: Semaphore,
    waiting: AtomicU32,
    /// Told when there is something to do.
    changed: Notify,
    /// Until when making slots can wait, unless few are left.
    quiet: Mutex<Instant>,
    state: Mutex<State>,
    pub(super) failures: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    interpreter: String,
    trouble: Option<String>,
}

/// What making slots takes.
#[derive(Debug)]
pub(super) struct Workshop {
    pub(super) way: Way,
    pub(super) seats: Arc<Seats>,
    pub(super) makers: u32,
}

/// How slots are made.
#[derive(Debug)]
pub(super) enum Way {
    /// Copies of a zygote in namespaces that the maker makes.
    Zygote { maker: Maker, filter: Vec<u8>, copies: u32 },
    /// Containers of an engine.
    Containers(Arc<Containers>),
    /// Sessions without walls, with directories in this place, each for so long at most.
    Sessions { place: PathBuf, longest: Duration },
}

impl Workshop {
    pub(super) fn maker(&self) -> Option<&Maker> {
        match &self.way {
            Way::Zygote { maker, .. } => Some(maker),
            Way::Containers(_) | Way::Sessions { .. } => None,
        }
    }

    async fn make(&self, image: &Image, number: u32, seat: Seat, zygote: Option<Arc<Zygote>>) -> Result<Slot, String> {
        match (&self.way, zygote) {
            (Way::Zygote { maker, .. }, Some(zygote)) => slot::make(maker, &zygote, number, seat, &self.seats).await,
            (Way::Containers(containers), _) => container::make(containers, image, seat, &self.seats).await,
            (Way::Sessions { place, longest }, _) => session::make(image, place, seat, *longest).await.map_err(|(why, seat)| {
                self.seats.give_back(seat);
                why
            }),
            (Way::Zygote { .. }, None) => {
                self.seats.give_back(seat);
                Err("there is no zygote".to_owned())
            }
        }
    }
}

/// A zygote and the task that hears its answers.
struct Warm {
    zygote: Arc<Zygote>,
    hearing: tokio::task::JoinHandle<()>,
    most_copies: u32,
}

impl Warm {
    /// Whether it has made as many copies as it should.
    fn is_worn(&self) -> bool {
        self.zygote.copies() >= self.most_copies
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

impl Pool {
    pub(super) fn new(image: Image, number: u32, trouble: Option<String>) -> Self {
        Self {
            image,
            number,
            ready: Mutex::default(),
            available: Semaphore::new(0),
            waiting: AtomicU32::new(0),
            changed: Notify::new(),
            quiet: Mutex::new(Instant::now()),
            state: Mutex::new(State { interpreter: String::new(), trouble }),
            failures: AtomicU64::new(0),
        }
    }

    /// Takes a slot, waiting for one if there is none; `None` after `patience`.
    pub(super) async fn take(&self, patience: Duration, seats: &Arc<Seats>) -> Option<Slot> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _leaves = Leaves(&self.waiting);
        let search = async {
            loop {
                match self.available.try_acquire() {
                    Ok(permit) => permit.forget(),
                    Err(_) => {
                        // Whoever waits is what slots are made for.
                        self.refill();
                        self.available.acquire().await.ok()?.forget();
                    }
                }
                let Some(mut slot) = lock(&self.ready).pop_front() else { continue };
                self.refill_after(AFTER_START);
                if slot.is_alive() {
                    return Some(slot);
                }
                // The machine has killed one of its processes meanwhile.
                slot.retire(Arc::clone(seats));
            }
        };
        tokio::time::timeout(patience, search).await.ok().flatten()
    }

    /// Has the slots brought back to their number, now that an execution has ended.
    pub(super) fn execution_ended(&self) {
        self.refill_after(AFTER_END);
    }

    fn refill_after(&self, time: Duration) {
        *lock(&self.quiet) = Instant::now() + time;
        self.refill();
    }

    fn refill(&self) {
        self.changed.notify_one();
    }

    /// Until when the next slot can wait; `None` where few are left or somebody waits for one.
    fn quiet_until(&self) -> Option<Instant> {
        let few = lock(&self.ready).len() * 2 < self.image.slots.max(1);
        let until = *lock(&self.quiet);
        (!few && self.waiting() == 0 && Instant::now() < until).then_some(until)
    }

    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.state).trouble.clone()
    }

    pub(super) fn info(&self) -> ImageInfo {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let state = lock(&self.state);
        ImageInfo {
            name: self.image.name.clone(),
            interpreter: state.interpreter.clone(),
            ready: count(lock(&self.ready).len()),
            slots: count(self.image.slots),
            trouble: state.trouble.clone(),
        }
    }

    /// Keeps the slots at their number, for ever.
    pub(super) async fn tend(self: Arc<Self>, workshop: Arc<Workshop>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match self.work(&workshop, &mut pause).await {
                Ok(never) => match never {},
                Err(why) => why,
            };
            tracing::warn!(image = self.image.name, %why, "no slot could be made");
            self.failures.fetch_add(1, Ordering::Relaxed);
            lock(&self.state).trouble = Some(why);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Makes slots until one cannot be made.
    async fn work(self: &Arc<Self>, workshop: &Arc<Workshop>, pause: &mut Duration) -> Result<std::convert::Infallible, String> {
        let mut warm = self.warm_up(workshop).await?;
        let mut making = JoinSet::new();
        loop {
            let missing = self.image.slots.max(1).saturating_sub(lock(&self.ready).len() + making.len());
            let quiet = self.quiet_until().filter(|_| missing > 0);
            let hands = usize::try_from(workshop.makers).unwrap_or(1).saturating_sub(making.len());
            let hands = if quiet.is_some() { 0 } else { hands };
            let mut out_of_seats = false;
            for _ in 0..missing.min(hands) {
                if warm.as_ref().is_some_and(Warm::is_worn) {
                    warm = self.warm_up(workshop).await?;
                }
                let Some(seat) = workshop.seats.take().map_err(|error| error.to_string())? else {
                    out_of_seats = true;
                    break;
                };
                let (workshop, pool) = (Arc::clone(workshop), Arc::clone(self));
                let zygote = warm.as_ref().map(|warm| Arc::clone(&warm.zygote));
                making.spawn(async move { workshop.make(&pool.image, pool.number, seat, zygote).await });
            }
            tokio::select! {
                made = making.join_next(), if !making.is_empty() => {
                    if let Some(made) = made {
                        let slot = made.map_err(|error| error.to_string()).and_then(|made| made)?;
                        *pause = FIRST_PAUSE;
                        self.put(slot);
                    }
                }
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(quiet.unwrap_or_else(Instant::now)), if quiet.is_some() => {}
                () = workshop.seats.freed.notified(), if out_of_seats => {}
            }
        }
    }

    fn put(&self, slot: Slot) {
        lock(&self.ready).push_back(slot);
        lock(&self.state).trouble = None;
        self.available.add_permits(1);
    }

    /// A zygote, if that is what slots are made from.
    async fn warm_up(&self, workshop: &Workshop) -> Result<Option<Warm>, String> {
        let Way::Zygote { maker, filter, copies } = &workshop.way else { return Ok(None) };
        let zygote = Arc::new(Zygote::start(maker, self.number, filter).await?);
        lock(&self.state).interpreter.clone_from(&zygote.interpreter);
        let hearing = tokio::spawn({
            let zygote = Arc::clone(&zygote);
            async move { zygote.attend().await }
        });
        Ok(Some(Warm { zygote, hearing, most_copies: *copies }))
    }
}

/// Counts one fewer when it goes.
struct Leaves<'a>(&'a AtomicU32);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
