//! All jobs of a plan, in their order, several at once.

use coracle_model::{StepRun, StepState};
use coracle_pipeline::{Plan, Schedule, TreeFiles};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::bench::Bench;
use crate::failure::StepFailure;
use crate::ground::News;
use crate::shelf::Parcel;

impl Bench<'_> {
    /// Runs every job of a plan that need run. What fails takes those that need it with it; with `keep_going` the others still
    /// run, so that all failures are found, and without it nothing is begun after the first.
    ///
    /// # Errors
    /// The failure of the first job in the plan's order, whichever ended first, with the names of the others that failed.
    pub async fn work_through(
        &self,
        plan: &Plan,
        files: &TreeFiles,
        parallel: usize,
        keep_going: bool,
    ) -> Result<(), StepFailure> {
        for (step, why) in &plan.left_out {
            self.ground.note(format!("{step}: left out: {why}"));
            self.tell(StepRun { why: Some(why.clone()), ..StepRun::new(step.as_str(), StepState::LeftOut) });
        }
        for job in &plan.jobs {
            self.tell(StepRun::new(job.to_string(), StepState::Waiting));
        }
        let mut schedule = Schedule::new(plan.jobs.iter().map(|job| job.needs.clone()).collect(), parallel);
        let mut handed: Vec<Option<Parcel>> = vec![None; plan.jobs.len()];
        let mut over = vec![false; plan.jobs.len()];
        let mut running = FuturesUnordered::new();
        let mut failed: Vec<(usize, StepFailure)> = Vec::new();
        let mut broken_off = None;
        loop {
            while broken_off.is_none()
                && (keep_going || failed.is_empty())
                && let Some(at) = schedule.start_next()
            {
                let job = &plan.jobs[at];
                let brought: Vec<Parcel> = job.needs.iter().filter_map(|need| handed[*need].clone()).collect();
                running.push(async move { (at, self.run_unless_known(job, files, brought).await) });
            }
            let Some((at, ended)) = running.next().await else { break };
            over[at] = true;
            match ended {
                Ok(parcel) => {
                    handed[at] = parcel;
                    schedule.ended(at, true);
                }
                Err(failure @ StepFailure::Failed { .. }) => {
                    for lost in schedule.ended(at, false) {
                        over[lost] = true;
                        let (lost, job) = (&plan.jobs[lost], &plan.jobs[at]);
                        self.ground.note(format!("{lost}: not run, since {job} failed"));
                        let why = Some(format!("{job} failed"));
                        self.tell(StepRun { why, ..StepRun::new(lost.to_string(), StepState::NotRun) });
                    }
                    failed.push((at, failure));
                }
                // The others are ended too, and waited for, so that none goes on behind our back.
                Err(failure) => {
                    self.stop.cancel();
                    broken_off.get_or_insert(failure);
                }
            }
        }
        let state = if broken_off.is_some() { StepState::Cancelled } else { StepState::NotRun };
        for (job, _) in plan.jobs.iter().zip(over).filter(|(_, over)| !over) {
            self.tell(StepRun::new(job.to_string(), state));
        }
        match broken_off {
            Some(failure) => Err(failure),
            None => all_failures(plan, failed),
        }
    }

    fn tell(&self, step: StepRun) {
        (self.ground.tell)(News::Step(step));
    }
}

fn all_failures(plan: &Plan, mut failed: Vec<(usize, StepFailure)>) -> Result<(), StepFailure> {
    failed.sort_by_key(|(at, _)| *at);
    let others: Vec<String> = failed.iter().skip(1).map(|(at, _)| plan.jobs[*at].to_string()).collect();
    match failed.into_iter().next() {
        None => Ok(()),
        Some((_, StepFailure::Failed { cause, evidence, hint, code })) if !others.is_empty() => {
            Err(StepFailure::Failed { cause: format!("{cause}; {} failed as well", others.join(", ")), evidence, hint, code })
        }
        Some((_, failure)) => Err(failure),
    }
}
