//! Callers: each asks again when it has its answer, at once or after a pause, for a while, and all note how long each answer took.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// One caller's way to ask once; an error is an answer that is wrong or none.
pub type Call<'a> = Box<dyn FnMut() -> Result<(), String> + 'a>;

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Called {
    /// Milliseconds to each right answer, the shortest first.
    times: Vec<f64>,
    /// From the first question to the last answer, in seconds.
    pub seconds: f64,
    /// Answers that were wrong, or none.
    pub failed: usize,
    /// What the first of them was.
    pub failure: Option<String>,
}

impl Called {
    /// How many right answers there were.
    pub fn count(&self) -> usize {
        self.times.len()
    }

    /// Right answers a second.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }

    /// The time in milliseconds that this share of the answers stayed at or below: of few answers, 0.99 is the longest.
    /// Nothing of nothing.
    pub fn at(&self, share: f64) -> f64 {
        let rank = (self.times.len() as f64 * share).ceil() as usize;
        self.times.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }
}

/// So many callers at a time for so long. `prepare` makes a caller's way to ask, on its own thread, before the time begins.
/// Whatever is asked is waited for, and then there is a pause. A caller whose question fails asks no more.
///
/// # Panics
/// If a thread cannot be started or a caller panics.
pub fn call<'a>(
    callers: usize,
    time: Duration,
    pause: Duration,
    prepare: &(dyn Fn() -> Result<Call<'a>, String> + Sync),
) -> Called {
    let (ready, over) = (Barrier::new(callers + 1), AtomicBool::new(false));
    let mut called = Called::default();
    std::thread::scope(|scope| {
        let caller = || {
            let prepared = prepare();
            ready.wait();
            let mut times = Vec::new();
            let failure = prepared.and_then(|mut ask| {
                loop {
                    let begun = Instant::now();
                    ask()?;
                    times.push(begun.elapsed().as_secs_f64() * 1000.0);
                    if over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    if !pause.is_zero() {
                        std::thread::sleep(pause);
                    }
                }
            });
            (times, failure.err())
        };
        let builder = || std::thread::Builder::new().stack_size(512 << 10);
        let threads: Vec<_> = (0..callers).map(|_| builder().spawn_scoped(scope, caller).unwrap()).collect();
        ready.wait();
        let begun = Instant::now();
        std::thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            let (times, failure) = thread.join().unwrap();
            called.times.extend(times);
            called.failed += usize::from(failure.is_some());
            called.failure = called.failure.take().or(failure);
        }
        called.seconds = begun.elapsed().as_secs_f64();
    });
    called.times.sort_by(f64::total_cmp);
    called
}

#[test]
fn shares_of_few_answers_are_answers() {
    let called = Called { times: vec![1.0, 2.0, 3.0, 4.0], seconds: 2.0, ..Called::default() };
    assert_eq!((called.at(0.5), called.at(0.99), called.at(0.0), called.rate()), (2.0, 4.0, 1.0, 2.0));
    assert!(Called::default().at(0.5).is_nan());
}

#[test]
fn every_caller_asks_and_failures_are_told() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let called = call(3, Duration::ZERO, Duration::ZERO, &|| {
        Ok(Box::new(|| {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }))
    });
    assert!(called.count() >= 3 && called.count() == asked.load(Ordering::Relaxed) && called.failed == 0);
    let called = call(2, Duration::ZERO, Duration::ZERO, &|| Err("nobody is there".to_owned()));
    assert_eq!((called.count(), called.failed, called.failure.as_deref()), (0, 2, Some("nobody is there")));
}
