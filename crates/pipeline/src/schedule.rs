//! Which job may start next: a state machine without a clock. What needs something that failed is given up.

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Passed,
    Failed,
    GivenUp,
}

/// The jobs of a plan while they run.
#[derive(Debug)]
pub struct Schedule {
    needs: Vec<Vec<usize>>,
    states: Vec<State>,
    parallel: usize,
}

impl Schedule {
    /// For jobs that each need those of these numbers, of which so many run at once.
    pub fn new(needs: Vec<Vec<usize>>, parallel: usize) -> Self {
        Self { states: vec![State::Waiting; needs.len()], needs, parallel: parallel.max(1) }
    }

    /// A job that may start now; from here on it counts as running. `None`: none may before another has ended.
    pub fn start_next(&mut self) -> Option<usize> {
        let running = self.states.iter().filter(|state| **state == State::Running).count();
        if running >= self.parallel {
            return None;
        }
        let is_free = |job: &usize| {
            self.states[*job] == State::Waiting && self.needs[*job].iter().all(|need| self.states[*need] == State::Passed)
        };
        let job = (0..self.states.len()).find(is_free)?;
        self.states[job] = State::Running;
        Some(job)
    }

    /// A job has ended. Answers those that are given up for it: they needed it, or something that is given up too.
    pub fn ended(&mut self, job: usize, passed: bool) -> Vec<usize> {
        self.states[job] = if passed { State::Passed } else { State::Failed };
        let mut given_up = Vec::new();
        loop {
            let lost = |need: &usize| matches!(self.states[*need], State::Failed | State::GivenUp);
            let next =
                (0..self.states.len()).find(|job| self.states[*job] == State::Waiting && self.needs[*job].iter().any(lost));
            let Some(next) = next else { return given_up };
            self.states[next] = State::GivenUp;
            given_up.push(next);
        }
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_over(&self) -> bool {
        !self.states.iter().any(|state| matches!(state, State::Waiting | State::Running))
    }
}
