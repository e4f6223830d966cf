//! What a circuit breaker measures, over the last ten seconds.

use super::condition::Measure;

/// Seconds, each with counts of its own.
const SECONDS: usize = 10;
/// Classes of latency: eight for each doubling, from a microsecond to an hour.
const CLASSES: usize = 256;

/// Counts of the last ten seconds.
#[derive(Debug, Default)]
pub(crate) struct Window {
    seconds: [Second; SECONDS],
}

#[derive(Debug, Default)]
struct Second {
    /// Which one it is.
    number: u64,
    /// Answers by status; there are few different ones.
    statuses: Vec<(u16, u32)>,
    /// Answers by latency; empty as long as there are none.
    latencies: Vec<u32>,
}

impl Window {
    /// Counts an answer; `now` in whole seconds, latency in microseconds.
    pub(crate) fn record(&mut self, now: u64, status: u16, micros: u64) {
        let second = &mut self.seconds[now as usize % SECONDS];
        if second.number != now {
            second.number = now;
            second.statuses.clear();
            second.latencies.clear();
        }
        match second.statuses.iter_mut().find(|(of, _)| *of == status) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => second.statuses.push((status, 1)),
        }
        second.latencies.resize(CLASSES, 0);
        let class = &mut second.latencies[class_of(micros)];
        *class = class.saturating_add(1);
    }

    /// An answer that was counted in that second has turned out to have another status.
    pub(crate) fn correct(&mut self, counted: u64, status: u16, really: u16) {
        let second = &mut self.seconds[counted as usize % SECONDS];
        if second.number != counted {
            return;
        }
        let Some((_, count)) = second.statuses.iter_mut().find(|(of, count)| *of == status && *count > 0) else { return };
        *count -= 1;
        match second.statuses.iter_mut().find(|(of, _)| *of == really) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => second.statuses.push((really, 1)),
        }
    }

    /// What is measured now; 0 if there is nothing to measure.
    pub(crate) fn measure(&self, now: u64, measure: Measure) -> f64 {
        match measure {
            Measure::NetworkErrorRatio => self.ratio(now, |status| status == 502 || status == 504, |_| true),
            Measure::ResponseCodeRatio([a, b, c, d]) => {
                self.ratio(now, |status| (a..b).contains(&status), |status| (c..d).contains(&status))
            }
            Measure::LatencyAtQuantileMs(quantile) => self.latency(now, quantile),
        }
    }

    fn current(&self, now: u64) -> impl Iterator<Item = &Second> {
        self.seconds.iter().filter(move |second| second.number + SECONDS as u64 > now)
    }

    fn ratio(&self, now: u64, of: impl Fn(u16) -> bool, to: impl Fn(u16) -> bool) -> f64 {
        let (mut these, mut all) = (0_u64, 0_u64);
        for (status, count) in self.current(now).flat_map(|second| &second.statuses) {
            these += u64::from(*count) * u64::from(of(*status));
            all += u64::from(*count) * u64::from(to(*status));
        }
        if all == 0 { 0.0 } else { these as f64 / all as f64 }
    }

    fn latency(&self, now: u64, quantile: f64) -> f64 {
        let count =
            |class: usize| self.current(now).filter_map(|second| second.latencies.get(class)).map(|n| u64::from(*n)).sum();
        let counts: Vec<u64> = (0..CLASSES).map(count).collect();
        let rank = (counts.iter().sum::<u64>() as f64 * quantile / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        let class = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        class.map_or(0.0, |class| micros_of(class) / 1000.0)
    }
}

fn class_of(micros: u64) -> usize {
    ((micros.max(1) as f64).log2() * 8.0).floor().min((CLASSES - 1) as f64) as usize
}

/// The middle of a class.
fn micros_of(class: usize) -> f64 {
    ((class as f64 + 0.5) / 8.0).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_statuses_are_measured_for_ten_seconds() {
        let mut window = Window::default();
        for (second, status) in [(100, 200), (100, 502), (101, 504), (101, 500), (109, 404)] {
            window.record(second, status, 1000);
        }
        let errors = |now| window.measure(now, Measure::NetworkErrorRatio);
        assert_eq!([errors(109), errors(110), errors(111), errors(200)], [0.4, 1.0 / 3.0, 0.0, 0.0]);
        let codes = |codes| window.measure(109, Measure::ResponseCodeRatio(codes));
        assert_eq!([codes([500, 600, 0, 600]), codes([500, 502, 500, 600]), codes([0, 600, 600, 700])], [0.6, 1.0 / 3.0, 0.0]);
    }

    #[test]
    fn what_was_counted_can_turn_out_otherwise_as_long_as_it_is_known() {
        let mut window = Window::default();
        window.record(100, 200, 1000);
        window.record(100, 200, 1000);
        window.correct(100, 200, 502);
        window.correct(99, 200, 502);
        window.correct(100, 404, 502);
        assert_eq!(window.measure(100, Measure::NetworkErrorRatio), 0.5);
        window.record(110, 200, 1000);
        window.correct(100, 200, 502);
        assert_eq!(window.measure(110, Measure::NetworkErrorRatio), 0.0);
    }

    #[test]
    fn latencies_are_measured_to_a_tenth() {
        let mut window = Window::default();
        for millis in 1..=1000 {
            window.record(100, 200, millis * 1000);
        }
        for (quantile, wanted) in [(50.0, 500.0), (99.0, 990.0), (1.0, 10.0), (100.0, 1000.0)] {
            let measured = window.measure(100, Measure::LatencyAtQuantileMs(quantile));
            assert!((measured / wanted - 1.0).abs() < 0.1, "{quantile}: {measured}");
        }
        assert_eq!(window.measure(200, Measure::LatencyAtQuantileMs(50.0)), 0.0);
        for extreme in [0, u64::MAX] {
            window.record(100, 200, extreme);
        }
    }
}
