//! The terminal itself: its width, and questions that are answered on it.

use std::io::{self, BufRead, IsTerminal};

use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use super::Output;
use crate::failure::Failure;

/// The columns of the terminal on standard output.
pub(crate) fn width() -> Option<usize> {
    termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Whether a person can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for one line.
pub(crate) fn ask(output: &Output, question: &str) -> Result<String, Failure> {
    output.pass_err(question.as_bytes());
    read_line()
}

/// Asks for one line that is not shown while it is typed.
pub(crate) fn ask_hidden(output: &Output, question: &str) -> Result<String, Failure> {
    output.pass_err(question.as_bytes());
    let hidden = Hidden::begin()?;
    let line = read_line();
    drop(hidden);
    output.pass_err(b"\n");
    line
}

fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    let read =
        io::stdin().lock().read_line(&mut line).map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
    if read == 0 {
        return Err(Failure::usage("no answer was given").hint("type it, or pipe it to standard input"));
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Typing is invisible while this lives; dropping it restores the terminal, whatever happened.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("the terminal cannot hide what is typed: {error}"));
        let before = termios::tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.0).ok();
    }
}
