//! Whether a release answers worse than the one before it: from what was counted of both to a verdict that noise does not change.
//!
//! Errors are compared by Fisher's exact test, latencies by how many answers took longer than most did before (an exact binomial
//! test). Both are one-sided, and believed only where chance would do it less than once in ten thousand looks: a watch looks a
//! few dozen times at most, so a release that is as good as the one before is taken back in well under one of a hundred.

use std::fmt;

use coracle_pipeline::Watch;

/// What chance may do in one look and is still believed.
const CHANCE: f64 = 1e-4;

/// The part of the answers whose slowest is compared.
const QUANTILE: f64 = 0.95;

/// Nobody notices that something takes less, in microseconds.
const FELT_US: u64 = 50_000;

/// What was counted of the answers to an app's requests since its proxy began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Answers with a status from 200 on.
    pub answered: u64,
    /// Those of them with a status from 500 on: what the app failed at, and what the proxy had to answer for it.
    pub errors: u64,
    /// What has ended otherwise: clients that went away, upgraded connections. They are in `durations`.
    pub others: u64,
    /// By duration: upper bounds in microseconds (the last one `u64::MAX`), and how many took at most so long and longer than the
    /// bound before.
    pub durations: Vec<(u64, u64)>,
    /// Requests in flight now, upgraded connections aside.
    pub in_flight: u64,
}

impl Figures {
    /// What was counted from an earlier moment to this one; `None` if the counts have begun anew between.
    pub(crate) fn since(&self, earlier: &Self) -> Option<Counted> {
        let durations = self.durations.iter().zip(&earlier.durations).map(|((bound, now), (same, then))| {
            (bound == same).then_some(()).and_then(|()| Some((*bound, now.checked_sub(*then)?)))
        });
        let is_same_kind = self.durations.len() == earlier.durations.len();
        Some(Counted {
            answered: self.answered.checked_sub(earlier.answered)?,
            errors: self.errors.checked_sub(earlier.errors)?,
            others: self.others.checked_sub(earlier.others)?,
            durations: is_same_kind.then(|| durations.collect()).flatten()?,
        })
    }
}

/// What was counted in a while.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub answered: u64,
    errors: u64,
    others: u64,
    durations: Vec<(u64, u64)>,
}

impl Counted {
    /// The same without as many errors and slow answers as another release may have left in flight: the doubt is the new one's.
    pub(crate) fn in_favour(mut self, left: u64) -> Self {
        self.errors = self.errors.saturating_sub(left);
        self.others += left;
        self
    }

    fn all(&self) -> u64 {
        self.durations.iter().map(|(_, count)| count).sum()
    }

    /// How many took longer than a bound, those aside that are no answers.
    fn slower(&self, bound: u64) -> u64 {
        let slower: u64 = self.durations.iter().filter(|(upper, _)| *upper > bound).map(|(_, count)| count).sum();
        slower.saturating_sub(self.others).min(self.answered)
    }

    /// The bound within which most were answered.
    fn most_within(&self) -> Option<u64> {
        let (mut within, wanted) = (0, QUANTILE * self.all() as f64);
        let bound = self.durations.iter().find(|(_, count)| {
            within += count;
            within as f64 >= wanted
        });
        bound.map(|(bound, _)| *bound).filter(|bound| *bound != u64::MAX)
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} requests", percent(self.errors, self.answered), self.answered)
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "none".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// Whether the new release fails at more than the old one did, or at more than it may; why, in a sentence.
pub(crate) fn more_errors(watch: &Watch, old: Option<&Counted>, new: &Counted) -> Option<String> {
    if new.answered < u64::from(watch.min_requests) {
        return None;
    }
    let share = |counted: &Counted| counted.errors as f64 / counted.answered as f64;
    if let Some(most) = watch.max_error_rate
        && share(new) > most.of_one()
        && binomial_tail(new.errors, new.answered, most.of_one()) < CHANCE
    {
        return Some(format!("it answers {new} with an error, and may at most {most}"));
    }
    let old = old.filter(|old| old.answered >= u64::from(watch.min_requests))?;
    let is_more = share(new) - share(old) > watch.error_margin.of_one();
    let is_certain = is_more && hypergeometric_tail((old.errors, old.answered), (new.errors, new.answered)) < CHANCE;
    is_certain.then(|| format!("it answers {new} with an error, and the release before answered {old} so"))
}

/// Whether the new release is slower than the old one was, by more than it may; why, in a sentence.
pub(crate) fn slower(watch: &Watch, old: Option<&Counted>, new: &Counted) -> Option<String> {
    let (times, old) = (watch.slowdown?, old?);
    let enough = |counted: &Counted| counted.answered >= u64::from(watch.min_requests);
    if !enough(old) || !enough(new) {
        return None;
    }
    let before = old.most_within()?;
    let wanted = before.saturating_mul(u64::from(times)).max(FELT_US);
    let bound = new.durations.iter().map(|(bound, _)| *bound).find(|bound| *bound >= wanted && *bound != u64::MAX)?;
    let (then, now) = (old.slower(bound), new.slower(bound));
    let is_certain = binomial_tail(now, new.answered, 1.0 - QUANTILE) < CHANCE
        && hypergeometric_tail((then, old.answered), (now, new.answered)) < CHANCE;
    let told = || {
        format!(
            "{} of its {} answers take longer than {}, and the release before answered 95 % within {}",
            percent(now, new.answered),
            new.answered,
            length(bound),
            length(before)
        )
    };
    is_certain.then(told)
}

fn length(microseconds: u64) -> String {
    match microseconds {
        1_000_000.. => format!("{} s", microseconds as f64 / 1e6),
        _ => format!("{} ms", microseconds as f64 / 1e3),
    }
}

/// How likely at least so many of the new ones are bad if both are equally good and as many of all are bad as there are: Fisher's
/// exact test, one-sided. Each is (bad, all).
fn hypergeometric_tail(old: (u64, u64), new: (u64, u64)) -> f64 {
    let (all, bad, drawn) = ((old.1 + new.1) as f64, (old.0 + new.0) as f64, new.1 as f64);
    let good = all - bad;
    let mut at = new.0 as f64;
    let mut term = (ln_choose(bad, at) + ln_choose(good, drawn - at) - ln_choose(all, drawn)).exp();
    tail(&mut term, || {
        let ratio = (bad - at) * (drawn - at) / ((at + 1.0) * (good - drawn + at + 1.0));
        at += 1.0;
        ratio
    })
}

/// How likely at least so many of all are bad if each is with this chance.
fn binomial_tail(bad: u64, all: u64, chance: f64) -> f64 {
    if bad == 0 {
        return 1.0;
    }
    if chance <= 0.0 {
        return 0.0;
    }
    if chance >= 1.0 {
        return 1.0;
    }
    let (mut at, all) = (bad as f64, all as f64);
    let mut term = (ln_choose(all, at) + at * chance.ln() + (all - at) * (1.0 - chance).ln()).exp();
    tail(&mut term, || {
        let ratio = (all - at) / (at + 1.0) * chance / (1.0 - chance);
        at += 1.0;
        ratio
    })
}

/// The sum of a term and those after it, each so many times the one before. Below the mode they grow first; then their sum is no
/// small chance, and it is given up as such.
fn tail(term: &mut f64, mut ratio: impl FnMut() -> f64) -> f64 {
    let mut sum = *term;
    loop {
        let ratio = ratio();
        *term *= ratio;
        sum += *term;
        if sum >= 0.5 || ratio >= 1.0 {
            return 1.0;
        }
        if ratio <= 0.0 || *term <= sum * 1e-9 {
            return sum;
        }
    }
}

fn ln_choose(of: f64, many: f64) -> f64 {
    if many < 0.0 || many > of {
        return f64::NEG_INFINITY;
    }
    ln_factorial(of) - ln_factorial(many) - ln_factorial(of - many)
}

/// Of whole numbers; Stirling's series (NIST DLMF 5.11.1), and the products themselves where that is not exact enough.
fn ln_factorial(of: f64) -> f64 {
    if of < 32.0 {
        return (2..=of as u32).map(|factor| f64::from(factor).ln()).sum();
    }
    let x = of + 1.0;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3))
}

#[cfg(test)]
mod tests;
