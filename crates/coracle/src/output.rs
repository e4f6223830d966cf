//! The only place that prints. Everything a person or a script sees goes through [`Output`], which knows whether it talks
//! to a terminal, a pipe or a script, and which survives a reader that goes away.
//!
//! Standard output carries what was asked for; standard error carries failures and remarks. With `--json` standard output
//! carries JSON and nothing else.

pub(crate) mod columns;
pub(crate) mod findings;
pub(crate) mod log;
pub(crate) mod moment;
pub(crate) mod progress;
pub(crate) mod terminal;
pub(crate) mod text;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::arguments::Global;
use crate::failure::Failure;
pub(crate) use columns::Columns;
pub(crate) use text::{Paint, Style};

/// How to speak, as the command line and the surroundings decide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    /// JSON on standard output.
    pub(crate) json: bool,
    /// Neither progress nor remarks.
    pub(crate) quiet: bool,
    /// More than usual: every line of a build, the causes of errors.
    pub(crate) verbose: bool,
    /// Colours.
    pub(crate) colour: bool,
    /// A terminal whose last line can be redrawn.
    pub(crate) live: bool,
    /// How many columns there are; `None`: nobody cuts lines.
    pub(crate) width: Option<usize>,
    /// What stands before a phase of a deployment.
    pub(crate) mark: &'static str,
}

impl Manner {
    /// As wished, within what the surroundings allow: no colours and no redrawing in a pipe, under `NO_COLOR`
    /// (<https://no-color.org>) or on a dumb terminal.
    pub(crate) fn found(global: &Global) -> Self {
        let Global { json, quiet, verbose, no_color, .. } = *global;
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal();
        let colour = terminal && !no_color && !set("NO_COLOR") && !dumb && !json;
        Self {
            json,
            quiet,
            verbose,
            colour,
            live: colour && io::stderr().is_terminal(),
            width: if terminal { terminal::width() } else { None },
            ..Self::plain()
        }
    }

    /// What tests and pipes get.
    pub(crate) const fn plain() -> Self {
        Self { json: false, quiet: false, verbose: false, colour: false, live: false, width: None, mark: "▸" }
    }
}

/// Standard output and standard error, in one manner.
pub(crate) struct Output {
    manner: Manner,
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    reader_gone: AtomicBool,
}

impl Output {
    /// To the streams of this process.
    pub(crate) fn standard(manner: Manner) -> Self {
        Self::to(manner, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// To other places.
    pub(crate) fn to(manner: Manner, out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self { manner, out: Mutex::new(out), err: Mutex::new(err), reader_gone: AtomicBool::new(false) }
    }

    /// How it speaks.
    pub(crate) fn manner(&self) -> Manner {
        self.manner
    }

    /// Colours texts, or leaves them.
    pub(crate) fn paint(&self) -> Paint {
        Paint(self.manner.colour)
    }

    /// Whether whoever read standard output has gone, so that a stream may end early.
    pub(crate) fn reader_gone(&self) -> bool {
        self.reader_gone.load(Ordering::Relaxed)
    }

    /// A line of what was asked for. Silent with `--json`, whose document says it.
    pub(crate) fn line(&self, line: impl Display) {
        if !self.manner.json {
            self.write_out(format!("{line}\n").as_bytes());
        }
    }

    /// A line of progress or a summary: dropped by `-q`; on standard error with `--json`.
    pub(crate) fn tell(&self, line: impl Display) {
        match self.manner {
            Manner { quiet: true, .. } => {}
            Manner { json: true, .. } => self.write_err(format!("{line}\n").as_bytes()),
            _ => self.write_out(format!("{line}\n").as_bytes()),
        }
    }

    /// A remark beside what was asked for, on standard error; dropped by `-q`.
    pub(crate) fn remark(&self, line: impl Display) {
        if !self.manner.quiet {
            self.write_err(format!("{line}\n").as_bytes());
        }
    }

    /// The whole answer as JSON, if that was asked for.
    pub(crate) fn document(&self, value: &impl Serialize) {
        if self.manner.json {
            self.json(serde_json::to_string_pretty(value));
        }
    }

    /// One entry of a stream as a line of JSON, if that was asked for.
    pub(crate) fn record(&self, value: &impl Serialize) {
        if self.manner.json {
            self.json_line(value);
        }
    }

    /// A list in columns, or as JSON; `empty` says what to do when there is nothing.
    pub(crate) fn list<T: Serialize>(&self, values: &[T], empty: &str, columns: impl FnOnce(&[T]) -> Columns) {
        self.document(&values);
        if self.manner.json {
            return;
        }
        if values.is_empty() {
            self.remark(empty);
        } else {
            self.write_out(columns(values).render(self.manner.width, self.paint()).as_bytes());
        }
    }

    /// Bytes of a program's output, as they are.
    pub(crate) fn pass_out(&self, bytes: &[u8]) {
        self.write_out(bytes);
    }

    /// Bytes of a program's error output, as they are.
    pub(crate) fn pass_err(&self, bytes: &[u8]) {
        self.write_err(bytes);
    }

    /// What went wrong, the evidence, and what to type next. With `--json` also as a document on standard output.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.record(&failure.as_json());
        self.write_err(failure.render(self.paint(), self.manner.verbose).as_bytes());
    }

    /// A line of JSON, asked for by an option of its own.
    pub(crate) fn json_line(&self, value: &impl Serialize) {
        self.json(serde_json::to_string(value));
    }

    fn json(&self, json: serde_json::Result<String>) {
        match json {
            Ok(text) => self.write_out(format!("{text}\n").as_bytes()),
            Err(error) => self.write_err(format!("this answer cannot be written as JSON: {error}\n").as_bytes()),
        }
    }

    /// A reader that went away (`coracle logs | head`) is no failure: a deployment goes on without it.
    fn write_out(&self, bytes: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
            self.reader_gone.store(true, Ordering::Relaxed);
        }
    }

    fn write_err(&self, bytes: &[u8]) {
        let mut err = self.err.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // There is no third place to report to.
        err.write_all(bytes).and_then(|()| err.flush()).ok();
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! An output whose words can be read back.

    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::{Manner, Output};

    #[derive(Clone, Default)]
    pub(crate) struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Page {
        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)).into_owned()
        }
    }

    /// Returns the output, its standard output and its standard error.
    pub(crate) fn pages(manner: Manner) -> (Output, Page, Page) {
        let (out, err) = (Page::default(), Page::default());
        (Output::to(manner, Box::new(out.clone()), Box::new(err.clone())), out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::pages;
    use super::*;

    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_noticed_and_harms_nothing() {
        let output = Output::to(Manner::plain(), Box::new(Gone), Box::new(Gone));
        output.line("one");
        output.remark("two");
        assert!(output.reader_gone());
    }

    #[test]
    fn with_json_standard_output_carries_json_alone() {
        let (output, out, err) = pages(Manner { json: true, ..Manner::plain() });
        output.line("for people");
        output.tell("progress");
        output.document(&["a"]);
        assert_eq!(out.text(), "[\n  \"a\"\n]\n");
        assert_eq!(err.text(), "progress\n");
    }

    #[test]
    fn quiet_keeps_what_was_asked_for() {
        let (output, out, err) = pages(Manner { quiet: true, ..Manner::plain() });
        output.tell("progress");
        output.remark("remark");
        output.line("answer");
        assert_eq!((out.text().as_str(), err.text().as_str()), ("answer\n", ""));
    }

    #[test]
    fn an_empty_list_says_what_to_do_and_is_still_a_json_document() {
        let columns = |_: &[String]| Columns::new(&["name"]);
        let (output, out, err) = pages(Manner::plain());
        output.list(&Vec::<String>::new(), "no apps yet; `coracle deploy` makes one", columns);
        assert_eq!((out.text().as_str(), err.text().as_str()), ("", "no apps yet; `coracle deploy` makes one\n"));
        let (output, out, _) = pages(Manner { json: true, ..Manner::plain() });
        output.list(&Vec::<String>::new(), "-", columns);
        assert_eq!(out.text(), "[]\n");
    }
}
