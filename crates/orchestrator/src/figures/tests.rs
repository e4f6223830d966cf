#![allow(clippy::unwrap_used)]
use super::*;

/// The proxy's own bounds.
const BOUNDS: [u64; 12] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000, u64::MAX];

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// An app: how often it fails, and how long it takes in the middle, in microseconds.
#[derive(Clone, Copy)]
struct Nature {
    fails: f64,
    takes: f64,
}

impl Nature {
    fn answer(self, chance: &mut Chance, into: &mut Figures) {
        if into.durations.is_empty() {
            into.durations = BOUNDS.map(|bound| (bound, 0)).to_vec();
        }
        into.answered += 1;
        into.errors += u64::from(chance.next() < self.fails);
        // Log-normal, with a tail as answers have.
        let (u, v) = (chance.next().max(1e-12), chance.next());
        let normal = (-2.0 * u.ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos();
        let took = (self.takes * (0.6 * normal).exp()) as u64;
        let bucket = into.durations.iter_mut().find(|(bound, _)| took <= *bound).unwrap();
        bucket.1 += 1;
    }

    fn answers(self, chance: &mut Chance, count: u64) -> Counted {
        let mut figures = Figures::default();
        (0..count).for_each(|_| self.answer(chance, &mut figures));
        figures.since(&Figures { durations: BOUNDS.map(|bound| (bound, 0)).to_vec(), ..Figures::default() }).unwrap()
    }
}

/// A whole watch, looking whenever there is a fifth more to look at; after how many answers it was taken back.
fn watched(old: &Counted, new: Nature, count: u64, chance: &mut Chance) -> Option<u64> {
    let (watch, mut figures) = (Watch::default(), Figures::default());
    let none = Figures { durations: BOUNDS.map(|bound| (bound, 0)).to_vec(), ..Figures::default() };
    let mut looked = 0;
    for at in 1..=count {
        new.answer(chance, &mut figures);
        if at == count || at as f64 >= looked as f64 * 1.2 {
            looked = at;
            let counted = figures.since(&none).unwrap();
            let is_worse = more_errors(&watch, Some(old), &counted).is_some()
                || (at == count && slower(&watch, Some(old), &counted).is_some());
            if is_worse {
                return Some(at);
            }
        }
    }
    None
}

#[test]
fn what_is_as_good_stays() {
    let mut chance = Chance(1);
    let (mut alarms, mut watches) = (0, 0);
    for fails in [0.0, 0.001, 0.01, 0.05, 0.3] {
        for (before, after) in [(40, 200), (200, 200), (200, 2_000), (3_000, 600)] {
            for takes in [2_000.0, 30_000.0, 200_000.0] {
                for _ in 0..20 {
                    let nature = Nature { fails, takes };
                    let old = nature.answers(&mut chance, before);
                    watches += 1;
                    alarms += u32::from(watched(&old, nature, after, &mut chance).is_some());
                }
            }
        }
    }
    assert!(f64::from(alarms) < 0.01 * f64::from(watches), "{alarms} of {watches}");
}

#[test]
fn a_fifth_of_errors_is_found_in_a_hundred_and_fifty_requests() {
    let mut chance = Chance(2);
    let mut latest = 0;
    for _ in 0..200 {
        let old = Nature { fails: 0.001, takes: 5_000.0 }.answers(&mut chance, 300);
        let found = watched(&old, Nature { fails: 0.2, takes: 5_000.0 }, 150, &mut chance);
        latest = latest.max(found.unwrap_or(u64::MAX));
    }
    assert!(latest <= 150, "{latest}");
}

#[test]
fn what_takes_five_times_as_long_is_found_and_what_nobody_feels_is_not() {
    let mut chance = Chance(3);
    for _ in 0..50 {
        let old = Nature { fails: 0.0, takes: 30_000.0 }.answers(&mut chance, 300);
        assert!(watched(&old, Nature { fails: 0.0, takes: 150_000.0 }, 300, &mut chance).is_some());
        let old = Nature { fails: 0.0, takes: 500.0 }.answers(&mut chance, 300);
        assert_eq!(watched(&old, Nature { fails: 0.0, takes: 5_000.0 }, 300, &mut chance), None);
    }
}

#[test]
fn of_too_few_requests_nothing_is_concluded_and_a_bound_needs_no_past() {
    let mut chance = Chance(4);
    let (good, bad) = (Nature { fails: 0.0, takes: 5_000.0 }, Nature { fails: 1.0, takes: 5_000.0 });
    let (few, many) = (good.answers(&mut chance, 10), good.answers(&mut chance, 500));
    let watch = Watch::default();
    assert_eq!(more_errors(&watch, Some(&many), &bad.answers(&mut chance, 29)), None);
    let all_bad = bad.answers(&mut chance, 100);
    assert_eq!(more_errors(&watch, Some(&few), &all_bad), None);
    assert_eq!(more_errors(&watch, None, &all_bad), None);
    let bounded = Watch { max_error_rate: Some("5%".parse().unwrap()), ..watch };
    let told = more_errors(&bounded, None, &all_bad).unwrap();
    assert_eq!(told, "it answers 100.0 % of 100 requests with an error, and may at most 5%");
    assert_eq!(more_errors(&bounded, None, &many), None);
    let told = more_errors(&watch, Some(&many), &all_bad).unwrap();
    assert!(told.ends_with("and the release before answered 0.0 % of 500 requests so"), "{told}");
}

#[test]
fn what_another_release_left_in_flight_is_not_held_against_this_one() {
    let counted = |answered, errors| Counted { answered, errors, others: 0, durations: vec![(u64::MAX, answered)] };
    let (old, watch) = (counted(1_000, 0), Watch::default());
    assert!(more_errors(&watch, Some(&old), &counted(100, 20)).is_some());
    assert_eq!(more_errors(&watch, Some(&old), &counted(100, 20).in_favour(20)), None);
}

#[test]
fn counts_that_began_anew_are_no_figures() {
    let figures = |answered| Figures { answered, durations: vec![(u64::MAX, answered)], ..Figures::default() };
    assert_eq!(figures(5).since(&figures(3)).unwrap().answered, 2);
    assert_eq!(figures(2).since(&figures(3)), None);
    assert_eq!(Figures { durations: Vec::new(), ..figures(5) }.since(&figures(3)), None);
}

#[test]
fn the_tails_are_those_of_the_tables() {
    let near = |found: f64, known: f64| assert!((found / known - 1.0).abs() < 1e-6, "{found} instead of {known}");
    // Fisher's lady with the tea: all four right by chance is 1 of 70.
    near(hypergeometric_tail((0, 4), (4, 4)), 1.0 / 70.0);
    near(hypergeometric_tail((1, 4), (3, 4)), 17.0 / 70.0);
    near(binomial_tail(10, 10, 0.5), 1.0 / 1024.0);
    near(binomial_tail(9, 10, 0.5), 11.0 / 1024.0);
    assert_eq!((binomial_tail(0, 10, 0.0), binomial_tail(1, 10, 0.0), binomial_tail(5, 10, 1.0)), (1.0, 0.0, 1.0));
    near(ln_factorial(100.0), 363.739_375_555_563_5);
}
