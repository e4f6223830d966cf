//! Copies of the source tree that are made before a step is ready to run: copying thousands of files takes longer than starting a
//! program. A few are made in advance, and one more for each that is taken: a run of many steps is not to fill the disk with copies
//! that wait.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_pipeline::{Plan, StepImage};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// How many are there, or on their way, for steps to come.
const IN_ADVANCE: usize = 2;

/// Copies in advance, in a directory of their own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: PathBuf,
    place: PathBuf,
    state: Mutex<State>,
    /// Told when one has been made, or could not be.
    made: Notify,
    stop: AtomicBool,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<PathBuf>,
    /// How many have been begun; numbers them, too.
    begun: usize,
    /// How many may be begun.
    wanted: usize,
    taken: usize,
    /// Whether one is being made.
    busy: bool,
}

impl Spares {
    /// Begins with the first copy, if a job of the plan will want one. `workspaces` is the run's directory for copies.
    pub fn begin(plan: &Plan, source: PathBuf, workspaces: PathBuf) -> Option<Self> {
        let wanted = plan.jobs.iter().filter(|job| job.step.image != StepImage::App).count();
        if wanted == 0 {
            return None;
        }
        let (state, stop, tasks) = (Mutex::new(State { wanted, ..State::default() }), AtomicBool::new(false), TaskTracker::new());
        let place = workspaces.join("spare");
        let spares = Self(Arc::new(Inner { source, place, state, made: Notify::new(), stop, tasks }));
        spares.make_one();
        Some(spares)
    }

    /// A copy, for the caller to move away; waits for one that is being made. `None`: there is none, and none is on its way.
    pub(crate) async fn take(&self) -> Option<PathBuf> {
        loop {
            let made = self.0.made.notified();
            tokio::pin!(made);
            // From here on, nothing that is made is missed.
            made.as_mut().enable();
            {
                let mut state = self.state();
                let ready = state.ready.pop();
                if ready.is_some() || !state.busy {
                    state.taken += 1;
                    drop(state);
                    self.make_one();
                    return ready;
                }
            }
            made.await;
        }
    }

    /// Makes no more, and waits until none is being made.
    pub async fn end(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One after the other: the steps that run meanwhile need the disk, too.
    fn make_one(&self) {
        let number = {
            let mut state = self.state();
            let enough = state.wanted.min(state.taken + IN_ADVANCE);
            if state.busy || state.begun >= enough || self.0.stop.load(Ordering::Relaxed) {
                return;
            }
            (state.busy, state.begun) = (true, state.begun + 1);
            state.begun
        };
        let spares = self.clone();
        self.0.tasks.spawn_blocking(move || {
            let Inner { source, place, stop, .. } = &*spares.0;
            let copy = place.join(number.to_string());
            let copied = coracle_build::copy_for_all_until(source, &copy, stop);
            {
                let mut state = spares.state();
                state.busy = false;
                match copied {
                    Ok(()) => state.ready.push(copy),
                    // The step that would have had it copies for itself, and tells what is wrong.
                    Err(error) => tracing::debug!(%error, "no copy in advance"),
                }
            }
            spares.0.made.notify_waiters();
            spares.make_one();
        });
    }
}
