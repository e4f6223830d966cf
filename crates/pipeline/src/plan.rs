//! From the section to what one deployment runs: combinations of a matrix, the order, and what is left out.

use std::collections::BTreeMap;
use std::fmt;

use coracle_model::{EnvName, Pattern};

use crate::step::{Pipeline, Step, StepImage, StepName};

/// What brought the source here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Trigger {
    /// A tree was sent; nobody knows of which branch. What is unknown leaves no step out.
    #[default]
    Tree,
    /// A branch was pushed.
    Branch(String),
    /// A tag was pushed.
    Tag(String),
}

/// What a deployment runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In an order in which none comes before what it needs.
    pub jobs: Vec<Job>,
    /// Steps that are left out, and why. Nobody waits for them.
    pub left_out: Vec<(StepName, String)>,
}

impl Plan {
    /// The plan with these steps alone, and what they need.
    ///
    /// # Errors
    /// The name that no step of the plan has.
    pub fn only(self, names: &[StepName]) -> Result<Self, StepName> {
        if let Some(unknown) = names.iter().find(|name| !self.jobs.iter().any(|job| job.step.name == **name)) {
            return Err(unknown.clone());
        }
        let mut wanted: Vec<bool> = self.jobs.iter().map(|job| names.contains(&job.step.name)).collect();
        // What a job needs stands before it.
        for at in (0..self.jobs.len()).rev() {
            if wanted[at] {
                self.jobs[at].needs.iter().for_each(|need| wanted[*need] = true);
            }
        }
        let mut places = Vec::with_capacity(self.jobs.len());
        let mut jobs = Vec::new();
        for (job, wanted) in self.jobs.into_iter().zip(wanted) {
            places.push(jobs.len());
            if wanted {
                let needs = job.needs.iter().map(|need| places[*need]).collect();
                jobs.push(Job { needs, ..job });
            }
        }
        Ok(Self { jobs, left_out: Vec::new() })
    }
}

/// A step with one combination of its matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The step; of its image, variables of the matrix have been filled in.
    pub step: Step,
    /// Which of the step's combinations, from 1.
    pub number: u16,
    /// The combination.
    pub variant: BTreeMap<EnvName, String>,
    /// The jobs of the plan that must have succeeded before.
    pub needs: Vec<usize>,
}

impl fmt::Display for Job {
    /// `test`, `test[PYTHON=3.12]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.step.name)?;
        if self.variant.is_empty() {
            return Ok(());
        }
        let values: Vec<_> = self.variant.iter().map(|(name, value)| format!("{name}={value}")).collect();
        write!(f, "[{}]", values.join(","))
    }
}

impl Pipeline {
    /// What is run before the new release starts.
    pub fn plan(&self, trigger: &Trigger) -> Plan {
        let mut plan = Plan::default();
        let mut jobs_of: BTreeMap<&StepName, Vec<usize>> = BTreeMap::new();
        for step in in_order(&self.steps) {
            if let Some(reason) = left_out(step, trigger) {
                plan.left_out.push((step.name.clone(), reason));
                continue;
            }
            let needs: Vec<usize> = step.needs.iter().filter_map(|need| jobs_of.get(need)).flatten().copied().collect();
            for (number, variant) in (1..).zip(combinations(&step.matrix)) {
                jobs_of.entry(&step.name).or_default().push(plan.jobs.len());
                plan.jobs.push(Job::new(step, number, variant, needs.clone()));
            }
        }
        plan
    }

    /// What is asked of the new release, one after the other.
    pub fn verifications(&self) -> Vec<Job> {
        self.verify.iter().map(|step| Job::new(step, 1, BTreeMap::new(), Vec::new())).collect()
    }
}

impl Job {
    fn new(step: &Step, number: u16, variant: BTreeMap<EnvName, String>, needs: Vec<usize>) -> Self {
        let mut step = step.clone();
        if let StepImage::Named(image) = &mut step.image {
            *image = filled_in(image, &variant);
        }
        Self { step, number, variant, needs }
    }
}

/// Each after those it needs, and else in the order of the file. Checked to be free of cycles when it was read.
pub(crate) fn in_order(steps: &[Step]) -> Vec<&Step> {
    let mut done: Vec<&Step> = Vec::with_capacity(steps.len());
    let is_done = |done: &[&Step], name: &StepName| done.iter().any(|step| step.name == *name);
    while let Some(next) =
        steps.iter().find(|step| !is_done(&done, &step.name) && step.needs.iter().all(|need| is_done(&done, need)))
    {
        done.push(next);
    }
    done
}

/// Why a step does not run; `None` if it does.
fn left_out(step: &Step, trigger: &Trigger) -> Option<String> {
    let (branches, tags) = (&step.when.branches, &step.when.tags);
    if branches.is_empty() && tags.is_empty() {
        return None;
    }
    let list = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (patterns, name, what) = match trigger {
        Trigger::Tree => return None,
        Trigger::Branch(name) => (branches, name, "branch"),
        Trigger::Tag(name) => (tags, name, "tag"),
    };
    if patterns.iter().any(|pattern| pattern.is(name)) {
        return None;
    }
    let wanted = [("branch", branches), ("tag", tags)].into_iter().filter(|(_, patterns)| !patterns.is_empty());
    let wanted: Vec<_> = wanted.map(|(what, patterns)| format!("{what} {}", list(patterns))).collect();
    Some(format!("it is for {}, and this is {what} {name}", wanted.join(" or ")))
}

/// How many combinations a matrix has.
pub(crate) fn count(matrix: &BTreeMap<EnvName, Vec<String>>) -> usize {
    matrix.values().fold(1, |count, values| count.saturating_mul(values.len()))
}

/// Every combination; the last name changes fastest.
fn combinations(matrix: &BTreeMap<EnvName, Vec<String>>) -> Vec<BTreeMap<EnvName, String>> {
    let mut all = vec![BTreeMap::new()];
    for (name, values) in matrix {
        let with = |before: BTreeMap<EnvName, String>| {
            values.iter().map(move |value| {
                let mut combination = before.clone();
                combination.insert(name.clone(), value.clone());
                combination
            })
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}

/// The `$NAME`s and `${NAME}`s of a text.
pub(crate) fn variables(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('$') {
        let (name, end) = variable(after);
        names.push(name);
        rest = &after[end..];
    }
    names
}

/// The name at the beginning of what follows a `$`, and where it ends.
fn variable(after: &str) -> (&str, usize) {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some(braced) = after.strip_prefix('{')
        && let Some(end) = braced.find('}')
    {
        return (&braced[..end], end + 2);
    }
    let end = after.find(|c| !is_of_name(c)).unwrap_or(after.len());
    (&after[..end], end)
}

fn filled_in(text: &str, values: &BTreeMap<EnvName, String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        let (name, end) = variable(after);
        filled += before;
        filled += values.iter().find(|(known, _)| known.as_str() == name).map_or("", |(_, value)| value);
        rest = &after[end..];
    }
    filled + rest
}
