//! What decides around the switch: whether a person has to allow a release, and how its answers are compared with those of the
//! release before.

use std::fmt;
use std::str::FromStr;

use coracle_model::manifest::reading::{Keys, entries};
use coracle_model::{ApprovalRule, Span};
use coracle_toml_reading::{Entry, Values};
use toml::de::DeValue;

const APPROVE: Keys = Keys { known: &["timeout", "by"], planned: &[] };
const WATCH: Keys = Keys { known: &["window", "min_requests", "error_margin", "max_error_rate", "slowdown"], planned: &[] };

/// The shortest and the longest window, in milliseconds.
const WINDOWS: std::ops::RangeInclusive<u128> = 1_000..=3_600_000;

/// What an environment says otherwise; `None`: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Policy {
    pub(crate) approve: Option<Option<ApprovalRule>>,
    pub(crate) watch: Option<Option<Watch>>,
}

/// How the new release's answers are compared with the old one's after the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// For how long, from the switch on.
    pub window: Span,
    /// Of fewer answers nothing is concluded.
    pub min_requests: u32,
    /// How much greater the share of errors may be than the old release's.
    pub error_margin: Share,
    /// How great it may be at most, whatever the old release's was.
    pub max_error_rate: Option<Share>,
    /// How many times as long the slowest twentieth of the answers may take as the old release's. `None`: that is not looked at.
    pub slowdown: Option<u32>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { window: Span::seconds(60), min_requests: 30, error_margin: Share(100), max_error_rate: None, slowdown: Some(2) }
    }
}

/// A part of a whole, in hundredths of a percent: `1%` is 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// As a number from 0 to 1.
    pub fn of_one(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }
}

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
        match number {
            Some(percent) if (0.0..=100.0).contains(&percent) => Ok(Self((percent * 100.0).round() as u32)),
            _ => Err(format!("{:?} is no share, such as 1% or 0.5%", text.chars().take(40).collect::<String>())),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 100.0)
    }
}

/// `true`, `false`, or a table. The outer `None`: a mistake, which has been noted.
pub(crate) fn approve(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Option<ApprovalRule>> {
    if !entry.is_table() {
        return values.boolean(entry).map(|demanded| demanded.then(ApprovalRule::default));
    }
    let table = values.table(entry)?;
    let mut rule = ApprovalRule::default();
    for entry in entries(values, &entry.path, table, &APPROVE) {
        match entry.key {
            "timeout" => match values.quantity::<Span>(&entry, "24h") {
                Some(span) if span.duration().is_zero() => {
                    values.wrong(&entry, "nobody can decide in no time", Some("write \"24h\", say"))
                }
                Some(span) => rule.timeout = span,
                None => {}
            },
            "by" => match values.text(&entry) {
                Some("owner") => rule.by_another = false,
                Some("another") => rule.by_another = true,
                Some(_) => {
                    let hint = "`owner`: anybody who owns the app; `another`: an owner who has not brought the release";
                    values.wrong(&entry, "says not who may approve", Some(hint));
                }
                None => {}
            },
            _ => unreachable!("every known key is handled"),
        }
    }
    Some(Some(rule))
}

/// A length of time, `false`, or a table. The outer `None`: a mistake, which has been noted.
pub(crate) fn watch(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Option<Watch>> {
    match entry.value.get_ref() {
        DeValue::Boolean(false) => return Some(None),
        DeValue::Table(_) => {}
        _ => return window(values, entry).map(|window| Some(Watch { window, ..Watch::default() })),
    }
    let table = values.table(entry)?;
    let mut watch = Watch::default();
    for entry in entries(values, &entry.path, table, &WATCH) {
        match entry.key {
            "window" => watch.window = window(values, &entry).unwrap_or(watch.window),
            "min_requests" => watch.min_requests = values.integer(&entry, 10..=1_000_000).unwrap_or(watch.min_requests),
            "error_margin" => watch.error_margin = values.quantity(&entry, "1%").unwrap_or(watch.error_margin),
            "max_error_rate" => watch.max_error_rate = values.quantity(&entry, "5%"),
            "slowdown" => match values.integer(&entry, 0..=100) {
                Some(0) => watch.slowdown = None,
                Some(1) => {
                    let hint = "nothing is always as fast as before: 2 or more, or 0 to leave it out";
                    values.wrong(&entry, "is too little", Some(hint));
                }
                Some(times) => watch.slowdown = Some(times),
                None => {}
            },
            _ => unreachable!("every known key is handled"),
        }
    }
    Some(Some(watch))
}

fn window(values: &mut Values<'_>, entry: &Entry<'_, '_>) -> Option<Span> {
    let span = values.quantity::<Span>(entry, "60s")?;
    if WINDOWS.contains(&span.duration().as_millis()) {
        return Some(span);
    }
    values.wrong(entry, "is no window to watch in", Some("use 1s to 1h; false turns it off"));
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Pipeline;

    fn read(text: &str) -> Pipeline {
        Pipeline::parse(text).unwrap()
    }

    #[test]
    fn both_are_written_in_short_and_in_full() {
        let short = read("[pipeline]\napprove = true\nwatch = \"30s\"\n");
        assert_eq!(short.approve, Some(ApprovalRule::default()));
        assert_eq!(short.watch, Some(Watch { window: Span::seconds(30), ..Watch::default() }));
        let full = read(
            "[pipeline]\napprove = { timeout = \"2h\", by = \"another\" }\n[pipeline.watch]\nwindow = \"2m\"\nmin_requests = 50\n\
             error_margin = \"0.5%\"\nmax_error_rate = \"5 %\"\nslowdown = 0\n",
        );
        assert_eq!(full.approve, Some(ApprovalRule { timeout: Span::seconds(7200), by_another: true }));
        let watch = full.watch.unwrap();
        assert_eq!((watch.min_requests, watch.slowdown, watch.window), (50, None, Span::seconds(120)));
        assert_eq!((watch.error_margin.to_string(), watch.max_error_rate.unwrap().of_one()), ("0.5%".to_owned(), 0.05));
        let none = read("[pipeline]\napprove = false\nwatch = false\n");
        assert_eq!((none.approve, none.watch), (None, None));
    }

    #[test]
    fn an_environment_has_its_own() {
        let text = "[pipeline]\nwatch = \"30s\"\n[environments.production.pipeline]\napprove = true\n[environments.test.pipeline]\n\
                    watch = false\n";
        let production = read(text).in_environment(Some("production"));
        assert!(production.approve.is_some() && production.watch.is_some());
        let test = read(text).in_environment(Some("test"));
        assert!(test.approve.is_none() && test.watch.is_none());
        let neither = read(text).in_environment(None);
        assert!(neither.approve.is_none() && neither.watch.is_some());
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, told) in [
            ("[pipeline]\napprove = \"yes\"\n", "pipeline.approve"),
            ("[pipeline]\napprove = { by = \"me\" }\n", "says not who may approve"),
            ("[pipeline]\napprove = { timeout = \"0\" }\n", "no time"),
            ("[pipeline]\nwatch = \"2h\"\n", "no window"),
            ("[pipeline.watch]\nerror_margin = \"much\"\n", "1%"),
            ("[pipeline.watch]\nslowdown = 1\n", "too little"),
            ("[environments.p.pipeline]\nsteps = 1\n", "steps"),
        ] {
            let mistakes = Pipeline::parse(text).unwrap_err().to_string();
            assert!(mistakes.contains(told), "{text}: {mistakes}");
        }
    }
}
