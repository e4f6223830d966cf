//! What middlewares keep from one table to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use coracle_proxy_table::{Middleware, MiddlewareId};

use crate::ConfigError;
use crate::step::Step;

/// Compiled middlewares by id. One whose settings are equal in the next table is taken over as it is, with its counts, rates,
/// circuits and remembered passwords (and nothing has to be compiled again); one that no chain has any more is forgotten. So a
/// table that is refused takes nothing from the one that serves on.
#[derive(Debug, Default)]
pub struct State {
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    by_id: HashMap<MiddlewareId, Vec<(Middleware, Weak<Step>)>>,
    /// Those that were made of files.
    with_files: Vec<Weak<Step>>,
    /// From this number of entries on, forgotten ones are looked for.
    full: usize,
}

impl State {
    /// Nothing kept yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether anything is made of files, and [`State::look_again`] has something to do.
    pub fn has_files(&self) -> bool {
        !self.lock().with_files.is_empty()
    }

    /// Reads files that middlewares are made of (users, pages) again if they have changed. What cannot be read is told in the
    /// log and stays as it was. Blocks: for the engine to call once in a while, where no request waits for it.
    pub fn look_again(&self) {
        let with_files: Vec<Arc<Step>> = {
            let mut steps = self.lock();
            steps.with_files.retain(|step| step.strong_count() > 0);
            steps.with_files.iter().filter_map(Weak::upgrade).collect()
        };
        with_files.iter().for_each(|step| step.look_again());
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The middleware with this id and these settings: the one there is, or a new one.
    pub(crate) fn step(&self, id: &MiddlewareId, settings: &Middleware) -> Result<Arc<Step>, ConfigError> {
        let mut steps = self.lock();
        let known = steps.by_id.get(id).into_iter().flatten();
        if let Some(step) = known.filter(|(same, _)| same == settings).find_map(|(_, step)| step.upgrade()) {
            return Ok(step);
        }
        let step = Step::compile(settings).map_err(|reason| ConfigError { middleware: id.clone(), reason })?;
        let step = Arc::new(step);
        if step.has_files() {
            steps.with_files.push(Arc::downgrade(&step));
        }
        let same_id = steps.by_id.entry(id.clone()).or_default();
        same_id.retain(|(_, step)| step.strong_count() > 0);
        same_id.push((settings.clone(), Arc::downgrade(&step)));
        if steps.by_id.len() >= steps.full {
            steps.by_id.retain(|_, same_id| same_id.iter().any(|(_, step)| step.strong_count() > 0));
            steps.full = steps.by_id.len() * 2 + 64;
        }
        Ok(step)
    }
}
