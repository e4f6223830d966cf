//! `coracle logs`: what the instances write, merged.

use std::collections::BTreeMap;
use std::str::FromStr;

use clap::Args;
use coracle_api::{LogLine, LogOptions, Stream};
use coracle_model::{ProcessName, Span};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{DONE, ExitCode};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::text::harmless_colours;
use crate::output::{Output, Style};

/// How many lines are shown unless somebody says otherwise.
const USUAL: usize = 100;

/// Show what the app writes
///
/// Lines of all instances, merged by time. On a terminal each process has its colour; with --json each line is an object.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coracle logs                    the last 100 lines
  coracle logs -f -p web          go on with what web writes
  coracle logs --since 10m -n all everything of the last ten minutes")]
pub(crate) struct Arguments {
    /// Go on with new lines until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines, or `all` [default: 100, or all with --since]
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<Lines>,
    /// Only lines since this moment: so long ago (10m, 2h), or a time (2026-11-21T10:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<Timestamp>,
    /// Only instances of this process
    #[arg(short, long, value_name = "NAME")]
    process: Option<ProcessName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    All,
    Last(usize),
}

impl FromStr for Lines {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            count => count.parse().map(Self::Last).map_err(|_| "use a number of lines, or all".to_owned()),
        }
    }
}

fn parse_since(text: &str) -> Result<Timestamp, String> {
    let bad = || "use a length of time such as 10m, or a time such as 2026-11-21T10:00:00Z".to_owned();
    if let Ok(span) = text.parse::<Span>() {
        return Timestamp::now().checked_sub(span.duration()).map_err(|_| bad());
    }
    text.parse().map_err(|_| bad())
}

impl Arguments {
    fn options(&self) -> LogOptions {
        let tail = match (self.lines, self.since) {
            (Some(Lines::Last(count)), _) => Some(count),
            (Some(Lines::All), _) | (None, Some(_)) => None,
            (None, None) => Some(USUAL),
        };
        LogOptions { tail, since: self.since, follow: self.follow, process: self.process.clone() }
    }
}

/// Does it.
pub(crate) async fn run(arguments: Arguments, context: &Context) -> Result<ExitCode, Failure> {
    let app = context.app()?;
    let mut lines = context.client()?.logs(&app, &arguments.options()).await?;
    let mut sheet = Sheet::new(&context.output);
    while let Some(line) = lines.next().await {
        sheet.show(&line?);
        if context.output.reader_gone() {
            break;
        }
    }
    if sheet.lines == 0 && !arguments.follow {
        context.output.remark(format!("nothing was written; does it run? coracle ps -a {app}"));
    }
    Ok(DONE)
}

/// Lays lines out.
struct Sheet<'a> {
    output: &'a Output,
    /// Times are local for a person and in UTC for a file.
    zone: Option<TimeZone>,
    /// Which colour each process has, in the order they turned up.
    colours: BTreeMap<ProcessName, usize>,
    /// The widest name so far, to keep texts in one column.
    width: usize,
    lines: usize,
}

impl<'a> Sheet<'a> {
    fn new(output: &'a Output) -> Self {
        let zone = output.manner().colour.then(TimeZone::system);
        Self { output, zone, colours: BTreeMap::new(), width: 0, lines: 0 }
    }

    fn show(&mut self, line: &LogLine) {
        self.lines += 1;
        self.output.record(line);
        let id = &line.instance;
        let name = format!("{}.{}.{}", id.release, id.process, id.index);
        self.width = self.width.max(name.len());
        let next = self.colours.len();
        let colour = *self.colours.entry(id.process.clone()).or_insert(next);
        let paint = self.output.paint();
        let name = paint.with(Style::Process(colour), format!("{name:width$}", width = self.width));
        let bar = match line.stream {
            Stream::Stdout => paint.with(Style::Dim, "│"),
            Stream::Stderr => paint.with(Style::Red, "│"),
        };
        self.output.line(format!("{} {name} {bar} {}", self.time(line.at), self.text(line)));
    }

    /// A terminal must be protected from what others wrote; a file gets it as it is.
    fn text<'l>(&self, line: &'l LogLine) -> std::borrow::Cow<'l, str> {
        if self.output.manner().colour { harmless_colours(&line.text) } else { line.text.as_str().into() }
    }

    fn time(&self, at: Timestamp) -> String {
        match &self.zone {
            Some(zone) => self.output.paint().with(Style::Dim, at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()),
            None => format!("{at:.3}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::output::Manner;
    use crate::output::testing::pages;

    fn line(instance: &str, text: &str) -> LogLine {
        LogLine { instance: instance.parse().unwrap(), at: Timestamp::UNIX_EPOCH, stream: Stream::Stdout, text: text.into() }
    }

    fn shown(manner: Manner, lines: &[LogLine]) -> String {
        let (output, out, _) = pages(manner);
        let mut sheet = Sheet::new(&output);
        for line in lines {
            sheet.show(line);
        }
        out.text()
    }

    #[test]
    fn lines_of_all_processes_stand_in_columns() {
        let lines =
            [line("shop.v3.web.1", "GET / 200"), line("shop.v3.worker.1", "job 7 done"), line("shop.v3.web.2", "GET / 200")];
        insta::assert_snapshot!(shown(Manner::plain(), &lines), @r"
        1970-01-01T00:00:00.000Z v3.web.1 │ GET / 200
        1970-01-01T00:00:00.000Z v3.worker.1 │ job 7 done
        1970-01-01T00:00:00.000Z v3.web.2    │ GET / 200
        ");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let told = shown(Manner { json: true, ..Manner::plain() }, &[line("shop.v3.web.1", "a"), line("shop.v3.web.1", "b")]);
        assert_eq!(told.lines().count(), 2);
        assert_eq!(
            told.lines().next(),
            Some(r#"{"instance":"shop.v3.web.1","at":"1970-01-01T00:00:00Z","stream":"stdout","text":"a"}"#)
        );
    }

    #[test]
    fn each_process_has_its_colour_and_no_line_steers_the_terminal() {
        let told =
            shown(Manner { colour: true, ..Manner::plain() }, &[line("s.v1.web.1", "\x1b[2Jx"), line("s.v1.worker.1", "y")]);
        assert!(!told.contains("\x1b[2J"), "{told:?}");
        assert!(told.contains("\x1b[36mv1.web.1\x1b[0m") && told.contains("\x1b[33mv1.worker.1\x1b[0m"), "{told:?}");
    }

    #[test]
    fn since_is_an_age_or_a_moment() {
        let moment = parse_since("10m").unwrap();
        let age = Timestamp::now().duration_since(moment);
        assert!((600..660).contains(&age.as_secs()), "{age:?}");
        assert_eq!(parse_since("1970-01-01T00:00:00Z"), Ok(Timestamp::UNIX_EPOCH));
        assert!(parse_since("yesterday").is_err() && parse_since("10").is_err());
    }
}
