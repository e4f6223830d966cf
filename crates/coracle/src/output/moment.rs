//! Times as people say them.

use std::time::Duration;

use jiff::Timestamp;

/// A length of time: `45 ms`, `1.1 s`, `2 min 3 s`, `5 h 12 min`, `3 days`.
pub(crate) fn length(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration < Duration::from_millis(950) => format!("{} ms", duration.as_millis()),
        0..=59 => format!("{:.1} s", duration.as_secs_f64()),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..=172_799 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long ago something was, in whole units: `now`, `12 s ago`, `3 min ago`.
pub(crate) fn ago(then: Timestamp, now: Timestamp) -> String {
    match age(then, now) {
        age if age == "0 s" => "now".to_owned(),
        age => format!("{age} ago"),
    }
}

/// How old something is, in one whole unit: `12 s`, `3 min`, `5 h`, `3 days`.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min", seconds / 60),
        3600..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long it is until then, rounded to one unit: `12 s`, `3 min`, `5 h`, `3 days`.
pub(crate) fn until(then: Timestamp, now: Timestamp) -> String {
    let seconds = then.as_second().saturating_sub(now.as_second()).max(0);
    let rounded = |unit: i64| (seconds + unit / 2) / unit;
    match (rounded(60), rounded(3600)) {
        _ if seconds < 60 => format!("{seconds} s"),
        (minutes @ 0..=59, _) => format!("{minutes} min"),
        (_, hours @ 0..=47) => format!("{hours} h"),
        _ => format!("{} days", rounded(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_well_at_every_size() {
        for (millis, text) in [
            (45, "45 ms"),
            (960, "1.0 s"),
            (1_100, "1.1 s"),
            (123_000, "2 min 3 s"),
            (18_720_000, "5 h 12 min"),
            (300_000_000, "3 days"),
        ] {
            assert_eq!(length(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn what_is_left_is_rounded_as_people_do() {
        let now = Timestamp::from_second(1_000).expect("in range");
        let (minute, hour, day) = (60, 3600, 86_400);
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (90, "2 min"),
            (hour - 1, "1 h"),
            (day - minute, "24 h"),
            (2 * day - 1, "2 days"),
            (3 * day - minute, "3 days"),
            (2 * day + hour, "2 days"),
        ] {
            assert_eq!(until(Timestamp::from_second(1_000 + seconds).expect("in range"), now), text, "{seconds}");
        }
    }

    #[test]
    fn a_clock_that_went_back_is_no_negative_age() {
        let now = Timestamp::from_second(1_000).expect("in range");
        let later = Timestamp::from_second(1_030).expect("in range");
        assert_eq!(ago(later, now), "now");
        assert_eq!(ago(now, later), "30 s ago");
    }
}
